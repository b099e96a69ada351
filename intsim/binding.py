"""From what a caller passes to what a kernel takes: shapes, types, optional inputs, leading dimensions."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any

import numpy as np

from intsim.numerics import FloatType, IntType
from intsim.op import Op, Port
from intsim.resident import broadcast, resident

Array = np.ndarray[Any, Any]  # or intsim's own array in a GPU's memory, where ``resident`` says so


@dataclass(frozen=True, slots=True)
class Bound:
    """Inputs that an op can run on.

    arrays: one a port, C-contiguous, shape ``loop + core`` (or ``core`` alone where the input has
        no leading dimensions).
    size: the length of each named dimension; loop: the leading dimensions that all share.
    """

    arrays: tuple[Array, ...]
    size: dict[str, int]
    loop: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class _Layout:
    """What follows from the shapes and types of a call's arrays alone.

    filled: an array for each input that the caller leaves out. limited: ports whose values are still to be checked.
    """

    filled: tuple[Array | None, ...]
    size: dict[str, int]
    loop: tuple[int, ...]
    limited: tuple[int, ...]


class Binder:
    """``bind`` for one op and its parameters: what the shapes and types decide is worked out once for each."""

    def __init__(self, op: Op, p: Any) -> None:
        self._op, self._p = op, p
        self._known: dict[Any, _Layout] = {}

    def __call__(self, *arrays: Any) -> Bound:
        """As ``bind``."""
        op, p = self._op, self._p
        if not all(a is None or type(a) is np.ndarray for a in arrays):
            return bind(op, arrays, p)
        key = tuple(None if a is None else (a.shape, a.dtype) for a in arrays)
        known = self._known.get(key)
        if known is None:
            bound = bind(op, arrays, p)
            given = [*(a is not None for a in arrays), *[False] * (len(op.inputs) - len(arrays))]
            self._known[key] = _Layout(
                tuple(None if g else a for g, a in zip(given, bound.arrays, strict=True)),
                bound.size,
                bound.loop,
                tuple(i for i, g in enumerate(given) if g and limited(op.inputs[i], bound.arrays[i], p, bound.size)),
            )
            return bound
        for i in known.limited:
            check_range(op, op.inputs[i], arrays[i], p, known.size)
        full = [np.ascontiguousarray(a) if f is None else f for f, a in zip_longest(known.filled, arrays)]
        return Bound(tuple(full), known.size, known.loop)


def bind(op: Op, arrays: Sequence[Any], p: Any) -> Bound:
    """Checks ``arrays`` against the op's ports and fills in the optional ones.

    Raises TypeError (wrong dtype or number of inputs) or ValueError (shape, range), naming op,
    version, input, what was got and what is needed.
    """
    if len(arrays) > len(op.inputs):
        raise TypeError(f"{op.id}: takes at most {len(op.inputs)} inputs ({_names(op)}), got {len(arrays)}")
    given: list[Any] = [*arrays, *[None] * (len(op.inputs) - len(arrays))]
    for port, a in zip(op.inputs, given, strict=True):
        if a is None and port.fill is None:
            raise TypeError(f"{op.id}: needs {port.name} ({port.dims or 'one number'})")
    cores: list[Array | None] = [
        None if a is None else _typed(op, port, a, p) for port, a in zip(op.inputs, given, strict=True)
    ]
    size = _sizes(op, cores, p)
    loop = _loop(op, cores)
    full = []
    for port, a in zip(op.inputs, cores, strict=True):
        shape = port.shape(p, size)
        if a is None:
            a = np.full(shape, size[port.fill] if isinstance(port.fill, str) else port.fill, port.storage(p))
        elif a.shape[a.ndim - len(shape) :] != shape:
            raise ValueError(f"{op.id}: {port.name} has shape {a.shape}, needs {_wanted(port, p, shape)}")
        check_range(op, port, a, p, size)
        full.append(a if resident(a) else np.ascontiguousarray(a))
    return Bound(tuple(full), size, loop)


def _names(op: Op) -> str:
    return ", ".join(port.name for port in op.inputs)


def _wanted(port: Port, p: Any, shape: tuple[int, ...]) -> str:
    return f"{shape} ({port.dims}{', two elements a byte' if port.packed(p) else ''})"


def _typed(op: Op, port: Port, a: Any, p: Any) -> Array:
    array = a if resident(a) else np.asarray(a)
    if array.dtype != port.storage(p):
        raise TypeError(
            f"{op.id}: {port.name} is {array.dtype}, needs {port.storage(p)} (it holds {port.type(p)}"
            f"{', two a byte' if port.packed(p) else ''}); convert it with .astype and see that every value fits"
        )
    if array.ndim < len(port.core):
        raise ValueError(
            f"{op.id}: {port.name} has shape {array.shape}, needs {len(port.core)} dimensions ({port.dims}) or more"
        )
    return array


def _sizes(op: Op, arrays: Sequence[Array | None], p: Any) -> dict[str, int]:
    size: dict[str, int] = {}
    named: dict[str, str] = {}
    for port, a in zip(op.inputs, arrays, strict=True):
        if a is None:
            continue
        for axis, d in enumerate(port.core):
            n = a.shape[a.ndim - len(port.core) + axis]
            if d.isdecimal() or (port.packed(p) and axis == len(port.core) - 1):
                continue  # a fixed length or a packed one is compared with the whole shape later
            if size.setdefault(d, n) != n:
                raise ValueError(f"{op.id}: {port.name} has {d} = {n}, but {named[d]} has {d} = {size[d]}")
            named.setdefault(d, port.name)
    for d, bounds in op.sizes.items():
        if bounds.derived is not None:
            needed = bounds.derived(p, size)
            if size.setdefault(d, needed) != needed:
                raise ValueError(f"{op.id}: {named[d]} has {d} = {size[d]}, needs {needed} ({bounds.says})")
        elif d in size and not bounds.low <= size[d] <= bounds.high:
            raise ValueError(f"{op.id}: needs {bounds.low} <= {d} <= {bounds.high}, got {d} = {size[d]}")
    for port, a in zip(op.inputs, arrays, strict=True):
        if a is not None and port.packed(p):
            size.setdefault(port.core[-1], 2 * a.shape[-1])  # where only packed inputs tell it, every nibble counts
    missing = [d for port in op.inputs for d in port.core if not d.isdecimal() and d not in size]
    if missing:
        raise TypeError(f"{op.id}: no given input tells the size of {missing[0]}")
    return size


def _loop(op: Op, arrays: Sequence[Array | None]) -> tuple[int, ...]:
    shapes = {
        port.name: a.shape[: a.ndim - len(port.core)]
        for port, a in zip(op.inputs, arrays, strict=True)
        if a is not None
    }
    try:
        return np.broadcast_shapes(*shapes.values())
    except ValueError:
        listed = ", ".join(f"{name} {shape}" for name, shape in shapes.items())
        raise ValueError(f"{op.id}: the leading dimensions do not broadcast: {listed}") from None


_FLOATS: dict[str, Callable[[Array], Array]] = {
    "not NaN": lambda a: ~np.isnan(a),
    "finite": np.isfinite,
    "not negative": lambda a: (a >= 0) & np.isfinite(a),
    "positive": lambda a: (a > 0) & np.isfinite(a),
}
_INFINITY = 0x7F80_0000  # its bits, which is also its place in the order of all float32
_PLACES = {
    "not NaN": (-_INFINITY, _INFINITY),
    "finite": (1 - _INFINITY, _INFINITY - 1),
    "not negative": (0, _INFINITY - 1),
    "positive": (1, _INFINITY - 1),
}


def limited(port: Port, a: Array, p: Any, size: Mapping[str, int]) -> bool:
    """Whether an array of this type can hold values that the port refuses."""
    if isinstance(port.type(p), FloatType):
        return True
    low, high = port.bounds(p, size)
    return bool(low > np.iinfo(a.dtype).min or high < np.iinfo(a.dtype).max)


def check_range(op: Op, port: Port, a: Array, p: Any, size: Mapping[str, int]) -> None:
    if not a.size or not limited(port, a, p, size):
        return
    t = port.type(p)
    if resident(a):
        if a.within(*(_PLACES[port.numbers] if isinstance(t, FloatType) else port.bounds(p, size))):  # type: ignore[attr-defined]
            return
        a = a.to_host()  # type: ignore[attr-defined]  # to say which element
    if isinstance(t, FloatType):
        good = _FLOATS[port.numbers](a)
        if not good.all():
            at = tuple(map(int, np.argwhere(~good)[0]))
            raise ValueError(f"{op.id}: {port.name}{list(at)} is {a[at]}; needs numbers that are {port.numbers}")
        return
    low, high = port.bounds(p, size)
    least, most = int(a.min()), int(a.max())
    if least < low or most > high:
        at = tuple(map(int, np.unravel_index(int(a.argmin() if least < low else a.argmax()), a.shape)))
        kind_text = f"an index below {port.below}" if port.below else f"a length up to {port.upto}" if port.upto else t
        raise ValueError(f"{op.id}: {port.name}{list(at)} is {a[at]}; needs {low} to {high} ({kind_text})")


def foldable(op: Op, bound: Bound) -> bool:
    """Whether the leading dimensions can be taken as further rows: then one kernel call does them all.

    They can where every input that has rows starts with them, and no other input varies over the
    leading dimensions. (Programs treat rows independently, by the definition of every pattern.)
    """
    row = op.outputs[0].core[:1]
    if not row or (row[0] in op.sizes and op.sizes[row[0]].derived):
        return False
    if any(port.core[:1] != row for port in op.outputs):
        return False
    for port, a in zip(op.inputs, bound.arrays, strict=True):
        if row[0] in port.core[1:] or (port.core[:1] != row and a.ndim > len(port.core)):
            return False
    return True


def fold(op: Op, bound: Bound) -> tuple[tuple[Array, ...], dict[str, int]]:
    """Core arrays with the leading dimensions taken as rows, and the sizes that go with them."""
    row = op.outputs[0].core[0]
    arrays = []
    for port, a in zip(op.inputs, bound.arrays, strict=True):
        if port.core[:1] == (row,):
            core = a.shape[a.ndim - len(port.core) :]
            a = broadcast(a, bound.loop + core).reshape((-1, *core[1:]))
            a = a if resident(a) else np.ascontiguousarray(a)
        arrays.append(a)
    return tuple(arrays), folded_size(op, bound)


def folded_size(op: Op, bound: Bound) -> dict[str, int]:
    """The sizes where the leading dimensions are taken as rows."""
    row = op.outputs[0].core[0]
    return bound.size | {row: bound.size[row] * int(np.prod(bound.loop))}


def kernel_view(a: Array) -> Array:
    """``a`` as a kernel takes it: floats as their bits, and never marked read-only.

    Numba compiles anew for read-only arrays. A program never writes to an input, so a view that
    does not carry the mark is safe, and copies nothing.
    """
    return writable_view(a.view(np.int32) if a.dtype == np.float32 else a)


def writable_view(a: Array) -> Array:
    """``a`` without the mark that it is read-only; the memory is the same."""
    return a if a.flags.writeable else np.asarray(_Unmarked(a))


class _Unmarked:
    def __init__(self, a: Array) -> None:
        address, _ = a.__array_interface__["data"]
        self.__array_interface__ = a.__array_interface__ | {"data": (address, False)}
        self._keeps_alive = a


def in_type(op: Op, port: Port, p: Any, a: Any) -> Array:
    """A spec's output as the port stores it. Raises OverflowError where a value leaves the port's type."""
    t = port.type(p)
    if isinstance(t, IntType) and np.size(a) and (np.min(a) < t.qmin or np.max(a) > t.qmax):
        raise OverflowError(f"{op.id}: {port.name} leaves {t}: a limit is missing")  # a cast would hide it
    return np.asarray(a).astype(port.storage(p))

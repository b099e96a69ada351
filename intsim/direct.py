"""Calls that differ from an earlier one in values alone, and that a tuned kernel of the CPU serves.

What follows from shapes and types is worked out with the first of them: a small array's kernel takes microseconds.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from intsim.backends.lines import empty
from intsim.binding import Array, Bound, check_range, fold, foldable, kernel_view, limited, writable_view
from intsim.kept import Kept
from intsim.op import Op, Port, Tuned
from intsim.records import fields_class


def shapes_and_types(arrays: Sequence[Any]) -> Any:
    """What the course of a call depends on beside values; None where an array is not one of NumPy's own."""
    key = tuple([None if a is None else (a.shape, a.dtype) if type(a) is np.ndarray else False for a in arrays])
    return None if False in key else key


def core_of(op: Op, bound: Bound) -> tuple[tuple[Array, ...], dict[str, int]] | None:
    """Arrays without leading dimensions, of the same memory, and their sizes; None where there are none."""
    if not bound.loop:
        return bound.arrays, bound.size
    if not foldable(op, bound):
        return None
    row = op.outputs[0].core[:1]
    ports = zip(op.inputs, bound.arrays, strict=True)
    if any(port.core[:1] == row and a.shape[: a.ndim - len(port.core)] != bound.loop for port, a in ports):
        return None  # a row that several share would have to be copied
    return fold(op, bound)


@dataclass(frozen=True, slots=True)
class _Given:
    """An input of every call. index: among the inputs; place: among what the caller passes.

    shape: as the kernel sees it, None where that is the array's own. checked: whether its type holds values that
    the port refuses.
    """

    index: int
    place: int
    shape: tuple[int, ...] | None
    checked: bool


@dataclass(frozen=True, slots=True)
class _Made:
    """An output. shape: as the caller sees it, None where that is the kernel's."""

    kernel: tuple[int, ...]
    dtype: str
    shape: tuple[int, ...] | None


class Direct:
    """A call but for its values."""

    def __init__(
        self,
        op: Op,
        p: Any,
        bound: Bound,
        core: tuple[tuple[Array, ...], dict[str, int]],
        places: Mapping[int, int],
        run: tuple[Tuned, Any, Callable[[Sequence[Array]], Kept]],
    ) -> None:
        """places: of the inputs that the caller passes, by index: where among what is passed.

        run: the kernel, the record that it takes, and what it may keep for these core arrays.
        """
        arrays, size = core
        fast, self._record, kept = run
        self._op, self._p, self._size = op, p, bound.size
        self._fast = fast.load()
        self._kept = (kept(arrays),) if fast.keeps else ()
        self._inputs, self._outputs = (fields_class(*(port.name for port in side)) for side in (op.inputs, op.outputs))
        self._x: list[Any] = [kernel_view(a) for a in arrays]
        self._given = tuple(
            _Given(
                i,
                place,
                arrays[i].shape if bound.loop and arrays[i].shape != bound.arrays[i].shape else None,
                limited(op.inputs[i], bound.arrays[i], p, bound.size),
            )
            for i, place in places.items()
        )
        for i in places:
            self._x[i] = None  # the caller's arrays are not kept alive
        self._made = tuple(self._output(port, bound, size) for port in op.outputs)

    def _output(self, port: Port, bound: Bound, size: dict[str, int]) -> _Made:
        whole = bound.loop + port.shape(self._p, bound.size) if bound.loop else None
        return _Made(port.shape(self._p, size), port.storage(self._p), whole)

    def __call__(self, arrays: Sequence[Array]) -> tuple[Array, ...]:
        x = self._x.copy()
        for given in self._given:
            a = arrays[given.place]
            if given.checked:
                check_range(self._op, self._op.inputs[given.index], a, self._p, self._size)
            a = np.ascontiguousarray(a)
            if given.shape is not None:
                a = a.reshape(given.shape)
            x[given.index] = kernel_view(a) if a.dtype == np.float32 else writable_view(a)
        out = [empty(made.kernel, made.dtype) for made in self._made]
        self._fast(self._inputs(*x), self._outputs(*map(kernel_view, out)), self._record, *self._kept)
        return tuple([a if m.shape is None else a.reshape(m.shape) for a, m in zip(out, self._made, strict=True)])

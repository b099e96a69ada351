"""Parameters declared once: what a field may hold, and what follows from that.

From one declaration come the check of a field, the record a kernel takes, the draw of a test, the
one-field changes that a diagnosis tries, the text in a golden file and the row in the docs.
"""

from __future__ import annotations

import dataclasses
import operator
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import IntEnum
from functools import cache
from types import MappingProxyType
from typing import Any, ClassVar

import numpy as np

from intsim.numerics import IntType
from intsim.records import TypeRecord, fields_class


@dataclass(frozen=True, slots=True)
class Integer:
    """An int64 in ``[low, high]``, or an array of them along the dimension ``per``.

    ``inside`` names a field that holds an IntType: the number is a value of that type.
    """

    low: int
    high: int
    per: str | None = None
    inside: str | None = None


@dataclass(frozen=True, slots=True)
class Choice:
    """One of a few: members of an enum, or integer types. ``role`` says what a type is the type of."""

    options: tuple[Any, ...]
    role: str = "rule"  # "rule", "result", "accumulator" or "operand"


@dataclass(frozen=True, slots=True)
class Stage:
    """The parameters of another op, with its dimensions renamed and some of its fields fixed."""

    params: type[Params]
    dims: Mapping[str, str]
    fixed: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Real:
    """A float that the host alone reads (oracle, bound). It never reaches a kernel."""


Kind = Integer | Choice | Stage | Real


@dataclass(frozen=True, slots=True)
class Limit:
    """A condition across fields, inside which every backend must agree to the bit."""

    text: str
    holds: Callable[[Any], bool]


class Params:
    """Base of every variant's parameters: normalised when made, compared by value.

    Raises TypeError where a field that must be whole is not (a float, a NaN, a bool).
    """

    __slots__ = ()
    limits: ClassVar[tuple[Limit, ...]] = ()

    def __post_init__(self) -> None:
        for name, kind in kinds(self).items():
            object.__setattr__(self, name, _normal(name, kind, getattr(self, name)))

    def identity(self) -> tuple[Any, ...]:
        """A hashable value, equal where the parameters are equal."""

        def key(value: Any) -> Any:
            if isinstance(value, Params):
                return value.identity()
            if isinstance(value, np.ndarray):
                return value.tobytes()
            return repr(value) if isinstance(value, float) else value  # a NaN equals itself here

        return (type(self), *(key(getattr(self, n)) for n in kinds(self)))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Params) and self.identity() == other.identity()

    def __hash__(self) -> int:
        return hash(self.identity())

    def __str__(self) -> str:
        """The fields on one line, in the words of the vocabulary."""
        return "  ".join(f"{n}={_text(getattr(self, n))}" for n, k in kinds(self).items() if not isinstance(k, Real))


def _text(value: Any) -> str:
    if isinstance(value, np.ndarray):
        return str(value[0]) if value.size == 1 else np.array2string(value, threshold=8, separator=",")
    return f"({value})" if isinstance(value, Params) else str(getattr(value, "name", value))


def _normal(name: str, kind: Kind, value: Any) -> Any:
    match kind:
        case Integer(per=None):
            if isinstance(value, (bool, np.bool_)) or (isinstance(value, np.ndarray) and value.ndim):
                raise TypeError(f"{name} is one whole number, got {value!r}")
            try:
                return operator.index(value.item() if isinstance(value, np.ndarray) else value)
            except TypeError:
                raise TypeError(f"{name} is a whole number, got {value!r}") from None
        case Integer(per=dim):
            array = np.asarray(value)
            if array.dtype == object and all(isinstance(v, int) for v in array.flat):
                array = array.astype(np.int64) if all(abs(v) < 2**63 for v in array.flat) else array
            if array.dtype.kind not in "iu":
                raise TypeError(f"{name} holds whole numbers (one, or one per {dim}), got {value!r}")
            if array.ndim > 1:
                raise TypeError(f"{name} is one number or a row of them (per {dim}), got shape {array.shape}")
            made = array.astype(np.int64).reshape(-1)
            made.flags.writeable = False
            return made
        case Choice(options=options) if isinstance(options[0], IntEnum):
            try:
                return type(options[0])(value)
            except ValueError:
                raise TypeError(f"{name} is a {type(options[0]).__name__}, got {value!r}") from None
        case Choice() if not isinstance(value, IntType):
            raise TypeError(f"{name} is an IntType, got {value!r}")
        case Stage(params=cls) if not isinstance(value, cls):
            raise TypeError(f"{name} is a {cls.__module__}.Params, got {value!r}")
        case Real():
            return float(value)
    return value


def _field(kind: Kind, default: Any = dataclasses.MISSING) -> Any:
    if isinstance(default, np.ndarray):
        return dataclasses.field(default_factory=default.copy, metadata={"kind": kind})
    return dataclasses.field(default=default, metadata={"kind": kind})


def integer(
    low: int, high: int, *, per: str | None = None, inside: str | None = None, default: Any = dataclasses.MISSING
) -> Any:
    """A field that holds an integer in [low, high], or one for each index along ``per``."""
    return _field(Integer(low, high, per, inside), default)


def rule(enum: type[IntEnum], default: IntEnum, *, among: Iterable[IntEnum] | None = None) -> Any:
    """A field that holds a member of ``enum``, or of those ``among`` that can differ where it is used."""
    return _field(Choice(tuple(enum if among is None else among)), default)


def int_type(*options: IntType, role: str) -> Any:
    """A field that holds one of these types; the first is the default."""
    return _field(Choice(options, role), options[0])


def stage(params: type[Params], *, dims: Mapping[str, str] | None = None, **fixed: Any) -> Any:
    """A field that holds the parameters of another op."""
    return _field(Stage(params, dims or {}, fixed))


def real(default: float = float("nan")) -> Any:
    """A field that holds a float for the host."""
    return _field(Real(), default)


def kinds(params: Any) -> Mapping[str, Kind]:
    """The kind of each field of a Params class or object."""
    return _kinds(params if isinstance(params, type) else type(params))


@cache
def _kinds(cls: Any) -> Mapping[str, Kind]:
    return MappingProxyType({f.name: f.metadata["kind"] for f in dataclasses.fields(cls)})


# -- the record a kernel takes ---------------------------------------------------------------------


def record(params: Params, dims: Mapping[str, int]) -> Any:
    """``params`` as nested named tuples of int64 and arrays, under the same names.

    A field per ``n`` becomes an array of ``dims["n"]`` elements. Raises ValueError where it has
    neither one element nor that many.
    """

    def convert(name: str, kind: Kind, value: Any) -> Any:
        match kind:
            case Integer(per=str() as dim):
                count = dims.get(dim, value.size)
                if value.size not in (1, count):
                    raise ValueError(f"{name} has {value.size} values, needs 1 or {dim} = {count}")
                return np.array(np.broadcast_to(value, count))
            case Stage():
                return record(value, dict(dims) | {k: dims[v] for k, v in kind.dims.items() if v in dims})
        return TypeRecord(value.bits, value.qmin, value.qmax) if isinstance(value, IntType) else int(value)

    made = {n: convert(n, k, getattr(params, n)) for n, k in kinds(params).items() if not isinstance(k, Real)}
    return fields_class(*made)(**made)


def widen(params: Any, dtype: Any) -> Any:
    """``params`` with its arrays as int64, or as Python integers (``object``), for a spec."""
    clone = object.__new__(type(params))
    for name in kinds(params):
        value = getattr(params, name)
        object.__setattr__(clone, name, value.astype(dtype) if isinstance(value, np.ndarray) else value)
    return clone


# -- what a value must be, and what else it might have been ----------------------------------------


def describe(kind: Kind, name: str) -> str:
    """The limit of one field, in words."""
    match kind:
        case Integer():
            text = (
                f"{name} a value of {kind.inside}"
                if kind.inside
                else f"{_number(kind.low)} <= {name} <= {_number(kind.high)}"
            )
            return text + (f" (per {kind.per})" if kind.per else "")
        case Choice():
            names = [getattr(o, "name", str(o)) for o in kind.options]
            if len(names) > 12:
                names = [*names[:3], "...", *names[-2:]]
            return f"{name} in {{{', '.join(names)}}}"
        case Real():
            return f"{name} is any real number (host only)"
    return f"{name} inside its own limits"


def _number(value: int) -> str:
    """Large powers of two (give or take one) as such: 2**31 - 1 reads better than 2147483647."""
    if abs(value) < 2**15:
        return str(value)
    for offset in (0, 1, -1):
        power = abs(value) + offset
        if power & (power - 1) == 0:
            text = f"2**{power.bit_length() - 1}"
            if not offset:
                return f"-{text}" if value < 0 else text
            text += f" {'-' if offset > 0 else '+'} 1"
            return f"-({text})" if value < 0 else text
    return str(value)


def bounded(kind: Kind, params: Any) -> Kind:
    """``kind`` with the bounds that another field of ``params`` sets it."""
    if isinstance(kind, Integer) and kind.inside:
        t = getattr(params, kind.inside)
        return Integer(max(kind.low, t.qmin), min(kind.high, t.qmax), kind.per)
    return kind


def holds(kind: Kind, value: Any) -> bool:
    match kind:
        case Integer():
            return bool(np.all((kind.low <= value) & (value <= kind.high)))
        case Choice():
            return value in kind.options
        case Stage():
            fixed = all(np.all(getattr(value, name) == v) for name, v in kind.fixed.items())
            return fixed and all(test(value) for *_, test in conditions(kind.params))
    return True


def conditions(params: type[Params]) -> tuple[tuple[str, str, Callable[[Any], bool]], ...]:
    """Every limit as (label, text, predicate): the fields in order, then the conditions across them."""
    cls: Any = params  # to mypy a class whose instances may hash otherwise is not hashable
    return _conditions(cls)


@cache
def _conditions(params: Any) -> tuple[tuple[str, str, Callable[[Any], bool]], ...]:
    fields = {n: k for n, k in kinds(params).items() if not isinstance(k, Real)}
    single = [(describe(k, n), lambda p, n=n, k=k: holds(bounded(k, p), getattr(p, n))) for n, k in fields.items()]
    across = [(limit.text, limit.holds) for limit in params.limits]
    return tuple((f"C{i}", text, test) for i, (text, test) in enumerate([*single, *across], start=1))


def changes(params: Any) -> Iterator[tuple[str, Any]]:
    """Every declared one-field change, named: the first half of the catalogue of deviations."""
    for name, kind in kinds(params).items():
        value = getattr(params, name)
        rivals: Iterator[tuple[str, Any]] = iter(())
        match kind:
            case Choice():
                rivals = ((getattr(o, "name", str(o)), o) for o in kind.options if o != value)
            case Integer():
                rivals = _integer_rivals(bounded(kind, params), value)
            case Stage():
                rivals = changes(value)
        joint = "." if isinstance(kind, Stage) else "="
        for label, other in rivals:
            yield f"{name}{joint}{label}", dataclasses.replace(params, **{name: other})


def _integer_rivals(kind: Any, value: Any) -> Iterator[tuple[str, Any]]:
    tries: dict[str, Callable[[Any], Any]] = {
        "0": lambda v: v * 0,
        "negated": lambda v: -v,
        "+1": lambda v: v + 1,
        "-1": lambda v: v - 1,
    }
    if kind.per and np.size(value) > 1:
        tries |= {"first for all": lambda v: v * 0 + v[0], "reversed": lambda v: v[::-1]}
    for label, change in tries.items():
        other = change(value)
        if holds(kind, other) and not np.array_equal(other, value):
            yield label, other

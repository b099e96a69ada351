"""What an operation is: everything the tools need to know, as data."""

from __future__ import annotations

import importlib
import inspect
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import numpy as np

from intsim.numerics import FloatType, IntType, NumberType
from intsim.params import Integer, Params, Stage, conditions, kinds

Dtype = NumberType | Callable[[Any], NumberType]


@cache  # asked for many times in every call
def _words(dims: str) -> tuple[str, ...]:
    return tuple(dims.split())


@dataclass(frozen=True, slots=True)
class Port:
    """A named array. ``dims`` is its shape in words, as in a NumPy gufunc signature: "m n", "n", "m 256".

    fill: the value of every element where the caller gives none (an optional input has a neutral
        value, not a second code path); a dimension's name stands for its size.
    below: elements lie in ``[0, below)`` where ``below`` is a dimension: an index into it.
    upto: elements lie in ``[1, upto]``: a length along it.
    low, high: elements are at least, at most this (an int), where the type allows more.
    numbers: what a float may be: "not NaN", "finite", "not negative" or "positive" (and finite).
    packing: elements of 4 bits share a byte along the last axis.
    """

    name: str
    dims: str
    dtype: Dtype
    fill: int | str | None = None
    below: str | None = None
    upto: str | None = None
    low: int | None = None
    high: int | None = None
    numbers: str = "not NaN"
    packing: bool = False

    def type(self, p: Any) -> NumberType:
        return self.dtype if isinstance(self.dtype, (IntType, FloatType)) else self.dtype(p)

    def packed(self, p: Any) -> bool:
        return self.packing and self.type(p).bits == 4

    def storage(self, p: Any) -> str:
        return "uint8" if self.packed(p) else self.type(p).storage

    @property
    def core(self) -> tuple[str, ...]:
        return _words(self.dims)

    def shape(self, p: Any, size: Mapping[str, int]) -> tuple[int, ...]:
        """The shape of the stored array."""
        lengths = [int(d) if d.isdecimal() else size[d] for d in self.core]
        if lengths and self.packed(p):
            lengths[-1] = (lengths[-1] + 1) // 2
        return tuple(lengths)

    def bounds(self, p: Any, size: Mapping[str, int]) -> tuple[int, int]:
        """The least and the greatest value that an element may have (integer ports)."""
        t = self.type(p)
        assert isinstance(t, IntType)
        if self.packed(p):
            return 0, 255
        if self.below:
            return 0, size[self.below] - 1
        if self.upto:
            return 1, size[self.upto]
        return (t.qmin if self.low is None else self.low), (t.qmax if self.high is None else self.high)


@dataclass(frozen=True, slots=True)
class Elementwise:
    """``element(i, j, x, p) -> int`` for every element of the one output, "m n"."""

    element: Callable[..., int]


@dataclass(frozen=True, slots=True)
class Rowwise:
    """``row(i, x, out, p)`` for every row of the first output."""

    row: Callable[..., None]


@dataclass(frozen=True, slots=True)
class Contraction:
    """``finish(step(...step(start(i, j, x, p), i, j, 0, x, p)...), i, j, x, p)``, k ascending."""

    over: str
    start: Callable[..., int]
    step: Callable[..., int]
    finish: Callable[..., int]


@dataclass(frozen=True, slots=True)
class Composition:
    """``wire(run, *inputs, p)``: other ops by name, and no arithmetic of its own."""

    wire: Callable[..., Any]


Program = Elementwise | Rowwise | Contraction | Composition


@dataclass(frozen=True, slots=True)
class Tuned:
    """A faster implementation that must equal the program. ``where`` is imported only when used.

    leading: it takes all leading dimensions at once, where they would be calls of their own.
    keeps: it keeps what it makes of constant inputs (backend "cpu", where it is called with a fourth argument, the
        call's ``Kept``).
    capability: the least compute capability of a GPU that it runs on (backend "cuda", where it is called
        with a fourth argument, the ``Queue`` that it launches on).
    strided: with ``leading``, on a GPU: leading dimensions come as they lie, repeated ones with a stride of 0.
    not_simulated: why it cannot run in Numba's CUDA simulator; empty where it can.
    example: inputs and parameters that it serves, at some size, where none of the op's own examples are such.
    """

    backend: str
    where: str  # "module:function", called as function(x, out, record)
    serves: Callable[[Any, Mapping[str, int]], bool]  # (params, dims): what it was written for
    leading: bool = False
    keeps: bool = False
    capability: tuple[int, int] = (7, 0)
    strided: bool = False
    not_simulated: str = ""
    example: Callable[[], tuple[tuple[Any, ...], Any]] | None = None

    def load(self) -> Callable[..., None]:
        return _loaded(self.where)


@cache  # asked for in every call
def _loaded(where: str) -> Callable[..., None]:
    module, function = where.split(":")
    made: Callable[..., None] = getattr(importlib.import_module(module), function)
    return made


@dataclass(frozen=True, slots=True)
class Size:
    """The bounds of a dimension, and how it follows from others where it does."""

    low: int = 0
    high: int = 2**31 - 1
    derived: Callable[[Any, Mapping[str, int]], int] | None = None
    says: str = ""  # the derivation in words


@dataclass(frozen=True, slots=True)
class Oracle:
    """How near the real-valued operation an op stays, for parameters that stand for real scales.

    params(scale): the parameters for a real scale in ``scales``.
    real(*inputs, p): the operation in float64; value(outputs, p): what the integers stand for.
    bound(p): the most by which ``value`` may differ from ``real``, in the units of ``real``.
    """

    params: Callable[[float], Any]
    scales: tuple[float, float]
    real: Callable[..., Any]
    value: Callable[..., Any]
    bound: Callable[..., Any]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Op:
    name: str  # family.variant, which is also where the module lies
    version: int  # raised when any output bit inside the limits can change
    cites: str
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    params: type[Params]
    spec: Callable[..., Any]
    program: Program
    sizes: Mapping[str, Size] = field(default_factory=dict)
    examples: Callable[[], Mapping[str, tuple[tuple[Any, ...], Any]]] = dict
    tuned: tuple[Tuned, ...] = ()
    oracle: Oracle | None = None
    exempt: Mapping[str, str] = field(default_factory=dict)  # laws of the family that it does not keep, with the reason

    @property
    def family(self) -> str:
        return self.name.split(".")[0]

    @property
    def id(self) -> str:
        return f"{self.name}/{self.version}"

    @property
    def doc(self) -> str:
        """The text at the top of the variant's module."""
        return inspect.cleandoc(sys.modules[self.spec.__module__].__doc__ or "")

    @property
    def dims(self) -> tuple[str, ...]:
        """The named dimensions, in order of appearance; those of per-dimension fields last."""
        ports = [d for port in (*self.inputs, *self.outputs) for d in port.core if not d.isdecimal()]
        return tuple(dict.fromkeys([*ports, *_field_dims(self.params)]))

    def check(self, params: Any) -> None:
        """Raises TypeError or ValueError, naming op, version, limit, what was got and what is needed."""
        if not isinstance(params, self.params):
            raise TypeError(f"{self.id}: needs {self.params.__module__}.Params, got {type(params).__module__}.Params")
        names = list(kinds(self.params))
        for label, text, test in conditions(self.params):
            if not test(params):
                got = ", ".join(f"{n} = {_show(getattr(params, n))}" for n in names if n in text)
                raise ValueError(f"{self.id} ({label}): needs {text}; got {got}")


def _field_dims(params: type[Params]) -> list[str]:
    dims: list[str] = []
    for kind in kinds(params).values():
        if isinstance(kind, Integer) and kind.per:
            dims.append(kind.per)
        elif isinstance(kind, Stage):
            dims += [kind.dims.get(d, d) for d in _field_dims(kind.params)]
    return dims


def _show(value: Any) -> str:
    if isinstance(value, np.ndarray):
        return str(value[0]) if value.size == 1 else np.array2string(value, threshold=6, edgeitems=2, separator=", ")
    return getattr(value, "name", str(value))

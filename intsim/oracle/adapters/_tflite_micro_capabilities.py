"""What the tflite-micro adapter serves: an operator and its types a row."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any

import numpy as np

from intsim.numerics import IntType, Nibbles, Rounding, int4, int8, int16, int32, uint8
from intsim.oracle.adapter import Capability
from intsim.oracle.adapters import _tflite_micro_cases as own
from intsim.oracle.cases import Case

Cases = Callable[[], Iterable[Case]]

# The ends of the range that QuantizeMultiplier gives, where 16 bits of it are cut, and 20 between
MULTIPLIERS = (
    2**30,
    2**30 + 1,
    2**31 - 1,
    0x7FFF_0000,
    *(2**30 | (int(v) >> 2) for v in np.frombuffer(hashlib.shake_256(b"multipliers").digest(80), "<u4")),
)


def capabilities() -> list[Capability]:
    """A row an operator and its types; the order is that of the report."""
    made = [*_products(), *_conversions(), *_softmaxes()]
    for t in (int8, int16):
        made += [*_rescaled(t), *_reductions(t)]
    normal = "MEAN, SQUARED_DIFFERENCE, MEAN, ADD, RSQRT, MUL, SUB, MUL, ADD s8"
    layernorm = Capability("layernorm.tflite_decomposed", cases=0, directed=own.layernorm, serves=normal)
    return [*made, *_curves(), layernorm]


def _name(t: IntType) -> str:
    return f"{'s' if t.signed else 'u'}{t.bits}"


def _rows(values: Iterable[Any]) -> tuple[Any, ...]:
    """Values of a field that holds one a column."""
    return tuple(np.array([v]) for v in values)


def _multipliers(low: int = 1, high: int = 62, *, bits: int = 31) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Multipliers of so many significant bits, and shifts."""
    return tuple(m >> (31 - bits) << (31 - bits) for m in MULTIPLIERS), tuple(range(low, high + 1))


def _zero_points(t: IntType) -> tuple[int, ...]:
    """16-bit tensors have none."""
    return (0,) if t == int16 else tuple(range(t.qmin, t.qmax + 1))


def _products() -> Iterator[Capability]:
    yield _product("FULLY_CONNECTED s8", own.Linear(int8, int8, "fc", channels=True))
    yield _product("FULLY_CONNECTED s8 x s4", own.Linear(int8, int4, "fc4"))
    yield _product("FULLY_CONNECTED s16 x s8", own.Linear(int16, int8, "fc", channels=True))
    yield _product("FULLY_CONNECTED s16 x s8 with int32 bias", own.Linear(int16, int8, "fc32", narrow=True))
    yield _product("BATCH_MATMUL s8", own.Linear(int8, int8, "bmm", bias=False))
    yield _product("BATCH_MATMUL s16", own.Linear(int16, int16, "bmm", bias=False))


def _product(serves: str, cases: own.Linear) -> Capability:
    wide = cases.a == int16 and not cases.narrow
    multipliers, shifts = _multipliers(24 if wide else 1)
    only = {
        "matmul.a": (cases.a,),
        "matmul.b": (cases.b,),
        "matmul.nibbles": (Nibbles.LOW_FIRST,),
        "matmul.a_zero_point": _zero_points(cases.a),
        "matmul.b_zero_point": _rows(_zero_points(int16 if cases.a == int16 else cases.b)),
        "requantize.zero_point": _rows(_zero_points(cases.a)),
        "requantize.dtype": (cases.a,),
        "requantize.multiplier": _rows(multipliers),
        "requantize.shift": _rows(shifts),
    }
    return Capability("linear.multiplier16" if wide else "linear.double_rounding", only, directed=cases, serves=serves)


def _conversions() -> Iterator[Capability]:
    multipliers, shifts = map(_rows, _multipliers())
    for t, results in ((int8, (int8, uint8, int16, int32)), (int16, (int8, int16, int32)), (int32, (int8, int16))):
        only = {"dtype": results, "zero_point": _rows(_zero_points(int8)), "multiplier": multipliers, "shift": shifts}
        drawn = 12 if t == int32 else 0  # any int32 accumulator
        cases = partial(own.requantize, t, results)
        yield Capability("requantize.double_rounding", only, drawn, 40, cases, f"QUANTIZE {_name(t)}")
    whole: dict[str, Any] = {"group_size": (2**31 - 1,), "m": (1,)}
    away = whole | {"rounding": (Rounding.TIES_TO_AWAY,), "dtype": (int8, int16)}
    yield Capability("quantize.affine", away, 24, 40, own.quantize, "QUANTIZE float32")
    yield Capability("dequantize.affine", whole | {"q": (int8, uint8, int16)}, 24, 40, own.dequantize, "DEQUANTIZE")


def _softmaxes() -> Iterator[Capability]:
    multiplier, shift = _multipliers(0, 31)
    for result, serves in ((int8, "SOFTMAX s8"), (int16, "SOFTMAX s8 to s16")):
        only = {"q": (int8,), "dtype": (result,), "multiplier": multiplier, "shift": shift}
        yield Capability("softmax.gemmlowp", only, directed=partial(own.softmax, result), serves=serves)
    only = {"dtype": (int16,), "index_bits": (9,)}  # the tables are inputs: a drawn one is not the kernel's
    yield Capability("softmax.tflite_s16", only, cases=0, directed=own.softmax16, serves="SOFTMAX s16")


def _rescaled(t: IntType) -> Iterator[Capability]:
    narrow, wide = {int8: (20, 7), int16: (15, 0)}[t]
    types: dict[str, Any] = {"a": (t,), "b": (t,), "dtype": (t,)}
    types |= dict.fromkeys(("a_zero_point", "b_zero_point", "zero_point"), _zero_points(t))
    for op, operator, left_shift, low in (
        ("add.rescaled", "ADD", narrow, 31),
        ("add.rescaled_difference", "SUB", narrow, 31),
        ("mul.rescaled", "MUL", None, 1),
        ("mul.squared_difference", "SQUARED_DIFFERENCE", wide, 1),
    ):
        multiplier, shift = _multipliers(low)
        only = types | {"multiplier": multiplier, "shift": shift}
        if left_shift is not None:  # a has the larger scale: its multiplier is 1/2
            smaller, shifts = _multipliers(32)
            only |= {"a_multiplier": (2**30,), "a_shift": (31,), "b_multiplier": smaller, "b_shift": shifts}
            only |= {"left_shift": (left_shift,)}
        yield Capability(op, only, directed=partial(own.rescaled, operator, t), serves=f"{operator} {_name(t)}")


def _reductions(t: IntType) -> Iterator[Capability]:
    multiplier, shift = _multipliers()
    only: dict[str, Any] = {"x": (t,), "dtype": (t,), "multiplier": multiplier, "multiplier_shift": shift}
    only |= dict.fromkeys(("a_zero_point", "zero_point"), _zero_points(t))
    for op, operator in (("reduce.mean_tflite", "MEAN"), ("reduce.sum_tflite", "SUM")):
        yield Capability(op, only, directed=partial(own.reduce, operator, t), serves=f"{operator} {_name(t)}")


def _curves() -> Iterator[Capability]:
    eight: dict[str, Any] = {"x": (int8,), "dtype": (int8,), "a_zero_point": _zero_points(int8)}
    multiplier, shift = _multipliers(21)
    only = eight | {"zero_point": _zero_points(int8), "multiplier": multiplier, "shift": shift}
    yield Capability("activation.rsqrt_tflite", only, directed=own.rsqrt, serves="RSQRT s8")
    for function, zero_point in (("logistic", -128), ("tanh", 0)):
        multiplier, shift = _multipliers(1, 31, bits=24)
        only = eight | {"zero_point": (zero_point,), "multiplier": multiplier, "shift": shift}
        op, serves = f"activation.{function}", function.upper()
        yield Capability(f"{op}_gemmlowp", only, directed=partial(own.curve, function), serves=f"{serves} s8")
        yield Capability(f"{op}_s16", cases=0, directed=partial(own.curve16, function), serves=f"{serves} s16")

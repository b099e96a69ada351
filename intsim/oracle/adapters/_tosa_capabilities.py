"""What the TOSA reference model serves: one capability an operator, type and rounding mode."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from typing import Any

import numpy as np

from intsim.binding import Array
from intsim.numerics import Order, Overflow, Rounding, int8, int16, int32, int48, uint8, uint16
from intsim.oracle.adapter import Capability
from intsim.oracle.adapters import _tosa_cases as own

# RESCALE has these pairs of an unsigned or 8- or 16-bit input and a result (2026.8.0)
RESCALED = {
    int8: (int8, uint8, int16, int32),
    uint8: (int8, int16),
    int16: (int8, uint8, int16, int32),
    uint16: (int16,),
}
ROUND = {"double": "DOUBLE_ROUND", "single": "SINGLE_ROUND"}


def stated() -> list[Capability]:
    """All of them, in the order of the report."""
    return [*_rescale(), *_products(), *_elementwise(), *_casts()]


def _per(values: Iterable[int]) -> tuple[Array, ...]:
    return tuple(np.array([v]) for v in values)


def _rescale() -> list[Capability]:
    made = []
    for mode in ("double", "single"):
        kept: dict[str, Any] = {"shift": _per(range(33, 63))}  # any int32 is in the domain of these shifts
        if mode == "single":
            kept |= {"rounding": (Rounding.TIES_TO_POSITIVE,), "zero_point_added": (Order.LAST,)}
            kept["multiplier"] = own.MULTIPLIERS
        name = f"RESCALE scale32 {ROUND[mode]}"
        for dtype in (int8, int16, int32):
            zero_points = _per(range(dtype.qmin, dtype.qmax + 1) if dtype.bits == 8 else (0,))
            only = kept | {"dtype": (dtype,), "zero_point": zero_points}
            directed = partial(own.rescale32, mode, dtype)
            made.append(Capability(f"requantize.{mode}_rounding", only, 8, 40, directed, f"{name}, s32"))
        for x, results in RESCALED.items():
            for dtype in results:
                zero_points = _per(range(dtype.qmin, dtype.qmax + 1) if dtype.bits == 8 else (0,))
                inside = {
                    f"requantize.{k}": v for k, v in (kept | {"dtype": (dtype,), "zero_point": zero_points}).items()
                }
                only = inside | {"centred.q": (x,)}
                if x.bits > 8:
                    only["centred.zero_point"] = (0,) if x.signed else (0, 2**15)
                directed = partial(own.rescale_narrow, mode, x, dtype)
                serves = f"{name}, s8 u8 s16 u16"
                made.append(Capability(f"rescale.{mode}_rounding", only, 4, 40, directed, serves))
    for dtype in (int8, int16, int32):
        zero_points = _per(range(dtype.qmin, dtype.qmax + 1) if dtype.bits == 8 else (0,))
        only = {"dtype": (dtype,), "zero_point": zero_points, "shift": _per(range(18 + 31, 63))}
        directed = partial(own.scale16, dtype)
        made.append(Capability("requantize.multiplier16", only, 8, 40, directed, "RESCALE scale16, s48"))
    return made


def _products() -> list[Capability]:
    wrapping: dict[str, Any] = {"overflow": (Overflow.WRAP,)}
    eight = wrapping | {"a": (int8,), "b": (int8,), "acc": (int32,)}
    sixteen = wrapping | {
        "a": (int16,),
        "b": (int16,),
        "acc": (int48,),
        "a_zero_point": (0,),
        "b_zero_point": _per([0]),
    }
    return [
        Capability("matmul.integer", eight, 12, 40, own.matmul8, "MATMUL s8"),
        Capability("matmul.integer", sixteen, 12, 40, own.matmul16, "MATMUL s16"),
    ]


def _elementwise() -> list[Capability]:
    three = (int32, int16, int8)
    eight: dict[str, Any] = {"x": (int8,), "dtype": (int8,)}
    shifts = {Rounding.TOWARD_NEGATIVE: "", Rounding.TIES_TO_POSITIVE: ", round"}
    shifted = [
        Capability(
            "bits.arithmetic_right_shift",
            {"rounding": (r,)},
            20,
            40,
            partial(own.arithmetic, r),
            f"ARITHMETIC_RIGHT_SHIFT{text}",
        )
        for r, text in shifts.items()
    ]
    up: dict[str, Any] = {"rounding": (Rounding.TIES_TO_POSITIVE,), "overflow": (Overflow.WRAP,), "dtype": (int32,)}
    narrow = [up | {"shift": (0,), "a": (t,), "b": (t,)} for t in (int8, int16)]
    plain: dict[str, Any] = {"a_zero_point": (0,), "b_zero_point": (0,), "zero_point": (0,)}
    plain |= {"a": (int32,), "b": (int32,), "dtype": (int32,)}
    return [
        Capability("activation.table", eight, 20, 40, own.table8, "TABLE s8"),
        Capability("activation.table_interpolated", {"fraction_bits": (7,)}, 0, 40, own.table16, "TABLE s16"),
        Capability("bits.leading_zeros", {"x": (int32,)}, 20, 40, own.leading_zeros, "CLZ"),
        *shifted,
        Capability("bits.left_shift", {"overflow": (Overflow.WRAP,)}, 20, 40, own.left, "LOGICAL_LEFT_SHIFT"),
        Capability("bits.logical_right_shift", {"x": three}, 20, 40, own.logical, "LOGICAL_RIGHT_SHIFT"),
        Capability("mul.shifted", up | {"a": (int32,), "b": (int32,)}, 8, 40, own.products, "MUL s32"),
        *(Capability("mul.shifted", n, 12, 40, partial(own.narrow_products, n["a"][0]), "MUL s8 s16") for n in narrow),
        Capability(
            "divide.integer",
            {"x": (int32,), "rounding": (Rounding.TOWARD_ZERO,)},
            0,
            40,
            own.quotients,
            "INTDIV",
        ),
        Capability("add.matched", plain, 0, 40, own.additions, "ADD s32"),
        Capability("reduce.argmax", {"x": (int8, int16)}, 20, 40, own.argmax, "ARGMAX s8 s16"),
        Capability(
            "reduce.sum",
            {"x": (int32,), "acc": (int32,), "overflow": (Overflow.WRAP,)},
            0,
            40,
            own.sums,
            "REDUCE_SUM s32",
        ),
    ]


def _casts() -> list[Capability]:
    signed = (int8, int16, int32)
    even: dict[str, Any] = {"dtype": signed, "rounding": (Rounding.TIES_TO_EVEN,)}
    whole: dict[str, Any] = {"x": signed, "dtype": signed, "overflow": (Overflow.WRAP,)}
    return [
        Capability("quantize.rounded", even, 20, 40, own.to_integers, "CAST fp32 to s8 s16 s32"),
        Capability("bits.cast", whole, 20, 40, own.between_integers, "CAST s8 s16 s32 to one another"),
        Capability("dequantize.affine", {"q": signed, "m": (1,)}, 0, 40, own.to_floats, "CAST s8 s16 s32 to fp32"),
    ]

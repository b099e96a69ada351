"""Addition of two quantized tensors with one rounding: XNNPACK's quantized ADD.

    total = (a - a_zero_point) * a_multiplier + (b - b_zero_point) * b_multiplier
    q     = saturate(positive(total / 2**shift) + zero_point)

The multipliers are the scales of a and b over that of the result, times 2**shift, rounded to
integers (ties to even); the larger has 21 bits, whatever the scales. XNNPACK takes ratios of scales
from 2**-10 up to 2**8.

Differs from ``rescaled``, which rounds both terms first and the sum twice; from ``matched``: any scales.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from intsim.compiling import Int, portable
from intsim.numerics import IntType, Rounding, int8, uint8, unlimited
from intsim.op import Elementwise, Op, Oracle, Port
from intsim.params import Params as Base, int_type, integer
from intsim.registry import register
from intsim.scalar.rounding import saturate, shift_right
from intsim.spec import rounding

LARGEST, SMALLEST = 2.0**8, 2.0**-10  # bounds of a scale's ratio to the result's
FRACTION_BITS = 20


@dataclass(frozen=True, slots=True, eq=False)
class Params(Base):
    a_multiplier: int = integer(0, 2**21)
    b_multiplier: int = integer(0, 2**21)
    shift: int = integer(13, 30)
    a_zero_point: int = integer(-128, 255, default=0)
    b_zero_point: int = integer(-128, 255, default=0)
    zero_point: int = integer(-(2**15), 2**15, default=0)
    a: IntType = int_type(int8, uint8, role="operand")
    b: IntType = int_type(int8, uint8, role="operand")
    dtype: IntType = int_type(int8, uint8, unlimited, role="result")

    @classmethod
    def from_scales(cls, a: float, b: float, result: float, /, **fields: Any) -> Params:
        """The parameters for three real scales (float32); positive and finite.

        Raises ValueError where a / result or b / result is not in [2**-10, 2**8): XNNPACK refuses it.
        """
        scales = np.array([a, b, result], np.float32)
        if not (np.isfinite(scales) & (scales > 0)).all():
            raise ValueError(f"add.xnnpack: scales are positive and finite, got {a}, {b}, {result}")
        with np.errstate(over="ignore", under="ignore"):
            ratios = scales[:2] / scales[2]
        if not ((ratios >= SMALLEST) & (ratios < LARGEST)).all():
            raise ValueError(f"add.xnnpack: a / result and b / result are in [2**-10, 2**8), got {a}, {b}, {result}")
        shift = FRACTION_BITS - (math.frexp(float(ratios.max()))[1] - 1)
        first, second = (round(float(ratio) * 2.0**shift) for ratio in ratios)  # exact products; ties to even
        return cls(first, second, shift, **fields)


def spec(a: Any, b: Any, p: Params) -> Any:
    total = (a - p.a_zero_point) * p.a_multiplier + (b - p.b_zero_point) * p.b_multiplier
    return rounding.saturate(rounding.shift_right(total, p.shift, Rounding.TIES_TO_POSITIVE) + p.zero_point, p.dtype)


@portable
def element(i: Int, j: Int, x: Any, p: Any) -> Int:
    # Differences are below 2**9 and multipliers at most 2**21: the total is an int32.
    total = (np.int64(x.a[i, j]) - p.a_zero_point) * p.a_multiplier
    total += (np.int64(x.b[i, j]) - p.b_zero_point) * p.b_multiplier
    return saturate(shift_right(total, p.shift, Rounding.TIES_TO_POSITIVE) + p.zero_point, p.dtype)


def examples() -> dict[str, Any]:
    a = np.array([[-128, -1, 0, 1, 5, 127, 127, -3]], np.int8)
    b = np.array([[-128, 1, 0, 3, -6, 127, -128, 0]], np.int8)
    return {
        "powers of two": ((a, b), Params.from_scales(0.25, 0.5, 1.0)),
        "ties on both sides of zero, even and odd": (
            (np.array([[2, -2, 6, -6, 0, 1]], np.int8), np.array([[0, 0, 0, 0, -3, 3]], np.int8)),
            Params.from_scales(0.25, 0.5, 1.0, zero_point=1),
        ),
        "zero points": ((a, b), Params.from_scales(0.1, 0.07, 0.13, a_zero_point=-5, b_zero_point=3, zero_point=-7)),
        "the largest ratio beside the smallest": ((a, b), Params.from_scales(255.9, 2.0**-10, 1.0, dtype=unlimited)),
        "unsigned": (
            (a.view(np.uint8), b.view(np.uint8)),
            Params.from_scales(0.3, 0.2, 0.5, a_zero_point=255, b_zero_point=128, a=uint8, b=uint8, dtype=uint8),
        ),
    }


OP = register(
    Op(
        name="add.xnnpack",
        version=1,
        cites="google/XNNPACK src/qs8-vadd, src/microparams-init.c (xnn_init_qs8_add_minmax_scalar_params)",
        inputs=(Port("a", "m n", lambda p: p.a), Port("b", "m n", lambda p: p.b)),
        outputs=(Port("q", "m n", lambda p: p.dtype),),
        params=Params,
        spec=spec,
        program=Elementwise(element),
        examples=examples,
        oracle=Oracle(
            params=lambda scale: Params.from_scales(scale, 0.7 * scale, 1.0, dtype=unlimited),
            scales=(0.05, 4.0),
            real=lambda a, b, p: (a * p.a_multiplier + b * p.b_multiplier) / 2.0**p.shift,
            value=lambda q, p: q,
            bound=lambda p: 0.5,
        ),
    )
)

"""Difference of two quantized tensors with scales of their own: TFLite SUB.

    a' = G2((a - a_zero_point) << left_shift, a_multiplier, a_shift)          b' likewise
    q  = saturate(G2(wrap32(a' - b'), multiplier, shift) + zero_point)

G2 is gemmlowp's double rounding (``requantize.double_rounding``). left_shift is 20 for 8-bit
operands and 15 for 16-bit ones.

Its parameters are those of ``rescaled``. Differs from that with b negated: G2 sends a half of b, not of
-b, to the positive side.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from intsim.compiling import Int, portable
from intsim.numerics import int16, int32, unlimited
from intsim.op import Elementwise, Op, Oracle, Port
from intsim.ops.add.rescaled import Params
from intsim.registry import register
from intsim.scalar.fixed_point import multiply_by_quantized, wrap32
from intsim.scalar.rounding import saturate
from intsim.spec import fixed_point, rounding


def spec(a: Any, b: Any, p: Params) -> Any:
    scaled_a = fixed_point.multiply_by_quantized((a - p.a_zero_point) << p.left_shift, p.a_multiplier, p.a_shift)
    scaled_b = fixed_point.multiply_by_quantized((b - p.b_zero_point) << p.left_shift, p.b_multiplier, p.b_shift)
    left = rounding.wrap(scaled_a - scaled_b, int32)
    return rounding.saturate(fixed_point.multiply_by_quantized(left, p.multiplier, p.shift) + p.zero_point, p.dtype)


@portable
def element(i: Int, j: Int, x: Any, p: Any) -> Int:
    # |a - a_zero_point| < 2**16 and left_shift <= 20: 36 bits, times a multiplier of 31.
    a = multiply_by_quantized((np.int64(x.a[i, j]) - p.a_zero_point) << p.left_shift, p.a_multiplier, p.a_shift)
    b = multiply_by_quantized((np.int64(x.b[i, j]) - p.b_zero_point) << p.left_shift, p.b_multiplier, p.b_shift)
    return saturate(multiply_by_quantized(wrap32(a - b), p.multiplier, p.shift) + p.zero_point, p.dtype)


def examples() -> dict[str, Any]:
    a = np.array([[-128, -128, -1, 0, 1, 5, 127, 127]], np.int8)
    b = np.array([[-128, 127, 1, 0, 3, -6, 127, -128]], np.int8)
    wide = np.array([[-32768, -1, 0, 1, 5, 32767, 32767]], np.int16)
    return {
        "powers of two: ties": ((a, b), Params.from_scales(0.25, 0.5, 1.0)),
        "zero points": ((a, b), Params.from_scales(0.1, 0.07, 0.13, a_zero_point=-5, b_zero_point=3, zero_point=-7)),
        "a tie of b's own rounding, which negating b would turn": (
            (wide * 0, wide),
            Params(2**30, 31, 2**30, 31, 2**31 - 1, 31, left_shift=0, a=int16, b=int16, dtype=int16),
        ),
        "the difference wraps": (
            (a, b),
            Params(2**31 - 1, 31, 2**31 - 1, 31, 2**30, 46, a_zero_point=255, b_zero_point=-128, dtype=int16),
        ),
        "int16": (
            (wide, wide[:, ::-1].copy()),
            Params.from_scales(0.001, 0.002, 0.003, left_shift=15, a=int16, b=int16, dtype=int16),
        ),
    }


OP = register(
    Op(
        name="add.rescaled_difference",
        version=1,
        cites="google-ai-edge/LiteRT tflite/kernels/internal/reference/sub.h; "
        "tensorflow/tflite-micro tensorflow/lite/micro/kernels/sub_common.cc",
        inputs=(Port("a", "m n", lambda p: p.a), Port("b", "m n", lambda p: p.b)),
        outputs=(Port("q", "m n", lambda p: p.dtype),),
        params=Params,
        spec=spec,
        program=Elementwise(element),
        examples=examples,
        oracle=Oracle(
            params=lambda scale: Params.from_scales(scale, 0.7 * scale, 1.0, dtype=unlimited),
            scales=(0.05, 4.0),
            real=lambda a, b, p: (
                (a * (p.a_multiplier / 2.0**p.a_shift) - b * (p.b_multiplier / 2.0**p.b_shift))
                * (p.multiplier / 2.0**p.shift)
                * 2.0**p.left_shift
            ),
            value=lambda q, p: q,
            bound=lambda p: 1.0 + 2.0**-8,  # two roundings at the end; those of the terms are 2**-20 as large
        ),
    )
)

"""Square of the difference of two quantized tensors: TFLite SQUARED_DIFFERENCE.

    a' = G2((a - a_zero_point) << left_shift, a_multiplier, a_shift)          b' likewise
    q  = saturate(G2(wrap32((a' - b')**2), multiplier, shift) + zero_point)

G2 is gemmlowp's double rounding (``requantize.double_rounding``). left_shift is 7 for 8-bit
operands and 0 for 16-bit ones, so that the square of what TFLite's scales allow stays an int32.

Differs from ``rescaled``: both operands are rounded to one scale before the product.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from intsim.compiling import Int, portable
from intsim.numerics import IntType, int8, int16, int32, uint8, unlimited
from intsim.op import Elementwise, Op, Oracle, Port
from intsim.params import Params as Base, int_type, integer
from intsim.registry import register
from intsim.scalar.fixed_point import multiply_by_quantized, wrap32
from intsim.scalar.rounding import saturate
from intsim.spec import fixed_point, rounding, tflite


@dataclass(frozen=True, slots=True, eq=False)
class Params(Base):
    a_multiplier: int = integer(0, 2**31 - 1)
    a_shift: int = integer(31, 62)
    b_multiplier: int = integer(0, 2**31 - 1)
    b_shift: int = integer(31, 62)
    multiplier: int = integer(0, 2**31 - 1)
    shift: int = integer(0, 62)  # below 31 the rest is a left shift before the product, which wraps
    left_shift: int = integer(0, 7, default=7)
    a_zero_point: int = integer(-128, 255, default=0)
    b_zero_point: int = integer(-128, 255, default=0)
    zero_point: int = integer(-(2**15), 2**15, default=0)
    a: IntType = int_type(int8, uint8, int16, role="operand")
    b: IntType = int_type(int8, uint8, int16, role="operand")
    dtype: IntType = int_type(int8, uint8, int16, unlimited, role="result")

    @classmethod
    def from_scales(cls, a: float, b: float, result: float, /, **fields: Any) -> Params:
        """The parameters for three real scales, with TFLite's float32 step; positive and finite."""
        scales = np.array([a, b, result], np.float32)
        if not (np.isfinite(scales) & (scales > 0)).all():
            raise ValueError(f"mul.squared_difference: scales are positive and finite, got {a}, {b}, {result}")
        left_shift = fields.setdefault("left_shift", 7)
        twice = 2 * float(scales[:2].max())
        out = twice * twice / float(np.float32(4**left_shift) * scales[2])
        reals = (float(scales[0]) / twice, float(scales[1]) / twice, out)
        parts = [part for real in reals for part in tflite.quantize_multiplier(real)]
        return cls(*parts, **fields)  # type: ignore[arg-type]  # six integers, in the order of the fields


def spec(a: Any, b: Any, p: Params) -> Any:
    scaled_a = fixed_point.multiply_by_quantized((a - p.a_zero_point) << p.left_shift, p.a_multiplier, p.a_shift)
    scaled_b = fixed_point.multiply_by_quantized((b - p.b_zero_point) << p.left_shift, p.b_multiplier, p.b_shift)
    square = rounding.wrap((scaled_a - scaled_b) ** 2, int32)
    return rounding.saturate(fixed_point.multiply_by_quantized(square, p.multiplier, p.shift) + p.zero_point, p.dtype)


@portable
def element(i: Int, j: Int, x: Any, p: Any) -> Int:
    # |a - a_zero_point| < 2**16, left_shift <= 7 and the multipliers are below 1: the difference is below 2**24.
    a = multiply_by_quantized((np.int64(x.a[i, j]) - p.a_zero_point) << p.left_shift, p.a_multiplier, p.a_shift)
    b = multiply_by_quantized((np.int64(x.b[i, j]) - p.b_zero_point) << p.left_shift, p.b_multiplier, p.b_shift)
    square = wrap32((a - b) * (a - b))
    return saturate(multiply_by_quantized(square, p.multiplier, p.shift) + p.zero_point, p.dtype)


def examples() -> dict[str, Any]:
    a = np.array([[-128, -128, -3, -1, 0, 1, 3, 5, 127, 127]], np.int8)
    b = np.array([[-128, 127, 1, 0, 0, 2, 1, -7, 126, -128]], np.int8)
    wide = np.array([[-32768, -32768, -1, 0, 3, 7, 32767, 32767]], np.int16)
    return {
        "powers of two: ties": ((a, b), Params.from_scales(1.0, 1.0, 2.0)),
        "one scale half the other": ((a, b), Params.from_scales(1.0, 0.5, 2.0)),
        "zero points": ((a, b), Params.from_scales(0.1, 0.07, 0.5, a_zero_point=-5, b_zero_point=3, zero_point=-128)),
        "one scale far below the other": ((a, b), Params.from_scales(0.5, 1e-5, 3.0, dtype=int16)),
        "the square wraps": ((a, b), Params(2**31 - 1, 31, 2**31 - 1, 31, 2**30, 46, dtype=int16)),
        "int16": (
            (wide, wide[:, ::-1].copy()),
            Params.from_scales(0.001, 0.002, 3.0, left_shift=0, a=int16, b=int16, dtype=int16),
        ),
    }


def _real(a: Any, b: Any, p: Params) -> Any:
    difference = a * (p.a_multiplier / 2.0**p.a_shift) - b * (p.b_multiplier / 2.0**p.b_shift)
    return difference**2 * (p.multiplier / 2.0**p.shift) * 4.0**p.left_shift


OP = register(
    Op(
        name="mul.squared_difference",
        version=1,
        cites="tensorflow/tflite-micro tensorflow/lite/micro/kernels/squared_difference.cc; "
        "google-ai-edge/LiteRT tflite/kernels/squared_difference.cc",
        inputs=(Port("a", "m n", lambda p: p.a), Port("b", "m n", lambda p: p.b)),
        outputs=(Port("q", "m n", lambda p: p.dtype),),
        params=Params,
        spec=spec,
        program=Elementwise(element),
        examples=examples,
        oracle=Oracle(
            params=lambda scale: Params.from_scales(scale, 0.7 * scale, 1.0, dtype=unlimited),
            scales=(0.01, 0.9),
            real=_real,
            value=lambda q, p: q,
            # Two roundings at the end. A term is off by 1 at most, so a difference d below 2**15 by 2, and
            # its square by 4 |d| + 4.
            bound=lambda p: 1.0 + (4 * 2.0**15 + 4) * (p.multiplier / 2.0**p.shift),
        ),
    )
)

"""The hyperbolic tangent of an 8-bit input in gemmlowp fixed point: tflite-micro TANH.

    d = x - a_zero_point;  where |d| < radius:  y = away(tanh(Q4.27(d)) / 2**24), a Q0.31 to Q0.7
    elsewhere y = -128 or 128;  q = saturate(y + zero_point)

multiplier / 2**shift takes one input step to Q4.27 (input scale times 2**27); radius is where 15
is reached. The result has scale 2**-7 (zero_point 0 for int8, 128 for uint8).

Differs from LiteRT and TOSA, which look it up (``table``), with a table rounded from floats; from
``logistic_gemmlowp``: (1 - e) / (1 + e) with e = exp(-2 |d|), and 7 bits below 1 instead of 8.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from intsim.compiling import Int, portable
from intsim.numerics import IntType, int8, int16, uint8, unlimited
from intsim.op import Elementwise, Op, Oracle, Port
from intsim.params import Params as Base, int_type, integer, real
from intsim.registry import register
from intsim.scalar.fixed_point import multiply_by_quantized, rounding_shift
from intsim.scalar.rounding import saturate
from intsim.scalar.tflite import tanh
from intsim.spec import fixed_point, rounding, tflite

INTEGER_BITS = 4


@dataclass(frozen=True, slots=True, eq=False)
class Params(Base):
    multiplier: int = integer(2**30, 2**31 - 1)
    shift: int = integer(0, 31)
    a_zero_point: int = integer(-128, 255, default=0)
    zero_point: int = integer(-(2**15), 2**15, default=0)
    x: IntType = int_type(int8, uint8, role="operand")
    dtype: IntType = int_type(int8, uint8, int16, unlimited, role="result")
    scale: float = real()  # of the input; only the oracle reads it

    @property
    def radius(self) -> int:
        """The distance from the zero point at which the result is -1 or 1: floor(15 * 2**27 / 2**(31 - shift))."""
        return (15 << 27) >> (31 - self.shift)

    @classmethod
    def from_scale(cls, scale: float, **fields: Any) -> Params:
        """The parameters for inputs ``real = scale * (x - a_zero_point)``; scale: float32, in [2**-27, 16)."""
        if not 2.0**-27 <= scale < 16:
            raise ValueError(f"activation.tanh_gemmlowp: scale is in [2**-27, 16), got {scale}")
        return cls(*tflite.quantize_multiplier(float(np.float32(scale)) * 2.0**27), scale=scale, **fields)


def spec(x: Any, p: Params) -> Any:
    d = x - p.a_zero_point
    inside = abs(d) < p.radius
    fixed = fixed_point.multiply_by_quantized(np.where(inside, d, 0), p.multiplier, p.shift)
    y = fixed_point.rounding_shift(tflite.tanh(fixed, INTEGER_BITS), 24)
    outside = np.where(d <= -p.radius, -128, 128)
    return rounding.saturate(np.where(inside, y, outside) + p.zero_point, p.dtype)


@portable
def element(i: Int, j: Int, x: Any, p: Any) -> Int:
    d = np.int64(x.x[i, j]) - p.a_zero_point
    radius = (15 << 27) >> (31 - p.shift)
    y = np.int64(128)
    if d <= -radius:
        y = np.int64(-128)
    elif d < radius:  # |d| << (31 - shift) stays below 15 * 2**27: an int32
        y = rounding_shift(tanh(multiply_by_quantized(d, p.multiplier, p.shift), 4), 24)
    return saturate(y + p.zero_point, p.dtype)


def examples() -> dict[str, Any]:
    every = np.arange(-128, 128, dtype=np.int8).reshape(8, 32)
    return {
        **{
            f"every int8 at scale {scale}": ((every,), Params.from_scale(scale))
            for scale in (1e-3, 0.017, 0.05, 2.0**-4, 0.117, 0.5)
        },
        "zero point": ((every,), Params.from_scale(0.1, a_zero_point=-37)),
        "the radius is 1": ((every[3:5],), Params.from_scale(5.0, a_zero_point=-1)),
        "the radius is 0: the zero point itself gives the lowest": ((every[3:5],), Params.from_scale(9.0)),
        "unsigned": (
            (every.view(np.uint8),),
            Params.from_scale(0.04, a_zero_point=128, zero_point=128, x=uint8, dtype=uint8),
        ),
        "the finest scale": ((every[::7],), Params.from_scale(2.0**-27)),
    }


def _real(x: Any, p: Params) -> Any:
    return np.tanh(p.scale * (x - p.a_zero_point))


OP = register(
    Op(
        name="activation.tanh_gemmlowp",
        version=1,
        cites="google-ai-edge/LiteRT tflite/kernels/internal/reference/integer_ops/tanh.h; "
        "tensorflow/tflite-micro tensorflow/lite/micro/kernels/tanh.cc; google/gemmlowp fixedpoint.h",
        inputs=(Port("x", "m n", lambda p: p.x),),
        outputs=(Port("q", "m n", lambda p: p.dtype),),
        params=Params,
        spec=spec,
        program=Elementwise(element),
        examples=examples,
        oracle=Oracle(
            params=lambda scale: Params.from_scale(scale, dtype=int16),
            scales=(1e-4, 0.9),
            real=_real,
            value=lambda q, p: q / 2.0**7,
            bound=lambda p: 2.0**-8 + 2.0**-20,  # half a step, and the error of 31-bit arithmetic
        ),
    )
)

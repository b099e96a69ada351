"""One over the square root of an 8-bit input: TFLite RSQRT.

    v = x - a_zero_point;  mantissa / 2**(31 + over) = 1 / sqrt(v), by Newton in Q3.28
    t = G2(1, mantissa, 11 + over), 20 fraction bits;  q = saturate(G2(t, multiplier, shift) + zero_point)

Where v is 0 the result is the largest of its type. Below 0, which TFLite refuses to run, v counts
as 1. G2 is gemmlowp's double rounding (``requantize.double_rounding``); multiplier / 2**shift
stands for 2**-20 / (sqrt(input scale) * result scale).

Differs from a table (``table``) and from an exact root: 31-bit Newton steps and three roundings.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from intsim.compiling import Int, portable
from intsim.numerics import IntType, int8, int16, uint8, unlimited
from intsim.op import Elementwise, Op, Oracle, Port
from intsim.params import Params as Base, int_type, integer
from intsim.registry import register
from intsim.scalar.fixed_point import multiply_by_quantized
from intsim.scalar.rounding import saturate
from intsim.scalar.tflite import inverse_square_root, inverse_square_root_shift
from intsim.spec import fixed_point, rounding, tflite

FRACTION_BITS = 20


@dataclass(frozen=True, slots=True, eq=False)
class Params(Base):
    multiplier: int = integer(0, 2**31 - 1)
    shift: int = integer(0, 62)  # below 31 the rest is a left shift before the product, which wraps
    a_zero_point: int = integer(-128, 255, default=0)
    zero_point: int = integer(-(2**15), 2**15, default=0)
    x: IntType = int_type(int8, uint8, role="operand")
    dtype: IntType = int_type(int8, uint8, int16, unlimited, role="result")

    @classmethod
    def from_scales(cls, x: float, result: float, /, *, single: bool = False, **fields: Any) -> Params:
        """The parameters for two real scales (float32); positive and finite.

        single: whether sqrt(x) * result is float32 arithmetic (LiteRT) or float64 (tflite-micro).
        Raises ValueError where the scales leave no shift in range.
        """
        scales = np.array([x, result], np.float32)
        if not (np.isfinite(scales) & (scales > 0)).all():
            raise ValueError(f"activation.rsqrt_tflite: scales are positive and finite, got {x}, {result}")
        root = float(np.sqrt(scales[0]) * scales[1]) if single else math.sqrt(scales[0]) * float(scales[1])
        multiplier, shift = tflite.quantize_multiplier(1 / root)
        if shift + FRACTION_BITS > 62:
            raise ValueError(f"activation.rsqrt_tflite: the scales {x}, {result} are too large")
        return cls(multiplier, shift + FRACTION_BITS, **fields)


def spec(x: Any, p: Params) -> Any:
    v = x - p.a_zero_point
    mantissa, over = tflite.inverse_square_root(v)
    t = fixed_point.multiply_by_quantized(v * 0 + 1, mantissa, 31 - FRACTION_BITS + over)
    q = rounding.saturate(fixed_point.multiply_by_quantized(t, p.multiplier, p.shift) + p.zero_point, p.dtype)
    return np.where(v == 0, p.dtype.qmax, q)


@portable
def element(i: Int, j: Int, x: Any, p: Any) -> Int:
    v = np.int64(x.x[i, j]) - p.a_zero_point  # below 2**9
    if v == 0:
        return p.dtype.qmax
    t = multiply_by_quantized(np.int64(1), inverse_square_root(v), 11 + inverse_square_root_shift(v))
    return saturate(multiply_by_quantized(t, p.multiplier, p.shift) + p.zero_point, p.dtype)


def examples() -> dict[str, Any]:
    every = np.arange(-128, 128, dtype=np.int8).reshape(8, 32)
    return {
        "every int8": ((every,), Params.from_scales(0.02, 0.1, a_zero_point=-128, zero_point=-128)),
        "every int8, to 16 bits": ((every,), Params.from_scales(1.0, 2.0**-15, a_zero_point=-128, dtype=int16)),
        "halves: ties": ((every,), Params.from_scales(1.0, 2.0, a_zero_point=-128)),
        "below the zero point": ((every[3:5],), Params.from_scales(1.0, 0.01, a_zero_point=10, zero_point=-5)),
        "unsigned": ((every.view(np.uint8),), Params.from_scales(0.5, 0.01, x=uint8, dtype=uint8)),
        "a left shift wraps": ((every[::3],), Params(2**30, 8, a_zero_point=-128, dtype=int16)),
    }


def _real(x: Any, p: Params) -> Any:
    v = x - p.a_zero_point
    root = (p.multiplier / 2.0**p.shift) * 2.0**FRACTION_BITS / np.sqrt(np.maximum(v, 1))
    return np.where(v == 0, p.dtype.qmax, root)


OP = register(
    Op(
        name="activation.rsqrt_tflite",
        version=1,
        cites="tensorflow/tflite-micro tensorflow/lite/micro/kernels/elementwise.cc; "
        "google-ai-edge/LiteRT tflite/kernels/internal/quantization_util.cc (GetInvSqrtQuantizedMultiplierExp)",
        inputs=(Port("x", "m n", lambda p: p.x),),
        outputs=(Port("q", "m n", lambda p: p.dtype),),
        params=Params,
        spec=spec,
        program=Elementwise(element),
        examples=examples,
        oracle=Oracle(
            params=lambda scale: Params.from_scales(1.0, scale, a_zero_point=-128, dtype=int16),
            scales=(2.0**-14, 1.0),
            real=_real,
            value=lambda q, p: q,
            # Two roundings at the end, and t's half unit of 2**-20
            bound=lambda p: 1.0 + (p.multiplier / 2.0**p.shift),
        ),
    )
)

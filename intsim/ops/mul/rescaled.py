"""Product of two quantized tensors, element by element: TFLite MUL.

    q = saturate(G2((a - a_zero_point) * (b - b_zero_point), multiplier, shift) + zero_point)

G2 is gemmlowp's double rounding (``requantize.double_rounding``), or a single rounding with ties to
positive: ``scaling``. multiplier / 2**shift stands for the scales of a and b over that of the result.
Used by tflite-micro, CMSIS-NN, LiteRT's reference.

Differs from ``float32_ties_even``, which multiplies in float32 and rounds once; from
``squared_difference``: any two factors, and no rounding before the product.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from intsim.compiling import Int, portable
from intsim.numerics import IntType, Scaling, int8, int16, uint8, unlimited
from intsim.op import Elementwise, Op, Oracle, Port
from intsim.params import Params as Base, int_type, integer, rule
from intsim.registry import register
from intsim.scalar.fixed_point import scaled
from intsim.scalar.rounding import saturate
from intsim.spec import fixed_point, rounding, tflite


@dataclass(frozen=True, slots=True, eq=False)
class Params(Base):
    multiplier: int = integer(0, 2**31 - 1)
    shift: int = integer(0, 62)  # below 31 the rest is a left shift before the product, which wraps
    a_zero_point: int = integer(-128, 255, default=0)
    b_zero_point: int = integer(-128, 255, default=0)
    zero_point: int = integer(-(2**15), 2**15, default=0)
    a: IntType = int_type(int8, uint8, int16, role="operand")
    b: IntType = int_type(int8, uint8, int16, role="operand")
    dtype: IntType = int_type(int8, uint8, int16, unlimited, role="result")
    scaling: Scaling = rule(Scaling, Scaling.DOUBLE_ROUNDING)

    @classmethod
    def from_scales(cls, a: float, b: float, result: float, /, *, single: bool = False, **fields: Any) -> Params:
        """The parameters for three real scales (float32); positive and finite.

        single: whether a * b / result is two float32 operations (LiteRT) or two of float64 (tflite-micro).
        """
        scales = np.array([a, b, result], np.float32)
        if not (np.isfinite(scales) & (scales > 0)).all():
            raise ValueError(f"mul.rescaled: scales are positive and finite, got {a}, {b}, {result}")
        x, y, out = scales if single else scales.astype(np.float64)
        return cls(*tflite.quantize_multiplier(float(x * y / out)), **fields)


def spec(a: Any, b: Any, p: Params) -> Any:
    product = (a - p.a_zero_point) * (b - p.b_zero_point)
    return rounding.saturate(fixed_point.scaled(product, p.multiplier, p.shift, p.scaling) + p.zero_point, p.dtype)


@portable
def element(i: Int, j: Int, x: Any, p: Any) -> Int:
    # Each factor is below 2**15 + 2**8: the product is an int32.
    product = (np.int64(x.a[i, j]) - p.a_zero_point) * (np.int64(x.b[i, j]) - p.b_zero_point)
    return saturate(scaled(product, p.multiplier, p.shift, p.scaling) + p.zero_point, p.dtype)


def examples() -> dict[str, Any]:
    a = np.array([[-128, -128, -3, -1, 0, 1, 3, 5, 127, 127]], np.int8)
    b = np.array([[-128, 127, 1, 1, 0, 1, 1, -7, 127, -128]], np.int8)
    wide = np.array([[-32768, -32768, -1, 0, 3, 7, 32767, 32767]], np.int16)
    return {
        "powers of two: ties": ((a, b), Params.from_scales(0.5, 1.0, 1.0)),
        "ties, rounded once": ((a, b), Params.from_scales(0.25, 0.25, 1.0, scaling=Scaling.SINGLE_ROUNDING)),
        "ties after the first rounding": ((a, b), Params.from_scales(0.25, 0.25, 1.0)),
        "zero points": ((a, b), Params.from_scales(0.05, 0.03, 0.2, a_zero_point=-5, b_zero_point=3, zero_point=-7)),
        "a left shift wraps": ((a, b), Params(2**30, 8, dtype=int16)),
        "unsigned": (
            (a.view(np.uint8), b.view(np.uint8)),
            Params.from_scales(0.01, 0.02, 0.03, a_zero_point=255, b_zero_point=128, a=uint8, b=uint8, dtype=uint8),
        ),
        "int16": (
            (wide, wide[:, ::-1].copy()),
            Params.from_scales(2.0**-15, 2.0**-15, 2.0**-14, a=int16, b=int16, dtype=int16),
        ),
        "one multiplier where float32 and float64 differ": (
            (a, b),
            Params.from_scales(0.1, 0.07, 0.013, single=True, dtype=int16),
        ),
    }


OP = register(
    Op(
        name="mul.rescaled",
        version=1,
        cites="google-ai-edge/LiteRT tflite/kernels/internal/reference/integer_ops/mul.h; "
        "tensorflow/tflite-micro tensorflow/lite/micro/kernels/mul_common.cc",
        inputs=(Port("a", "m n", lambda p: p.a), Port("b", "m n", lambda p: p.b)),
        outputs=(Port("q", "m n", lambda p: p.dtype),),
        params=Params,
        spec=spec,
        program=Elementwise(element),
        examples=examples,
        oracle=Oracle(
            params=lambda scale: Params.from_scales(scale, 0.7, 1.0, dtype=unlimited),
            scales=(1e-4, 1.0),
            real=lambda a, b, p: a * b * (p.multiplier / 2.0**p.shift),
            value=lambda q, p: q,
            bound=lambda p: 1.0,  # two roundings
        ),
    )
)

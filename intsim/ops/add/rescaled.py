"""Addition of two quantized tensors with scales of their own: TFLite ADD.

    a' = G2(wrap32((a - a_zero_point) << left_shift), a_multiplier, a_shift)          b' likewise
    q  = saturate(G2(wrap32(a' + b'), multiplier, shift) + zero_point)

G2 is gemmlowp's double rounding (``requantize.double_rounding``), or a single rounding with ties to
positive: ``scaling``. left_shift is 20 for 8-bit operands and 15 for 16-bit ones.

Differs from ``xnnpack``, which adds the two products and rounds once; from ``matched``: any scales.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from intsim.compiling import Int, portable
from intsim.numerics import IntType, Scaling, int8, int16, int32, uint8, unlimited
from intsim.op import Elementwise, Op, Oracle, Port
from intsim.params import Params as Base, int_type, integer, rule
from intsim.registry import register
from intsim.scalar.fixed_point import scaled, wrap32
from intsim.scalar.rounding import saturate
from intsim.spec import fixed_point, rounding
from intsim.spec.tflite import quantize_multiplier


@dataclass(frozen=True, slots=True, eq=False)
class Params(Base):
    a_multiplier: int = integer(0, 2**31 - 1)
    a_shift: int = integer(31, 62)
    b_multiplier: int = integer(0, 2**31 - 1)
    b_shift: int = integer(31, 62)
    multiplier: int = integer(0, 2**31 - 1)
    shift: int = integer(31, 62)
    left_shift: int = integer(0, 20, default=20)
    a_zero_point: int = integer(-128, 255, default=0)
    b_zero_point: int = integer(-128, 255, default=0)
    zero_point: int = integer(-(2**15), 2**15, default=0)
    a: IntType = int_type(int8, uint8, int16, role="operand")
    b: IntType = int_type(int8, uint8, int16, role="operand")
    dtype: IntType = int_type(int8, uint8, int16, unlimited, role="result")
    scaling: Scaling = rule(Scaling, Scaling.DOUBLE_ROUNDING)

    @classmethod
    def from_scales(cls, a: float, b: float, result: float, /, **fields: Any) -> Params:
        """The parameters for three real scales, with TFLite's float32 steps; positive and finite."""
        scales = np.array([a, b, result], np.float32)
        if not (np.isfinite(scales) & (scales > 0)).all():
            raise ValueError(f"add.rescaled: scales are positive and finite, got {a}, {b}, {result}")
        left_shift = fields.setdefault("left_shift", 20)
        twice = np.float64(np.float32(2) * scales[:2].max())
        out = twice / np.float64(np.float32(2**left_shift) * scales[2])
        if out >= 1 - 2.0**-32:  # from here on the multiplier rounds up to 1, and the shift falls below 31
            raise ValueError(f"add.rescaled: the result's scale {result} is too small beside {a} and {b}")
        reals = (scales[0] / twice, scales[1] / twice, out)
        parts = [part for real in reals for part in quantize_multiplier(float(real))]
        return cls(*parts, **fields)  # type: ignore[arg-type]  # six integers, in the order of the fields


def spec(a: Any, b: Any, p: Params) -> Any:
    left_a = rounding.wrap((a - p.a_zero_point) << p.left_shift, int32)
    left_b = rounding.wrap((b - p.b_zero_point) << p.left_shift, int32)
    scaled_a = fixed_point.scaled(left_a, p.a_multiplier, p.a_shift, p.scaling)
    scaled_b = fixed_point.scaled(left_b, p.b_multiplier, p.b_shift, p.scaling)
    total = rounding.wrap(scaled_a + scaled_b, int32)
    return rounding.saturate(fixed_point.scaled(total, p.multiplier, p.shift, p.scaling) + p.zero_point, p.dtype)


@portable
def element(i: Int, j: Int, x: Any, p: Any) -> Int:
    # |a - a_zero_point| < 2**16 and left_shift <= 20: 36 bits, of which an int32 keeps 32.
    a = wrap32((np.int64(x.a[i, j]) - p.a_zero_point) << p.left_shift)
    b = wrap32((np.int64(x.b[i, j]) - p.b_zero_point) << p.left_shift)
    total = wrap32(scaled(a, p.a_multiplier, p.a_shift, p.scaling) + scaled(b, p.b_multiplier, p.b_shift, p.scaling))
    return saturate(scaled(total, p.multiplier, p.shift, p.scaling) + p.zero_point, p.dtype)


def examples() -> dict[str, Any]:
    a = np.array([[-128, -1, 0, 1, 5, 127, 127]], np.int8)
    b = np.array([[-128, 1, 0, 3, -6, 127, -128]], np.int8)
    halves = np.array([[-10, -6, -2, 2, 6, 10]], np.int8)
    wide = np.array([[-32768, -1, 0, 1, 5, 32767, 32767]], np.int16)
    return {
        "powers of two: ties": ((a, b), Params.from_scales(0.25, 0.5, 1.0)),
        "powers of two: negative ties, rounded twice": ((halves, 0 * halves), Params.from_scales(0.25, 0.5, 1.0)),
        "powers of two: negative ties, rounded once": (
            (halves, 0 * halves),
            Params.from_scales(0.25, 0.5, 1.0, scaling=Scaling.SINGLE_ROUNDING),
        ),
        "a left shift wraps": (
            (wide // 11, wide),
            Params(2**31 - 1, 31, 0, 31, 2**30, 40, left_shift=20, a=int16, b=int16, dtype=int16),
        ),
        "zero points": ((a, b), Params.from_scales(0.1, 0.07, 0.13, a_zero_point=-5, b_zero_point=3, zero_point=-7)),
        "int16": (
            (wide, wide[:, ::-1]),
            Params.from_scales(0.001, 0.002, 0.003, left_shift=15, a=int16, b=int16, dtype=int16),
        ),
    }


OP = register(
    Op(
        name="add.rescaled",
        version=1,
        cites="google-ai-edge/LiteRT tflite/kernels/internal/reference/integer_ops/add.h",
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
                (a * (p.a_multiplier / 2.0**p.a_shift) + b * (p.b_multiplier / 2.0**p.b_shift))
                * (p.multiplier / 2.0**p.shift)
                * 2.0**p.left_shift
            ),
            value=lambda q, p: q,
            bound=lambda p: 1.0 + 2.0**-8,  # two roundings at the end; those of the terms are 2**-20 as large
        ),
    )
)

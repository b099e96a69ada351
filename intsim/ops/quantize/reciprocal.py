"""Quantize float32 by a product with the reciprocal of the scale: XNNPACK, LiteRT's optimised QUANTIZE.

    q = saturate(round(f32(x * f32(1 / scale))) + zero_point)

One scale for each group of ``group_size`` elements along a row, as in ``affine``. A reciprocal that
overflows (a scale below 2**-128) is infinite, and 0 times it counts as 0: published kernels convert
the NaN that IEEE 754 gives there, which no rule defines.

Differs from ``affine``, which divides: two roundings to float32 instead of one. Kernels compute the
IEEE steps in integers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from intsim.compiling import Int, portable
from intsim.numerics import IntType, Rounding, float32, unlimited
from intsim.op import Elementwise, Op, Port, Size
from intsim.ops.quantize import RESULTS
from intsim.params import Params as Base, int_type, integer, rule
from intsim.registry import register
from intsim.scalar.ieee import divide32, multiply32, pack32, sign_of, to_integer, unpack32
from intsim.scalar.rounding import saturate
from intsim.spec import ieee, rounding


@dataclass(frozen=True, slots=True, eq=False)
class Params(Base):
    group_size: int = integer(1, 2**31 - 1, default=2**31 - 1)
    dtype: IntType = int_type(*RESULTS, unlimited, role="result")
    rounding: Rounding = rule(Rounding, Rounding.TIES_TO_EVEN)


def spec(x: Any, scale: Any, zero_point: Any, p: Params) -> Any:
    group = np.arange(x.shape[-1]) // p.group_size
    with np.errstate(over="ignore", under="ignore", invalid="ignore"):  # what is infinite saturates
        product = np.where(x == 0, np.float32(0), x * (np.float32(1) / scale)[:, group])
    return rounding.saturate(ieee.to_integer(product, p.rounding) + zero_point[:, group], p.dtype)


@portable
def element(i: Int, j: Int, x: Any, p: Any) -> Int:
    g = j // p.group_size
    bits = np.int64(x.x[i, j])
    sm, se = unpack32(np.int64(x.scale[i, g]))
    rm, re = divide32(2**23, -23, sm, se)
    rm, re = unpack32(pack32(rm, re))  # infinite where it overflows
    am, ae = unpack32(bits)
    m, e = multiply32(am, ae, rm, re)
    return saturate(to_integer(sign_of(bits) * m, e, p.rounding) + np.int64(x.zero_point[i, g]), p.dtype)


def examples() -> dict[str, Any]:
    ties = np.arange(-12, 13, dtype=np.float32)[None] * np.float32(0.25)
    half, odd = np.array([[0.5]], np.float32), np.array([[-5]], np.int32)
    near = np.arange(-20, 20, dtype=np.float32)[None] * np.float32(0.0125)
    wild = np.array([[np.inf, -np.inf, 3e38, -3e38, 1e-45, -0.0, 0.0, 64.25, -64.25]], np.float32)
    made: dict[str, Any] = {f"ties, {r.name}": ((ties, half), Params(rounding=r)) for r in Rounding}
    made["ties with an odd zero point"] = ((ties, half, odd), Params())
    made["a division gives others"] = ((near, np.array([[0.025]], np.float32)), Params())
    made["infinite, huge, subnormal, beyond the range"] = ((wild, half), Params())
    made["an infinite reciprocal, a subnormal one"] = (
        (np.vstack([wild, wild]), np.array([[1e-45], [3e38]], np.float32)),
        Params(),
    )
    scales = np.array([[0.1, 0.7, 1e-30], [3.0, 1e30, 0.3]], np.float32)
    made["groups of three, two rows"] = ((np.stack([ties[0, :9] * 3, ties[0, 8:17] * 7]), scales), Params(group_size=3))
    return made


OP = register(
    Op(
        name="quantize.reciprocal",
        version=1,
        cites="google/XNNPACK src/f32-qs8-vcvt; "
        "google-ai-edge/LiteRT tflite/kernels/internal/optimized/optimized_ops.h (AffineQuantize)",
        inputs=(
            Port("x", "m n", float32),
            Port("scale", "m g", float32, numbers="positive"),
            Port("zero_point", "m g", IntType(17), fill=0),
        ),
        outputs=(Port("q", "m n", lambda p: p.dtype),),
        params=Params,
        spec=spec,
        program=Elementwise(element),
        sizes={
            "g": Size(
                derived=lambda p, size: -(-size["n"] // p.group_size), says="one scale a group_size elements of n"
            )
        },
        examples=examples,
    )
)

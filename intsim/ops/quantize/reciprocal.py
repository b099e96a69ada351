"""Quantize float32 by a product with the reciprocal of the scale: PyTorch, XNNPACK, LiteRT's optimised QUANTIZE.

    inverse = f32(1 / scale)
    q = saturate(round(f32(x * inverse)) + zero_point)            zero_point_added = LAST
    q = saturate(round(f32(f32(x * inverse) + zero_point)))       FIRST
    q = saturate(round(f32(x * inverse + zero_point)))            FUSED: one rounding to float32

PyTorch's x86 kernels hold all three: fake_quantize and the decomposed operators add last,
quantize_per_channel first, quantize_per_tensor fuses; XNNPACK and LiteRT add last. One scale for each
group of ``group_size`` elements along a row. A reciprocal that overflows (a scale below 2**-128) is
infinite, and 0 times it counts as 0: published kernels convert the NaN that IEEE 754 gives there.

Differs from ``affine`` and ``qonnx``, which divide: beside a tie the product may fall on its other
side. Kernels compute the IEEE steps in integers.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum, unique
from typing import Any

import numpy as np

from intsim.compiling import Int, portable
from intsim.numerics import IntType, Rounding, float32, unlimited
from intsim.op import Elementwise, Op, Port, Size
from intsim.ops.quantize import RESULTS
from intsim.params import Params as Base, int_type, integer, rule
from intsim.registry import register
from intsim.scalar.ieee import divide32, multiply32, pack32, sign_of, sum32, to_integer, unpack32
from intsim.scalar.rounding import saturate
from intsim.spec import ieee, rounding


@unique
class ZeroPoint(IntEnum):
    """When the zero point is added."""

    LAST = 0  #: to the integer
    FIRST = 1  #: to the float32 product, before the rounding to an integer
    FUSED = 2  #: to the exact product, in a fused multiply-add


@dataclass(frozen=True, slots=True, eq=False)
class Params(Base):
    group_size: int = integer(1, 2**31 - 1, default=2**31 - 1)
    dtype: IntType = int_type(*RESULTS, unlimited, role="result")
    rounding: Rounding = rule(Rounding, Rounding.TIES_TO_EVEN)
    zero_point_added: ZeroPoint = rule(ZeroPoint, ZeroPoint.LAST)


def spec(x: Any, scale: Any, zero_point: Any, p: Params) -> Any:
    group = np.arange(x.shape[-1]) // p.group_size
    z = zero_point[:, group]
    with np.errstate(over="ignore", under="ignore", invalid="ignore"):  # an infinite product saturates
        inverse = (np.float32(1) / scale)[:, group]
        inverse = np.where(x == 0, np.float32(1), inverse)  # 0 times an infinite one is 0 here
        if p.zero_point_added == ZeroPoint.FUSED:
            total = ieee.fused_multiply_add32(x, inverse, ieee.float32(z))
        elif p.zero_point_added == ZeroPoint.FIRST:
            total = x * inverse + ieee.float32(z)
        else:
            return rounding.saturate(ieee.to_integer(x * inverse, p.rounding) + z, p.dtype)
    return rounding.saturate(ieee.to_integer(total, p.rounding), p.dtype)


@portable
def element(i: Int, j: Int, x: Any, p: Any) -> Int:
    g = j // p.group_size
    bits, z = np.int64(x.x[i, j]), np.int64(x.zero_point[i, g])
    am, ae = unpack32(bits)
    sm, se = unpack32(np.int64(x.scale[i, g]))
    im, ie = divide32(2**23, -23, sm, se)
    im, ie = unpack32(pack32(im, ie))  # infinite for a scale below 2**-128
    if p.zero_point_added == ZeroPoint.FUSED:
        m, e = sum32(sign_of(bits) * am * im, ae + ie, z, 0)
        return saturate(to_integer(m, e, p.rounding), p.dtype)
    m, e = multiply32(am, ae, im, ie)
    m *= sign_of(bits)
    if p.zero_point_added == ZeroPoint.FIRST:
        m, e = sum32(m, e, z, 0)
        return saturate(to_integer(m, e, p.rounding), p.dtype)
    return saturate(to_integer(m, e, p.rounding) + z, p.dtype)


def examples() -> dict[str, Any]:
    ties = np.arange(-12, 13, dtype=np.float32)[None] * np.float32(0.25)
    half, odd = np.array([[0.5]], np.float32), np.array([[-5]], np.int32)
    wild = np.array([[np.inf, -np.inf, 3e38, -3e38, 1e-45, -0.0, 0.0, 64.25, -64.25]], np.float32)
    made: dict[str, Any] = {f"ties, {r.name}": ((ties, half), Params(rounding=r)) for r in Rounding}
    # Products beside ties: FIRST rounds some of the sums onto the ties
    beside = (np.arange(-70, 70) + 0.5).astype(np.float32)[None] * np.float32(0.1)
    beside = np.concatenate([beside, np.nextafter(beside, np.float32(9)), np.nextafter(beside, np.float32(-9))], axis=1)
    tenth, three = np.array([[0.1]], np.float32), np.array([[3]], np.int32)
    for z in ZeroPoint:
        made[f"ties with an odd zero point, {z.name}"] = ((ties, half, odd), Params(zero_point_added=z))
        made[f"beside ties, {z.name}"] = ((beside, tenth, three), Params(zero_point_added=z))
        made[f"infinite, huge, subnormal, beyond the range, {z.name}"] = ((wild, half), Params(zero_point_added=z))
        far = np.array([[-(2**16)], [2**16 - 1]], np.int32)
        tiny = np.array([[1e-42], [1e30]], np.float32)
        arrays = (np.repeat(wild, 2, axis=0), tiny, far)
        made[f"an infinite reciprocal, a subnormal one, {z.name}"] = (arrays, Params(zero_point_added=z))
    scales = np.array([[0.1, 0.7, 1e-30], [3.0, 1e30, 0.3]], np.float32)
    made["groups of three, two rows"] = ((np.stack([ties[0, :9] * 3, ties[0, 8:17] * 7]), scales), Params(group_size=3))
    return made


OP = register(
    Op(
        name="quantize.reciprocal",
        version=1,
        cites="pytorch/pytorch aten/src/ATen/native/quantized; pytorch/FBGEMM include/fbgemm/QuantUtils.h; "
        "google/XNNPACK src/f32-qs8-vcvt; "
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

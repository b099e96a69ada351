"""Quantize float32 with the zero point inside the rounding: QONNX Quant, Brevitas IntQuant.

    q = saturate(round(f32(f32(x / scale) + zero_point)))

``below_zero``: TIES_TO_POSITIVE gives sums below 0 that rule whatever ``rounding`` is; with
TIES_TO_EVEN above 0 this is Brevitas's dpu_round. QONNX clips before it rounds, Brevitas after: with
whole bounds the results are equal. One scale for each group of ``group_size`` elements along a row.

Both systems hand out f32(f32(q - zero_point) * scale); q is what they compute on the way. (Where
their q is 0, the sign of that float may be negative.)

Differs from ``affine``, which adds the zero point to the rounded quotient: with an odd zero point
ties go elsewhere, and the sum rounds to float32 once more. Kernels compute the IEEE steps in integers.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum, unique
from typing import Any

import numpy as np

from intsim.compiling import Int, portable
from intsim.numerics import IntType, Rounding, float32, uint8, unlimited
from intsim.op import Elementwise, Op, Port, Size
from intsim.ops.quantize import RESULTS
from intsim.params import Params as Base, int_type, integer, rule
from intsim.registry import register
from intsim.scalar.ieee import divide32, sign_of, sum32, to_integer, unpack32
from intsim.scalar.rounding import saturate
from intsim.spec import ieee, rounding

NARROW: tuple[IntType, ...] = (
    IntType(4, narrow_range=True),
    IntType(2),
    IntType(2, narrow_range=True),
    IntType(2, False),
)


@unique
class BelowZero(IntEnum):
    """How sums below 0 are rounded."""

    SAME = 0  #: by ``rounding``, as those above
    TIES_TO_POSITIVE = 1


@dataclass(frozen=True, slots=True, eq=False)
class Params(Base):
    group_size: int = integer(1, 2**31 - 1, default=2**31 - 1)
    dtype: IntType = int_type(*RESULTS, *NARROW, unlimited, role="result")
    rounding: Rounding = rule(Rounding, Rounding.TIES_TO_EVEN)
    below_zero: BelowZero = rule(BelowZero, BelowZero.SAME)


def spec(x: Any, scale: Any, zero_point: Any, p: Params) -> Any:
    group = np.arange(x.shape[-1]) // p.group_size
    with np.errstate(over="ignore", under="ignore"):  # an infinite quotient saturates
        y = x / scale[:, group] + ieee.float32(zero_point[:, group])
    whole = ieee.to_integer(y, p.rounding)
    if p.below_zero == BelowZero.TIES_TO_POSITIVE:
        whole = np.where(y < 0, ieee.to_integer(y, Rounding.TIES_TO_POSITIVE), whole)
    return rounding.saturate(whole, p.dtype)


@portable
def element(i: Int, j: Int, x: Any, p: Any) -> Int:
    g = j // p.group_size
    bits = np.int64(x.x[i, j])
    am, ae = unpack32(bits)
    sm, se = unpack32(np.int64(x.scale[i, g]))
    m, e = divide32(am, ae, sm, se)
    m, e = sum32(sign_of(bits) * m, e, np.int64(x.zero_point[i, g]), 0)
    rule = p.rounding
    if m < 0 and p.below_zero == BelowZero.TIES_TO_POSITIVE:
        rule = np.int64(Rounding.TIES_TO_POSITIVE)
    return saturate(to_integer(m, e, rule), p.dtype)


def examples() -> dict[str, Any]:
    ties = np.arange(-12, 13, dtype=np.float32)[None] * np.float32(0.25)
    half, odd = np.array([[0.5]], np.float32), np.array([[-5]], np.int32)
    wild = np.array([[np.inf, -np.inf, 3e38, -3e38, 1e-45, -0.0, 0.0, 64.25, -64.25]], np.float32)
    made: dict[str, Any] = {}
    for r in Rounding:
        made[f"ties, {r.name}"] = ((ties, half), Params(rounding=r))
        p = Params(rounding=r, below_zero=BelowZero.TIES_TO_POSITIVE)
        made[f"ties with an odd zero point, {r.name}, TIES_TO_POSITIVE below zero"] = ((ties, half, odd), p)
    beside = (np.arange(-30, 31) + 0.5).astype(np.float32)[None] * np.float32(0.1)
    hundred = np.array([[100]], np.int32)
    made["beside ties: the sum rounds onto them"] = (
        (np.nextafter(beside, np.float32(9)), np.array([[0.1]], np.float32), hundred),
        Params(dtype=uint8),
    )
    made["infinite, huge, subnormal, beyond the range"] = ((wild, half), Params())
    far = np.array([[-(2**16)], [2**16 - 1]], np.int32)
    sizes = np.array([[1e-42], [1e30]], np.float32)
    made["the farthest zero points, an infinite quotient"] = ((np.repeat(wild, 2, axis=0), sizes, far), Params())
    scales = np.array([[0.1, 0.7, 1e-30], [3.0, 1e30, 0.3]], np.float32)
    made["groups of three, two rows"] = ((np.stack([ties[0, :9] * 3, ties[0, 8:17] * 7]), scales), Params(group_size=3))
    return made


OP = register(
    Op(
        name="quantize.qonnx",
        version=1,
        cites="fastmachinelearning/qonnx src/qonnx/custom_op/general/intquant.py; Xilinx/brevitas "
        "src/brevitas/core/quant/int_base.py and function/ops.py",
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

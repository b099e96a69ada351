"""Requantize by a power of two: a rounded right shift, for scales that are powers of two.

    q = saturate(round(acc / 2**shift) + zero_point)

Used by accelerators without a multiplier at the output (FQ-ViT's power-of-two factors, the shift of
scale propagation); TOSA's ARITHMETIC_RIGHT_SHIFT rounds with TIES_TO_POSITIVE.

Differs from ``single_rounding``: no multiplier.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from intsim.compiling import Int, portable
from intsim.numerics import IntType, Rounding, int32
from intsim.op import Elementwise, Op, Oracle, Port
from intsim.ops.requantize import RESULTS
from intsim.params import Params as Base, int_type, integer, rule
from intsim.registry import register
from intsim.scalar.rounding import saturate, shift_right
from intsim.spec import rounding


@dataclass(frozen=True, slots=True, eq=False)
class Params(Base):
    shift: Any = integer(0, 62, per="n")
    zero_point: Any = integer(-(2**31), 2**31 - 1, per="n", default=0)
    dtype: IntType = int_type(*RESULTS, role="result")
    rounding: Rounding = rule(Rounding, Rounding.TIES_TO_POSITIVE)

    @classmethod
    def from_scale(cls, scale: float, **fields: Any) -> Params:
        """The parameters for the power of two nearest to ``scale``, a positive float up to 1."""
        if not 0 < scale <= 1:
            raise ValueError(f"scale is in (0, 1], got {scale}")
        return cls(round(-math.log2(scale)), **fields)


def spec(acc: Any, p: Params) -> Any:
    return rounding.saturate(rounding.shift_right(acc, p.shift, p.rounding) + p.zero_point, p.dtype)


@portable
def element(i: Int, j: Int, x: Any, p: Any) -> Int:
    return saturate(shift_right(np.int64(x.acc[i, j]), p.shift[j], p.rounding) + p.zero_point[j], p.dtype)


def examples() -> dict[str, Any]:
    ties = np.array([[-25, -24, -23, -9, -8, -7, -1, 0, 1, 7, 8, 9, 23, 24, 25, 2**31 - 1, -(2**31)]], np.int32)
    return {f"ties at 1/16, {r.name}": ((ties,), Params(4, rounding=r)) for r in Rounding}


OP = register(
    Op(
        name="requantize.power_of_two",
        version=1,
        cites="Lin et al. 2022 (FQ-ViT, arXiv 2111.13824); TOSA 1.0 ARITHMETIC_RIGHT_SHIFT",
        inputs=(Port("acc", "m n", int32),),
        outputs=(Port("q", "m n", lambda p: p.dtype),),
        params=Params,
        spec=spec,
        program=Elementwise(element),
        examples=examples,
        oracle=Oracle(
            params=lambda scale: Params.from_scale(scale, dtype=int32),
            scales=(1e-6, 0.9),
            real=lambda acc, p: acc / 2.0 ** p.shift[0],
            value=lambda q, p: q,
            bound=lambda p: 0.5,
        ),
    )
)

"""Integer-only GELU with I-BERT's quadratic on int8, as Deeploy's C kernel computes it: GELU_s8_s32.

    v = x + offset;   L = sign(v) * (one - (min(|v|, -b) + b)**2)
    y = v * ((one + L) >> 1)

b and one are -1.769 and 1 / 0.2888 on the grid of v / sqrt(2); the kernel takes them as int8 and int16,
so the scale is at least 0.0196. real = y * scale / one.

Differs from ``gelu_ibert``: positive scales, no shift of the erf, and the half of erf + 1 is rounded
down here instead of left to the scale.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from intsim.compiling import Int, portable
from intsim.numerics import int8, int32
from intsim.op import Elementwise, Op, Oracle, Port
from intsim.ops.activation import real_gelu
from intsim.params import Params as Base, integer, real
from intsim.registry import register

B, ONE = -1.769, 1 / 0.2888


@dataclass(frozen=True, slots=True, eq=False)
class Params(Base):
    b: int = integer(-(2**7), 0)
    one: int = integer(-(2**15), 2**15 - 1)
    offset: int = integer(-(2**14), 2**14, default=0)
    scale: float = real()  # of the input; only the oracle reads it

    @classmethod
    def from_scale(cls, scale: float, **fields: Any) -> Params:
        """The parameters for inputs ``real = scale * (x + offset)``; scale: a float in [0.0196, 1]."""
        if not 0.0196 <= scale <= 1:
            raise ValueError(f"activation.gelu_deeploy: scale is in [0.0196, 1], got {scale}")
        erf = scale / math.sqrt(2)
        return cls(round(B / erf), round(ONE / erf**2), scale=scale, **fields)


def spec(x: Any, p: Params) -> Any:
    v = x + p.offset
    sign = np.where(v > 0, 1, np.where(v < 0, -1, 0))
    erf = sign * (p.one - (np.minimum(abs(v), -p.b) + p.b) ** 2)
    return v * ((p.one + erf) // 2)


@portable
def element(i: Int, j: Int, x: Any, p: Any) -> Int:
    v = np.int64(x.x[i, j]) + p.offset
    inside = min(abs(v), -p.b) + p.b
    erf = p.one - inside * inside
    erf = -erf if v < 0 else (erf if v > 0 else 0)
    # |v| <= 2**14 + 2**7 and |one + erf| < 2**15 + 2**15 + 2**14: the product stays an int32
    return v * ((p.one + erf) >> 1)


def examples() -> dict[str, Any]:
    x = np.array([[-128, -127, -91, -90, -1, 0, 1, 2, 90, 91, 126, 127]], np.int8)
    return {
        "scale 0.0196: b is the lowest int8": ((x,), Params.from_scale(0.0196)),
        "scale 0.05": ((x,), Params.from_scale(0.05)),
        "scale 1": ((x,), Params.from_scale(1.0)),
        "an odd sum, halved: the floor of negatives": ((x,), Params(-5, 2)),
        "unsigned inputs: offset 128": ((x,), Params.from_scale(0.03, offset=128)),
        "the lowest of everything": ((x,), Params(-128, -(2**15), offset=-(2**14))),
    }


OP = register(
    Op(
        name="activation.gelu_deeploy",
        version=1,
        cites="pulp-platform/Deeploy TargetLibraries/Generic/src/GELU_s8.c GELU_s8_s32; "
        "Kim et al. 2021 (arXiv 2101.01321), Algorithm 1",
        inputs=(Port("x", "m n", int8),),
        outputs=(Port("y", "m n", int32),),
        params=Params,
        spec=spec,
        program=Elementwise(element),
        examples=examples,
        oracle=Oracle(
            params=Params.from_scale,
            scales=(0.0196, 0.3),
            real=lambda x, p: real_gelu(x * p.scale),
            value=lambda y, p: y * p.scale / p.one,
            # The paper's erf is within 0.02 where it counts; b and one are rounded to the grid, and half of
            # erf + 1 is rounded down to 1 / one, times |x| <= 128 * scale
            bound=lambda p: 0.03 + p.scale**2 + 128 * p.scale / p.one,
        ),
    )
)

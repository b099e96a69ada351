"""Integer-only GELU with I-BERT's quadratic on int8 and constants of 16 bits: the ITA accelerator's model.

    v = max(x, -127);   erf = sign(v) * ((min(|v|, -b) + b)**2 + c)
    y = v * (erf + one)

b, c and one are negative: -1.769, and twice 1 / -0.2888, on the grid of v / sqrt(2). The scale of the
result is negative too (``out_scale``).

Differs from ``gelu_ibert``: no shift of the erf, constants to the nearest instead of the floor, and
-128 counts as -127. From ``gelu_deeploy``: negative scales, and nothing is halved.
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

A, B = -0.2888, -1.769
NUDGE = 2.0**-23  # of float32: the model's rounding takes what is so little below a half for one


def _nearest(value: float) -> int:
    return math.floor(value + 0.5 + NUDGE)


@dataclass(frozen=True, slots=True, eq=False)
class Params(Base):
    b: int = integer(-181, 0)  # its square is an int16 in the model
    c: int = integer(-(2**15), 2**15 - 1)
    one: int = integer(-(2**15), 2**15 - 1)
    scale: float = real()  # of the input; only the host reads it

    @classmethod
    def from_scale(cls, scale: float) -> Params:
        """The parameters for inputs ``real = scale * x``; scale: a float in [0.0146, 1]."""
        if not 0.0146 <= scale <= 1:
            raise ValueError(f"activation.gelu_ita: scale is in [0.0146, 1], got {scale}")
        erf = scale / math.sqrt(2)
        one = _nearest(1 / (A * erf**2))
        return cls(_nearest(B / erf), one, one, scale=scale)

    @property
    def out_scale(self) -> float:
        """The scale of the result: negative."""
        return self.scale * (self.scale / math.sqrt(2)) ** 2 * A / 2


def spec(x: Any, p: Params) -> Any:
    v = np.maximum(x, -127)
    sign = np.where(v > 0, 1, np.where(v < 0, -1, 0))
    return v * (sign * ((np.minimum(abs(v), -p.b) + p.b) ** 2 + p.c) + p.one)


@portable
def element(i: Int, j: Int, x: Any, p: Any) -> Int:
    v = max(np.int64(x.x[i, j]), np.int64(-127))
    inside = min(abs(v), -p.b) + p.b
    erf = inside * inside + p.c
    erf = -erf if v < 0 else (erf if v > 0 else 0)
    # |v| <= 127, and |erf + one| < 2**17: the product stays an int32
    return v * (erf + p.one)


def examples() -> dict[str, Any]:
    x = np.array([[-128, -127, -126, -91, -90, -1, 0, 1, 2, 90, 91, 126, 127]], np.int8)
    return {
        "scale 0.0146: constants of nearly 16 bits; -128 is -127": ((x,), Params.from_scale(0.0146)),
        "scale 0.05": ((x,), Params.from_scale(0.05)),
        "scale 1": ((x,), Params.from_scale(1.0)),
        "an erf that is not 0 where b is": ((x,), Params(0, 5, -7)),
        "the lowest of everything": ((x,), Params(-181, -(2**15), -(2**15))),
        "the highest of everything": ((x,), Params(-181, 2**15 - 1, 2**15 - 1)),
    }


OP = register(
    Op(
        name="activation.gelu_ita",
        version=1,
        cites="pulp-platform/ITA PyITA/gelu.py i_gelu; Kim et al. 2021 (arXiv 2101.01321), Algorithm 1",
        inputs=(Port("x", "m n", int8),),
        outputs=(Port("y", "m n", int32),),
        params=Params,
        spec=spec,
        program=Elementwise(element),
        examples=examples,
        oracle=Oracle(
            params=Params.from_scale,
            scales=(0.0146, 0.3),
            real=lambda x, p: real_gelu(np.maximum(x, -127) * p.scale),
            value=lambda y, p: y * p.out_scale,
            # The paper's erf is within 0.02 where it counts; b, c and one are rounded to the grid, which moves
            # the sum of erf and one by a unit, times |x| <= 127 * scale
            bound=lambda p: 0.03 + p.scale**2 + 128 * abs(p.out_scale),
        ),
    )
)

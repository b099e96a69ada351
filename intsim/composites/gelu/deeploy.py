"""GELU of int8 to int8, as Deeploy's fused C kernel computes it: RQGELU_s8_s8.

    q = requantize(gelu(x))        activation.gelu_deeploy, then requantize.multiply_add_shift

Differs from ``activation.table``: no table, and I-BERT's quadratic instead of the function itself.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from intsim.numerics import Rounding, int8
from intsim.op import Composition, Op, Port
from intsim.ops.activation import gelu_deeploy as gelu
from intsim.ops.requantize import multiply_add_shift as requantize
from intsim.params import Params as Base, stage
from intsim.registry import register


@dataclass(frozen=True, slots=True, eq=False)
class Params(Base):
    gelu: gelu.Params = stage(gelu.Params)
    requantize: requantize.Params = stage(requantize.Params, offset=0, rounding=Rounding.TIES_TO_POSITIVE)


def wire(run: Any, x: Any, p: Params) -> Any:
    return run("requantize.multiply_add_shift", run("activation.gelu_deeploy", x, p=p.gelu), p=p.requantize)


def examples() -> dict[str, Any]:
    x = np.array([[-128, -127, -91, -90, -1, 0, 1, 2, 90, 91, 126, 127]], np.int8)
    wide = gelu.Params.from_scale(0.0196)
    return {
        "int8 results": ((x,), Params(wide, requantize.Params(27, 0, 18))),
        "ties, a bias before the shift and an odd zero point": (
            (x,),
            Params(gelu.Params(-5, 2), requantize.Params(1, 3, 2, zero_point=-7)),
        ),
        "a coarse scale, an offset": (
            (x,),
            Params(gelu.Params.from_scale(0.5, offset=128), requantize.Params(9, -5, 3, zero_point=-128)),
        ),
        "the product wraps": ((x,), Params(wide, requantize.Params(2**20, 1, 24))),
    }


OP = register(
    Op(
        name="gelu.deeploy",
        version=1,
        cites="pulp-platform/Deeploy TargetLibraries/Generic/src/RQGELU_s8.c RQGELU_s8_s8",
        inputs=(Port("x", "m n", int8),),
        outputs=(Port("q", "m n", lambda p: p.requantize.dtype),),
        params=Params,
        spec=wire,
        program=Composition(wire),
        examples=examples,
    )
)

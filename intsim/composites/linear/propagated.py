"""A linear layer with Scale Propagation: int8 in, int32 out, a scale a row.

    z, scale = propagate.bias(matmul.integer(x, weight))

Whoever takes the product rescales it (``propagate.rescale``, with the activation). Without a bias it
is an output layer, whose logits can be compared along a row.

Differs from ``qlinear_matmul``: no calibrated scale of the result.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from intsim.numerics import Overflow, int8, int32
from intsim.op import Composition, Op, Port, Size
from intsim.ops.matmul import integer as matmul
from intsim.ops.propagate import MADE_SCALE, ROUNDINGS, bias as propagate, scale_ports
from intsim.params import Params as Base, stage
from intsim.registry import register

LONGEST = 2**16 - 1  # products of two int8 of which the sum stays below 2**30


@dataclass(frozen=True, slots=True, eq=False)
class Params(Base):
    matmul: matmul.Params = stage(
        matmul.Params, a=int8, b=int8, a_zero_point=0, b_zero_point=0, acc=int32, overflow=Overflow.WRAP
    )
    bias: propagate.Params = stage(propagate.Params)

    @classmethod
    def from_scales(cls, weight: Any, bias: Any = None, **fields: Any) -> Params:
        """The parameters for weights with these scales and a bias of real numbers: see ``propagate.bias``."""
        return cls(matmul.Params(), propagate.Params.from_scales(weight, bias, **fields))


def wire(run: Any, x: Any, mantissa: Any, exponent: Any, weight: Any, p: Params) -> Any:
    return run("propagate.bias", run("matmul.integer", x, weight, p=p.matmul), mantissa, exponent, p=p.bias)


def examples() -> dict[str, Any]:
    x = np.array([[-128, 127, 1], [127, 127, 127], [5, -3, 9], [0, 0, 0]], np.int8)
    scales = np.array([2**30, 2**31 - 1, 3 * 2**29, 2**30], np.int32), np.array([-30, -26, -2048, 2047], np.int16)
    weight = np.array([[127, -127, 3], [1, 0, -1]], np.int8)
    of_weight = [2**30, 3 * 2**29], [-24, -25]
    made: dict[str, Any] = {
        f"a scale a channel, {r.name}": ((x, *scales, weight), Params.from_scales(of_weight, [0.7, -4.0], rounding=r))
        for r in ROUNDINGS
    }
    made["one scale, no bias"] = ((x, *scales, weight), Params.from_scales(([2**30], [-25])))
    return made


OP = register(
    Op(
        name="linear.propagated",
        version=1,
        cites="Lin et al. 2020 (arXiv 2009.08034), section 3",
        inputs=(Port("x", "m k", int8), *scale_ports("m"), Port("weight", "n k", int8)),
        outputs=(Port("z", "m n", int32), *MADE_SCALE),
        params=Params,
        spec=wire,
        program=Composition(wire),
        sizes={"k": Size(1, LONGEST), "n": Size(1)},
        examples=examples,
    )
)

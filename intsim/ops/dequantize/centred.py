"""A quantized tensor without its zero point: integers that stand for real values in units of the scale.

    acc = q - zero_point

What precedes a requantization of a tensor that is already quantized. Differs from ``affine``: no scale, no float.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from intsim.compiling import Int, portable
from intsim.numerics import IntType, int8, int16, int32, uint8, uint16
from intsim.op import Elementwise, Op, Port
from intsim.params import Params as Base, int_type, integer
from intsim.registry import register


@dataclass(frozen=True, slots=True, eq=False)
class Params(Base):
    zero_point: int = integer(-(2**15), 2**16 - 1, inside="q", default=0)
    q: IntType = int_type(int8, uint8, int16, uint16, role="operand")


def spec(q: Any, p: Params) -> Any:
    return q - p.zero_point


@portable
def element(i: Int, j: Int, x: Any, p: Any) -> Int:
    return np.int64(x.q[i, j]) - p.zero_point


def examples() -> dict[str, Any]:
    made: dict[str, Any] = {}
    for t in (int8, uint8, int16, uint16):
        q = np.array([[t.qmin, t.qmin + 1, (t.qmin + t.qmax) // 2, t.qmax - 1, t.qmax]], t.storage)
        for zero_point in (t.qmin, t.qmin + 77, t.qmax):
            made[f"{t}, zero point {zero_point}"] = ((q,), Params(zero_point, t))
    return made


OP = register(
    Op(
        name="dequantize.centred",
        version=1,
        cites="Jacob et al. 2018 (arXiv 1712.05877), eq. (1), without the scale; TOSA 1.0 RESCALE (input_zp)",
        inputs=(Port("q", "m n", lambda p: p.q),),
        outputs=(Port("acc", "m n", int32),),
        params=Params,
        spec=spec,
        program=Elementwise(element),
        examples=examples,
    )
)

"""Left shift, each element by an amount of its own.

    q = fit(x * 2**shift)        overflow WRAP: bits that leave the type are lost

WRAP is TOSA's LOGICAL_LEFT_SHIFT and C's shift of the unsigned pattern; SATURATE is NEON's SQSHL.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from intsim.compiling import Int, portable
from intsim.numerics import IntType, Overflow, int8, int16, int32
from intsim.op import Elementwise, Op, Port
from intsim.ops.bits import amount
from intsim.params import Params as Base, int_type, rule
from intsim.registry import register
from intsim.scalar.rounding import fit
from intsim.spec import rounding


@dataclass(frozen=True, slots=True, eq=False)
class Params(Base):
    x: IntType = int_type(int32, int16, int8, role="operand")
    overflow: Overflow = rule(Overflow, Overflow.WRAP)


def spec(x: Any, shift: Any, p: Params) -> Any:
    return rounding.fit(x << shift, p.x, p.overflow)


@portable
def element(i: Int, j: Int, x: Any, p: Any) -> Int:
    # |x| <= 2**31 and shift <= 31: the product is at most 2**62.
    return fit(np.int64(x.x[i, j]) << np.int64(x.shift[i, j]), p.x, p.overflow)


def examples() -> dict[str, Any]:
    made: dict[str, Any] = {}
    for t in (int32, int16, int8):
        for overflow in Overflow:
            x = np.tile(np.array([[t.qmin, -3, -1, 0, 1, t.qmax]], t.storage), (1, 4))
            shift = np.repeat(np.array([[0, 1, t.bits - 2, t.bits - 1]], np.uint8), 6, axis=1)
            made[f"{t}, {overflow.name}"] = ((x, shift), Params(t, overflow))
    return made


OP = register(
    Op(
        name="bits.left_shift",
        version=1,
        cites="TOSA 1.0 LOGICAL_LEFT_SHIFT; Arm Architecture Reference Manual, SQSHL",
        inputs=(Port("x", "m n", lambda p: p.x), Port("shift", "m n", lambda p: amount(p.x))),
        outputs=(Port("q", "m n", lambda p: p.x),),
        params=Params,
        spec=spec,
        program=Elementwise(element),
        examples=examples,
    )
)

"""Right shift that fills with zeros, each element by an amount of its own.

    q = (x mod 2**bits) >> shift        as a value of x's type

Differs from ``arithmetic_right_shift``: a negative x becomes a large positive one, except by 0.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from intsim.compiling import Int, portable
from intsim.numerics import IntType, int8, int16, int32
from intsim.op import Elementwise, Op, Port
from intsim.ops.bits import amount
from intsim.params import Params as Base, int_type
from intsim.registry import register
from intsim.scalar.rounding import wrap
from intsim.spec import rounding


@dataclass(frozen=True, slots=True, eq=False)
class Params(Base):
    x: IntType = int_type(int32, int16, int8, role="operand")


def spec(x: Any, shift: Any, p: Params) -> Any:
    return rounding.wrap(x % (1 << p.x.bits) >> shift, p.x)


@portable
def element(i: Int, j: Int, x: Any, p: Any) -> Int:
    pattern = np.int64(x.x[i, j]) & ((1 << p.x.bits) - 1)
    return wrap(pattern >> np.int64(x.shift[i, j]), p.x)


def examples() -> dict[str, Any]:
    made: dict[str, Any] = {}
    for t in (int32, int16, int8):
        x = np.tile(np.array([[t.qmin, -3, -1, 0, 1, t.qmax]], t.storage), (1, 3))
        shift = np.repeat(np.array([[0, 1, t.bits - 1]], np.uint8), 6, axis=1)
        made[f"{t}: by nothing, by one, by all but one bit"] = ((x, shift), Params(t))
    return made


OP = register(
    Op(
        name="bits.logical_right_shift",
        version=1,
        cites="TOSA 1.0 LOGICAL_RIGHT_SHIFT",
        inputs=(Port("x", "m n", lambda p: p.x), Port("shift", "m n", lambda p: amount(p.x))),
        outputs=(Port("q", "m n", lambda p: p.x),),
        params=Params,
        spec=spec,
        program=Elementwise(element),
        examples=examples,
    )
)

"""How many zeros stand before the first one in the bits of each element; all bits for 0, none for a negative.

q = bits - bit_length(x mod 2**bits)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from intsim.compiling import Int, portable
from intsim.numerics import IntType, int8, int16, int32
from intsim.op import Elementwise, Op, Port
from intsim.params import Params as Base, int_type
from intsim.registry import register
from intsim.scalar.functions import bit_length
from intsim.spec import functions


@dataclass(frozen=True, slots=True, eq=False)
class Params(Base):
    x: IntType = int_type(int32, int16, int8, role="operand")


def spec(x: Any, p: Params) -> Any:
    return p.x.bits - functions.bit_length(x % (1 << p.x.bits))


@portable
def element(i: Int, j: Int, x: Any, p: Any) -> Int:
    value = np.int64(x.x[i, j])
    return 0 if value < 0 else p.x.bits - bit_length(value)


def examples() -> dict[str, Any]:
    every = np.array([[0, *(v for k in range(31) for v in (2**k, 2**k - 1)), 2**31 - 1]], np.int64)
    made: dict[str, Any] = {}
    for t in (int32, int16, int8):
        x = np.concatenate([every[every <= t.qmax], [-1, t.qmin, t.qmin + 1]])[None].astype(t.storage)
        made[f"{t}: each power of two, one below it, negatives"] = ((x,), Params(t))
    return made


OP = register(
    Op(
        name="bits.leading_zeros",
        version=1,
        cites="TOSA 1.0 CLZ (int32)",
        inputs=(Port("x", "m n", lambda p: p.x),),
        outputs=(Port("q", "m n", lambda p: p.x),),
        params=Params,
        spec=spec,
        program=Elementwise(element),
        examples=examples,
    )
)

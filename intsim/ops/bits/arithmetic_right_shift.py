"""Right shift that keeps the sign, each element by an amount of its own, rounded.

    q = round(x / 2**shift)

TOWARD_NEGATIVE is the plain shift, C's ``>>``. TIES_TO_POSITIVE adds the last bit shifted out: TOSA's
ARITHMETIC_RIGHT_SHIFT with ``round``, NEON's and RISC-V's rounding shifts.

Differs from ``logical_right_shift``, which fills with zeros; from ``requantize.power_of_two``: one amount an
element, the type stays, and nothing saturates.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from intsim.compiling import Int, portable
from intsim.numerics import IntType, Rounding, int8, int16, int32
from intsim.op import Elementwise, Op, Port
from intsim.ops.bits import amount
from intsim.params import Params as Base, int_type, rule
from intsim.registry import register
from intsim.scalar.rounding import shift_right
from intsim.spec import rounding


@dataclass(frozen=True, slots=True, eq=False)
class Params(Base):
    x: IntType = int_type(int32, int16, int8, role="operand")
    rounding: Rounding = rule(Rounding, Rounding.TOWARD_NEGATIVE)


def spec(x: Any, shift: Any, p: Params) -> Any:
    return rounding.shift_right(x, shift, p.rounding)


@portable
def element(i: Int, j: Int, x: Any, p: Any) -> Int:
    return shift_right(np.int64(x.x[i, j]), np.int64(x.shift[i, j]), p.rounding)


def examples() -> dict[str, Any]:
    x = np.array([[-(2**31), -25, -24, -8, -1, 0, 1, 8, 24, 25, 2**31 - 1]], np.int32)
    shift = np.full(x.shape, 4, np.uint8)
    ends = (np.tile(x[:, [0, 4, 6, 10]], (1, 3)), np.repeat(np.array([[0, 1, 31]], np.uint8), 4, axis=1))
    made: dict[str, Any] = {f"ties at 1/16, {r.name}": ((x, shift), Params(rounding=r)) for r in Rounding}
    made["by nothing, by one, by all but the sign"] = (ends, Params(rounding=Rounding.TIES_TO_POSITIVE))
    for t in (int16, int8):
        narrow = (np.array([[t.qmin, t.qmin, -3, t.qmax, t.qmax]], t.storage), np.array([[0, 7, 1, 7, 1]], np.uint8))
        made[f"{t}"] = (narrow, Params(t, Rounding.TIES_TO_POSITIVE))
    return made


OP = register(
    Op(
        name="bits.arithmetic_right_shift",
        version=1,
        cites="TOSA 1.0 ARITHMETIC_RIGHT_SHIFT; RISC-V V extension 1.0, vssra (rnu)",
        inputs=(Port("x", "m n", lambda p: p.x), Port("shift", "m n", lambda p: amount(p.x))),
        outputs=(Port("q", "m n", lambda p: p.x),),
        params=Params,
        spec=spec,
        program=Elementwise(element),
        examples=examples,
    )
)

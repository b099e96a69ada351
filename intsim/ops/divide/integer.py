"""Quotient of two plain integers, element by element, rounded.

    q = wrap(round(a / b));        -1 where b is 0

TOWARD_ZERO is C, TOSA's INTDIV and ONNX Div; TOWARD_NEGATIVE is Python's ``//``. The one quotient that its type
cannot hold, qmin / -1, wraps to qmin. Both special values are RISC-V's; C and TOSA leave them undefined.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from intsim.compiling import Int, portable
from intsim.numerics import IntType, Rounding, int8, int16, int32
from intsim.op import Elementwise, Op, Port
from intsim.params import Params as Base, int_type, rule
from intsim.registry import register
from intsim.scalar.rounding import divide, wrap
from intsim.spec import rounding


@dataclass(frozen=True, slots=True, eq=False)
class Params(Base):
    x: IntType = int_type(int32, int16, int8, role="operand")
    rounding: Rounding = rule(Rounding, Rounding.TOWARD_ZERO)


def spec(a: Any, b: Any, p: Params) -> Any:
    numerator = np.where(b < 0, -a, a)
    quotient = rounding.divide(numerator, np.where(b == 0, 1, abs(b)), p.rounding)
    return np.where(b == 0, -1, rounding.wrap(quotient, p.x))


@portable
def element(i: Int, j: Int, x: Any, p: Any) -> Int:
    a, b = np.int64(x.a[i, j]), np.int64(x.b[i, j])
    if b == 0:
        return -1
    return wrap(divide(-a, -b, p.rounding) if b < 0 else divide(a, b, p.rounding), p.x)


def examples() -> dict[str, Any]:
    a = np.array([[-7, -6, -5, -4, -1, 0, 1, 4, 5, 6, 7, 7, -7, 2**31 - 1, -(2**31)]], np.int32)
    b = np.array([[4, 4, 2, 4, 4, 4, 4, 4, -2, 4, -4, 3, -3, -1, 2**31 - 1]], np.int32)
    made: dict[str, Any] = {f"both signs and ties, {r.name}": ((a, b), Params(rounding=r)) for r in Rounding}
    for t in (int32, int16, int8):
        ends = (np.array([[t.qmin, t.qmin, t.qmax, 0]], t.storage), np.array([[-1, 0, 0, 0]], t.storage))
        made[f"{t}: the quotient that wraps, a zero divisor"] = (ends, Params(t))
    return made


OP = register(
    Op(
        name="divide.integer",
        version=1,
        cites="TOSA 1.0 INTDIV; RISC-V M extension 2.0, table of division by zero and overflow",
        inputs=(Port("a", "m n", lambda p: p.x), Port("b", "m n", lambda p: p.x)),
        outputs=(Port("q", "m n", lambda p: p.x),),
        params=Params,
        spec=spec,
        program=Elementwise(element),
        examples=examples,
    )
)

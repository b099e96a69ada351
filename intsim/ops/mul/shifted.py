"""Product of two plain integers, element by element, shifted right and rounded.

    q = fit(round(a * b / 2**shift))

A fixed-point product: TOSA's MUL rounds TIES_TO_POSITIVE, and without a shift keeps the low 32 bits.

Differs from ``rescaled``: no zero points and no multiplier; int32 operands.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from intsim.compiling import Int, portable
from intsim.numerics import IntType, Overflow, Rounding, int8, int16, int32
from intsim.op import Elementwise, Op, Port
from intsim.params import Params as Base, int_type, integer, rule
from intsim.registry import register
from intsim.scalar.rounding import fit, shift_right
from intsim.spec import rounding


@dataclass(frozen=True, slots=True, eq=False)
class Params(Base):
    shift: int = integer(0, 62, default=0)
    a: IntType = int_type(int32, int16, int8, role="operand")
    b: IntType = int_type(int32, int16, int8, role="operand")
    dtype: IntType = int_type(int32, int16, int8, role="result")
    rounding: Rounding = rule(Rounding, Rounding.TIES_TO_POSITIVE)
    overflow: Overflow = rule(Overflow, Overflow.WRAP)


def spec(a: Any, b: Any, p: Params) -> Any:
    return rounding.fit(rounding.shift_right(a * b, p.shift, p.rounding), p.dtype, p.overflow)


@portable
def element(i: Int, j: Int, x: Any, p: Any) -> Int:
    # The largest product is (-2**31)**2 = 2**62.
    product = np.int64(x.a[i, j]) * np.int64(x.b[i, j])
    return fit(shift_right(product, p.shift, p.rounding), p.dtype, p.overflow)


def examples() -> dict[str, Any]:
    a = np.array([[-25, -24, -8, -1, 0, 1, 8, 24, 25, 2**31 - 1, -(2**31), -(2**31)]], np.int32)
    b = np.array([[1, 1, 1, 7, 5, 7, 1, 1, 1, 2**31 - 1, 2**31 - 1, -(2**31)]], np.int32)
    made: dict[str, Any] = {f"ties at 1/16, {r.name}": ((a, b), Params(4, rounding=r)) for r in Rounding}
    for o in Overflow:
        made[f"the low bits, or the ends: {o.name}"] = ((a, b), Params(0, overflow=o))
    made["the longest shift"] = ((a, b), Params(62))
    narrow = (np.array([[-128, -128, 127]], np.int8), np.array([[-128, 127, 127]], np.int8))
    made["int8"] = (narrow, Params(0, int8, int8))
    made["int8 to int8 saturates"] = (narrow, Params(6, int8, int8, int8, overflow=Overflow.SATURATE))
    wide = (np.array([[-32768, -32768, 32767]], np.int16), np.array([[-32768, 32767, 32767]], np.int16))
    made["int16"] = (wide, Params(0, int16, int16))
    made["int16 to int16: Q15"] = (wide, Params(15, int16, int16, int16, overflow=Overflow.SATURATE))
    return made


OP = register(
    Op(
        name="mul.shifted",
        version=1,
        cites="TOSA 1.0 MUL",
        inputs=(Port("a", "m n", lambda p: p.a), Port("b", "m n", lambda p: p.b)),
        outputs=(Port("q", "m n", lambda p: p.dtype),),
        params=Params,
        spec=spec,
        program=Elementwise(element),
        examples=examples,
    )
)

"""An integer as another integer type holds it.

    q = fit(x)        overflow WRAP: the low bits stay; SATURATE: the nearest value

WRAP is C's conversion, NumPy's ``astype`` and TOSA's CAST between integers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from intsim.compiling import Int, portable
from intsim.numerics import IntType, Overflow, int8, int16, int32, uint8, uint16
from intsim.op import Elementwise, Op, Port
from intsim.params import Params as Base, int_type, rule
from intsim.registry import register
from intsim.scalar.rounding import fit
from intsim.spec import rounding

TYPES = (int8, uint8, int16, uint16, int32)


@dataclass(frozen=True, slots=True, eq=False)
class Params(Base):
    x: IntType = int_type(int32, *TYPES[:-1], role="operand")
    dtype: IntType = int_type(*TYPES, role="result")
    overflow: Overflow = rule(Overflow, Overflow.WRAP)


def spec(x: Any, p: Params) -> Any:
    return rounding.fit(x, p.dtype, p.overflow)


@portable
def element(i: Int, j: Int, x: Any, p: Any) -> Int:
    return fit(np.int64(x.x[i, j]), p.dtype, p.overflow)


def examples() -> dict[str, Any]:
    edges = np.array([[-(2**31), -65537, -32769, -129, -128, -1, 0, 127, 128, 255, 256, 32768, 65535, 65536]], np.int32)
    made: dict[str, Any] = {f"to {t}, {o.name}": ((edges,), Params(int32, t, o)) for t in TYPES for o in Overflow}
    low = np.array([[-128, -1, 0, 127]], np.int8)
    made["a wider type holds everything"] = ((low,), Params(int8, int32))
    made["unsigned to signed"] = ((low.view(np.uint8),), Params(uint8, int8))
    made["16 bits to 8"] = ((np.array([[-32768, -129, 200, 32767]], np.int16),), Params(int16, int8))
    made["unsigned 16 bits"] = ((np.array([[0, 32768, 65535]], np.uint16),), Params(uint16, int16))
    return made


OP = register(
    Op(
        name="bits.cast",
        version=1,
        cites="TOSA 1.0 CAST (integer to integer); ISO C 6.3.1.3",
        inputs=(Port("x", "m n", lambda p: p.x),),
        outputs=(Port("q", "m n", lambda p: p.dtype),),
        params=Params,
        spec=spec,
        program=Elementwise(element),
        examples=examples,
    )
)

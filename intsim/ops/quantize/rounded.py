"""float32 to the nearest integer that the type holds: TOSA CAST from fp32.

    q = saturate(round(x))

Differs from ``affine``: no scale and no zero point, and results of 32 bits. From C's conversion, which cuts the
fraction off and leaves values beyond the type undefined.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from intsim.compiling import Int, portable
from intsim.numerics import IntType, Rounding, float32, int8, int16, int32, uint8
from intsim.op import Elementwise, Op, Port
from intsim.params import Params as Base, int_type, rule
from intsim.registry import register
from intsim.scalar.ieee import sign_of, to_integer, unpack32
from intsim.scalar.rounding import saturate
from intsim.spec import ieee, rounding


@dataclass(frozen=True, slots=True, eq=False)
class Params(Base):
    dtype: IntType = int_type(int8, int16, int32, uint8, role="result")
    rounding: Rounding = rule(Rounding, Rounding.TIES_TO_EVEN)


def spec(x: Any, p: Params) -> Any:
    return rounding.saturate(ieee.to_integer(x, p.rounding), p.dtype)


@portable
def element(i: Int, j: Int, x: Any, p: Any) -> Int:
    bits = np.int64(x.x[i, j])
    m, e = unpack32(bits)
    return saturate(to_integer(sign_of(bits) * m, e, p.rounding), p.dtype)


def examples() -> dict[str, Any]:
    ties = np.arange(-9, 10, dtype=np.float32)[None] / np.float32(2)
    wild = np.array([[np.inf, -np.inf, 3e38, -3e38, 1e-45, -1e-45, 0.0, -0.0, 2.0**31, -(2.0**31)]], np.float32)
    made: dict[str, Any] = {f"ties, {r.name}": ((ties,), Params(rounding=r)) for r in Rounding}
    for t in (int8, int16, int32, uint8):
        near = np.array([t.qmin - 0.5, t.qmin, t.qmin + 0.5, t.qmax - 0.5, t.qmax, t.qmax + 0.5], np.float32)
        made[f"{t}: the ends, infinite, huge, subnormal"] = ((np.concatenate([near, wild[0]])[None],), Params(t))
    whole = np.array([[2**24 - 1, 2**24 + 2, 2**31 - 128, -(2**31) + 128]], np.float32)
    made["int32: all that float32 holds"] = ((whole,), Params(int32))
    return made


OP = register(
    Op(
        name="quantize.rounded",
        version=1,
        cites="TOSA 1.0 CAST (fp32 to integer)",
        inputs=(Port("x", "m n", float32),),
        outputs=(Port("q", "m n", lambda p: p.dtype),),
        params=Params,
        spec=spec,
        program=Elementwise(element),
        examples=examples,
    )
)

"""Addition of two quantized tensors on one scale.

    q = saturate((a - a_zero_point) + (b - b_zero_point) + zero_point)

The scales have been matched before. A wide result (int24, int32) holds every sum: a residual stream
needs no further scale. Differs from ``rescaled``: no multiplication and no rounding.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from intsim.compiling import Int, portable
from intsim.numerics import IntType, int8, int16, int24, int32, uint8, unlimited
from intsim.op import Elementwise, Op, Oracle, Port
from intsim.params import Params as Base, int_type, integer
from intsim.registry import register
from intsim.scalar.rounding import saturate
from intsim.spec import rounding


@dataclass(frozen=True, slots=True, eq=False)
class Params(Base):
    a_zero_point: int = integer(-(2**15), 2**15, default=0)
    b_zero_point: int = integer(-(2**15), 2**15, default=0)
    zero_point: int = integer(-(2**15), 2**15, default=0)
    a: IntType = int_type(int8, uint8, int16, int24, int32, role="operand")
    b: IntType = int_type(int8, uint8, int16, int24, int32, role="operand")
    dtype: IntType = int_type(int8, uint8, int16, int24, int32, unlimited, role="result")


def spec(a: Any, b: Any, p: Params) -> Any:
    return rounding.saturate((a - p.a_zero_point) + (b - p.b_zero_point) + p.zero_point, p.dtype)


@portable
def element(i: Int, j: Int, x: Any, p: Any) -> Int:
    total = (np.int64(x.a[i, j]) - p.a_zero_point) + (np.int64(x.b[i, j]) - p.b_zero_point)
    return saturate(total + p.zero_point, p.dtype)


def examples() -> dict[str, Any]:
    a = np.array([[-128, -1, 0, 1, 100, 127]], np.int8)
    b = np.array([[-128, 1, 0, 3, 100, 127]], np.int8)
    return {
        "saturates at both ends": ((a, b), Params()),
        "zero points": ((a, b), Params(-5, 3, -7)),
        "a wide result holds every sum": ((a, b), Params(dtype=int24)),
    }


OP = register(
    Op(
        name="add.matched",
        version=1,
        cites="Lin et al. 2020 (arXiv 2009.08034), addition after scale matching",
        inputs=(Port("a", "m n", lambda p: p.a), Port("b", "m n", lambda p: p.b)),
        outputs=(Port("q", "m n", lambda p: p.dtype),),
        params=Params,
        spec=spec,
        program=Elementwise(element),
        examples=examples,
        oracle=Oracle(
            params=lambda scale: Params(dtype=unlimited),
            scales=(1.0, 1.0),
            real=lambda a, b, p: a + b,
            value=lambda q, p: q,
            bound=lambda p: 0.0,
        ),
    )
)

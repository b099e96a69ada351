"""Index of the largest element of a row; the lowest index on a tie (ONNX, TOSA, NumPy).

Columns from ``stop[i]`` on do not take part.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from intsim.compiling import Int, portable
from intsim.numerics import IntType, int8, int16, int32, uint8
from intsim.op import Op, Port, Rowwise, Size
from intsim.params import Params as Base, int_type
from intsim.registry import register


@dataclass(frozen=True, slots=True, eq=False)
class Params(Base):
    x: IntType = int_type(int8, uint8, int16, int32, role="operand")


def spec(x: Any, stop: Any, p: Params) -> Any:
    seen = np.arange(x.shape[-1]) < stop.reshape(-1, 1)
    return np.where(seen, x, p.x.qmin - 1).argmax(axis=-1)


@portable
def row(i: Int, x: Any, out: Any, p: Any) -> None:
    best = np.int64(x.x[i, 0]) << 31  # value and place in one number: of equal values the lowest place is the largest
    for j in range(1, np.int64(x.stop[i])):
        best = max(best, (np.int64(x.x[i, j]) << 31) - j)
    out.position[i] = -best & (2**31 - 1)


def examples() -> dict[str, Any]:
    x = np.array([[3, 9, 9, 1], [-128, -128, -128, -128], [1, 2, 3, 127]], np.int8)
    return {"ties": ((x,), Params()), "masked": ((x, np.array([1, 4, 2], np.int32)), Params())}


OP = register(
    Op(
        name="reduce.argmax",
        version=1,
        cites="ONNX ArgMax-13 (select_last_index 0); TOSA 1.0 ARGMAX",
        inputs=(Port("x", "m n", lambda p: p.x), Port("stop", "m", int32, fill="n", upto="n")),
        outputs=(Port("position", "m", int32),),
        params=Params,
        spec=spec,
        program=Rowwise(row),
        sizes={"n": Size(1)},
        examples=examples,
    )
)

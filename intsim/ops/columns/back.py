"""Columns that ``to_front`` moved, back where they were; a column that the row does not see gets one value.

    q[i, visible] = front[i, 0], front[i, 1], ...;   q[i, hidden] = hidden

Differs from ``to_front``, which it undoes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from intsim.compiling import Int, portable
from intsim.numerics import IntType, int8, int16, int32, uint8
from intsim.op import Op, Port, Rowwise, Size
from intsim.ops.columns import seen_first
from intsim.params import Params as Base, int_type, integer
from intsim.registry import register


@dataclass(frozen=True, slots=True, eq=False)
class Params(Base):
    hidden: int = integer(-(2**31), 2**31 - 1, inside="q", default=0)
    q: IntType = int_type(int16, int8, uint8, int32, role="operand")


def spec(front: Any, stop: Any, mask: Any, p: Params) -> Any:
    visible, order = seen_first(stop, mask)
    q = np.empty_like(front)
    np.put_along_axis(q, order, front, -1)
    return np.where(visible, q, p.hidden)


@portable
def row(i: Int, x: Any, out: Any, p: Any) -> None:
    stop, front = np.int64(x.stop[i]), np.int64(0)
    for j in range(x.front.shape[1]):
        out.q[i, j] = p.hidden
        if j < stop and x.mask[i, j] != 0:
            out.q[i, j] = x.front[i, front]
            front += 1


def examples() -> dict[str, Any]:
    front = np.array([[10, 11, 12, 13], [20, 21, 22, 23], [-128, 127, 0, 33], [40, 41, 42, 43]], np.int16)
    stop = np.array([4, 2, 3, 1], np.int32)
    mask = np.array([[0, 1, 0, 255], [1, 1, 1, 1], [0, 0, 0, 1], [1, 0, 0, 0]], np.uint8)
    return {
        "every column": ((front,), Params()),
        "a stop alone": ((front, stop), Params(-7)),
        "a mask alone": ((front, None, mask), Params(-(2**15))),
        "both; a row that sees nothing": ((front, stop, mask), Params(5)),
        "bytes": ((front.astype(np.uint8), stop, mask), Params(255, uint8)),
    }


OP = register(
    Op(
        name="columns.back",
        version=1,
        cites="what NumPy calls put_along_axis, by the order of columns.to_front",
        inputs=(
            Port("front", "m n", lambda p: p.q),
            Port("stop", "m", int32, fill="n", upto="n"),
            Port("mask", "m n", uint8, fill=1),
        ),
        outputs=(Port("q", "m n", lambda p: p.q),),
        params=Params,
        spec=spec,
        program=Rowwise(row),
        sizes={"n": Size(1)},
        examples=examples,
    )
)

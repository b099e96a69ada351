"""The columns that a row sees moved to its front, in their order; the others follow, in theirs.

    front[i] = q[i, visible] then q[i, hidden];   seen[i] = max(number of visible, 1)

So an op that takes a number of columns, ``stop``, serves any mask. Where a row sees nothing, ``seen`` is 1 all the
same: a number of columns is at least 1.

Differs from ``back``, which undoes it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from intsim.compiling import Int, portable
from intsim.numerics import IntType, int8, int16, int32, uint8
from intsim.op import Op, Port, Rowwise, Size
from intsim.ops.columns import seen_first
from intsim.params import Params as Base, int_type
from intsim.registry import register


@dataclass(frozen=True, slots=True, eq=False)
class Params(Base):
    q: IntType = int_type(int16, int8, uint8, int32, role="operand")


def spec(q: Any, stop: Any, mask: Any, p: Params) -> Any:
    visible, order = seen_first(stop, mask)
    return np.take_along_axis(q, order, -1), np.maximum(visible.sum(axis=-1), 1)


@portable
def row(i: Int, x: Any, out: Any, p: Any) -> None:
    stop, visible = np.int64(x.stop[i]), np.int64(0)
    for j in range(stop):
        visible += x.mask[i, j] != 0
    front, behind = np.int64(0), visible
    for j in range(x.q.shape[1]):
        if j < stop and x.mask[i, j] != 0:
            out.front[i, front] = x.q[i, j]
            front += 1
        else:
            out.front[i, behind] = x.q[i, j]
            behind += 1
    out.seen[i] = max(visible, 1)


def examples() -> dict[str, Any]:
    q = np.array([[10, 11, 12, 13], [20, 21, 22, 23], [-128, 127, 0, 33], [40, 41, 42, 43]], np.int16)
    stop = np.array([4, 2, 3, 1], np.int32)
    mask = np.array([[0, 1, 0, 255], [1, 1, 1, 1], [0, 0, 0, 1], [1, 0, 0, 0]], np.uint8)
    return {
        "every column": ((q,), Params()),
        "a stop alone": ((q, stop), Params()),
        "a mask alone": ((q, None, mask), Params()),
        "both; a row that sees nothing": ((q, stop, mask), Params()),
    }


OP = register(
    Op(
        name="columns.to_front",
        version=1,
        cites="what NumPy calls a stable argsort by visibility, and take_along_axis",
        inputs=(
            Port("q", "m n", lambda p: p.q),
            Port("stop", "m", int32, fill="n", upto="n"),
            Port("mask", "m n", uint8, fill=1),
        ),
        outputs=(Port("front", "m n", lambda p: p.q), Port("seen", "m", int32, upto="n")),
        params=Params,
        spec=spec,
        program=Rowwise(row),
        sizes={"n": Size(1)},
        examples=examples,
    )
)

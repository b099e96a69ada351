"""Embedding: row ``ids[i]`` of the table. No arithmetic: every bit passes.

Differs from ``row_scaled``: the whole table is on one scale.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from intsim.compiling import Int, portable
from intsim.numerics import IntType, int8, int16, int32
from intsim.op import Elementwise, Op, Port, Size
from intsim.params import Params as Base, int_type
from intsim.registry import register


@dataclass(frozen=True, slots=True, eq=False)
class Params(Base):
    table: IntType = int_type(int8, int16, int32, role="operand")


def spec(ids: Any, table: Any, p: Params) -> Any:
    return table[ids.astype(int)]


@portable
def element(i: Int, j: Int, x: Any, p: Any) -> Int:
    return np.int64(x.table[np.int64(x.ids[i]), j])


def examples() -> dict[str, Any]:
    table = np.array([[1, -2], [-128, 127], [0, 5]], np.int8)
    return {"first, last, repeated": ((np.array([2, 0, 1, 2], np.int32), table), Params())}


OP = register(
    Op(
        name="embedding.gather",
        version=1,
        cites="ONNX Gather-13 (axis 0)",
        inputs=(Port("ids", "m", int32, below="v"), Port("table", "v n", lambda p: p.table)),
        outputs=(Port("q", "m n", lambda p: p.table),),
        params=Params,
        spec=spec,
        program=Elementwise(element),
        sizes={"v": Size(1)},
        examples=examples,
    )
)

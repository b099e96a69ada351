"""Embedding with a scale a row: narrow table rows, brought to one grid as they are read.

    q = saturate(round(table[ids[i], j] * multiplier[ids[i]] / 2**shift))

Differs from ``gather``: each row of the table has its own scale, ``multiplier / 2**shift`` steps of
the result's grid.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from intsim.compiling import Int, portable
from intsim.numerics import IntType, Rounding, int8, int16, int32, unlimited
from intsim.op import Elementwise, Op, Port, Size
from intsim.params import Params as Base, int_type, integer, rule
from intsim.registry import register
from intsim.scalar.rounding import saturate, shift_right
from intsim.spec import rounding


@dataclass(frozen=True, slots=True, eq=False)
class Params(Base):
    shift: int = integer(0, 62)
    table: IntType = int_type(int8, int16, role="operand")
    dtype: IntType = int_type(int16, int8, int32, unlimited, role="result")
    rounding: Rounding = rule(Rounding, Rounding.TIES_TO_EVEN)


def spec(ids: Any, table: Any, multiplier: Any, p: Params) -> Any:
    ids = ids.astype(int)
    product = table[ids] * multiplier[ids].reshape(-1, 1)
    return rounding.saturate(rounding.shift_right(product, p.shift, p.rounding), p.dtype)


@portable
def element(i: Int, j: Int, x: Any, p: Any) -> Int:
    at = np.int64(x.ids[i])
    product = np.int64(x.table[at, j]) * np.int64(x.multiplier[at])  # 16 and 32 bits
    return saturate(shift_right(product, p.shift, p.rounding), p.dtype)


def examples() -> dict[str, Any]:
    ids = np.array([2, 0, 1, 2, 3], np.int32)
    table = np.array([[1, -2, 0], [-128, 127, 0], [8, -24, 24], [7, -8, 40]], np.int8)
    multiplier = np.array([3, 2**31 - 1, 1, -1], np.int32)
    return {f"ties and extremes, {r.name}": ((ids, table, multiplier), Params(4, rounding=r)) for r in Rounding}


OP = register(
    Op(
        name="embedding.row_scaled",
        version=1,
        cites="intsim; row-wise int8 embeddings as in Guan et al. 2019 (arXiv 1911.02079), in integers",
        inputs=(
            Port("ids", "m", int32, below="v"),
            Port("table", "v n", lambda p: p.table),
            Port("multiplier", "v", int32),
        ),
        outputs=(Port("q", "m n", lambda p: p.dtype),),
        params=Params,
        spec=spec,
        program=Elementwise(element),
        sizes={"v": Size(1)},
        examples=examples,
    )
)

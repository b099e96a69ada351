"""Matrix products with an integer accumulator."""

from __future__ import annotations

from typing import Any

from intsim.compiling import Int, portable
from intsim.numerics import IntType

# int32 first (what every runtime has), then the widths that hardware people try
ACCUMULATORS: tuple[IntType, ...] = (IntType(32), IntType(64), *(IntType(b) for b in range(8, 64) if b != 32))

MOST_TERMS = 2**20  # terms: |a - za| < 2**17, |b - zb| < 2**17, so a sum of products stays below 2**54

LAWS = ()


def centred(a: Any, b: Any, p: Any) -> tuple[Any, Any]:
    """Both operands without their zero points, of the spec."""
    return a - p.a_zero_point, b - p.b_zero_point.reshape(-1, 1)


@portable
def term(a: Int, b: Int, j: Int, p: Any) -> Int:
    """One product of column j, of the programs."""
    return (a - p.a_zero_point) * (b - p.b_zero_point[j])

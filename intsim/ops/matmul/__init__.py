"""Matrix products with an integer accumulator."""

from __future__ import annotations

from intsim.numerics import IntType

# int32 first (what every runtime has), then the widths that hardware people try
ACCUMULATORS: tuple[IntType, ...] = (IntType(32), IntType(64), *(IntType(b) for b in range(8, 64) if b != 32))

LAWS = ()

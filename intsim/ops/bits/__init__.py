"""What is done to the bits of plain integers: shifts by an element's own amount, counts, changes of width."""

from __future__ import annotations

from intsim.numerics import IntType

LAWS = ()


def amount(t: IntType) -> IntType:
    """The type of a shift inside ``t``: 0 to bits - 1."""
    return IntType((t.bits - 1).bit_length(), signed=False)

"""What arithmetic in integers is judged by: exact fractions, rounded by the words of each rule."""

from __future__ import annotations

import math
from fractions import Fraction
from math import floor

from intsim.numerics import Rounding

HALF = Fraction(1, 2)
EXACT = {
    Rounding.TOWARD_NEGATIVE: floor,
    Rounding.TOWARD_ZERO: int,
    Rounding.TIES_TO_POSITIVE: lambda v: floor(v + HALF),
    Rounding.TIES_TO_AWAY: lambda v: floor(abs(v) + HALF) * (1 if v >= 0 else -1),
    Rounding.TIES_TO_EVEN: round,
    Rounding.TIES_TO_NEGATIVE: lambda v: -floor(-v + HALF),
    Rounding.TOWARD_POSITIVE: math.ceil,
    Rounding.AWAY_FROM_ZERO: lambda v: math.ceil(v) if v > 0 else floor(v),
    Rounding.TIES_TO_ZERO: lambda v: math.ceil(abs(v) - HALF) * (1 if v >= 0 else -1),
}


def nearest(x: Fraction, bits: int) -> Fraction:
    """``x`` to so many bits, ties to even."""
    if x == 0:
        return x
    e = math.frexp(float(x))[1]
    unit = Fraction(2) ** (e - bits)
    while abs(x) / unit >= 2**bits:
        unit *= 2
    while abs(x) / unit < 2 ** (bits - 1):
        unit /= 2
    return round(x / unit) * unit

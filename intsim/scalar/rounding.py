"""Rounding, saturation and wrapping of one int64. ``t`` is a ``TypeRecord``: bits, qmin, qmax."""

from __future__ import annotations

from typing import Any

from intsim.compiling import Int, portable
from intsim.numerics import Overflow, Rounding


@portable
def _round_up(x: Int, quotient: Int, remainder: Int, whole: Int, rounding: Int) -> Any:
    rest = whole - remainder
    if rounding == Rounding.TOWARD_NEGATIVE:
        return False
    if rounding == Rounding.TOWARD_ZERO:
        return x < 0 and remainder > 0
    if rounding == Rounding.TOWARD_POSITIVE:
        return remainder > 0
    if rounding == Rounding.AWAY_FROM_ZERO:
        return x > 0 and remainder > 0
    if remainder != rest:
        return remainder > rest
    if rounding == Rounding.TIES_TO_POSITIVE:
        return True
    if rounding == Rounding.TIES_TO_AWAY:
        return x >= 0
    if rounding == Rounding.TIES_TO_EVEN:
        return quotient & 1 == 1
    if rounding == Rounding.TIES_TO_ZERO:
        return x < 0
    return False


@portable
def shift_right(x: Int, shift: Int, rounding: Int) -> Int:
    """``x / 2**shift``, rounded. Domain: ``0 <= shift <= 62``."""
    if shift == 0:
        return x
    quotient = x >> shift
    remainder = x - (quotient << shift)
    return quotient + 1 if _round_up(x, quotient, remainder, 1 << shift, rounding) else quotient


@portable
def divide(x: Int, divisor: Int, rounding: Int) -> Int:
    """``x / divisor``, rounded. Domain: ``divisor > 0``."""
    quotient = x // divisor
    remainder = x - quotient * divisor
    return quotient + 1 if _round_up(x, quotient, remainder, divisor, rounding) else quotient


@portable
def saturate(x: Int, t: Any) -> Int:
    """The nearest value to ``x`` that ``t`` can hold."""
    if x < t.qmin:
        return t.qmin
    return t.qmax if x > t.qmax else x


@portable
def wrap(x: Int, t: Any) -> Int:
    """``x`` modulo ``2**bits``, in the range of ``t``. Domain: ``|x| < 2**62``."""
    if t.bits >= 63:
        return x
    low = t.qmax + 1 - (1 << t.bits)
    return ((x - low) & ((1 << t.bits) - 1)) + low


@portable
def fit(x: Int, t: Any, overflow: Int) -> Int:
    """``x`` as ``t`` holds it: wrapped or saturated."""
    if overflow == Overflow.WRAP:
        return wrap(x, t)
    return saturate(x, t)

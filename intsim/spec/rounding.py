"""Rounding, saturation and wrapping of arrays: int64, or Python integers in an object array."""

from __future__ import annotations

from typing import Any

import numpy as np

from intsim.numerics import IntType, Overflow, Rounding


def round_up(x: Any, quotient: Any, remainder: Any, whole: Any, rounding: Rounding) -> Any:
    """Whether ``quotient`` (the floor of x / whole) has one to gain; ``0 <= remainder < whole``."""
    rest = whole - remainder  # compared instead of doubled: 2 * remainder could leave int64
    match rounding:
        case Rounding.TOWARD_NEGATIVE:
            return remainder < 0
        case Rounding.TOWARD_ZERO:
            return (x < 0) & (remainder > 0)
        case Rounding.TIES_TO_POSITIVE:
            return remainder >= rest
        case Rounding.TIES_TO_AWAY:
            return (remainder > rest) | ((remainder == rest) & (x >= 0))
        case Rounding.TIES_TO_EVEN:
            return (remainder > rest) | ((remainder == rest) & (quotient % 2 == 1))
        case Rounding.TIES_TO_NEGATIVE:
            return remainder > rest
        case Rounding.TOWARD_POSITIVE:
            return remainder > 0
        case Rounding.AWAY_FROM_ZERO:
            return (x > 0) & (remainder > 0)
        case Rounding.TIES_TO_ZERO:
            return (remainder > rest) | ((remainder == rest) & (x < 0))


def shift_right(x: Any, shift: Any, rounding: Rounding) -> Any:
    """``x / 2**shift``, rounded. Domain: ``0 <= shift <= 62``."""
    whole = shift * 0 + 1 << shift
    quotient, remainder = x >> shift, x & (whole - 1)
    return quotient + round_up(x, quotient, remainder, whole, rounding)


def divide(x: Any, divisor: Any, rounding: Rounding) -> Any:
    """``x / divisor``, rounded. Domain: ``divisor > 0``."""
    quotient = x // divisor
    return quotient + round_up(x, quotient, x - quotient * divisor, divisor, rounding)


def saturate(x: Any, t: IntType) -> Any:
    """The nearest value to ``x`` that ``t`` can hold."""
    return np.clip(x, t.qmin, t.qmax)


def wrap(x: Any, t: IntType) -> Any:
    """``x`` modulo ``2**bits``, in the range of ``t``."""
    if t.bits >= 63:  # nothing inside the limits reaches 2**62, and 2**63 would not be an int64
        return x
    low = t.qmax + 1 - (1 << t.bits)
    return (x - low) % (1 << t.bits) + low


def fit(x: Any, t: IntType, overflow: Overflow) -> Any:
    """``x`` as ``t`` holds it: wrapped or saturated."""
    return wrap(x, t) if overflow == Overflow.WRAP else saturate(x, t)

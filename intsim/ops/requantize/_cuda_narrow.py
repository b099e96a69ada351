"""Requantizing one accumulator in 32-bit words, where the high word of the product decides.

A GPU has no 64-bit comparison and no 64-bit minimum: the programs, which are int64, take three times as long. These
functions are for ``intsim.analysis.exhaustive``, which also compares them with the programs on every accumulator.

    x = acc * multiplier = 2**32 high + low,   s = shift - 32 >= 1

    x / 2**shift, ties to positive  =  (high + 2**(s - 1)) >> s

Any other rule for ties is that of ``x - 1`` where it rounds a tie of x down, and only then does the low word count:
the high word of ``x - 1`` is high, or one less where low is 0.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from intsim.backends.cuda_intrinsics import high_product, int32, on_device, unsigned_shift
from intsim.numerics import Order, Rounding

ROOM = 2**29  # |high| <= 2**30: a half and a zero point of this much still fit a word

Narrow = Any  # a function of an int32, for kernels


def single_rounding(p: Any) -> Narrow:
    """The element of ``requantize.single_rounding`` on an int32, for one channel; None where it does not serve."""
    multiplier, shift, zero_point = (int(v[0]) for v in (p.multiplier, p.shift, p.zero_point))
    serves = p.rounding in _DOWN and p.zero_point_added == Order.LAST and shift >= 33 and abs(zero_point) <= ROOM
    if not serves or p.dtype.bits > 16:
        return None
    s, half, down = shift - 32, 1 << (shift - 33), _DOWN[p.rounding]
    saturated = _saturated(zero_point, p.dtype)

    if down is None:

        @on_device
        def to_positive(acc: int) -> Any:
            return saturated(int32(int32(high_product(acc, int32(multiplier)) + half) >> s))

        return to_positive

    @on_device
    def by_rule(acc: int) -> Any:
        high, low = high_product(acc, int32(multiplier)), int32(acc * multiplier)
        less = 1 if low == 0 and down(high, s) else 0
        return saturated(int32(int32(high + half - less) >> s))

    return by_rule


def double_rounding(p: Any) -> Narrow:
    """The element of ``requantize.double_rounding`` on an int32, for one channel; None where it does not serve."""
    multiplier, shift, zero_point = (int(v[0]) for v in (p.multiplier, p.shift, p.zero_point))
    right = shift - 31
    if not 1 <= right <= 30 or abs(zero_point) > ROOM or p.dtype.bits > 16:
        return None
    half, below, saturated = 1 << (right - 1), (1 << right) - 1, _saturated(zero_point, p.dtype)

    @on_device
    def element(acc: int) -> Any:
        high, low = high_product(acc, int32(multiplier)), int32(acc * multiplier)
        doubled = int32(high + high + ((unsigned_shift(low, int32(30)) + 1) >> 1))  # of 2**31, ties to positive
        rest = int32((doubled & below) + half - (1 if doubled < 0 else 0))
        return saturated(int32((doubled >> right) + (rest >> right)))

    return element


BY_NAME = {"requantize.single_rounding": single_rounding, "requantize.double_rounding": double_rounding}


@on_device
def _negative(high: int, s: int) -> bool:
    return bool(high < 0)


@on_device
def _not_negative(high: int, s: int) -> bool:
    return bool(high >= 0)


@on_device
def _even(high: int, s: int) -> bool:
    return bool((high >> s) & 1 == 0)


@on_device
def _always(high: int, s: int) -> bool:
    return True


# Which ties a rule rounds down, by the high word of x; None: no tie.
_DOWN: dict[Rounding, Any] = {
    Rounding.TIES_TO_POSITIVE: None,
    Rounding.TIES_TO_AWAY: _negative,
    Rounding.TIES_TO_ZERO: _not_negative,
    Rounding.TIES_TO_EVEN: _even,
    Rounding.TIES_TO_NEGATIVE: _always,
}


def _saturated(zero_point: int, dtype: Any) -> Any:
    low, high = np.int32(dtype.qmin), np.int32(dtype.qmax)

    @on_device
    def saturated(x: int) -> Any:
        return int32(min(max(int32(x + zero_point), low), high))

    return saturated

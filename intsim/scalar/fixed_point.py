"""Fixed-point arithmetic of gemmlowp (google/gemmlowp fixedpoint/fixedpoint.h), one int64 at a time.

The constants are given in ``exp_of_negative`` as numbers: a spec's module must not be needed here.
"""

from __future__ import annotations

from intsim.compiling import Int, portable
from intsim.numerics import Rounding, Scaling
from intsim.scalar.rounding import shift_right

INT32_MAX = 2**31 - 1
INT32_MIN = -(2**31)


@portable
def _saturate32(x: Int) -> Int:
    return min(max(x, INT32_MIN), INT32_MAX)


@portable
def wrap32(x: Int) -> Int:
    """``x`` modulo 2**32, as an int32 holds it."""
    return ((x & (2**32 - 1)) ^ 2**31) - 2**31


@portable
def high_multiply(a: Int, b: Int) -> Int:
    """SaturatingRoundingDoublingHighMul: a b / 2**31, ties to positive; -1 times -1 saturates."""
    return _saturate32(shift_right(a * b, 31, Rounding.TIES_TO_POSITIVE))


@portable
def rounding_shift(x: Int, shift: Int) -> Int:
    """RoundingDivideByPOT: x / 2**shift, ties away from zero."""
    return shift_right(x, shift, Rounding.TIES_TO_AWAY)


@portable
def saturating_left_shift(x: Int, shift: Int) -> Int:
    """x * 2**shift, saturated to int32. Domain: an int32 x, shift <= 31."""
    return _saturate32(x << shift)


@portable
def _exp_step(result: Int, remainder: Int, bit: Int, constant: Int) -> Int:
    if (remainder >> bit) & 1 == 1:
        return high_multiply(result, constant)
    return result


@portable
def exp_of_negative(a: Int, integer_bits: Int) -> Int:
    """exp(a) in Q0.31 for ``a <= 0`` in Q(integer_bits).(31 - integer_bits), integer_bits 0 to 5."""
    if a == 0:
        return INT32_MAX
    fraction_bits = 31 - integer_bits
    quarter = 1 << (fraction_bits - 2)
    on_quarter = (a & (quarter - 1)) - quarter
    x = (on_quarter << integer_bits) + 2**28
    x2 = high_multiply(x, x)
    x3 = high_multiply(x2, x)
    x4 = high_multiply(x2, x2)
    tail = rounding_shift(high_multiply(rounding_shift(x4, 2) + x3, 715827883) + x2, 1)
    result = 1895147668 + high_multiply(1895147668, x + tail)
    remainder = on_quarter - a  # below 2**31: bits of more than integer_bits are 0
    result = _exp_step(result, remainder, fraction_bits - 2, 1672461947)
    result = _exp_step(result, remainder, fraction_bits - 1, 1302514674)
    result = _exp_step(result, remainder, fraction_bits, 790015084)
    result = _exp_step(result, remainder, fraction_bits + 1, 290630308)
    result = _exp_step(result, remainder, fraction_bits + 2, 39332535)
    result = _exp_step(result, remainder, fraction_bits + 3, 720401)
    return _exp_step(result, remainder, fraction_bits + 4, 242)


@portable
def one_over_one_plus(a: Int) -> Int:
    """1 / (1 + a) in Q0.31 for a in [0, 1) in Q0.31: three Newton steps."""
    half = (a + 2**31) >> 1
    x = 1515870810 + high_multiply(half, -1010580540)
    for _ in range(3):
        x += saturating_left_shift(high_multiply(x, 2**29 - high_multiply(half, x)), 2)
    return saturating_left_shift(x, 1)


@portable
def multiply_by_quantized(x: Int, multiplier: Int, shift: Int) -> Int:
    """MultiplyByQuantizedMultiplier, double rounding: x * multiplier / 2**shift.

    Below 31 the shift is a left one before the product, and wraps; above, a rounded right one after it.
    """
    if shift < 31:
        return high_multiply(wrap32(x << (31 - shift)), multiplier)
    return rounding_shift(high_multiply(x, multiplier), shift - 31)


@portable
def scaled(x: Int, multiplier: Int, shift: Int, scaling: Int) -> Int:
    """x * multiplier / 2**shift for an int32 ``x``: ``multiply_by_quantized``, or one rounding, ties to positive."""
    if scaling == Scaling.SINGLE_ROUNDING:
        return shift_right(x * multiplier, shift, Rounding.TIES_TO_POSITIVE)
    return multiply_by_quantized(x, multiplier, shift)

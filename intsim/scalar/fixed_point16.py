"""gemmlowp's fixed point on int16 (google/gemmlowp fixedpoint/fixedpoint.h), one int64 at a time."""

from __future__ import annotations

from intsim.compiling import Int, portable
from intsim.numerics import Rounding
from intsim.scalar.rounding import shift_right


@portable
def _saturate16(x: Int) -> Int:
    return min(max(x, -32768), 32767)


@portable
def high_multiply16(a: Int, b: Int) -> Int:
    """a b / 2**15, ties to positive; -1 times -1 saturates."""
    return _saturate16((a * b + 16384) >> 15)


@portable
def left16(x: Int, shift: Int) -> Int:
    """x * 2**shift, saturated to int16."""
    return _saturate16(x << shift)


@portable
def _factor(result: Int, remainder: Int, bit: Int, constant: Int) -> Int:
    if (remainder >> bit) & 1 == 1:
        return high_multiply16(result, constant)
    return result


@portable
def exp_of_negative16(a: Int, integer_bits: Int) -> Int:
    """exp(a) in Q0.15 for ``a <= 0`` in Q(integer_bits).(15 - integer_bits), integer_bits 3 or 4."""
    if a == 0:
        return 32767
    bits = 15 - integer_bits
    quarter = 1 << (bits - 2)
    on_quarter = (a & (quarter - 1)) - quarter
    x = left16(on_quarter, integer_bits) + 4096
    x2 = high_multiply16(x, x)
    x3 = high_multiply16(x2, x)
    x4 = high_multiply16(x2, x2)
    fourth = high_multiply16(shift_right(x4, 2, Rounding.TIES_TO_AWAY) + x3, 10923)
    result = 28918 + high_multiply16(28918, x + shift_right(fourth + x2, 1, Rounding.TIES_TO_AWAY))
    remainder = on_quarter - a  # below 2**15: its highest bit is 0 where integer_bits is 3
    result = _factor(result, remainder, bits - 2, 25520)
    result = _factor(result, remainder, bits - 1, 19875)
    result = _factor(result, remainder, bits, 12055)
    result = _factor(result, remainder, bits + 1, 4435)
    result = _factor(result, remainder, bits + 2, 600)
    return _factor(result, remainder, bits + 3, 11)


@portable
def _newton(e: Int) -> Int:
    half = (e + 32768) >> 1
    x = 23130 + high_multiply16(half, -15420)
    for _ in range(3):
        x += left16(high_multiply16(x, 8192 - high_multiply16(half, x)), 2)
    return x


@portable
def logistic16(a: Int) -> Int:
    """1 / (1 + exp(-a)) in Q0.15 for an int16 ``a`` in Q3.12."""
    if a == 0:
        return 16384
    y = left16(_newton(exp_of_negative16(-abs(a), 3)), 1)
    return y if a > 0 else 32767 - y


@portable
def tanh16(a: Int) -> Int:
    """tanh(a) in Q0.15 for an int16 ``a`` in Q3.12."""
    if a == 0:
        return 0
    y = left16(_newton(exp_of_negative16(-abs(a), 4)) - 8192, 2)
    return y if a > 0 else -y

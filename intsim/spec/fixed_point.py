"""Fixed-point arithmetic of gemmlowp (google/gemmlowp fixedpoint/fixedpoint.h), on arrays.

A number "Q a.b" is an int32 with b fraction bits: Q0.31 lies in [-1, 1), Q5.26 in [-32, 32).
"""

from __future__ import annotations

from math import exp
from typing import Any

import numpy as np

from intsim.constants import fixed
from intsim.numerics import Rounding, Scaling, int32
from intsim.spec.rounding import saturate, shift_right, wrap

EXP_ONE_EIGHTH = fixed(1895147668, exp(-1 / 8), fraction_bits=31)
ONE_THIRD = fixed(715827883, 1 / 3, fraction_bits=31)
# exp(-2**k) for k = -2 .. 4, Q0.31
EXP_POWERS = (
    fixed(1672461947, exp(-1 / 4), fraction_bits=31),
    fixed(1302514674, exp(-1 / 2), fraction_bits=31),
    fixed(790015084, exp(-1), fraction_bits=31),
    fixed(290630308, exp(-2), fraction_bits=31),
    fixed(39332535, exp(-4), fraction_bits=31),
    fixed(720401, exp(-8), fraction_bits=31),
    fixed(242, exp(-16), fraction_bits=31),
)
FORTY_EIGHT_SEVENTEENTHS = fixed(1515870810, 48 / 17, fraction_bits=29)
MINUS_32_SEVENTEENTHS = fixed(-1010580540, -32 / 17, fraction_bits=29)


def high_multiply(a: Any, b: Any) -> Any:
    """SaturatingRoundingDoublingHighMul: a b / 2**31, ties to positive; -1 times -1 saturates."""
    return saturate(shift_right(a * b, 31, Rounding.TIES_TO_POSITIVE), int32)


def rounding_shift(x: Any, shift: Any) -> Any:
    """RoundingDivideByPOT: x / 2**shift, ties away from zero."""
    return shift_right(x, shift, Rounding.TIES_TO_AWAY)


def saturating_left_shift(x: Any, shift: int) -> Any:
    """x * 2**shift; what int32 cannot hold becomes its extreme (also -2**31 exactly, which is its own)."""
    return saturate(x << shift, int32)


def exp_of_negative(a: Any, integer_bits: int) -> Any:
    """exp(a) in Q0.31 for ``a <= 0`` in Q(integer_bits).(31 - integer_bits), integer_bits 0 to 5."""
    fraction_bits = 31 - integer_bits
    quarter = 1 << (fraction_bits - 2)
    on_quarter = (a & (quarter - 1)) - quarter  # in [-1/4, 0)
    result = _exp_on_quarter(on_quarter << integer_bits)
    remainder = on_quarter - a
    for k, constant in zip(range(-2, 5), EXP_POWERS, strict=True):
        if integer_bits > k:
            has_bit = (remainder >> (fraction_bits + k)) & 1
            result = np.where(has_bit == 1, high_multiply(result, constant), result)
    return np.where(a == 0, int32.qmax, result)


def _exp_on_quarter(a: Any) -> Any:
    """exp(a) for a in [-1/4, 0), Q0.31: the Taylor series around -1/8."""
    x = a + (1 << 28)
    x2 = high_multiply(x, x)
    x3 = high_multiply(x2, x)
    x4 = high_multiply(x2, x2)
    tail = rounding_shift(high_multiply(rounding_shift(x4, 2) + x3, ONE_THIRD) + x2, 1)
    return EXP_ONE_EIGHTH + high_multiply(EXP_ONE_EIGHTH, x + tail)


def one_over_one_plus(a: Any) -> Any:
    """1 / (1 + a) in Q0.31 for a in [0, 1) in Q0.31: three Newton steps."""
    half = (a + (1 << 31)) // 2  # (a + 1) / 2; the half sum rounds away from zero, and both are positive
    x = FORTY_EIGHT_SEVENTEENTHS + high_multiply(half, MINUS_32_SEVENTEENTHS)  # Q2.29
    for _ in range(3):
        x = x + saturating_left_shift(high_multiply(x, (1 << 29) - high_multiply(half, x)), 2)
    return saturating_left_shift(x, 1)


def multiply_by_quantized(x: Any, multiplier: Any, shift: Any) -> Any:
    """MultiplyByQuantizedMultiplier, double rounding: x * multiplier / 2**shift.

    Below 31 the shift is a left one before the product, and wraps; above, a rounded right one after it.
    """
    left, right = np.maximum(31 - shift, 0), np.maximum(shift - 31, 0)
    return rounding_shift(high_multiply(wrap(x << left, int32), multiplier), right)


def scaled(x: Any, multiplier: Any, shift: Any, scaling: Scaling) -> Any:
    """x * multiplier / 2**shift for an int32 ``x``: ``multiply_by_quantized``, or one rounding, ties to positive."""
    if scaling == Scaling.SINGLE_ROUNDING:
        return shift_right(x * multiplier, shift, Rounding.TIES_TO_POSITIVE)
    return multiply_by_quantized(x, multiplier, shift)

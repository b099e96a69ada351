"""gemmlowp's fixed point on int16, on arrays: the exponential, the logistic function, tanh.

A number "Q a.b" is an int16 with b fraction bits. The steps are those of the 32-bit functions
(``fixed_point``, ``tflite``); each constant is rounded to 16 bits.
Source: google/gemmlowp fixedpoint/fixedpoint.h (FixedPoint<int16_t, ...>, RescaleConstantInitializer).
"""

from __future__ import annotations

from math import exp
from typing import Any

import numpy as np

from intsim.constants import fixed
from intsim.numerics import Rounding, int16
from intsim.spec.rounding import saturate, shift_right

EXP_ONE_EIGHTH = fixed(28918, exp(-1 / 8), fraction_bits=15)
ONE_THIRD = fixed(10923, 1 / 3, fraction_bits=15)
# exp(-2**k) for k = -2 .. 2, Q0.15
EXP_POWERS = (
    fixed(25520, exp(-1 / 4), fraction_bits=15),
    fixed(19875, exp(-1 / 2), fraction_bits=15),
    fixed(12055, exp(-1), fraction_bits=15),
    fixed(4435, exp(-2), fraction_bits=15),
    fixed(600, exp(-4), fraction_bits=15),
    fixed(11, exp(-8), fraction_bits=15),
)
FORTY_EIGHT_SEVENTEENTHS = fixed(23130, 48 / 17, fraction_bits=13)
MINUS_32_SEVENTEENTHS = fixed(-15420, -32 / 17, fraction_bits=13)


def high_multiply(a: Any, b: Any) -> Any:
    """SaturatingRoundingDoublingHighMul of int16: a b / 2**15, ties to positive; -1 times -1 saturates."""
    return saturate(shift_right(a * b, 15, Rounding.TIES_TO_POSITIVE), int16)


def saturating_left_shift(x: Any, shift: int) -> Any:
    """x * 2**shift; what int16 cannot hold becomes its extreme."""
    return saturate(x << shift, int16)


def exp_of_negative(a: Any, integer_bits: int) -> Any:
    """exp(a) in Q0.15 for ``a <= 0`` in Q(integer_bits).(15 - integer_bits), integer_bits 3 or 4."""
    fraction_bits = 15 - integer_bits
    quarter = 1 << (fraction_bits - 2)
    on_quarter = (a & (quarter - 1)) - quarter  # in [-1/4, 0)
    x = saturating_left_shift(on_quarter, integer_bits) + (1 << 12)  # the Taylor series around -1/8
    x2 = high_multiply(x, x)
    x3, x4 = high_multiply(x2, x), high_multiply(x2, x2)
    fourth = high_multiply(shift_right(x4, 2, Rounding.TIES_TO_AWAY) + x3, ONE_THIRD)
    tail = shift_right(fourth + x2, 1, Rounding.TIES_TO_AWAY)
    result = EXP_ONE_EIGHTH + high_multiply(EXP_ONE_EIGHTH, x + tail)
    remainder = on_quarter - a
    for k, constant in zip(range(-2, integer_bits), EXP_POWERS, strict=False):
        has_bit = (remainder >> (fraction_bits + k)) & 1
        result = np.where(has_bit == 1, high_multiply(result, constant), result)
    return np.where(a == 0, int16.qmax, result)


def _two_over_one_plus(e: Any) -> Any:
    """2 / (1 + e) in Q2.13 for e in [0, 1) in Q0.15: three Newton steps."""
    half = (e + (1 << 15)) // 2  # (1 + e) / 2; the half sum rounds away from zero, and both are positive
    x = FORTY_EIGHT_SEVENTEENTHS + high_multiply(half, MINUS_32_SEVENTEENTHS)
    for _ in range(3):
        x = x + saturating_left_shift(high_multiply(x, (1 << 13) - high_multiply(half, x)), 2)
    return x


def logistic(a: Any) -> Any:
    """1 / (1 + exp(-a)) in Q0.15 for an int16 ``a`` in Q3.12."""
    positive = saturating_left_shift(_two_over_one_plus(exp_of_negative(-abs(a), 3)), 1)
    return np.where(a == 0, 1 << 14, np.where(a > 0, positive, int16.qmax - positive))


def tanh(a: Any) -> Any:
    """tanh(a) in Q0.15 for an int16 ``a`` in Q3.12; one integer bit more, read from the same bits, is the factor 2."""
    magnitude = saturating_left_shift(_two_over_one_plus(exp_of_negative(-abs(a), 4)) - (1 << 13), 2)
    return np.where(a == 0, 0, np.where(a > 0, magnitude, -magnitude))

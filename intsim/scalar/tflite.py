"""What TFLite's integer kernels add to gemmlowp's fixed point, one int64 at a time.

Sources: google/gemmlowp fixedpoint/fixedpoint.h (logistic, tanh); google-ai-edge/LiteRT
tflite/kernels/internal/{quantization_util.cc,common.h} (inverse square root, lookup).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from intsim.compiling import Int, portable
from intsim.scalar.fixed_point import (
    INT32_MAX,
    exp_of_negative,
    high_multiply,
    one_over_one_plus,
    rounding_shift,
    saturating_left_shift,
)
from intsim.scalar.functions import bit_length


@portable
def logistic(a: Int, integer_bits: Int) -> Int:
    """1 / (1 + exp(-a)) in Q0.31 for an int32 ``a`` in Q(integer_bits).(31 - integer_bits)."""
    if a == 0:
        return 2**30
    if a > 0:
        return one_over_one_plus(exp_of_negative(-a, integer_bits))
    return INT32_MAX - one_over_one_plus(exp_of_negative(a, integer_bits))


@portable
def _one_minus_over_one_plus(e: Int) -> Int:
    """(1 - e) / (1 + e) in Q0.31 for e in [0, 1) in Q0.31: three Newton steps for 2 / (1 + e), less 1."""
    half = (e + 2**31) >> 1
    x = 1515870810 + high_multiply(half, -1010580540)
    for _ in range(3):
        x += saturating_left_shift(high_multiply(x, 2**29 - high_multiply(half, x)), 2)
    return saturating_left_shift(x - 2**29, 2)


@portable
def tanh(a: Int, integer_bits: Int) -> Int:
    """tanh(a) in Q0.31 for an int32 ``a`` in Q(integer_bits).(31 - integer_bits)."""
    if a == 0:
        return 0
    magnitude = _one_minus_over_one_plus(exp_of_negative(-abs(a), integer_bits + 1))
    return magnitude if a > 0 else -magnitude


@portable
def inverse_square_root_shift(v: Int) -> Int:
    """The shift that goes with ``inverse_square_root``: 0 or more."""
    return max(12 - ((31 - bit_length(v)) >> 1), 0)


@portable
def inverse_square_root(v: Int) -> Int:
    """1 / sqrt(v) * 2**(31 + shift) for 0 <= v < 2**29; 0 counts as 1. Newton's steps in Q3.28."""
    if v <= 1:
        return INT32_MAX
    pairs = ((31 - bit_length(v)) >> 1) - 1  # so many times 4 brings v to Q2.29 (0 to 13)
    half = rounding_shift((v << (2 * pairs)) >> 1, 1)
    x = 2**28
    for _ in range(5):
        cube = saturating_left_shift(high_multiply(high_multiply(x, x), x), 6)
        x = saturating_left_shift(high_multiply(402653184, x) - high_multiply(half, cube), 3)
    x = high_multiply(x, 1518500250)
    return x << max(pairs - 11, 0)


@portable
def lookup(value: Int, table: Any, index_bits: Int) -> Int:
    """``table`` at an int16 ``value``: 2**index_bits stretches from entry to entry, straight lines along them.

    Domain: index_bits 1 to 15.
    """
    rest = 16 - index_bits
    at = (1 << (index_bits - 1)) + (value >> rest)
    base = np.int64(table[at])
    slope = np.int64(table[at + 1]) - base
    return base + ((slope * (value & ((1 << rest) - 1)) + (1 << (rest - 1))) >> rest)

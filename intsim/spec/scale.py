"""Scales as integers: mantissa and exponent, on arrays.

A scale is ``mantissa * 2**exponent`` with ``2**30 <= mantissa < 2**31``, so that equal scales have
equal pairs. It multiplies: the integer is the real value times the scale, and a smaller scale is a
coarser grid. Every rule rounds to nearest, ties up, to 31 bits: within 2**-31 of the exact value.

Source: Lin et al. 2020 (arXiv 2009.08034) for what is done with scales; that they are integers, and
these rules, are ours.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from intsim.numerics import Rounding
from intsim.spec.rounding import divide, shift_right

Scale = tuple[Any, Any]  # (mantissa, exponent)

BITS = 31  # of a mantissa


def normal(mantissa: Any, exponent: Any) -> Scale:
    """``mantissa`` in [2**30, 2**31] as a scale: a rounding may have reached 2**31."""
    over = mantissa == 1 << BITS
    return np.where(over, mantissa >> 1, mantissa), exponent + over * 1


def multiply(a: Scale, b: Scale) -> Scale:
    product = a[0] * b[0]
    shift = np.where(product >= 1 << 61, 31, 30)
    return normal(shift_right(product, shift, Rounding.TIES_TO_POSITIVE), a[1] + b[1] + shift)


def quotient(a: Scale, b: Scale) -> Scale:
    shift = np.where(a[0] < b[0], 31, 30)
    return normal(divide(a[0] << shift, b[0], Rounding.TIES_TO_POSITIVE), a[1] - b[1] - shift)


def of_real(values: Any) -> tuple[Any, Any]:
    """Positive, finite real numbers as scales, to the nearest; int64 arrays. For the host, before anything runs.

    Raises ValueError where a number is not positive and finite.
    """
    values = np.asarray(values, np.float64)
    if not (np.isfinite(values) & (values > 0)).all():
        raise ValueError(f"a scale is positive and finite; got {values[~(np.isfinite(values) & (values > 0))].flat[0]}")
    fraction, exponent = np.frexp(values)
    return normal(np.rint(np.ldexp(fraction, BITS)).astype(np.int64), exponent.astype(np.int64) - BITS)


def bit_length(n: Any) -> Any:
    """The number of bits of ``n`` >= 0, by halving: no float sees it."""
    length = 0 * n
    for step in (32, 16, 8, 4, 2, 1):
        large = n >= 1 << step
        length, n = length + step * large, np.where(large, n >> step, n)
    return length + (n > 0)


def of_integer(n: Any) -> Scale:
    """``1 <= n < 2**53``; exact below 2**31."""
    length = bit_length(n)
    left, right = np.maximum(BITS - length, 0), np.maximum(length - BITS, 0)
    return normal(shift_right(n << left, right, Rounding.TIES_TO_POSITIVE), length - BITS)


def less(a: Scale, b: Scale) -> Any:
    """Whether ``a`` is the smaller: the normal form makes the order that of (exponent, mantissa)."""
    return (a[1] < b[1]) | ((a[1] == b[1]) & (a[0] < b[0]))


def smaller(a: Scale, b: Scale) -> Scale:
    first = less(a, b)
    return np.where(first, a[0], b[0]), np.where(first, a[1], b[1])


def smallest(scale: Scale, counted: Any) -> Scale:
    """The smallest along the last axis of those that are ``counted``; at least one is."""
    mantissa, exponent = (np.where(counted, part, part.max(initial=-(1 << BITS))) for part in scale)
    low = exponent.min(axis=-1, keepdims=True)
    return np.where(exponent == low, mantissa, 1 << BITS).min(axis=-1, keepdims=True), low


def apply(x: Any, ratio: Scale, rounding: Rounding) -> Any:
    """``x * ratio``, rounded once. Domain: ``|x| < 2**31``, and ``exponent <= 0`` (a ratio below 2**31)."""
    shift = -ratio[1]
    product = x * ratio[0]
    # Beyond 62 the product is below half a step: a shift by 62 more loses nothing but the last bits.
    far = np.where(product < 0, -1, (product > 0) * 1)
    return np.where(shift > 62, shift_right(far, 2, rounding), shift_right(product, np.minimum(shift, 62), rounding))

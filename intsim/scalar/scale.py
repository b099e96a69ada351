"""Scales as integers: mantissa and exponent, one at a time. See ``intsim.spec.scale`` for what they are."""

from __future__ import annotations

from typing import Any

from intsim.compiling import Int, portable
from intsim.scalar.functions import bit_length
from intsim.scalar.rounding import shift_right


@portable
def normal(mantissa: Int, exponent: Int) -> tuple[Int, Int]:
    """``mantissa`` in [2**30, 2**31] as a scale."""
    if mantissa == 2**31:
        return 2**30, exponent + 1
    return mantissa, exponent


@portable
def multiply(a_mantissa: Int, a_exponent: Int, b_mantissa: Int, b_exponent: Int) -> tuple[Int, Int]:
    """Their product: 2**60 <= mantissas multiplied < 2**62, and half a step more stays below 2**63."""
    product = a_mantissa * b_mantissa
    if product >= 2**61:
        return normal((product + 2**30) >> 31, a_exponent + b_exponent + 31)
    return normal((product + 2**29) >> 30, a_exponent + b_exponent + 30)


@portable
def quotient(a_mantissa: Int, a_exponent: Int, b_mantissa: Int, b_exponent: Int) -> tuple[Int, Int]:
    """a / b: the dividend is below 2**62, the result at least 2**30."""
    shift = 31 if a_mantissa < b_mantissa else 30
    return normal(((a_mantissa << shift) + (b_mantissa >> 1)) // b_mantissa, a_exponent - b_exponent - shift)


@portable
def of_integer(n: Int) -> tuple[Int, Int]:
    """``1 <= n < 2**53``; exact below 2**31."""
    length = bit_length(n)
    if length <= 31:
        return n << (31 - length), length - 31
    return normal((n + (1 << (length - 32))) >> (length - 31), length - 31)


@portable
def less(a_mantissa: Int, a_exponent: Int, b_mantissa: Int, b_exponent: Int) -> Any:
    """Whether a is the smaller."""
    return a_exponent < b_exponent or (a_exponent == b_exponent and a_mantissa < b_mantissa)


@portable
def apply(x: Int, mantissa: Int, exponent: Int, rounding: Int) -> Int:
    """``x * mantissa * 2**exponent``, rounded once. Domain: ``|x| < 2**31``, ``exponent <= 0``."""
    product = x * mantissa  # below 2**62
    if exponent < -62:
        product = min(max(product, -1), 1)  # less than half a unit: no rule asks for more than the sign
    return shift_right(product, min(-exponent, 62), rounding)

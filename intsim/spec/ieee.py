"""Published float steps as NumPy computes them: IEEE 754 binary32 and binary64, one operation at a time.

Results that become integers are clipped to +-2**62 first, beyond every type that they are saturated to.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from intsim.numerics import Rounding
from intsim.spec.rounding import round_up

HUGE = 2.0**62


def from_bits32(bits: Any) -> Any:
    """The float32 with these bits (int32 patterns)."""
    return np.asarray(bits).astype(np.int64).astype(np.uint32).view(np.float32)


def from_bits64(bits: Any) -> Any:
    """The float64 with these bits (int64 patterns)."""
    return np.asarray(bits).astype(np.int64).view(np.float64)


def float32(x: Any) -> Any:
    """Integers as float32, ties to even. Domain: ``|x| < 2**53``, so that float64 holds them exactly."""
    return np.asarray(x).astype(np.float64).astype(np.float32)


def to_integer(x: Any, rounding: Rounding) -> Any:
    """Floats rounded to integers, as int64."""
    x = np.clip(np.asarray(x, np.float64), -HUGE, HUGE)
    floor = np.floor(x)
    # x - floor is exact but in (-1/2, 0), where it could round down to a half; 3/4 lies on the same side of it
    rest = np.where((x > -0.5) & (x < 0), 0.75, x - floor)
    return (floor + round_up(x, floor, rest, 1.0, rounding)).astype(np.int64)


def dyadic_product(x: Any, multiplier: Any, shift: Any) -> Any:
    """rint(f64(x) * f64(multiplier) / 2**shift), as int64: two roundings, both ties to even."""
    product = x.astype(np.float64) * multiplier.astype(np.float64)
    return to_integer(product / 2.0 ** shift.astype(np.float64), Rounding.TIES_TO_EVEN)


def fused_multiply_add32(a: Any, b: Any, c: Any) -> Any:
    """The float32 ``a * b + c``, rounded once; all three are values of float32."""
    with np.errstate(invalid="ignore"):  # what is infinite has no error
        product = np.asarray(a, np.float64) * np.asarray(b, np.float64)  # exact: 48 bits
        c = np.asarray(c, np.float64)
        total = product + c
        back = total - product
        lost = (product - (total - back)) + (c - back)  # exact: total + lost is product + c (Knuth's TwoSum)
        # Of the two float64 around the sum the one with an odd last bit: no tie of float32 that the sum is not
        even = np.asarray(total).view(np.int64) & 1 == 0
        odd = np.nextafter(total, np.where(lost > 0, np.inf, -np.inf))
        return np.where(np.isfinite(total) & (lost != 0) & even, odd, total).astype(np.float32)

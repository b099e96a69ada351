"""IEEE 754 arithmetic in integers, for the published operators that compute in floating point.

A finite magnitude is a pair (m, e): the value m * 2**e, m >= 0. So a kernel that must reproduce a
float32 division holds no float instruction, cannot be contracted or flushed, and gives the same
bits on every machine. (spec/ieee.py states the same steps with NumPy's own floats.)
"""

from __future__ import annotations

from intsim.compiling import Int, portable
from intsim.numerics import Rounding
from intsim.scalar.functions import bit_length
from intsim.scalar.rounding import shift_right

HUGE = 2**62


@portable
def unpack32(bits: Int) -> tuple[Int, Int]:
    """(m, e) of the magnitude of a float32 that is not a NaN; m has 24 bits, or is 0. Infinity is 2**4000."""
    exponent = (bits >> 23) & 255
    m = bits & (2**23 - 1)
    if exponent == 255:
        return 2**23, 3977  # any float over it is 0, and it over any float is beyond every integer type
    if exponent > 0:
        return m + 2**23, exponent - 150
    lead = 24 - bit_length(m)  # a subnormal, brought to 24 bits
    return m << lead, -149 - lead


@portable
def round32(m: Int, e: Int) -> tuple[Int, Int]:
    """m * 2**e as a float32 holds it, ties to even, subnormals included. Domain: ``|m| <= 2**61``."""
    drop = max(bit_length(abs(m)) - 24, -149 - e, 0)
    return shift_right(m, min(drop, 62), Rounding.TIES_TO_EVEN), e + drop


@portable
def pack32(m: Int, e: Int) -> Int:
    """The bits of the float32 m * 2**e, which ``round32`` has made; infinity where it is too large."""
    if m == 0:
        return 0
    lead = min(24 - bit_length(m), e + 149)  # to 24 bits, or for a subnormal as far as the exponent reaches
    m, e = (m << max(lead, 0)) >> max(-lead, 0), e - lead  # 25 bits where it was rounded up to 2**24
    if e > 104:
        return 255 << 23
    return ((e + 150) << 23) + m - 2**23  # without the first bit of m; what has none is at e = -149, and its own bits


@portable
def multiply32(am: Int, ae: Int, bm: Int, be: Int) -> tuple[Int, Int]:
    """The float32 product of two float32 magnitudes."""
    return round32(am * bm, ae + be)


@portable
def divide32(am: Int, ae: Int, bm: Int, be: Int) -> tuple[Int, Int]:
    """The float32 quotient of two float32 magnitudes; both m have 24 bits, or am is 0."""
    quotient = (am << 30) // bm
    rest = (am << 30) - quotient * bm
    return round32(_sticky(quotient << 1, rest), ae - be - 31)


@portable
def _sticky(m: Int, rest: Int) -> Int:
    """``m``, its last bit set where there is a rest: what is rounded to far fewer bits sees no tie then."""
    return m | (1 if rest != 0 else 0)


@portable
def sum32(am: Int, ae: Int, bm: Int, be: Int) -> tuple[Int, Int]:
    """am * 2**ae + bm * 2**be as one float32; here both m have signs. Domain: as ``_sum``.

    With the exact product of two magnitudes as one of them, this is the fused multiply-add.
    """
    m, e = _sum(am, ae, bm, be)
    return round32(m, e)


@portable
def normal64(m: Int, e: Int) -> tuple[Int, Int]:
    """m * 2**e with m of 53 bits (or 0), ties to even: a float64 without its bounds. Domain: ``0 <= m < 2**62``."""
    drop = bit_length(m) - 53
    m = shift_right(m << max(-drop, 0), max(drop, 0), Rounding.TIES_TO_EVEN)
    return (2**52, e + drop + 1) if m == 2**53 else (m, e + drop)


@portable
def divide64(am: Int, ae: Int, bm: Int, be: Int) -> tuple[Int, Int]:
    """The float64 quotient of two magnitudes of ``normal64``, the divisor not 0: long division by bits."""
    quotient, rest = 0, am
    for _ in range(56):
        quotient <<= 1
        if rest >= bm:
            rest -= bm
            quotient += 1
        rest <<= 1
    return normal64(_sticky(quotient << 1, rest), ae - be - 56)


@portable
def to_integer(m: Int, e: Int, rounding: Int) -> Int:
    """m * 2**e rounded to an integer, held within +-2**62; here m has a sign. Domain: ``|m| < 2**54``."""
    if e < 0:
        return shift_right(m, min(-e, 62), rounding)
    e = min(e, 62)
    return min(max(m, -HUGE >> e), HUGE >> e) << e


@portable
def _sum(am: Int, ae: Int, bm: Int, be: Int) -> tuple[Int, Int]:
    """The sum of am * 2**ae and bm * 2**be, which have signs, for rounding to 53 bits or fewer.

    Exact, or of 59 bits or more whose last stands for the rest. Domain: ``|am|, |bm| < 2**58``.
    """
    if am == 0 or (bm != 0 and ae + bit_length(abs(am)) < be + bit_length(abs(bm))):
        am, ae, bm, be = bm, be, am, ae
    lift = 60 - bit_length(abs(am))
    am, ae = am << lift, ae - lift
    if bm == 0:
        return am, ae
    if ae <= be:
        return am + (bm << (be - ae)), ae  # below 2**61: bm reaches no higher than am
    # Bits of bm are lost only where it lies below 2**58 here, and the sum keeps 59 bits of am.
    gap = min(ae - be, 62)
    low = bm >> gap
    return _sticky(am + low, bm - (low << gap)), ae


@portable
def fused_multiply_add32(am: Int, ae: Int, bm: Int, be: Int, cm: Int, ce: Int) -> tuple[Int, Int]:
    """f32(a * b + c), rounded once; all m have signs and 24 bits."""
    return sum32(am * bm, ae + be, cm, ce)


@portable
def _round64(m: Int, e: Int) -> tuple[Int, Int]:
    """m * 2**e with 53 bits at most, ties to even. Domain: ``|m| < 2**63``."""
    drop = max(bit_length(abs(m)) - 53, 0)
    return shift_right(m, drop, Rounding.TIES_TO_EVEN), e + drop


@portable
def sum64(am: Int, ae: Int, bm: Int, be: Int) -> tuple[Int, Int]:
    """The float64 sum of two numbers with signs. Domain: as ``_sum``; no sum below 2**-1022 but 0."""
    m, e = _sum(am, ae, bm, be)
    return _round64(m, e)


@portable
def sign_of(bits: Int) -> Int:
    """-1 where the sign bit of a float32's bits is set (given as an int32, widened), else 1."""
    return -1 if bits < 0 else 1


@portable
def with_sign(bits: Int, sign: Int) -> Int:
    """The bits of a magnitude and a sign, as an int32 holds them."""
    return bits - 2**31 if sign < 0 else bits


@portable
def times_float64(x: Int, bits: Int) -> tuple[Int, Int]:
    """The float64 product of an integer ``0 <= x <= 2**31`` and the positive normal float64 with these bits."""
    m = (bits & (2**52 - 1)) + 2**52
    e = ((bits >> 52) & 2047) - 1075
    lead = 32 - bit_length(x)
    x <<= lead  # so the upper half of the product has 58 bits or more
    low = x * (m & (2**26 - 1))
    high = x * (m >> 26) + (low >> 26)
    return _round64(_sticky(high, low & (2**26 - 1)), e + 26 - lead)


@portable
def round53(x: Int) -> Int:
    """The nearest integer to ``x`` that float64 holds, ties to even. Domain: ``|x| < 2**63``."""
    m, e = _round64(x, 0)
    return m << e


@portable
def dyadic_product(x: Int, multiplier: Int, shift: Int) -> Int:
    """rint(f64(x) * f64(multiplier) / 2**shift). Domain: ``|x| <= 2**31``, ``0 <= multiplier < 2**31``: 62 bits."""
    return shift_right(round53(x * multiplier), shift, Rounding.TIES_TO_EVEN)

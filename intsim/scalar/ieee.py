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
    """m * 2**e as a float32 holds it, ties to even, subnormals included. Domain: ``m < 2**62``."""
    drop = max(bit_length(m) - 24, -149 - e)
    if drop <= 0:
        return m, e
    return shift_right(m, min(drop, 62), Rounding.TIES_TO_EVEN), e + drop


@portable
def pack32(m: Int, e: Int) -> Int:
    """The bits of the float32 m * 2**e, which ``round32`` has made; infinity where it is too large."""
    if m == 0:
        return 0
    lead = 24 - bit_length(m)
    if e - lead < -149:
        lead = e + 149  # subnormal: as far as the exponent reaches
    m, e = (m << lead, e - lead) if lead >= 0 else (m >> -lead, e - lead)
    if e > 104:
        return 255 << 23
    if m < 2**23:
        return m
    return ((e + 150) << 23) + (m - 2**23)


@portable
def multiply32(am: Int, ae: Int, bm: Int, be: Int) -> tuple[Int, Int]:
    """The float32 product of two float32 magnitudes."""
    return round32(am * bm, ae + be)


@portable
def divide32(am: Int, ae: Int, bm: Int, be: Int) -> tuple[Int, Int]:
    """The float32 quotient of two float32 magnitudes; both m have 24 bits, or am is 0."""
    quotient = (am << 30) // bm
    rest = (am << 30) - quotient * bm
    return round32((quotient << 1) | (1 if rest > 0 else 0), ae - be - 31)  # the last bit stands for the rest


@portable
def add32(am: Int, ae: Int, bm: Int, be: Int) -> tuple[Int, Int]:
    """The float32 sum of two float32 magnitudes."""
    if am == 0 or bm == 0:
        return (bm, be) if am == 0 else (am, ae)
    if ae < be:
        am, ae, bm, be = bm, be, am, ae
    gap = min(ae - be, 60)
    aligned = (bm << 32) >> gap
    lost = (bm << 32) - (aligned << gap)
    return round32((am << 32) + (aligned | (1 if lost > 0 else 0)), ae - 32)


@portable
def sum32(am: Int, ae: Int, bm: Int, be: Int) -> tuple[Int, Int]:
    """am * 2**ae + bm * 2**be as one float32; here both m have signs. Domain: ``|m| < 2**49``.

    With the exact product of two magnitudes as one of them, this is the fused multiply-add.
    """
    if am == 0 or (bm != 0 and bit_length(abs(am)) + ae < bit_length(abs(bm)) + be):
        am, ae, bm, be = bm, be, am, ae
    if am == 0:
        return am, ae
    lead = 58 - bit_length(abs(am))
    am, ae = am << lead, ae - lead
    gap = ae - be
    if bm == 0 or gap <= 0:
        total = (am + (bm << min(max(-gap, 0), 60))) << 1  # b's highest bit is not above a's
    else:
        gap = min(gap, 60)
        kept = bm >> gap  # bits are lost only where |a| is 2**8 times |b| or more: no cancellation uncovers them
        total = ((am + kept) << 1) | (1 if bm - (kept << gap) > 0 else 0)
    m, e = round32(abs(total), ae - 1)
    return (-m if total < 0 else m), e


@portable
def normal64(m: Int, e: Int) -> tuple[Int, Int]:
    """m * 2**e with m of 53 bits (or 0), ties to even: a float64 without its bounds. Domain: ``0 <= m < 2**62``."""
    if m == 0:
        return 0, 0
    drop = bit_length(m) - 53
    if drop <= 0:
        return m << -drop, e + drop
    m = shift_right(m, drop, Rounding.TIES_TO_EVEN)
    return (2**52, e + drop + 1) if m == 2**53 else (m, e + drop)


@portable
def add64(am: Int, ae: Int, bm: Int, be: Int) -> tuple[Int, Int]:
    """The float64 sum of two magnitudes of ``normal64``."""
    if am == 0 or bm == 0:
        return (bm, be) if am == 0 else (am, ae)
    if ae < be:
        am, ae, bm, be = bm, be, am, ae
    gap = min(ae - be, 62)
    aligned = (bm << 8) >> gap
    lost = (aligned << gap) != bm << 8
    return normal64((am << 8) + (aligned | (1 if lost else 0)), ae - 8)


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
    return normal64((quotient << 1) | (1 if rest > 0 else 0), ae - be - 56)


@portable
def to_integer(m: Int, e: Int, rounding: Int) -> Int:
    """m * 2**e rounded to an integer, held within +-2**62; here m has a sign. Domain: ``|m| < 2**54``."""
    if e < 0:
        return shift_right(m, min(-e, 62), rounding)
    if m != 0 and bit_length(abs(m)) + e > 62:
        return HUGE if m > 0 else -HUGE
    return m << min(e, 62)


@portable
def _round_to(m: Int, e: Int, bits: Int) -> tuple[Int, Int]:
    """m * 2**e with at most ``bits`` bits, ties to even; m has a sign. Domain: ``|m| < 2**62``."""
    drop = bit_length(abs(m)) - bits
    if drop <= 0:
        return m, e
    return shift_right(m, drop, Rounding.TIES_TO_EVEN), e + drop


@portable
def _sum(am: Int, ae: Int, bm: Int, be: Int) -> tuple[Int, Int]:
    """The sum of am * 2**ae and bm * 2**be, which have signs, for rounding to 53 bits or fewer.

    Exact, or of 59 bits or more whose last stands for the rest. Domain: ``|am|, |bm| <= 2**53``.
    """
    if am == 0 or bm == 0:
        return (bm, be) if am == 0 else (am, ae)
    if ae + bit_length(abs(am)) < be + bit_length(abs(bm)):
        am, ae, bm, be = bm, be, am, ae
    lift = 60 - bit_length(abs(am))
    am, ae = am << lift, ae - lift
    gap = be - ae
    if gap >= 0:
        return am + (bm << gap), ae  # below 2**61: bm reaches no higher than am
    # Bits of bm are lost only where it lies below 2**53 here, and the sum keeps 59 bits of am.
    low = bm >> min(-gap, 62)
    rest = 1 if (low << min(-gap, 62)) != bm else 0
    return (am + low) | rest, ae


@portable
def add_signed32(am: Int, ae: Int, bm: Int, be: Int) -> tuple[Int, Int]:
    """The float32 sum of two numbers of up to 53 bits, with signs. Domain: no sum below 2**-126 but 0."""
    m, e = _sum(am, ae, bm, be)
    return _round_to(m, e, 24)


@portable
def fused_multiply_add32(am: Int, ae: Int, bm: Int, be: Int, cm: Int, ce: Int) -> tuple[Int, Int]:
    """f32(a * b + c), rounded once; all m have signs and 24 bits. Domain: no sum below 2**-126 but 0."""
    return add_signed32(am * bm, ae + be, cm, ce)


@portable
def add_signed64(am: Int, ae: Int, bm: Int, be: Int) -> tuple[Int, Int]:
    """The float64 sum of two float64 numbers with signs. Domain: as ``_sum``; no sum below 2**-1022 but 0."""
    m, e = _sum(am, ae, bm, be)
    return _round_to(m, e, 53)


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
    high, low = x * (m >> 26), x * (m & (2**26 - 1))  # x * m = high * 2**26 + low, up to 84 bits
    high += low >> 26
    low &= 2**26 - 1
    drop = bit_length(high) + 26 - 53
    if drop <= 0:
        return (high << 26) + low, e
    if drop <= 26:
        kept, rest, whole = (high << (26 - drop)) + (low >> drop), low & ((1 << drop) - 1), 1 << drop
    else:
        cut = drop - 26
        kept, rest, whole = high >> cut, high & ((1 << cut) - 1), 1 << cut
        rest, whole = (rest << 1) | (1 if low > 0 else 0), whole << 1  # the last bit stands for ``low``
    if rest > whole - rest or (rest == whole - rest and kept & 1 == 1):
        kept += 1
    return kept, e + drop


@portable
def round53(x: Int) -> Int:
    """The nearest integer to ``x`` that float64 holds, ties to even. Domain: ``|x| < 2**63``."""
    drop = bit_length(abs(x)) - 53
    if drop <= 0:
        return x
    return shift_right(x, drop, Rounding.TIES_TO_EVEN) << drop


@portable
def dyadic_product(x: Int, multiplier: Int, shift: Int) -> Int:
    """rint(f64(x) * f64(multiplier) / 2**shift). Domain: ``|x| <= 2**31``, ``0 <= multiplier < 2**31``: 62 bits."""
    return shift_right(round53(x * multiplier), shift, Rounding.TIES_TO_EVEN)

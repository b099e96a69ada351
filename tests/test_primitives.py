"""The scalar and spec primitives, exhaustively at small widths, against exact fractions and NumPy's own floats."""

from __future__ import annotations

import math
from fractions import Fraction
from math import floor
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from intsim import constants
from intsim.numerics import IntType, Nibbles, Overflow, Rounding, int4, int8, uint4
from intsim.records import TypeRecord
from intsim.scalar import fixed_point as scalar_fixed
from intsim.scalar import functions as scalar_functions
from intsim.scalar import ieee
from intsim.scalar import packing as scalar_packing
from intsim.scalar import rounding as scalar
from intsim.spec import fixed_point, functions, packing
from intsim.spec import ieee as spec_ieee
from intsim.spec import rounding as spec

HALF = Fraction(1, 2)
EXACT = {
    Rounding.TOWARD_NEGATIVE: floor,
    Rounding.TOWARD_ZERO: int,
    Rounding.TIES_TO_POSITIVE: lambda v: floor(v + HALF),
    Rounding.TIES_TO_AWAY: lambda v: floor(abs(v) + HALF) * (1 if v >= 0 else -1),
    Rounding.TIES_TO_EVEN: round,
    Rounding.TIES_TO_NEGATIVE: lambda v: -floor(-v + HALF),
    Rounding.TOWARD_POSITIVE: math.ceil,
    Rounding.AWAY_FROM_ZERO: lambda v: math.ceil(v) if v > 0 else floor(v),
    Rounding.TIES_TO_ZERO: lambda v: math.ceil(abs(v) - HALF) * (1 if v >= 0 else -1),
}
VALUES = np.arange(-300, 301)


@pytest.mark.parametrize("rule", Rounding)
def test_shift_right_is_the_rounded_fraction(rule: Rounding) -> None:
    for shift in range(11):
        want = [EXACT[rule](Fraction(int(v), 1 << shift)) for v in VALUES]
        assert spec.shift_right(VALUES, np.int64(shift), rule).tolist() == want
        assert spec.shift_right(VALUES.astype(object), shift, rule).tolist() == want
        assert [int(scalar.shift_right(int(v), shift, int(rule))) for v in VALUES] == want


@pytest.mark.parametrize("rule", Rounding)
@pytest.mark.parametrize("x", [2**63 - 1, -(2**63), 2**62, -(2**62), 2**62 - 1, 2**61, -(2**61) - 1, 3 * 2**60])
def test_shift_right_at_the_end_of_int64(rule: Rounding, x: int) -> None:
    for shift in (1, 31, 61, 62):
        want = EXACT[rule](Fraction(x, 1 << shift))
        assert int(scalar.shift_right(np.int64(x), np.int64(shift), int(rule))) == want
        assert int(spec.shift_right(np.array([x]), np.array([shift]), rule)[0]) == want


@pytest.mark.parametrize("rule", Rounding)
def test_divide_is_the_rounded_fraction(rule: Rounding) -> None:
    for divisor in range(1, 19):
        want = [EXACT[rule](Fraction(int(v), divisor)) for v in VALUES]
        assert spec.divide(VALUES, divisor, rule).tolist() == want
        assert [int(scalar.divide(int(v), divisor, int(rule))) for v in VALUES] == want


@pytest.mark.parametrize("t", [IntType(b, s) for b in (2, 3, 4, 8) for s in (True, False)], ids=str)
def test_saturate_and_wrap(t: IntType) -> None:
    record = TypeRecord(t.bits, t.qmin, t.qmax)
    for v in VALUES.tolist():
        nearest = min(range(t.qmin, t.qmax + 1), key=lambda q, v=v: abs(q - v))
        congruent = next(q for q in range(t.qmin, t.qmax + 1) if (q - v) % (1 << t.bits) == 0)
        assert scalar.fit(v, record, Overflow.SATURATE) == spec.fit(np.int64(v), t, Overflow.SATURATE) == nearest
        assert scalar.fit(v, record, Overflow.WRAP) == spec.fit(np.int64(v), t, Overflow.WRAP) == congruent


@pytest.mark.parametrize("bits", [62, 63, 64])
def test_wrap_of_the_widest_types_leaves_what_fits(bits: int) -> None:
    t = IntType(bits)
    for v in (0, -1, 2**60, -(2**60), 2**61 - 1, -(2**61)):
        assert scalar.wrap(np.int64(v), TypeRecord(t.bits, t.qmin, t.qmax)) == v == spec.wrap(np.array([v]), t)[0]


def test_types_state_their_range() -> None:
    assert (IntType(8, narrow_range=True).qmin, IntType(8, narrow_range=True).qmax) == (-127, 127)
    assert [(t.qmin, t.qmax) for t in (IntType(2), IntType(4, False), IntType(32))] == [
        (-2, 1),
        (0, 15),
        (-(2**31), 2**31 - 1),
    ]
    assert IntType(24).storage == "int32"
    for t in (int8, uint4, IntType(8, narrow_range=True), IntType(48)):
        assert IntType.parse(str(t)) == t
    for bits, signed in ((1, True), (65, True), (63, False)):
        with pytest.raises(ValueError, match="bits, got"):
            IntType(bits, signed)
    with pytest.raises(ValueError, match="unsigned type has none"):
        IntType(8, signed=False, narrow_range=True)
    with pytest.raises(ValueError, match="looks like int8"):
        IntType.parse("float32")


@pytest.mark.parametrize("nibbles", Nibbles)
@pytest.mark.parametrize("t", [int4, uint4], ids=str)
def test_packing_and_back_for_every_byte(t: IntType, nibbles: Nibbles) -> None:
    every = np.array([[t.qmin + (i >> 4), t.qmin + (i & 15)] for i in range(256)])
    packed = packing.pack(every, nibbles)
    assert len(np.unique(packed)) == 256
    assert (packing.unpack(packed.astype(np.int64), t, nibbles) == every).all()
    assert (packing.unpack(packed.astype(object), t, nibbles) == every).all()
    record = TypeRecord(t.bits, t.qmin, t.qmax)
    assert [
        [scalar_packing.load(packed, i, k, record, int(nibbles)) for k in (0, 1)] for i in range(256)
    ] == every.tolist()
    first = every[:, 0] & 15 if nibbles == Nibbles.LOW_FIRST else every[:, 1] & 15
    assert (packed[:, 0] & 15 == first).all()


def test_an_odd_row_is_padded_with_zero() -> None:
    assert packing.pack(np.array([[1, 2, 3]]), Nibbles.LOW_FIRST).tolist() == [[0x21, 0x03]]


@given(st.integers(0, 2**62 - 1))
def test_integer_functions(x: int) -> None:
    assert scalar_functions.isqrt(np.int64(x)) == math.isqrt(x) == functions.isqrt(np.array([x], object))[0]
    assert scalar_functions.bit_length(np.int64(x)) == x.bit_length() == functions.bit_length(np.array([x], object))[0]


def test_integer_functions_exhaustively_and_at_squares() -> None:
    for x in [*range(5000), *(v * v + d for v in (2**15, 2**20 + 7, 2**31 - 2) for d in (-1, 0, 1))]:
        assert scalar_functions.isqrt(np.int64(x)) == math.isqrt(x)
        assert scalar_functions.bit_length(np.int64(x)) == x.bit_length()


def test_constants_encode_what_stands_beside_them() -> None:
    assert len(constants.PAIRS) >= 11
    for raw, real, fraction_bits in constants.PAIRS:
        assert abs(raw - real * 2.0**fraction_bits) <= 1


int32s = st.one_of(
    st.integers(-(2**31), 2**31 - 1), st.sampled_from([-(2**31), 2**31 - 1, -(2**31) + 1, 0, 1, -1, 2**30, -(2**30)])
)


@given(int32s, int32s, st.integers(0, 31))
def test_gemmlowp_primitives_agree_with_their_definition(a: int, b: int, shift: int) -> None:
    exact = min(floor(Fraction(a * b, 2**31) + HALF), 2**31 - 1)
    assert scalar_fixed.high_multiply(np.int64(a), np.int64(b)) == exact
    assert fixed_point.high_multiply(np.array([a], object), b)[0] == exact
    away = EXACT[Rounding.TIES_TO_AWAY](Fraction(a, 1 << shift))
    assert scalar_fixed.rounding_shift(np.int64(a), np.int64(shift)) == away
    left = min(max(a << shift, -(2**31)), 2**31 - 1)
    assert scalar_fixed.saturating_left_shift(np.int64(a), np.int64(shift)) == left
    assert fixed_point.saturating_left_shift(np.array([a], object), shift)[0] == left


@pytest.mark.parametrize("integer_bits", range(6))
def test_exponential_follows_exp(integer_bits: int) -> None:
    unit = 2.0 ** (31 - integer_bits)
    inputs = -np.unique(np.concatenate([np.arange(64), np.geomspace(1, 2**31 - 1, 400).astype(np.int64)]))
    spec_values = fixed_point.exp_of_negative(inputs.astype(object), integer_bits).astype(float) / 2**31
    # The fourth-order series around -1/8 is off by at most (1/8)**5 / 120; some twenty roundings of 2**-31 follow.
    assert np.abs(spec_values - np.exp(inputs / unit)).max() < 2.0**-15 / 120 + 20 * 2.0**-31
    assert [int(scalar_fixed.exp_of_negative(np.int64(a), integer_bits)) for a in inputs] == [
        int(v) for v in fixed_point.exp_of_negative(inputs, integer_bits)
    ]


def test_reciprocal_follows_division() -> None:
    inputs = np.unique(np.concatenate([np.arange(64), np.linspace(0, 2**31 - 1, 999).astype(np.int64)]))
    values = fixed_point.one_over_one_plus(inputs.astype(object)).astype(float) / 2**31
    assert np.abs(values - 1 / (1 + inputs / 2**31)).max() < 1e-8
    assert [int(scalar_fixed.one_over_one_plus(np.int64(a))) for a in inputs] == fixed_point.one_over_one_plus(
        inputs
    ).tolist()


floats32 = st.integers(0, 0x7F7F_FFFF)


def _pair(bits: int) -> tuple[int, int]:
    return ieee.unpack32(np.int64(bits))


def _value(bits: int) -> Any:
    return np.uint32(bits).view(np.float32)


@given(floats32, floats32)
def test_float32_arithmetic_in_integers_is_that_of_the_machine(a: int, b: int) -> None:
    with np.errstate(all="ignore"):
        wanted = [_value(a) * _value(b), _value(a) + _value(b)]
        got = [ieee.pack32(*ieee.multiply32(*_pair(a), *_pair(b))), ieee.pack32(*ieee.add32(*_pair(a), *_pair(b)))]
        if _value(b) != 0:
            wanted.append(_value(a) / _value(b))
            got.append(ieee.pack32(*ieee.divide32(*_pair(a), *_pair(b))))
    assert [int(g) for g in got] == [int(np.float32(w).view(np.uint32)) for w in wanted]


near = st.tuples(floats32, st.integers(-70 << 23, 70 << 23)).map(
    lambda t: (t[0], min(max(t[0] + t[1], 0), 0x7F7F_FFFF))
)


@given(st.one_of(st.tuples(floats32, floats32), near), st.sampled_from((1, -1)), st.sampled_from((1, -1)))
def test_signed_float32_sums_are_those_of_the_machine(bits: tuple[int, int], one: int, other: int) -> None:
    (am, ae), (bm, be) = map(_pair, bits)
    m, e = ieee.sum32(np.int64(one * am), ae, np.int64(other * bm), be)
    with np.errstate(all="ignore"):
        wanted = np.float32(one) * _value(bits[0]) + np.float32(other) * _value(bits[1])
    got = ieee.with_sign(int(ieee.pack32(abs(m), e)), int(m))
    assert got == int((wanted + np.float32(0)).view(np.int32))


# a has steps of 2**60; b is half a step and a little more, which must not be lost
beside_ties = st.tuples(st.integers(2**52, 2**53 - 1), st.integers(7, 58)).map(
    lambda t: (float(t[0] << 60), float((1 << 59) + (1 << t[1])))
)


@given(st.one_of(st.tuples(st.floats(2.0**-200, 2.0**200), st.floats(2.0**-200, 2.0**200)), beside_ties))
def test_float64_sums_and_quotients_are_those_of_the_machine(pair: tuple[float, float]) -> None:
    a, b = pair
    (am, ae), (bm, be) = (math.frexp(v) for v in (a, b))
    one, other = (np.int64(am * 2**53), ae - 53), (np.int64(bm * 2**53), be - 53)
    for got, wanted in ((ieee.normal64(*ieee.sum64(*one, *other)), a + b), (ieee.divide64(*one, *other), a / b)):
        assert int(got[0]).bit_length() == 53
        assert Fraction(int(got[0])) * Fraction(2) ** int(got[1]) == Fraction(wanted)


@given(st.integers(0, 2**62 - 1))
@example(2**53 + 1)  # ties, below an even and above an odd neighbour
@example(2**53 + 3)
def test_integers_become_float64_as_on_the_machine(x: int) -> None:
    m, e = ieee.normal64(np.int64(x), 0)
    assert Fraction(int(m)) * Fraction(2) ** int(e) == Fraction(float(x))


def _exact32(value: Fraction) -> int:
    """The bits of the float32 nearest to a fraction, by comparing it with both neighbours."""
    sign, value = (2**31, -value) if value < 0 else (0, value)
    low, high = 0, 0x7F80_0000
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if Fraction(float(_value(middle))) <= value else (low, middle)
    above = Fraction(2) ** 128 if high == 0x7F80_0000 else Fraction(float(_value(high)))
    twice = 2 * value - Fraction(float(_value(low))) - above
    return sign | (high if twice > 0 or (twice == 0 and low % 2) else low)


near = st.integers(-(2**24), 2**24).map(lambda v: v / 2**12)
summands = st.one_of(near, st.floats(-(2.0**60), 2.0**60, width=32), st.floats(-(2.0**-100), 2.0**-100, width=32))


@given(summands, summands, st.one_of(st.integers(-(2**17), 2**17).map(float), st.just(0.0), summands))
@example(2.0**-10, 2.0**-10, 0.0)
def test_a_fused_multiply_add_rounds_once(a: float, b: float, c: float) -> None:
    x, y, z = np.float32(a), np.float32(b), np.float32(c)
    exact = Fraction(float(x)) * Fraction(float(y)) + Fraction(float(z))
    wanted = _exact32(exact) & 0x7FFF_FFFF
    got = spec_ieee.fused_multiply_add32(x, y, z)
    assert int(np.abs(got).view(np.uint32)) == wanted
    assert not (got < 0) or exact < 0
    (am, ae), (bm, be), (cm, ce) = (_pair(int(v.view(np.int32))) for v in (x, y, z))
    sign = ieee.sign_of(int(x.view(np.int32))) * ieee.sign_of(int(y.view(np.int32)))
    m, e = ieee.sum32(sign * am * bm, ae + be, ieee.sign_of(int(z.view(np.int32))) * cm, ce)
    assert int(ieee.pack32(abs(m), e)) == wanted
    assert (m < 0) == (exact < 0 and m != 0)
    if c == int(c) and abs(c) < 2**49:  # the domain of sum32
        assert ieee.sum32(sign * am * bm, ae + be, int(c), 0) == (m, e) or int(c) == m == 0


@pytest.mark.parametrize("sign", [-1, 1])
def test_a_product_beside_a_tie_of_the_sum_is_seen(sign: int) -> None:
    """1 + 2**-24 is a tie of float32; a product below 2**-52 of it must still decide."""
    for tail, last in ((2.0**-70, 1), (0.0, 0), (-(2.0**-70), 0)):
        got = spec_ieee.fused_multiply_add32(np.float32(1), np.float32(sign), np.float32(sign * 2.0**-24))
        assert int(np.abs(got).view(np.uint32)) == 0x3F80_0000
        x, y = np.float32(sign * (1 + 2.0**-12)), np.float32(1 + 2.0**-12)  # 1 + 2**-11 + 2**-24: a tie
        got = spec_ieee.fused_multiply_add32(x, y, np.float32(sign * tail))
        assert int(np.abs(got).view(np.uint32)) == 0x3F80_1000 + last
        product = sign * (2**12 + 1) ** 2
        tails = int(tail * 2.0**70) * sign
        m, e = ieee.sum32(np.int64(product), np.int64(-24), np.int64(tails), np.int64(-70))
        assert int(ieee.pack32(abs(m), e)) == 0x3F80_1000 + last


@given(st.integers(0, 2**53 - 1))
def test_integers_become_float32_as_on_the_machine(x: int) -> None:
    assert int(ieee.pack32(*ieee.round32(np.int64(x), 0))) == int(np.float32(np.float64(x)).view(np.uint32))


@given(st.integers(0, 2**32 - 1))
def test_unpacking_and_packing_is_the_identity(bits: int) -> None:
    if np.isnan(_value(bits)):
        return
    magnitude = bits & 0x7FFF_FFFF
    signed = bits - 2**32 if bits >= 2**31 else bits
    packed = ieee.with_sign(ieee.pack32(*_pair(signed)), ieee.sign_of(signed))
    assert packed == signed
    m, e = _pair(magnitude)
    if np.isfinite(_value(magnitude)):
        assert Fraction(float(_value(magnitude))) == m * Fraction(2) ** int(e)


@pytest.mark.parametrize("rule", Rounding)
@given(data=st.data())
def test_floats_to_integers(rule: Rounding, data: Any) -> None:
    x = data.draw(st.one_of(st.floats(width=32, allow_nan=False), st.integers(-4000, 4000).map(lambda v: v / 8)))
    x = np.float32(x)
    exact = EXACT[rule](Fraction(float(x))) if np.isfinite(x) else int(math.copysign(2**62, x))
    exact = min(max(exact, -(2**62)), 2**62)
    assert int(spec_ieee.to_integer(x, rule)) == exact
    bits = int(x.view(np.int32))
    m, e = _pair(bits)
    assert int(ieee.to_integer(ieee.sign_of(bits) * m, e, int(rule))) == exact


@pytest.mark.parametrize("rule", Rounding)
def test_float64_beside_a_tie(rule: Rounding) -> None:
    """The fraction of -1/2 + 2**-54 has 54 bits."""
    for tie in (-2.5, -1.5, -0.5, 0.0, 0.5, 1.5, 2.5):
        for x in (np.nextafter(tie, -9), tie, np.nextafter(tie, 9)):
            assert int(spec_ieee.to_integer(x, rule)) == EXACT[rule](Fraction(float(x))), x


@given(st.integers(0, 2**31), st.floats(2.0**-53, 2.0**53))
def test_integer_times_float64(x: int, y: float) -> None:
    m, e = ieee.times_float64(np.int64(x), np.float64(y).view(np.int64))
    assert Fraction(int(m)) * Fraction(2) ** int(e) == Fraction(float(x) * y)


@given(st.integers(-(2**62), 2**62))
@example(2**53 + 1)
@example(2**53 + 3)
@example(-(2**53) - 1)
@example(-(2**53) - 3)
def test_integers_held_by_float64(x: int) -> None:
    assert int(ieee.round53(np.int64(x))) == int(float(x))


normal32 = st.floats(2.0**-40, 2.0**40, width=32).flatmap(lambda v: st.sampled_from([np.float32(v), np.float32(-v)]))


def _signed(x: np.float32) -> tuple[Any, Any]:
    m, e = _pair(int(x.view(np.int32)))
    return (-m if x < 0 else m), e


def _exactly(x: Any) -> Fraction:
    return Fraction(float(x))


@given(st.integers(-(2**16), 2**16), normal32, normal32, st.booleans())
def test_a_fused_multiply_add_of_an_integer_rounds_once(a: int, b: np.float32, c: np.float32, cancels: bool) -> None:
    if cancels:
        c = np.float32(-b * np.float32(a)) * np.float32(1 + 2.0**-20)
    x = np.float32(a)
    exact = _exactly(x) * _exactly(b) + _exactly(c)
    got = spec_ieee.fused_multiply_add32(x, b, c)
    assert _exactly(got) == _nearest(exact, 24)
    m, e = ieee.fused_multiply_add32(*_signed(x), *_signed(b), *_signed(c))
    assert Fraction(int(m)) * Fraction(2) ** int(e) == _exactly(got)


@given(normal32, normal32)
def test_float32_sums_with_signs(a: np.float32, b: np.float32) -> None:
    m, e = ieee.sum32(*_signed(a), *_signed(b))
    assert Fraction(int(m)) * Fraction(2) ** int(e) == _exactly(a + b)


@given(st.integers(-(2**53), 2**53), st.integers(-105, 0), st.integers(-(2**31), 2**31))
def test_float64_sums_with_signs(m: int, e: int, z: int) -> None:
    got, at = ieee.sum64(np.int64(m), np.int64(e), np.int64(z), 0)
    assert Fraction(int(got)) * Fraction(2) ** int(at) == _exactly(np.float64(m) * np.float64(2.0**e) + np.float64(z))


# a * b = 2**30 + 1 and 2**36 + 1: just above half a unit of the sum, by less than a float64 or 60 bits hold
@pytest.mark.parametrize(("a", "b", "shift"), [(13325, 80581, 31), (7361, 9335617, 37)])
@pytest.mark.parametrize("n", [0, 1, 2, 3, 2**22, 2**23 - 1])
@pytest.mark.parametrize("sign", [1, -1])
def test_what_lies_just_beside_a_tie_is_no_tie(a: int, b: int, shift: int, n: int, sign: int) -> None:
    c = np.float32((2**23 + n) * 2.0**shift)
    want = _nearest(Fraction(sign * a * b) + _exactly(c), 24)
    assert _exactly(spec_ieee.fused_multiply_add32(np.float32(sign * a), np.float32(b), c)) == want
    m, e = ieee.fused_multiply_add32(sign * a, 0, b, 0, *_signed(c))
    assert Fraction(int(m)) * Fraction(2) ** int(e) == want


@pytest.mark.parametrize("z", [2**30, 2**30 + 1, -(2**30), -(2**30) - 1])
@pytest.mark.parametrize("m", [2**52 + 1, 2**52, 2**52 - 1, -(2**52) - 1, -(2**52), 1 - 2**52])
def test_what_lies_just_beside_a_tie_of_float64_is_no_tie(z: int, m: int) -> None:
    got, at = ieee.sum64(np.int64(m), -75, np.int64(z), 0)
    assert Fraction(int(got)) * Fraction(2) ** int(at) == _exactly(np.float64(m) * 2.0**-75 + np.float64(z))


def _nearest(x: Fraction, bits: int) -> Fraction:
    """``x`` to so many bits, ties to even."""
    if x == 0:
        return x
    e = math.frexp(float(x))[1]
    unit = Fraction(2) ** (e - bits)
    while abs(x) / unit >= 2**bits:
        unit *= 2
    while abs(x) / unit < 2 ** (bits - 1):
        unit /= 2
    return round(x / unit) * unit

"""Floats in integers: the scalar functions against the machine's own floats and exact fractions."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from exact import EXACT, nearest
from hypothesis import example, given
from hypothesis import strategies as st

from intsim.numerics import Rounding
from intsim.scalar import ieee
from intsim.spec import ieee as spec_ieee

floats32 = st.integers(0, 0x7F7F_FFFF)


def _pair(bits: int) -> tuple[int, int]:
    return ieee.unpack32(np.int64(bits))


def _value(bits: int) -> Any:
    return np.uint32(bits).view(np.float32)


@given(floats32, floats32)
def test_float32_arithmetic_in_integers_is_that_of_the_machine(a: int, b: int) -> None:
    with np.errstate(all="ignore"):
        wanted = [_value(a) * _value(b), _value(a) + _value(b)]
        got = [ieee.pack32(*ieee.multiply32(*_pair(a), *_pair(b))), ieee.pack32(*ieee.sum32(*_pair(a), *_pair(b)))]
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
    assert _exactly(got) == nearest(exact, 24)
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
    want = nearest(Fraction(sign * a * b) + _exactly(c), 24)
    assert _exactly(spec_ieee.fused_multiply_add32(np.float32(sign * a), np.float32(b), c)) == want
    m, e = ieee.fused_multiply_add32(sign * a, 0, b, 0, *_signed(c))
    assert Fraction(int(m)) * Fraction(2) ** int(e) == want


@pytest.mark.parametrize("z", [2**30, 2**30 + 1, -(2**30), -(2**30) - 1])
@pytest.mark.parametrize("m", [2**52 + 1, 2**52, 2**52 - 1, -(2**52) - 1, -(2**52), 1 - 2**52])
def test_what_lies_just_beside_a_tie_of_float64_is_no_tie(z: int, m: int) -> None:
    got, at = ieee.sum64(np.int64(m), -75, np.int64(z), 0)
    assert Fraction(int(got)) * Fraction(2) ** int(at) == _exactly(np.float64(m) * 2.0**-75 + np.float64(z))


# The ends of the exponents, and around the places where a rounding drops one bit or all
FRACTIONS = (0, 1, 2, 2**22 - 1, 2**22, 2**22 + 1, 2**23 - 1)
EDGES = [(e << 23) | f for e in (0, 1, 2, 24, 102, 126, 127, 128, 150, 229, 254) for f in FRACTIONS]


def _bits(values: Any) -> list[int]:
    return (values.view(np.int32).astype(np.int64)).tolist()


@pytest.mark.parametrize("sign", [1, -1])
def test_sums_of_all_edges(sign: int) -> None:
    every = np.array(EDGES, np.uint32).view(np.float32)
    with np.errstate(all="ignore"):
        wanted = [_bits(np.abs(v + np.float32(sign) * every)) for v in every]
    pairs = [_pair(e) for e in EDGES]
    got = [[ieee.sum32(am, ae, sign * bm, be) for bm, be in pairs] for am, ae in pairs]
    assert [[int(ieee.pack32(abs(m), e)) for m, e in row] for row in got] == wanted
    assert all(
        (m < 0) == (b > a)
        for a, row in zip(EDGES, got, strict=True)
        for b, (m, _) in zip(EDGES, row, strict=True)
        if sign < 0
    )


def test_products_and_quotients_of_all_edges() -> None:
    every = np.array(EDGES, np.uint32).view(np.float32)
    pairs = [_pair(e) for e in EDGES]
    with np.errstate(all="ignore"):
        for a, (am, ae) in zip(every, pairs, strict=True):
            assert [int(ieee.pack32(*ieee.multiply32(am, ae, *b))) for b in pairs] == _bits(a * every)
            assert [int(ieee.pack32(*ieee.divide32(am, ae, *b))) for b in pairs[1:]] == _bits(a / every[1:])


def test_a_float_has_24_bits_and_infinity_is_2_to_the_4000() -> None:
    for bits in EDGES[1:]:
        m, e = _pair(bits)
        assert int(m).bit_length() == 24
        assert Fraction(int(m)) * Fraction(2) ** int(e) == Fraction(float(_value(bits)))
    m, e = _pair(0x7F80_0000)
    assert m * 2 ** int(e) == 2**4000
    assert int(m).bit_length() == 24
    assert ieee.pack32(m, e) == 0x7F80_0000


@pytest.mark.parametrize("m", [0, 1, 2**23 + 1, 2**24 - 1, 2**24 + 1, 2**25 + 2, 2**60 + 1, 2**61 - 1, 2**61])
def test_any_number_becomes_a_float32(m: int) -> None:
    for e in (*range(-215, -120), *range(60, 129, 4)):
        kept, at = ieee.round32(np.int64(m), np.int64(e))
        assert ieee.round32(np.int64(-m), np.int64(e)) == (-kept, at)
        assert int(ieee.pack32(kept, at)) == _exact32(Fraction(m) * Fraction(2) ** e)


@pytest.mark.parametrize("x", [0, 1, 2**52, 2**53 - 1, 2**53, 2**54 - 2, 2**54 - 1, 2**54 + 2, 2**54 + 6, 2**62 - 1])
def test_a_float64_has_53_bits(x: int) -> None:
    m, e = ieee.normal64(np.int64(x), np.int64(-7))
    assert int(m).bit_length() == (53 if x else 0)
    assert Fraction(int(m)) * Fraction(2) ** (int(e) + 7) == Fraction(float(x))


@pytest.mark.parametrize("rule", Rounding)
def test_numbers_of_every_size_become_integers(rule: Rounding) -> None:
    for m in (0, 1, 2, 3, 5, 2**24 - 1, 2**53, 2**54 - 1):
        for e in (*range(-70, 65), 3977):
            for signed in (m, -m):
                exact = EXACT[rule](Fraction(signed) * Fraction(2) ** e)
                got = ieee.to_integer(np.int64(signed), np.int64(e), int(rule))
                assert int(got) == min(max(exact, -(2**62)), 2**62), (signed, e)


@pytest.mark.parametrize("total", [ieee.sum32, ieee.sum64])
@pytest.mark.parametrize("far", [-3000, 0, 3000])
def test_nothing_is_lost_to_a_zero(total: Any, far: int) -> None:
    for m in (1, -1, 5, 2**24 - 1):
        for pair in ((m, 3, 0, far), (0, far, m, 3)):
            got, at = total(*map(np.int64, pair))
            assert Fraction(int(got)) * Fraction(2) ** int(at) == m * 8
        got, at = total(*map(np.int64, (m, 3, 1, 3)))
        assert Fraction(int(got)) * Fraction(2) ** int(at) == (m + 1) * 8


WIDE = [
    f(float(v))
    for v in (2**52, 2**52 + 1, 2**52 + 2**26, 3 * 2**51 - 1, 2**53 - 1)
    for f in (float, lambda v: v / 2**61)
]


def test_products_and_quotients_of_float64_at_the_ends() -> None:
    for y in WIDE:
        for x in (0, 1, 2, 3, 2**22 + 1, 2**30 + 1, 2**31 - 1, 2**31):
            m, e = ieee.times_float64(np.int64(x), np.float64(y).view(np.int64))
            assert Fraction(int(m)) * Fraction(2) ** int(e) == Fraction(float(x) * y), (x, y)
        for z in WIDE:
            (am, ae), (bm, be) = (math.frexp(v) for v in (y, z))
            m, e = ieee.divide64(np.int64(am * 2**53), ae, np.int64(bm * 2**53), be)
            assert Fraction(int(m)) * Fraction(2) ** int(e) == Fraction(y / z)


@pytest.mark.parametrize("x", [2**31 - 1, 2**31 - 3, 2**31 - 2**13 + 1, 2**31 - 2**20 - 5, 1637332249])
@pytest.mark.parametrize("beside", [0, 1, -1, 2, 2**20, 2**24, 2**25, -(2**24)])
def test_what_lies_beside_a_tie_of_a_product_of_84_bits(x: int, beside: int) -> None:
    m = 2**53 - 2**31 + (2**30 + beside) * pow(x, -1, 2**31) % 2**31
    for one in (m, m - 2**31):  # an odd and an even number of units below the tie
        y = float(one)
        assert x * one % 2**31 == (2**30 + beside) % 2**31
        got, e = ieee.times_float64(np.int64(x), np.float64(y).view(np.int64))
        assert Fraction(int(got)) * Fraction(2) ** int(e) == Fraction(float(x) * y)

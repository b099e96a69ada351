"""The scalar and spec primitives, exhaustively at small widths, against exact fractions and NumPy's own floats."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
from exact import EXACT
from hypothesis import given
from hypothesis import strategies as st

from intsim.numerics import IntType, Nibbles, Overflow, Rounding, int4, int8, uint4
from intsim.records import TypeRecord
from intsim.scalar import functions as scalar_functions
from intsim.scalar import packing as scalar_packing
from intsim.scalar import rounding as scalar
from intsim.spec import functions, packing
from intsim.spec import rounding as spec

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
    if bits == 62:
        assert scalar.wrap(np.int64(2**61), TypeRecord(t.bits, t.qmin, t.qmax)) == -(2**61)


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
    squares = [v * v + d for v in (2**15, 2**20 + 7, 2**31 - 2) for d in (-1, 0, 1)]
    for x in [*range(5000), *squares, *(2**k - d for k in range(62) for d in (0, 1))]:
        assert scalar_functions.isqrt(np.int64(x)) == math.isqrt(x)
        assert scalar_functions.bit_length(np.int64(x)) == x.bit_length()

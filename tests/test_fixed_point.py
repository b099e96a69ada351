"""Fixed point: the scalar functions against the spec, fractions and real functions."""

from __future__ import annotations

from fractions import Fraction
from math import floor

import numpy as np
import pytest
from exact import EXACT, HALF
from hypothesis import given
from hypothesis import strategies as st

from intsim import constants
from intsim.numerics import Rounding, Scaling
from intsim.scalar import fixed_point as scalar_fixed
from intsim.scalar import tflite as scalar_tflite
from intsim.spec import fixed_point, tflite

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
    beside = 2 ** np.arange(31) + np.array([[-1], [0], [1]])  # one factor alone, and all below it
    inputs = -np.unique(np.concatenate([np.arange(64), np.geomspace(1, 2**31, 400).astype(np.int64), *beside]))
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


ENDS = np.array([0, 1, 2, 2**29, 2**30 - 1, 2**30, 2**30 + 1, 3 * 2**29, 2**31 - 2, 2**31 - 1])
BOTH = np.concatenate([-ENDS, ENDS[1:], [-(2**31)]])


def _along(low: int, high: int, count: int) -> np.ndarray:
    """Integers in equal ratios, and the first ones one by one."""
    return np.unique(
        np.concatenate([np.arange(low, low + 40), np.geomspace(max(low, 1), high, count).astype(np.int64)])
    )


@pytest.mark.parametrize("scaling", Scaling)
def test_scaling_by_a_multiplier(scaling: Scaling) -> None:
    for shift in (0, 1, 29, 30, 31, 32, 33, 45, 61, 62):
        for multiplier in (2**30, 2**30 + 1, 1518500249, 2**31 - 1):
            want = fixed_point.scaled(BOTH, np.int64(multiplier), np.int64(shift), scaling).tolist()
            assert [int(scalar_fixed.scaled(x, multiplier, shift, int(scaling))) for x in BOTH] == want


@pytest.mark.parametrize("x", [0, 1, -1, 2**31 - 1, 2**31, -(2**31), -(2**31) - 1, 2**32, 2**33 + 5, -(3 * 2**31)])
def test_an_int32_wraps(x: int) -> None:
    assert int(scalar_fixed.wrap32(np.int64(x))) == int(np.array([x]).astype(np.int32)[0])


@pytest.mark.parametrize("integer_bits", range(6))
def test_logistic_and_tanh_are_those_of_the_spec(integer_bits: int) -> None:
    magnitudes = _along(0, 2**31 - 1, 600)
    for a in (magnitudes, -magnitudes):
        want = tflite.logistic(a, integer_bits).tolist()
        assert [int(scalar_tflite.logistic(v, integer_bits)) for v in a] == want
        if integer_bits < 5:
            assert [int(scalar_tflite.tanh(v, integer_bits)) for v in a] == tflite.tanh(a, integer_bits).tolist()


def test_inverse_square_roots_are_those_of_the_spec() -> None:
    powers = 2 ** np.arange(30)
    values = np.unique(np.concatenate([_along(0, 2**29 - 1, 2000), powers[:-1] + 1, powers - 1]))
    mantissas, shifts = tflite.inverse_square_root(values)
    assert [int(scalar_tflite.inverse_square_root(v)) for v in values] == mantissas.tolist()
    assert [int(scalar_tflite.inverse_square_root_shift(v)) for v in values] == shifts.tolist()


@pytest.mark.parametrize("index_bits", range(1, 16))
def test_lookup_is_that_of_the_spec(index_bits: int) -> None:
    places = np.arange(2**index_bits + 1)
    table = (places * 40503 + 11) % 65536 - 32768
    values = np.unique(np.clip(np.arange(-32768, 32768 + 97, 97) + np.array([[0], [1]]), -32768, 32767))
    want = tflite.lookup(values, table, index_bits).tolist()
    assert [int(scalar_tflite.lookup(v, table, index_bits)) for v in values] == want


def test_constants_encode_what_stands_beside_them() -> None:
    assert len(constants.PAIRS) >= 11
    for raw, real, fraction_bits in constants.PAIRS:
        assert abs(raw - real * 2.0**fraction_bits) <= 1

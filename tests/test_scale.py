"""Integer scales: the rules are the nearest 31-bit scale to the exact value, in the spec and in the program."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from intsim.numerics import Rounding
from intsim.scalar import scale as program
from intsim.spec import rounding, scale as spec

MANTISSAS = st.one_of(st.integers(2**30, 2**31 - 1), st.sampled_from([2**30, 2**30 + 1, 2**31 - 1, 3 * 2**29]))
SCALES = st.tuples(MANTISSAS, st.integers(-200, 200))
ONE = 2**30


def real(scale: Any) -> Fraction:
    return Fraction(int(scale[0])) * Fraction(2) ** int(scale[1])


def exact(scale: tuple[int, int]) -> tuple[Any, Any]:
    """As arrays of unbounded integers, and of int64: both must come out alike."""
    return tuple(np.array([v], object) for v in scale)


def both(name: str, *arguments: Any) -> tuple[int, int]:
    wide = getattr(spec, name)(*(exact(a) if isinstance(a, tuple) else np.array([a], object) for a in arguments))
    narrow = getattr(spec, name)(
        *(tuple(np.array([v], np.int64) for v in a) if isinstance(a, tuple) else np.array([a]) for a in arguments)
    )
    flat = [np.int64(v) for a in arguments for v in (a if isinstance(a, tuple) else (a,))]
    scalar = getattr(program, name)(*flat)
    made = {(int(m[0] if np.ndim(m) else m), int(e[0] if np.ndim(e) else e)) for m, e in (wide, narrow, scalar)}
    assert len(made) == 1, made
    return made.pop()


def check_nearest(got: tuple[int, int], wanted: Fraction) -> None:
    assert 2**30 <= got[0] < 2**31
    assert abs(real(got) - wanted) <= Fraction(2) ** (got[1] - 1)


@given(SCALES, SCALES)
@example((2**30, 0), (2**30, 0))
@example((2**31 - 1, 5), (2**31 - 1, -9))
@example((46341 * 2**15, 0), (46341 * 2**15, 0))  # a product just above 2**61
@example((2**30 + 23171, 0), (2**30 + 23171, 0))  # just above half a step
@example((2**30 + 23170, 0), (2**30 + 23170, 0))  # and just below
def test_products_and_quotients(a: tuple[int, int], b: tuple[int, int]) -> None:
    check_nearest(both("multiply", a, b), real(a) * real(b))
    check_nearest(both("quotient", a, b), real(a) / real(b))
    assert both("quotient", a, a) == (ONE, -30)


def test_a_mantissa_of_32_bits_is_the_next_power_of_two() -> None:
    assert both("normal", 2**31, 5) == (2**30, 6)
    assert both("normal", 2**31 - 1, 5) == (2**31 - 1, 5)
    assert both("normal", 2**30, 5) == (2**30, 5)


@given(st.integers(1, 2**53 - 1))
@example(2**31 - 1)
@example(2**31)
@example(2**53 - 1)
@example(2**32 - 1)  # rounds up to a power of two
def test_integers_as_scales(n: int) -> None:
    got = both("of_integer", n)
    check_nearest(got, Fraction(n))
    if n < 2**31:
        assert real(got) == n


@given(st.floats(1e-300, 1e300))
@example(1.0)
@example(1 - 2.0**-53)  # rounds up to a power of two
def test_real_numbers_as_scales(value: float) -> None:
    mantissa, exponent = spec.of_real(value)
    check_nearest((int(mantissa), int(exponent)), Fraction(value))


@given(SCALES, SCALES)
def test_the_order_is_that_of_the_values(a: tuple[int, int], b: tuple[int, int]) -> None:
    wanted = real(a) < real(b)
    assert bool(program.less(*a, *b)) == wanted
    assert bool(spec.less(exact(a), exact(b))[0]) == wanted
    assert real(tuple(v[0] for v in spec.smaller(exact(a), exact(b)))) == min(real(a), real(b))


@given(st.lists(st.tuples(SCALES, st.booleans()), min_size=1, max_size=6))
def test_the_smallest_of_those_that_count(listed: list[tuple[tuple[int, int], bool]]) -> None:
    counted = [c for _, c in listed]
    counted[0] = True
    parts = tuple(np.array([[s[i] for s, _ in listed]]) for i in (0, 1))
    got = spec.smallest(parts, np.array([counted]))
    assert real(tuple(v[0, 0] for v in got)) == min(real(s) for (s, _), c in zip(listed, counted, strict=True) if c)


RULES = (Rounding.TIES_TO_AWAY, Rounding.TIES_TO_EVEN, Rounding.TIES_TO_POSITIVE, Rounding.TOWARD_NEGATIVE)


@pytest.mark.parametrize("rule", RULES)
@given(st.integers(-(2**31) + 1, 2**31 - 1), MANTISSAS, st.integers(-120, 0))
@example(1, 2**30, -31)
@example(-1, 2**30, -31)
@example(2**31 - 1, 2**31 - 1, -62)
@example(2**31 - 1, 2**31 - 1, -63)
@example(-(2**31) + 1, 2**31 - 1, -63)
@example(0, 2**30, -63)
@example(1, 2**30, -63)
@example(-1, 2**30, -63)
def test_applying_a_ratio_rounds_the_exact_product_once(rule: Rounding, x: int, mantissa: int, exponent: int) -> None:
    product = x * mantissa
    wanted = int(rounding.shift_right(np.array([product], object), -exponent, rule)[0])
    for kind in (object, np.int64):
        got = spec.apply(np.array([x], kind), (np.array([mantissa], kind), np.array([exponent], kind)), rule)
        assert int(got[0]) == wanted
    assert int(program.apply(np.int64(x), np.int64(mantissa), np.int64(exponent), rule)) == wanted

"""What a rotation keeps: length, position 0, and the distance of positions. And that the tables are exact."""

from __future__ import annotations

from decimal import Decimal, localcontext
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from intsim import int16, run, unlimited
from intsim.ops import rope
from intsim.ops.rope import Layout
from intsim.ops.rope.fixed_point import Params

POSITIONS, WIDTH = 256, 8
TABLES = {f: rope.tables(POSITIONS, WIDTH, fraction_bits=f) for f in (10, 14, 15)}
ROWS = st.lists(st.integers(-(2**15), 2**15 - 1), min_size=WIDTH, max_size=WIDTH)
WHERE = st.integers(0, POSITIONS - 1)
RULES = (st.sampled_from(sorted(TABLES)), st.sampled_from(Layout))


def turn(row: Any, at: int, f: int, layout: Layout) -> Any:
    x = np.array([row], np.int16)
    p = Params(f, layout=layout, x=int16, dtype=unlimited)
    return run("rope.fixed_point", x, np.array([at], np.int32), *TABLES[f], p=p, backend="reference")[0].tolist()


def length(row: Any) -> float:
    return float(np.linalg.norm(np.array(row, np.float64)))


@given(ROWS, WHERE, *RULES)
def test_length_is_kept(row: Any, at: int, f: int, layout: Layout) -> None:
    assert abs(length(turn(row, at, f, layout)) - length(row)) <= rope.rotation_error(length(row), WIDTH, f)


@given(ROWS, *RULES)
def test_position_0_is_the_identity(row: Any, f: int, layout: Layout) -> None:
    for q, x in zip(turn(row, 0, f, layout), row, strict=True):
        assert q == x or (f == 15 and abs(x) >= 2**14 and abs(q - x) == 1)


@given(ROWS, ROWS, WHERE, WHERE, st.integers(0, POSITIONS - 1), *RULES)
def test_products_depend_on_the_distance_alone(x: Any, y: Any, m: int, n: int, by: int, f: int, layout: Layout) -> None:
    by = min(by, POSITIONS - 1 - max(m, n))
    one, other = (
        sum(a * b for a, b in zip(turn(x, m + t, f, layout), turn(y, n + t, f, layout), strict=True)) for t in (0, by)
    )
    ex, ey = (rope.rotation_error(length(v), WIDTH, f) for v in (x, y))
    assert abs(one - other) <= 2 * (length(x) * ey + length(y) * ex + ex * ey)


def test_the_layouts_are_one_rotation_in_two_orders() -> None:
    row = [3, -5, 127, 90, -128, 44, 0, 1]
    pairs = turn([row[i // 2 + (i % 2) * 4] for i in range(8)], 9, 14, Layout.PAIRS)
    assert [pairs[2 * i] for i in range(4)] + [pairs[2 * i + 1] for i in range(4)] == turn(row, 9, 14, Layout.HALVES)


def cosine(angle: Decimal) -> Decimal:
    """By halving: cos 2x = 2 cos(x)**2 - 1 after the series of a small angle. Another way than the tables'."""
    halvings = max(angle.adjusted() * 4 + 8, 8)
    small = (angle / 2**halvings) ** 2
    c = 1 - small / 2 + small**2 / 24 - small**3 / 720 + small**4 / 40320 - small**5 / 3628800 + small**6 / 479001600
    for _ in range(halvings):
        c = 2 * c * c - 1
    return c


@pytest.mark.parametrize(("base", "f"), [(10000, 14), (500000, 15), (Fraction(20001, 2), 8)])
def test_the_tables_are_the_nearest_integers_of_another_computation(base: int | Fraction, f: int) -> None:
    positions, width = 40, 6
    cos, sin = rope.tables(positions, width, base=base, fraction_bits=f)
    with localcontext() as c:
        c.prec = 120
        quarter = Decimal(
            "1.57079632679489661923132169163975144209858469968755291048747229615390820314310449931401741267"
        )
        for i in range(width // 2):
            b = Fraction(base)
            angle = (Decimal(b.numerator) / b.denominator) ** (Decimal(-2 * i) / width)
            for p in range(positions):
                for table, true in ((cos, cosine(p * angle)), (sin, cosine(abs(p * angle - quarter)))):
                    want = int((true * 2**f).to_integral_value())
                    assert table[p, i] == min(want, 2**15 - 1)


def test_tables_refuse_what_they_cannot_make() -> None:
    for wrong in ({"positions": 0}, {"width": 7}, {"fraction_bits": 16}, {"base": Fraction(1, 2)}):
        with pytest.raises(ValueError, match=r"rope\.tables: needs"):
            rope.tables(**{"positions": 4, "width": 4} | wrong)


def test_a_value_near_a_tie_is_not_rounded_on_trust() -> None:
    with pytest.raises(ArithmeticError, match="too near a tie"):
        rope._nearest(1 << (rope.BITS - 15), 14)
    assert rope._nearest((1 << (rope.BITS - 15)) + (1 << (rope.BITS - 59)), 14) == 1

"""Deviations: what a case tells apart is what really changes its outputs."""

from __future__ import annotations

import numpy as np

from intsim.composites.attention import ibert
from intsim.numerics import Rounding
from intsim.ops.matmul import integer
from intsim.ops.requantize import single_rounding
from intsim.oracle.cases import make
from intsim.oracle.deviations import changes, deviations, told_apart
from intsim.registry import get

ROUND = single_rounding.Params(multiplier=1, shift=4)


def told(acc: list[int], p: single_rounding.Params) -> list[str]:
    return told_apart(make(single_rounding.OP, "case", "", (np.array([acc], np.int32),), p))


def test_a_tie_tells_the_rules_that_break_it_otherwise() -> None:
    half_down = {"rounding=TOWARD_NEGATIVE", "rounding=TOWARD_ZERO", "rounding=TIES_TO_NEGATIVE"}
    half_up = {"rounding=TIES_TO_POSITIVE", "rounding=TIES_TO_AWAY"}
    assert ROUND.rounding is Rounding.TIES_TO_EVEN
    found = set(told([8], ROUND))  # 1/2: to 0 by the even rule
    assert half_up <= found
    assert not half_down & found
    found = set(told([24], ROUND))  # 3/2: to 2
    assert half_down <= found
    assert not half_up & found
    assert not [name for name in told([16, -32], ROUND) if "rounding=" in name]  # exact: every rule gives it


def test_a_zero_point_is_told_from_none_and_from_its_negative() -> None:
    p = single_rounding.Params(multiplier=1, shift=4, zero_point=5)
    assert {"zero_point=0", "zero_point negated"} <= set(told([16], p))
    assert "zero_point_added=FIRST" not in told([16], p)  # 1 is exact: the order shows at ties only
    assert "zero_point_added=FIRST" in told([8], p)


def test_a_sibling_is_told_where_it_differs() -> None:
    p = single_rounding.Params(multiplier=1518500249, shift=39, rounding=Rounding.TIES_TO_POSITIVE)
    assert "requantize.double_rounding" in told([-43987], p)
    assert "requantize.double_rounding" not in told([-43986], p)


def test_accumulators_and_stages_are_changed_too() -> None:
    assert "acc=unlimited" in {name for name, _ in changes(integer.Params())}
    example, p = next(iter(get("attention.ibert").examples().values()))
    assert any(name.startswith("score.") for name, _ in changes(p))
    assert all(d.op is ibert.OP or d.name.startswith("attention.") for d in deviations(ibert.OP, p))
    assert example

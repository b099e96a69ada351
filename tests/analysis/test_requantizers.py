"""Variants compared over every accumulator: against a plain scan, and against what is known of them."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result

from intsim.analysis import requantizers
from intsim.analysis.requantizers import (
    HIGHEST,
    LOWEST,
    Candidate,
    Comparison,
    Difference,
    candidates,
    compare,
    exhaust,
)
from intsim.cli import main
from intsim.numerics import int8


def by_name(found: Comparison) -> dict[str, int]:
    return {name: i for i, group in enumerate(found.classes) for name in group}


def test_ties_tell_the_rules_apart_at_a_power_of_two() -> None:
    place = by_name(compare(candidates(2**30, 34)))
    assert place["single_rounding TIES_TO_EVEN"] == place["dyadic"] == place["float32_ties_even"]
    assert place["single_rounding TIES_TO_AWAY"] == place["float64_ties_away"]
    rules = [place[f"single_rounding {rule}"] for rule in ("TIES_TO_EVEN", "TIES_TO_AWAY", "TIES_TO_POSITIVE")]
    assert len({*rules, place["double_rounding"], place["two_half_ups"]}) == 5


def test_what_was_found_holds_where_it_is_said_to() -> None:
    listed = {c.name: c for c in candidates(1518500249, 39, zero_point=-5)}
    found = compare(list(listed.values()))
    assert found.differences
    for d in found.differences:
        before, at = np.array([d.acc - 1]), np.array([d.acc])
        assert (listed[d.one](at)[0], listed[d.other](at)[0]) == (d.one_gives, d.other_gives)
        assert d.one_gives != d.other_gives
        assert listed[d.one](before)[0] == listed[d.other](before)[0]
    place = by_name(found)
    assert place["single_rounding TIES_TO_EVEN"] != place["double_rounding"]


@pytest.mark.parametrize("numbers", [(1527099593, 37, -126), (3, 31, 7), (2**31 - 1, 40, 0), (2**30, 20, 0)], ids=str)
def test_equal_ones_are_equal_on_any_accumulator(numbers: tuple[int, int, int]) -> None:
    listed = candidates(*numbers)
    rng = np.random.default_rng(3)
    step = max(int(2.0 ** numbers[1] / numbers[0]) // 20, 1)
    around = np.arange(-4000, 4000) * step
    acc = np.unique(np.clip(np.concatenate([rng.integers(-(2**31), 2**31, 4000), around]), -(2**31), 2**31 - 1))
    results = {c.name: c(acc) for c in listed}
    for group in compare(listed).classes:
        for name in group:
            assert (results[name] == results[group[0]]).all()


def test_counts_are_those_of_a_plain_scan() -> None:
    listed = candidates(2**30 + 12345, 36, dtype=int8)
    acc = np.arange(-(2**14), 2**14)
    results = {c.name: c(acc) for c in listed}
    assert all((r[0], r[-1]) == (-128, 127) for r in results.values()), "the scan reaches both ends"
    found = compare(listed)
    assert len(found.classes) > 3
    for d in found.differences:
        assert d.count == int((results[d.one] != results[d.other]).sum())


def test_an_exhaustive_run_finds_what_the_thresholds_say() -> None:
    listed = {c.name: c for c in candidates(2**30 + 12345, 36, dtype=int8)}
    found = {(d.one, d.other): d for d in compare(list(listed.values())).differences}
    pair = "single_rounding TOWARD_NEGATIVE", "double_rounding"
    told: list[int] = []
    got = exhaust(*(listed[name] for name in pair), (-(2**14), 2**14), done=told.append)
    assert got == found[pair], "all accumulators that do not saturate lie between these"
    assert sum(told) == 2**15 + 1
    same = listed["single_rounding TIES_TO_EVEN"]
    assert exhaust(same, same, (-(2**14), 2**14)) is None


@pytest.mark.parametrize("zero_point", [0, -77])
def test_what_is_counted_in_registers_is_what_the_thresholds_say(
    zero_point: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    kernels = ("TIES_TO_EVEN", "TIES_TO_AWAY", "TOWARD_ZERO", "double_rounding", "dyadic", "float32_ties_even")
    listed = [c for c in candidates(2**30 + 12345, 36, zero_point, int8) if c.name.split()[-1] in kernels]
    monkeypatch.setattr(requantizers, "PIECE", 2**15)
    of_thresholds = compare(listed)
    place = by_name(of_thresholds)
    for one, other in itertools.pairwise([*listed, listed[0]]):
        assert requantizers._in_registers(one, other) is not None
        got = exhaust(one, other, (-(2**16), 2**16))
        if place[one.name] == place[other.name]:
            assert got is None
        else:
            of_classes = next(
                d
                for d in of_thresholds.differences
                if {place[d.one], place[d.other]} == {place[one.name], place[other.name]}
            )
            assert got is not None
            assert (got.count, got.acc) == (of_classes.count, of_classes.acc)


@pytest.mark.parametrize("acc", [LOWEST, -(2**20), -(2**20) - 1, 5, HIGHEST])
def test_an_exhaustive_run_reaches_every_piece_and_its_ends(acc: int, monkeypatch: pytest.MonkeyPatch) -> None:
    listed = {c.name: c for c in candidates(1, 20)}
    even = listed["single_rounding TIES_TO_EVEN"]

    def wrong(column: Any) -> Any:
        return even.run(column) ^ (column == acc).astype(np.int8)

    wrong.serves = lambda column: False  # type: ignore[attr-defined]  # a function stands in for the object
    monkeypatch.setattr(requantizers, "PIECE", 2**15)
    between = max(acc - 2**16, LOWEST), min(acc + 2**16, HIGHEST)
    found = exhaust(even, Candidate("wrong", wrong), between)  # type: ignore[arg-type]
    value = int(even(np.array([acc]))[0])
    assert found == Difference(even.name, "wrong", 1, acc, value, value ^ 1)


def show(*options: str) -> Result:
    return CliRunner().invoke(main, ["ops", "show", *options])


def test_the_command_lists_classes_and_counter_examples() -> None:
    done = show("requantize", "--compare", "--multiplier", "1073741824", "--shift", "34")
    assert done.exit_code == 0, done.output
    assert "single_rounding TIES_TO_EVEN, dyadic, float32_ties_even" in done.output
    assert "first at" in done.output
    assert "left out" not in done.output
    assert "left out" in show("requantize", "--compare", "--multiplier", "3", "--shift", "4").output


@pytest.mark.parametrize(
    "options",
    [
        ("requantize", "--compare"),
        ("requantize", "--exhaust", "dyadic", "double_rounding"),
        ("requantize", "--compare", "--multiplier", "1", "--shift", "40", "--exhaust", "dyadic", "half_up"),
        ("softmax.ibert", "--compare", "--multiplier", "1", "--shift", "2"),
        ("requantize", "--compare", "--multiplier", "0", "--shift", "34"),
        ("requantize", "--compare", "--multiplier", "5", "--shift", "99"),
        ("requantize", "--compare", "--multiplier", "5", "--shift", "34", "--dtype", "int77"),
        ("requantize", "--compare", "--multiplier", "5", "--shift", "34", "--dtype", "int32"),
    ],
)
def test_the_command_refuses(options: tuple[str, ...]) -> None:
    done = show(*options)
    assert done.exit_code == 2, done.output
    assert "Error: " in done.output

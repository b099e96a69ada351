"""The golden cases show what they should, and the audit says what some do not."""

from __future__ import annotations

from typing import Any

import pytest
from click.testing import CliRunner

from intsim.cli import main
from intsim.oracle import golden
from intsim.oracle.audit import audit
from intsim.registry import all_ops, get


@pytest.mark.compiled  # the spec alone: once is enough
@pytest.mark.parametrize("op", all_ops(), ids=lambda op: op.name)
def test_golden_cases_tell_rules_apart_saturate_and_reach_the_ends(op: Any) -> None:
    assert audit(op, golden.cases(op)) == []


def test_without_the_ties_the_rules_are_not_told_apart() -> None:
    op = get("requantize.power_of_two")
    found = audit(op, [case for case in golden.cases(op) if case.id.endswith("random-0")])
    assert "no case tells rounding=TIES_TO_AWAY from rounding=TIES_TO_EVEN" in found


def test_without_extremes_it_says_so() -> None:
    op = get("add.matched")
    wide = [case for case in golden.cases(op) if case.id.endswith("a-wide-result-holds-every-sum")]
    assert len(wide) == 1
    assert audit(op, wide) == ["no case saturates dtype"]
    op = get("matmul.integer")
    found = audit(op, [case for case in golden.cases(op) if case.id.endswith("u8s8")])
    assert "no case overflows acc" in found
    assert "no case tells overflow=WRAP from overflow=SATURATE" in found
    assert "no case has the lowest value of b" in found


def test_the_command_says_what_is_shown() -> None:
    done = CliRunner().invoke(main, ["golden", "audit", "softmax", "add.matched"])
    assert done.exit_code == 0, done.output
    assert done.output.count("shows all") == 1 + len([op for op in all_ops() if op.family == "softmax"])

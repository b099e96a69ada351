"""The mutation run itself: what it states still exists, and a mutant is judged by what it reaches."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from meta.mutants import files, module_of, mutants, role

STATED = Path(__file__).with_name("equivalent.toml")
ENTRIES = tomllib.loads(STATED.read_text())["equivalent"]


@pytest.mark.parametrize("file", sorted({entry["file"] for entry in ENTRIES}))
def test_what_is_stated_as_equivalent_is_a_mutant_with_a_reason(file: str) -> None:
    made = {f"{m.where}: {m.shown}" for m in mutants(file)}
    for entry in ENTRIES:
        if entry["file"] == file:
            assert len(entry["reason"].split()) > 2
            assert set(entry["mutants"]) <= made


def test_a_mutant_is_judged_by_what_it_reaches() -> None:
    assert role(("intsim.ops.add.xnnpack", "spec"))[0] == "arithmetic"
    assert role(("intsim.ops.add.xnnpack", "Params.from_scales"))[0] == "builder"
    assert role(("intsim.ops.matmul.integer", "LONGEST"))[0] == "bound"
    assert role(("intsim.ops.matmul._cpu_blas", "_pieces")) == ("tuned", ("matmul.integer",))
    part, ops = role(("intsim.scalar.fixed_point16", "exp_of_negative16"))
    assert part == "arithmetic"
    assert ops == ("activation.logistic_gemmlowp16", "activation.tanh_gemmlowp16")


def test_exhaustion_tells_what_differs_from_what_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    exhaust = importlib.import_module("exhaust")
    assert {entry["domain"] for entry in ENTRIES if "domain" in entry} == set(exhaust.DOMAINS)
    steps = {m.shown: m.source for m in mutants("intsim/scalar/functions.py")}
    for first, same in ((31, True), (33, False)):
        source = steps[f"for step in ({first}, 16, 8, 4, 2, 1):"]
        assert exhaust.proven("intsim/scalar/functions.py", source, "bit_length") == same


@pytest.mark.parametrize("file", files(("intsim/scalar",)))
def test_every_mutant_is_another_program(file: str) -> None:
    text = Path(module_of(file).replace(".", "/") + ".py")
    for mutant in mutants(file)[::7]:
        compile(mutant.source, file, "exec")
        assert mutant.source != (Path(__file__).parents[2] / text).read_text()


def test_a_wrong_rounding_rule_is_noticed_by_the_golden_outputs() -> None:
    run = subprocess.run(
        [sys.executable, str(Path(__file__).with_name("mutation.py")), "--kind", "rule", "add/xnnpack"],
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])},
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stdout + run.stderr
    assert "intsim/ops/add/xnnpack.py: 4 of 4 killed" in run.stdout

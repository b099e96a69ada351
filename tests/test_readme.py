"""What the README shows is what happens."""

from __future__ import annotations

import contextlib
import io
import re
from pathlib import Path

import pytest
from click.testing import CliRunner

from cuda_callers import usable
from intsim.cli import main
from intsim.models import results
from intsim.numerics import Rounding
from intsim.oracle import evidence, evidence_tables

README = (Path(__file__).parents[1] / "README.md").read_text()
PYTHON = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


def test_the_kernel_that_rounds_away_gives_the_report_that_is_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mykernel.py").write_text(PYTHON[0])
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(main, ["check", "./mykernel.py:backend"])
    assert done.exit_code == 1
    shown = re.search(r"```\n(-- requantize.*?)\n```", README, re.DOTALL)
    assert shown is not None
    assert shown[1] in done.output
    assert len(PYTHON[0].strip().splitlines()) <= 16, "a backend is a few lines"


def test_the_call_from_python_prints_what_its_comment_says() -> None:
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(PYTHON[1], {})  # the README's own text
    assert f"# {printed.getvalue().strip()}" in PYTHON[1]


@pytest.mark.skipif(not usable(), reason="needs Numba's simulator or a GPU: the uncompiled job simulates it")
def test_the_call_on_a_gpu_prints_what_its_comment_says() -> None:
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(PYTHON[2], {})  # the README's own text
    assert f"# {printed.getvalue().strip()}" in PYTHON[2]


def test_the_rounding_table_has_every_rule_once() -> None:
    rows = re.findall(r"^\| `([A-Z_]+)` \|", README, re.MULTILINE)
    assert rows == [rule.name for rule in Rounding]


def test_every_verb_that_is_shown_exists() -> None:
    for line in re.findall(r"^    (?:pip install .* && )?intsim ([a-z]+)", README, re.MULTILINE):
        assert CliRunner().invoke(main, [line, "--help"]).exit_code == 0


def test_the_table_of_systems_is_what_was_measured() -> None:
    _, _, rest = README.partition(evidence_tables.START)
    table, end, _ = rest.partition(evidence_tables.END)
    assert end
    assert table.strip() == evidence_tables.markdown(evidence.read()), "run: intsim profiles --update README.md"


def test_the_tables_of_transformers_are_what_was_measured() -> None:
    _, _, rest = README.partition(results.START)
    table, end, _ = rest.partition(results.END)
    assert end
    assert table.strip() == results.markdown(results.read()), "run: intsim model results --update README.md"

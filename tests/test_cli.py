"""The command line around the verbs that have tests of their own."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from intsim.cli import main
from intsim.params import kinds
from intsim.registry import all_ops


def invoke(*arguments: str) -> Result:
    return CliRunner().invoke(main, list(arguments))


def test_help_names_every_verb() -> None:
    done = invoke("--help")
    assert done.exit_code == 0
    for verb in ("check", "ops", "golden", "model", "warmup"):
        assert f"\n  {verb} " in done.output
    assert invoke("nothing").exit_code == 2


def test_ops_list_has_every_op_once() -> None:
    listed = [line.split()[0] for line in invoke("ops", "list").output.splitlines()]
    assert listed == [op.id for op in all_ops()]
    family = [line.split()[0] for line in invoke("ops", "list", "softmax").output.splitlines()]
    assert family == [op.id for op in all_ops() if op.family == "softmax"]
    assert len(family) >= 3
    assert "there is no family 'softmx'" in invoke("ops", "list", "softmx").output


@pytest.mark.parametrize("op", all_ops(), ids=lambda op: op.name)
def test_ops_show_says_all_that_the_registry_holds(op: Any) -> None:
    text = invoke("ops", "show", op.name).output
    facts = json.loads(invoke("ops", "show", op.name, "--json").output)
    assert op.doc.splitlines()[0] in text
    assert op.cites in text
    for label, limit in facts["limits"].items():
        assert f"  {label:4} {limit}" in text
    for port in (*op.inputs, *op.outputs):
        assert f" {port.name} " in text
    assert bool(facts["parameters"]) == bool(kinds(op.params))
    assert all(f["name"] in text for f in facts["parameters"])


def test_ops_show_of_a_name_that_is_nearly_right() -> None:
    done = invoke("ops", "show", "softmax.iber")
    assert done.exit_code == 2
    assert "Did you mean softmax.ibert" in done.output
    assert "at version 1" in invoke("ops", "show", "softmax.ibert/2").output


def test_ops_json_is_a_list() -> None:
    assert len(json.loads(invoke("ops", "list", "--json").output)) == len(all_ops())


@pytest.mark.compiled
def test_warmup_fills_and_clears_the_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INTSIM_CACHE_DIR", str(tmp_path))
    (tmp_path / "kernels-old").mkdir()
    done = invoke("warmup", "--clear", "activation.table", "divide")
    assert done.exit_code == 0, done.output
    assert "2 kernels and the tuned kernels of 1 ops compiled" in done.output
    assert "0 kernels and the tuned kernels of 0 ops compiled" in invoke("warmup", "activation.table").output
    assert not (tmp_path / "kernels-old").exists()
    for name in ("divide.integer.nbi", "activation.table.nbi", "activation.table.pieces.nbi"):
        assert list(tmp_path.glob(f"kernels-*/{name}")), name
    assert "no op is called 'matmull'" in invoke("warmup", "matmull").output


def _modules(statement: str) -> set[str]:
    program = f"import sys\n{statement}\nprint('\\n'.join(sys.modules))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_importing_the_package_loads_neither_numba_nor_numpy() -> None:
    loaded = _modules("import intsim")
    assert "intsim" in loaded
    assert not {"numba", "numpy", "click"} & loaded


def test_help_of_the_command_line_loads_no_numba() -> None:
    loaded = _modules(
        "from click.testing import CliRunner\nfrom intsim.cli import main\nCliRunner().invoke(main, ['--help'])"
    )
    assert "intsim.cli.check" in loaded
    assert not {"numba", "numpy"} & loaded

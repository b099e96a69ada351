"""The notebooks run from top to bottom, assert what they say, and are committed without outputs."""

from __future__ import annotations

import ast
import os
from pathlib import Path
from typing import Any

import nbclient
import nbformat
import pytest
from jupyter_client.kernelspec import NATIVE_KERNEL_NAME, KernelSpecManager
from jupyter_client.manager import AsyncKernelManager

import intsim

NOTEBOOKS = sorted((Path(__file__).parents[1] / "notebooks").glob("*.ipynb"))
TITLED = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


def code(notebook: Any) -> list[str]:
    return [cell.source for cell in notebook.cells if cell.cell_type == "code"]


@pytest.fixture
def execute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Runs a notebook in the Python of this process, whatever kernels are installed on the machine."""
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))  # no profile and no history of the user
    monkeypatch.setenv("JUPYTER_RUNTIME_DIR", str(tmp_path / "runtime"))
    monkeypatch.delenv("MPLBACKEND", raising=False)  # the kernel's own backend puts figures into the outputs
    package = str(Path(intsim.__file__).parents[1])
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, [package, os.environ.get("PYTHONPATH")]))}
    native = KernelSpecManager(kernel_dirs=[])  # finds no installed kernel: falls back to sys.executable

    def run(notebook: Any) -> Any:
        km = AsyncKernelManager(kernel_name=NATIVE_KERNEL_NAME, kernel_spec_manager=native)
        client = nbclient.NotebookClient(notebook, km=km, timeout=300, resources={"metadata": {"path": str(tmp_path)}})
        return client.execute(env=environment, cleanup_kc=True)  # else a kernel manager that was given stays up

    return run


def test_there_are_notebooks() -> None:
    assert len(NOTEBOOKS) >= 3


@TITLED
def test_it_is_committed_without_outputs(path: Path) -> None:
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    for cell in notebook.cells:
        assert not cell.get("outputs")
        assert cell.get("execution_count") is None


@TITLED
def test_it_asserts_what_it_says(path: Path) -> None:
    cells = code(nbformat.read(path, as_version=4))
    asserts = sum(isinstance(node, ast.Assert) for source in cells for node in ast.walk(ast.parse(source)))
    assert asserts >= 5


@pytest.mark.compiled
@TITLED
def test_it_runs(path: Path, execute: Any) -> None:
    notebook = execute(nbformat.read(path, as_version=4))
    outputs = [out for cell in notebook.cells if cell.cell_type == "code" for out in cell.outputs]
    assert not [out for out in outputs if out.output_type == "error"]
    assert not [out.text for out in outputs if out.get("name") == "stderr" and "Warning" in out.text]
    assert any("image/png" in out.get("data", {}) for out in outputs)
    assert all(cell.execution_count for cell in notebook.cells if cell.cell_type == "code")


@pytest.mark.compiled
def test_a_false_assert_fails_the_run(execute: Any) -> None:
    wrong = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("assert 1 + 1 == 3")])
    with pytest.raises(nbclient.exceptions.CellExecutionError, match="AssertionError"):
        execute(wrong)

"""The layers, the types and the style, as the tools see them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

TOOLS = {
    "layers": ["lint-imports", "--no-cache"],
    "style": [sys.executable, "-m", "ruff", "check", "--no-cache", "."],
    "format": [sys.executable, "-m", "ruff", "format", "--no-cache", "--check", "."],
    "types": [sys.executable, "-m", "mypy"],
}


@pytest.mark.compiled
@pytest.mark.parametrize("tool", TOOLS)
def test_tool_finds_nothing(tool: str) -> None:
    command = list(TOOLS[tool])
    if tool == "layers":
        command[0] = str(Path(sys.executable).parent / "lint-imports")
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_file_reads_in_one_sitting() -> None:
    long = {
        path.relative_to(ROOT).as_posix(): lines
        for folder in ("intsim", "tests")
        for path in (ROOT / folder).rglob("*.py")
        if (lines := len(path.read_text().splitlines())) > 420
    }
    assert not long


def test_nothing_is_called_after_what_it_is_not() -> None:
    vague = {"utils", "helpers", "common", "misc"}
    assert not [p for p in (ROOT / "intsim").rglob("*.py") if p.stem in vague]


def test_every_package_is_listed_for_the_wheel() -> None:
    import tomllib

    listed = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    folders = {".".join(p.parent.relative_to(ROOT).parts) for p in (ROOT / "intsim").rglob("*.py")}
    assert set(listed) == folders | {"intsim.reference_outputs"}

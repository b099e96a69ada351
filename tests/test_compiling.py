"""The policy for compiled kernels: kept on disk, and never stale."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import intsim
from intsim import compiling
from intsim.backends.vectors import rung
from intsim.compiling import cache_folder, kernel, portable

PROGRAM = """
import sys, numpy as np, intsim
P = intsim.get("requantize.power_of_two").params
print(intsim.__file__)
p = P(4, rounding=intsim.Rounding.TIES_TO_POSITIVE)
print(intsim.run("requantize.power_of_two", np.array([[24]], np.int32), p=p)[0, 0])
print("numba.np.linalg" in sys.modules)
"""


def _run(package: Path, cache: Path) -> tuple[str, bool]:
    """(the result, whether Numba was loaded as for a compilation)."""
    environment = {**os.environ, "PYTHONPATH": str(package), "INTSIM_CACHE_DIR": str(cache)}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], env=environment, capture_output=True, text=True, check=True, cwd=cache
    )
    path, result, loaded = done.stdout.split()
    assert Path(path).is_relative_to(package)
    return result, loaded == "True"


@pytest.mark.compiled
def test_an_edit_in_a_callee_of_another_file_changes_the_result(tmp_path: Path) -> None:
    package, cache = tmp_path / "package", tmp_path / "cache"
    cache.mkdir()
    shutil.copytree(Path(intsim.__file__).parent, package / "intsim", ignore=shutil.ignore_patterns("__pycache__"))
    assert _run(package, cache) == ("2", True)  # 24/16 is a tie: to positive
    kernels = list(cache.glob("kernels-*/requantize.power_of_two*.nbc"))
    assert len(kernels) == 1
    stamp = kernels[0].stat().st_mtime_ns
    assert _run(package, cache) == ("2", False), "finished code needs no compiler: that is most of a warm start"
    assert kernels[0].stat().st_mtime_ns == stamp, "the second run compiled again"
    source = package / "intsim" / "scalar" / "rounding.py"
    text = source.read_text()
    edited = text.replace(
        "if rounding == Rounding.TIES_TO_POSITIVE:\n        return True",
        "if rounding == Rounding.TIES_TO_POSITIVE:\n        return False",
    )
    assert edited != text
    source.write_text(edited)
    assert _run(package, cache) == ("1", True)


@pytest.mark.compiled
def test_a_cache_that_cannot_be_written_costs_only_time(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("in the way")
    environment = {**os.environ, "INTSIM_CACHE_DIR": str(blocked)}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], env=environment, capture_output=True, text=True, check=True, cwd=tmp_path
    )
    assert done.stdout.split()[-2] == "2"


def test_the_folder_follows_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("INTSIM_CACHE_DIR", str(tmp_path))
    assert cache_folder().parent == tmp_path
    monkeypatch.delenv("INTSIM_CACHE_DIR")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_folder().parent == tmp_path / "xdg" / "intsim"


@pytest.mark.compiled
def test_a_callee_becomes_part_of_its_kernel_and_nothing_by_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("INTSIM_CACHE_DIR", str(tmp_path))

    @portable
    def twice(x: Any) -> Any:
        return x + x

    @portable
    def fourfold(x: Any) -> Any:
        return twice(twice(x))

    def rows(x: Any) -> None:
        for i in range(x.size):
            x[i] = fourfold(x[i])

    made = np.arange(3)
    kernel(rows, "test.callee")(made)
    assert made.tolist() == [0, 4, 8]
    assert not twice._whole.overloads, "a callee was compiled for callers in Python"  # type: ignore[attr-defined]
    assert fourfold(5) == 20  # a test may call it all the same


@pytest.mark.parametrize("granted", [True, False])
def test_tiles_are_used_where_the_operating_system_grants_them(granted: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    class Codegen:
        def magic_tuple(self) -> tuple[str, str, str]:
            return "x86_64-unknown-linux-gnu", "sapphirerapids", "+avx512bw,+avx512vnni,+amx-tile,+amx-int8"

    monkeypatch.setattr(compiling, "_tiles_granted", lambda: granted)
    machine = compiling._machine_of(Codegen())
    assert rung(machine).name == ("amx" if granted else "avx512vnni")
    keys = compiling._DiskCache._index_key
    assert keys(None, "types", Codegen()) == ("types", (machine.triple, machine.cpu, machine.features))  # type: ignore[arg-type]  # no cache is looked at
    assert ("+amx-tile" in machine.features) == granted


def test_a_machine_without_tiles_grants_none() -> None:
    info = Path("/proc/cpuinfo")
    if "amx_tile" not in (info.read_text() if info.exists() else ""):
        assert not compiling._tiles_granted()

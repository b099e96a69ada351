"""The second job: every test with the JIT off and the CUDA simulator on, coverage measured.

Compiled lines are invisible to coverage, and NumPy's scalars warn where a compiled int64 wraps.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LEAST = 95  # per cent of the lines of intsim/


@pytest.mark.compiled
def test_everything_holds_uncompiled_and_simulated_and_is_covered(tmp_path: Path) -> None:
    environment = {
        **os.environ,
        "NUMBA_DISABLE_JIT": "1",
        "NUMBA_ENABLE_CUDASIM": "1",
        "COVERAGE_FILE": str(tmp_path / "coverage"),
    }
    coverage = [sys.executable, "-m", "coverage"]
    done = subprocess.run(
        [
            *coverage,
            "run",
            "-m",
            "pytest",
            "-q",
            "-p",
            "no:cacheprovider",
            "-W",
            "error::RuntimeWarning",
            "tests",
            "--ignore=tests/meta",
        ],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=3000,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    subprocess.run([*coverage, "combine", "-q"], cwd=ROOT, env=environment, check=True)
    report = subprocess.run(
        [*coverage, "report", f"--fail-under={LEAST}", "--skip-covered", "--show-missing"],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    print(report.stdout)  # noqa: T201  # shown with -s, and when the floor is missed
    assert report.returncode == 0, report.stdout

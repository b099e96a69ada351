"""Faults planted on purpose must be found by ``intsim check``.

One in a program is found by the spec, one in the spec by the golden outputs.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import intsim
from intsim.oracle import golden

# (backend that must not conform, family, file, what stands there, what is planted)
FAULTS = [
    ("cpu", "requantize", "scalar/rounding.py", "return remainder > rest", "return remainder < rest"),
    ("cpu", "requantize", "scalar/rounding.py", "return x >= 0", "return x > 0 or True"),
    ("cpu", "requantize", "scalar/rounding.py", "return quotient & 1 == 1", "return quotient & 1 == 0"),
    ("cpu", "add", "scalar/rounding.py", "return t.qmax if x > t.qmax else x", "return x"),
    ("cpu", "matmul", "scalar/rounding.py", "& ((1 << t.bits) - 1)) + low", "& ((1 << t.bits) - 1))"),
    ("cpu", "softmax", "scalar/fixed_point.py", "1302514674", "1302541674"),
    ("cpu", "softmax", "scalar/fixed_point.py", "for _ in range(3):", "for _ in range(2):"),
    (
        "cpu",
        "requantize",
        "scalar/fixed_point.py",
        "return rounding_shift(high_multiply(x, multiplier), shift - 31)",
        "return high_multiply(x, multiplier) >> (shift - 31)",
    ),
    ("cpu", "matmul", "scalar/packing.py", "(k & 1) ^ nibbles", "(k & 1)"),
    ("cpu", "layernorm", "scalar/functions.py", "if x >= root + bit:", "if x > root + bit:"),
    ("cpu", "quantize", "scalar/ieee.py", "bit_length(abs(m)) - 24, -149 - e, 0)", "bit_length(abs(m)) - 24, 0)"),
    ("cpu", "requantize", "scalar/ieee.py", "max(bit_length(abs(m)) - 53, 0)", "max(bit_length(abs(m)) - 54, 0)"),
    ("cpu", "matmul", "ops/matmul/__init__.py", "- p.b_zero_point[j])\n", "- p.b_zero_point[0])\n"),
    ("cpu", "softmax", "ops/softmax/ibert.py", "for j in range(stop, q.shape[0]):\n        out[j] = 0", "pass"),
    ("cpu", "layernorm", "ops/layernorm/ibert.py", "max(isqrt(squares) << p.k, 1)", "max(isqrt(squares) << p.k, 2)"),
    ("cpu", "reduce", "ops/reduce/argmax.py", "(np.int64(x.x[i, j]) << 31) - j)", "(np.int64(x.x[i, j]) << 31) + j)"),
    ("cpu", "activation", "ops/activation/gelu_ibert.py", "min(abs(q), -p.b) + p.b", "min(abs(q), -p.b) - p.b"),
    ("cpu", "divide", "ops/divide/integer.py", "divide(-a, -b, p.rounding)", "-divide(a, -b, p.rounding)"),
    ("cpu", "bits", "ops/bits/logical_right_shift.py", "wrap(pattern >> ", "wrap(np.int64(x.x[i, j]) >> "),
    ("reference", "requantize", "spec/rounding.py", "return remainder >= rest", "return remainder > rest"),
    ("reference", "softmax", "spec/fixed_point.py", "fixed(790015084,", "fixed(790051084,"),
    ("reference", "matmul", "spec/packing.py", "(x - t.qmin) % 16 + t.qmin", "x"),
    (
        "reference",
        "quantize",
        "ops/quantize/affine.py",
        "np.arange(x.shape[-1]) // p.group_size",
        "np.arange(x.shape[-1]) * 0",
    ),
    ("reference", "activation", "ops/activation/gelu_ibert.py", "ERF_SHIFT = 14", "ERF_SHIFT = 13"),
]


def check(package: Path, backend: str, family: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(package), "NUMBA_DISABLE_JIT": "1"}
    return subprocess.run(
        [sys.executable, "-m", "intsim", "check", backend, "--op", family],
        env=environment,
        cwd=package,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("seeded")
    shutil.copytree(
        Path(intsim.__file__).parent,
        folder / "intsim",
        ignore=shutil.ignore_patterns("__pycache__", "reference_outputs"),
    )
    shutil.copytree(golden.root(), folder / "reference_outputs", ignore=shutil.ignore_patterns("models"))
    return folder


@pytest.mark.compiled
@pytest.mark.parametrize("family", sorted({fault[1] for fault in FAULTS}))
def test_without_a_fault_the_copy_conforms(package: Path, family: str) -> None:
    for backend in ("cpu", "reference"):
        done = check(package, backend, family)
        assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.compiled
@pytest.mark.parametrize(("backend", "family", "file", "stands", "planted"), FAULTS, ids=lambda v: str(v)[:40])
def test_a_planted_fault_is_found(
    package: Path, backend: str, family: str, file: str, stands: str, planted: str
) -> None:
    path = package / "intsim" / file
    text = path.read_text()
    assert stands in text, "the fault no longer fits the source: plant it anew"
    path.write_text(text.replace(stands, planted))
    try:
        done = check(package, backend, family)
    finally:
        path.write_text(text)
    assert done.returncode in (1, 3, 6), done.stdout + done.stderr

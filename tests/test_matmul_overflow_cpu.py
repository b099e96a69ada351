"""The products that watch for overflow, by micro-kernels: equal to the spec, on every rung that this machine has."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import intsim
from intsim.compiling import native, this_machine
from intsim.kept import Kept
from intsim.numerics import IntType, int8, uint8
from intsim.ops.matmul import _cpu_integer, _cpu_prefixes as prefixes, _cpu_tile as tiles
from intsim.registry import get

COUNTED, EXTREMES = get("matmul.counted"), get("matmul.prefix_extremes")


def operands(m: int, k: int, n: int, a: IntType, b: IntType, seed: int) -> tuple[Any, Any, Any]:
    draw = np.random.default_rng(seed)
    made = [draw.choice(np.array([t.qmin, t.qmax, 3, 1]), (r, k)).astype(t.storage) for r, t in ((m, a), (n, b))]
    return made[0], made[1], (draw.integers(-(2**30), 2**30, n) >> draw.integers(0, 30, n)).astype(np.int32)


@settings(max_examples=10)
@given(
    st.tuples(st.integers(4, 9), st.sampled_from([63, 130]), st.integers(30, 70)),
    st.sampled_from([9, 16, 17, 24, 31, 32]),
    st.sampled_from([int8, uint8]),
    st.sampled_from([int8, uint8]),
    st.integers(0, 2**31),
)
def test_the_count(size: tuple[int, int, int], bits: int, a: IntType, b: IntType, seed: int) -> None:
    m, k, n = size
    x = operands(m, k, n, a, b, seed)
    zero_points = np.random.default_rng(seed).integers(b.qmin, b.qmax + 1, n)
    p = COUNTED.params(a.qmax - 3, zero_points, a, b, IntType(bits))
    for bias in (x[2], np.full(n, 2**31 - 1, np.int32), None):
        for ready in (True, False):
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(_cpu_integer, "_ready", lambda products, ready=ready: ready)
                got = intsim.run(COUNTED, *x[:2], bias, p=p)
            for one, wanted in zip(got, intsim.run(COUNTED, *x[:2], bias, p=p, backend="reference"), strict=True):
                assert one.dtype == wanted.dtype
                assert (one == wanted).all()


def test_the_count_knows_both_ends() -> None:
    a, b = np.ones((1, 70), np.int8), np.ones((300, 70), np.int8)
    bias = np.full(300, 2**15 - 1 - 70, np.int32)
    bias[5], bias[6], bias[7], bias[8] = 2**15 - 70, -(2**15) - 70, -(2**15) - 71, 2**16 - 70
    acc, wrapped = intsim.run(COUNTED, a, b, bias, p=COUNTED.params(acc=IntType(16)))
    assert wrapped.tolist() == [3]
    assert acc[0, 4:9].tolist() == [2**15 - 1, -(2**15), -(2**15), 2**15 - 1, 0]


@pytest.mark.parametrize("size", [(3, 1, 37), (7, 64, 33), (4, 131, 20)], ids=str)
def test_a_tile_of_extremes(size: tuple[int, int, int]) -> None:
    """The kernel, whether or not the JIT is on: it is called as it is."""
    m, k, n = size
    a, b, bias = operands(m, k, n, int8, int8, k)
    p = EXTREMES.params(-128, np.arange(n) - 9)
    x = type("X", (), {"a": a, "b": b, "bias": bias})
    out = type("Out", (), {"least": np.empty((m, n), np.int64), "most": np.empty((m, n), np.int64)})
    prefixes.matmul(x, out, p, Kept(frozenset(), {}))
    least, most = intsim.run(EXTREMES, a, b, bias, p=p, backend="reference")
    assert (out.least == least).all()
    assert (out.most == most).all()


def test_the_tile_takes_the_start_for_a_partial_sum() -> None:
    columns = tiles.columns(prefixes.rung(this_machine()))
    a, b = np.full((2, 2), 1, np.int16), np.full((columns, 2), 5, np.int16)
    start, low, high = np.full(columns, 7, np.int32), np.empty((2, columns), np.int32), np.empty((2, columns), np.int32)
    run = native(prefixes.extremes, 8, this_machine())
    at = [v.ctypes.data for v in (a, b, low, high, start)]
    run(at[0], 4, at[1], at[2], at[3], 4 * columns, 1, at[4])
    assert (low == 7).all()
    assert (high == 17).all()


RUNGS = """
import numpy as np, intsim
from intsim.backends import vectors
vectors.RUNGS = tuple(r for r in (*vectors.RUNGS, vectors.Rung("spelled out", 16, quads="")) if r.name == {name!r})
from intsim import compiling
compiling.compile_ahead()
draw = np.random.default_rng(5)
for name, p in (("matmul.counted", dict(acc=intsim.IntType(16))), ("matmul.prefix_extremes", dict())):
    op = intsim.get(name)
    for m, k, n in ((50, 301, 83), (9, 1030, 160)):
        a, b = (draw.choice(np.array([-128, 127, 5, 1], np.int8), shape) for shape in ((m, k), (n, k)))
        bias = draw.integers(-40000, 40000, n).astype(np.int32)
        made = op.params(3, draw.integers(-128, 128, n), **p)
        got = intsim.run(op, a, b, bias, p=made, tuned=op.tuned[0].where)
        for one, wanted in zip(got, intsim.run(op, a, b, bias, p=made, tuned=False)):
            assert (one == wanted).all(), (name, m, k, n)
print("equal on", vectors.RUNGS[0].name)
"""


@pytest.mark.compiled
@pytest.mark.parametrize(("name", "cpu", "features"), [("avx2", "haswell", "+avx2"), ("sse2", "nehalem", "-avx")])
def test_each_rung_is_equal_to_the_program(name: str, cpu: str, features: str, tmp_path: Path) -> None:
    chosen = {"NUMBA_CPU_NAME": cpu, "NUMBA_CPU_FEATURES": features, "INTSIM_CACHE_DIR": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", RUNGS.format(name=name)],
        env={**os.environ, **chosen},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout == f"equal on {name}\n", done.stderr

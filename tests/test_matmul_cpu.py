"""The matrix product by micro-kernels: every rung, every layout, against NumPy on int64."""

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

from intsim.backends import vectors
from intsim.compiling import Machine, assembled, native, this_machine
from intsim.ops.matmul import (
    _cpu_few as few,
    _cpu_nibbles as nibbles,
    _cpu_outliers as outliers,
    _cpu_panels as panels,
    _cpu_tile as tiles,
)
from intsim.ops.matmul._cpu_gemm import product

X86 = "x86_64-unknown-linux-gnu"
MACHINES = {
    "amx": Machine(X86, "sapphirerapids", "+avx512bw,+avx512vnni,+amx-tile,+amx-int8"),
    "avx512vnni": Machine(X86, "icelake-server", "+avx512bw,+avx512vnni"),
    "avx512bw": Machine(X86, "skylake-avx512", "+avx512bw"),
    "avxvnni": Machine(X86, "alderlake", "+avx2,+avxvnni"),
    "avx2": Machine(X86, "haswell", "+avx2"),
    "sse2": Machine(X86, "x86-64", ""),
    "generic": Machine("aarch64-unknown-linux-gnu", "generic", ""),
}


def wanted(a: Any, b: Any, a_zero_point: Any, b_zero_point: Any, bias: Any) -> Any:
    left, right = a.astype(np.int64) - np.reshape(a_zero_point, (-1, 1)), b - np.reshape(b_zero_point, (-1, 1))
    return (left @ right.T + bias).astype(np.int32)


TYPES = st.sampled_from([np.int8, np.uint8])
EDGES = {np.int8: [-128, -127, 0, 127], np.uint8: [0, 1, 128, 255]}


def matrix(draw: Any, t: Any, rows: int, columns: int, seed: int) -> Any:
    generator = np.random.default_rng(seed)
    kind = draw(st.sampled_from(["any", "edges", "seven bits"]))
    low, high = np.iinfo(t).min, np.iinfo(t).max + 1
    if kind == "edges":
        return generator.choice(np.array(EDGES[t], t), (rows, columns))
    if kind == "seven bits":
        low, high = (-64, 64) if t == np.int8 else (64, 192)
    return generator.integers(low, high, (rows, columns)).astype(t)


@settings(max_examples=60)
@given(data=st.data())
def test_any_operands_of_8_bits(data: Any) -> None:
    m, k, n = (data.draw(st.integers(1, most)) for most in (15, 70, 37))
    seed, a_type, b_type = data.draw(st.integers(0, 2**31)), data.draw(TYPES), data.draw(TYPES)
    a, b = matrix(data.draw, a_type, m, k, seed), matrix(data.draw, b_type, n, k, seed + 1)
    generator = np.random.default_rng(seed + 2)
    low, high = np.iinfo(a_type).min, np.iinfo(a_type).max + 1
    a_zero_point = data.draw(st.sampled_from([0, low, high - 1, generator.integers(low, high, m)]))
    low, high = np.iinfo(b_type).min, np.iinfo(b_type).max + 1
    b_zero_point = data.draw(st.sampled_from([0, low, high - 1, generator.integers(low, high, n)]))
    bias = generator.integers(-(2**31), 2**31, n).astype(np.int32)
    want = wanted(a, b, a_zero_point, b_zero_point, bias)
    assert (product(a, b, a_zero_point=a_zero_point, b_zero_point=b_zero_point, bias=bias) == want).all()
    kept = panels.packed(b, b_zero_point)
    b[...] = 1  # the panels are a copy
    out = np.empty((m, n), np.int32)
    assert product(a, kept, a_zero_point=a_zero_point, bias=bias, out=out) is out
    assert (out == want).all()


@given(st.integers(1, 9), st.integers(1, 40), st.integers(1, 20), st.integers(0, 2**31))
def test_int16_wraps(m: int, k: int, n: int, seed: int) -> None:
    generator = np.random.default_rng(seed)
    a, b = (generator.choice(np.array([-(2**15), 2**15 - 1, 7], np.int16), shape) for shape in ((m, k), (n, k)))
    assert (product(a, b) == wanted(a, b, 0, 0, 0)).all()


@settings(max_examples=40)
@given(data=st.data())
def test_nibbles(data: Any) -> None:
    m, n = data.draw(st.integers(1, 8)), data.draw(st.integers(1, 9))
    k = data.draw(st.sampled_from([1, 2, 63, 64, 65, 131, 331, 523]))
    seed, signed, high_first = data.draw(st.integers(0, 2**31)), data.draw(st.booleans()), data.draw(st.booleans())
    a = matrix(data.draw, data.draw(TYPES), m, k, seed)
    generator = np.random.default_rng(seed)
    packed = generator.choice(np.array([0x00, 0x88, 0x7F, 0xF8, 0x1E], np.uint8), (n, (k + 1) // 2))
    pair = [packed & 15, packed >> 4][:: -1 if high_first else 1]
    b = np.stack(pair, axis=-1).reshape(n, -1).astype(np.int64)[:, :k]
    b = np.where(b > 7, b - 16, b) if signed else b
    low = -8 if signed else 0
    a_zero_point = data.draw(st.sampled_from([0, int(a.min()), -128 if a.dtype == np.int8 else 128]))
    b_zero_point, bias = generator.integers(low, low + 16, n), generator.integers(-(2**31), 2**31, n).astype(np.int32)
    out = np.empty((m, n), np.int32)
    nibbles.product(
        a,
        packed,
        signed=signed,
        high_first=high_first,
        a_zero_point=a_zero_point,
        b_zero_point=b_zero_point,
        bias=bias,
        out=out,
    )
    assert (out == wanted(a, b, a_zero_point, b_zero_point, bias)).all()


def test_int16_with_a_zero_point_is_refused() -> None:
    with pytest.raises(ValueError, match="int16 with a zero point of 3 leaves int16; widen it"):
        panels.pack(np.ones((2, 2), np.int16), 3)


@pytest.mark.compiled  # long rows
@pytest.mark.parametrize("m", [1, 8])
@pytest.mark.parametrize("least", [-128, -64])
def test_rows_so_long_that_int32_wraps(m: int, least: int) -> None:
    k = 2**18 + 3  # (-128)**2 * 2**17 = 2**31
    a, b = np.full((m, k), -128, np.int8), np.full((18, k), least, np.int8)
    want = (128 * -least * k + 2**31) % 2**32 - 2**31
    assert want != 128 * -least * k
    assert (product(a, b) == want).all()


def test_only_weights_whose_neighbours_fit_are_multiplied_as_bytes() -> None:
    r = vectors.rung(this_machine())
    fits, leaves = (np.array([row], np.int8) for row in ([64, 64, 127, -128, -128], [64, 65, 0, 0, 0]))
    assert panels.pack(leaves).quads == (r.quads is not None)
    assert panels.pack(fits).quads == (r.quads is not None or r.bytes is not None)
    a = 255 * np.unpackbits(np.arange(32, dtype=np.uint8)[:, None], axis=1)[:, 3:]
    for b in (fits, leaves):
        assert (product(a, b) == a.astype(np.int64) @ b.T).all()


@pytest.mark.parametrize("types", [(np.int8, np.int8), (np.uint8, np.uint8)], ids=["int8", "uint8"])
@pytest.mark.parametrize("size", [(3, 41, 20), (7, 129, 33), (71, 65, 16), (150, 10, 19)], ids=str)
def test_large_weights_that_are_few_are_added_again(types: Any, size: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(panels, "SELDOM", 3)
    (m, k, n), generator = size, np.random.default_rng(7)
    a = generator.choice(np.array(EDGES[types[0]], types[0]), (m, k))
    b = generator.integers(-60, 61, (n, k))
    for sign in (
        -1,
        1,
    ):  # pairs of two large ones, of one, the last of an odd row, a column with many and one with none
        b[generator.integers(0, n, n * k // 99), generator.integers(0, k, n * k // 99)] = 127 if sign > 0 else -128
    b[1] = generator.integers(-64, 65, k)
    b[0, :6], b[0, -1] = (-128, -128, 127, 127, -128, 127), 127
    b = (b + (128 if types[1] == np.uint8 else 0)).astype(types[1])
    zero_points = b[:, 0].astype(np.int64)
    kept = panels.packed(b, zero_points)
    r = vectors.rung(this_machine())
    only_bytes = r.quads is None and r.bytes is not None
    assert bool(kept.outliers.starts.size) == only_bytes
    assert kept.quads == (r.bytes is not None)
    bias = np.full(n, 2**31 - 5, np.int32)
    for zero_point in (0, EDGES[types[0]][1], generator.integers(0, 128, m)):
        got = product(a, kept, a_zero_point=zero_point, bias=bias)
        if m < 6:  # read as they lie: go by the panels all the same
            got = product(
                np.repeat(a, 6, 0), kept, a_zero_point=np.repeat(np.broadcast_to(zero_point, m), 6), bias=bias
            )[::6]
        assert (got == wanted(a, b, zero_point, zero_points, bias)).all()
    assert panels.pack(b).outliers.starts.size == 0


EXPECTED = {
    "amx": {"tile": "vpdpbusd", "pairs": "vpdpwssd"},
    "avx512vnni": {"tile": "vpdpbusd", "pairs": "vpdpwssd"},
    "avx512bw": {"tile": "vpmaddubsw", "pairs": "vpmaddwd"},
    "avxvnni": {"tile": "vpdpbusd", "pairs": "vpdpwssd"},
    "avx2": {"tile": "vpmaddubsw", "pairs": "vpmaddwd"},
    "sse2": {"tile": "pmaddwd", "pairs": "pmaddwd"},
    "generic": {"tile": "mla", "pairs": "mla"},
}


@pytest.mark.parametrize("name", MACHINES)
def test_each_machine_gets_its_instructions(name: str) -> None:
    machine = MACHINES[name]
    assert vectors.rung(machine).name == name
    for emit, arguments, kind in (
        (tiles.tile(True), 8, "tile"),
        (tiles.tile(False), 8, "pairs"),
        (tiles.crossed_tile, 9, "pairs"),
    ):
        module, target = assembled(emit, arguments, machine)
        code = target.emit_assembly(module)
        assert EXPECTED[name][kind] in code
        assert ("zmm" in code) == name.startswith(("avx512", "amx"))
    for emit, arguments in (
        (tiles.block(2, quads=False), 6),
        (tiles.block(4, quads=True), 6),
        (tiles.row(quads=True), 5),
        (tiles.row(quads=False, crossed=True), 5),
        (tiles.crossing, 3),
        (few.dots(True, 2), 5),
        (few.dots(False, 1), 5),
        (outliers.scaled(2), 6),
        (outliers.added, 4),
        (nibbles.dots(4), 6),
    ):
        module, target = assembled(emit, arguments, machine)
        assert "instructions:" in target.emit_assembly(module)


@pytest.mark.parametrize("r", [*vectors.RUNGS, vectors.Rung("spelled out", 16, quads="")], ids=lambda r: r.name)
@pytest.mark.parametrize("quads", [False, True])
def test_a_tile_of_each_rung_that_this_machine_has(r: Any, quads: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    machine = this_machine()
    if not set(machine.features.split(",")).issuperset(r.needs):
        assert vectors.RUNGS.index(vectors.rung(machine)) > vectors.RUNGS.index(r)
        return
    monkeypatch.setattr(vectors, "RUNGS", (r,))
    rows, columns = tiles.shape(r, quads)[0], tiles.columns(r)
    steps, generator = 5, np.random.default_rng(3)
    if quads:
        a = generator.choice(np.array([0, 255, 3], np.uint8), (rows, steps, 4))
        low, high = (-64, 65) if r.bytes and not r.quads else (-128, 128)
        b = generator.choice(np.array([low, high - 1, 1]), (steps, columns, 4)).astype(np.int8)
    else:
        a = generator.choice(np.array([-(2**15), 2**15 - 1, 9], np.int16), (rows, steps, 2))
        b = generator.choice(np.array([-(2**15), 2**15 - 1, -9], np.int16), (steps, columns, 2))
    start, out = generator.integers(-(2**31), 2**31, (rows, columns)).astype(np.int32), np.empty((rows, columns), "i4")
    run = native(tiles.tile(quads), 8, machine)
    run(a.ctypes.data, 4 * steps, b.ctypes.data, out.ctypes.data, 4 * columns, steps, start.ctypes.data, 4 * columns)
    sums = np.einsum("rsb,scb->rc", a.astype(np.int64), b.astype(np.int64))
    assert (out == (start + sums).astype(np.int32)).all()


@pytest.mark.parametrize("r", [*vectors.RUNGS, vectors.Rung("spelled out", 16, quads="")], ids=lambda r: r.name)
def test_a_crossed_tile_equals_one_by_pairs(r: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    machine = this_machine()
    if not set(machine.features.split(",")).issuperset(r.needs):
        assert vectors.RUNGS.index(vectors.rung(machine)) > vectors.RUNGS.index(r)
        return
    monkeypatch.setattr(vectors, "RUNGS", (r,))
    rows, columns = tiles.CROSSED, tiles.columns(r)
    steps, generator = 6, np.random.default_rng(3)
    a = generator.choice(np.array([-255, 255, 9], np.int16), (rows, steps, 2))
    b = generator.choice(np.array([-255, 255, -7], np.int16), (steps, columns, 2))
    start, out = generator.integers(-(2**31), 2**31, (rows, columns)).astype(np.int32), np.empty((rows, columns), "i4")
    less, more = (a[:, ::2] * a[:, 1::2].astype(np.int32)).sum((1, 2)).astype(np.int32), np.empty(columns, np.int32)
    native(tiles.crossing, 3, machine)(b.ctypes.data, steps // 2, more.ctypes.data)
    run = native(tiles.crossed_tile, 9, machine)
    begin = start - more
    where = (b.ctypes.data, out.ctypes.data, 4 * columns, steps, begin.ctypes.data, 4 * columns, less.ctypes.data)
    run(a.ctypes.data, 4 * steps, *where)
    sums = np.einsum("rsb,scb->rc", a.astype(np.int64), b.astype(np.int64))
    assert (out == (start + sums).astype(np.int32)).all()


WHOLE = """
import numpy as np
from intsim.backends import vectors
vectors.RUNGS = tuple(r for r in (*vectors.RUNGS, vectors.Rung("spelled out", 16, quads="")) if r.name == {name!r})
from intsim.ops.matmul import _cpu_amx as amx
from intsim.ops.matmul._cpu_gemm import product
from intsim.ops.matmul._cpu_panels import packed
generator = np.random.default_rng(5)
for m, k, n in ((1, 70, 9), (4, 131, 67), (11, 133, 70), (65, 70, 40), (49, 1100, 33)):
    for a_type, b_type in ((np.int8, np.int8), (np.uint8, np.int8), (np.int8, np.uint8), (np.uint8, np.uint8)):
        a = generator.choice(np.array([np.iinfo(a_type).min, np.iinfo(a_type).max, 5], a_type), (m, k))
        b = generator.choice(np.array([np.iinfo(b_type).min, np.iinfo(b_type).max, 9], b_type), (n, k))
        few = b // 4 + (96 if b_type == np.uint8 else 0)
        few[:, ::50] = b[:, ::50]
        for b in (b, b // 4 + (96 if b_type == np.uint8 else 0), few):
            b = b.astype(b_type)
            for za, zb in ((0, 0), (7, 5), (generator.integers(0, 128, m), generator.integers(0, 128, n))):
                want = (a - np.reshape(za, (-1, 1)).astype(np.int64)) @ (b - np.reshape(zb, (-1, 1)).astype(np.int64)).T
                assert (product(a, b, a_zero_point=za, b_zero_point=zb) == want).all(), (m, k, n, a_type, b_type)
                kept = packed(b, zb)
                for amx.TALL, amx.FAR in ((2**19, 2**22), (0, 0)):  # all rows past a panel, or SIDE
                    assert (product(a, kept, a_zero_point=za) == want).all(), (m, k, n, a_type, b_type)
print("equal on", vectors.RUNGS[0].name)
"""


@pytest.mark.compiled
@pytest.mark.parametrize(
    ("name", "cpu", "features"),
    [
        ("avx2", "haswell", "+avx2"),
        ("sse2", "nehalem", "-avx"),
        ("spelled out", "", ""),
        ("amx", "", ""),
        ("avxvnni", "", ""),
        ("avx512vnni", "", ""),
        ("avx512bw", "", ""),
    ],
)
def test_whole_products_on_each_rung_that_this_machine_has(name: str, cpu: str, features: str, tmp_path: Path) -> None:
    needs = next((r.needs for r in vectors.RUNGS if r.name == name), ())
    has = set(this_machine().features.split(",")).issuperset(needs)
    chosen = {"NUMBA_CPU_NAME": cpu, "NUMBA_CPU_FEATURES": features} if cpu else {}
    environment = {**os.environ, **chosen, "INTSIM_CACHE_DIR": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", WHOLE.format(name=name)], env=environment, capture_output=True, text=True, check=False
    )
    if has:
        assert done.stdout == f"equal on {name}\n", done.stderr
    else:
        assert "StopIteration" in done.stderr  # refused before anything is compiled

"""The matrix product by tiles: its instructions, and its loops with tiles kept in memory, on any machine."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from intsim.backends import vectors
from intsim.compiling import Machine, assembled, native, this_machine
from intsim.ops.matmul import (
    _cpu_amx as amx,
    _cpu_blocks as blocks,
    _cpu_offsets as offsets,
    _cpu_outliers as outliers,
    _cpu_panels as panels,
    _cpu_tile as plain_tiles,
)
from intsim.ops.matmul._cpu_gemm import product

MACHINE = Machine("x86_64-unknown-linux-gnu", "sapphirerapids", "+avx512bw,+avx512vnni,+amx-tile,+amx-int8")


@pytest.mark.parametrize("signed", [True, False])
def test_sums_in_tiles_stay_in_their_registers(signed: bool) -> None:
    module, target = assembled(amx.sums(2, signed=signed), 7, MACHINE)
    lines = [line.split() for line in target.emit_assembly(module).splitlines()]
    code = [line for line in lines if line and ("tile" in line[0] or line[0].startswith("tdp"))]
    at = [i for i, line in enumerate(code) if line[0] == ("tdpbssd" if signed else "tdpbusd")]
    assert len(at) % 4 == 0
    turns = len(at) // 4  # LLVM may write several turns of the loop
    names = [line[0] for line in code]
    assert (names.count("tileloadd"), names.count("tilestored"), len(code)) == (4 + 4 * turns, 4, 8 + 8 * turns)
    assert names[-4:] == ["tilestored"] * 4
    assert not any("%rsp" in word or "%rbp" in word for line in code for word in line), "tiles wait in memory"
    used = {(line[1], line[2], line[3]) for line in (code[i] for i in at)}
    assert used == {(f"%tmm{6 + j},", f"%tmm{4 + i},", f"%tmm{2 * i + j}") for i in range(2) for j in range(2)}
    for emit, name in ((amx.configured, "ldtilecfg"), (amx.released, "tilerelease")):
        module, target = assembled(emit, 0, MACHINE)
        assert target.emit_assembly(module).count(name) == 1


IN_MEMORY = (vectors.Rung("tiles in memory", 16, quads="", tiles=""),)


@pytest.fixture(scope="module")
def natives() -> dict[str, Any]:
    """The instructions of the loops, for tiles in memory."""
    here = this_machine()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(vectors, "RUNGS", IN_MEMORY)
        return {
            "two_of_signed": native(amx.sums(2, signed=True), 7, here),
            "two_of_unsigned": native(amx.sums(2, signed=False), 7, here),
            "one_of_signed": native(amx.sums(1, signed=True), 7, here),
            "one_of_unsigned": native(amx.sums(1, signed=False), 7, here),
            "spread": native(amx.spread_steps, 3, here),
            "configure": native(amx.configured, 0, here),
            "release": native(amx.released, 0, here),
            "block_of_quads": native(plain_tiles.block(4, quads=True), 6, here),
        }


@pytest.fixture
def kept_in_memory(natives: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """Tiles in memory, and the loops around them as Python."""
    monkeypatch.setattr(vectors, "RUNGS", IN_MEMORY)
    monkeypatch.setattr(amx, "serves", lambda: True)
    monkeypatch.setattr(plain_tiles, "lanes", lambda: 16)
    for name, function in natives.items():
        monkeypatch.setattr(amx if hasattr(amx, name) else plain_tiles, name, function)
    kernels: tuple[tuple[Any, str], ...] = ((amx, "multiply"), (panels, "_pack"))
    for module, name in (*kernels, (amx, "lay_out"), (amx, "add"), (offsets, "correct")):
        function = getattr(module, name)
        monkeypatch.setattr(module, name, getattr(function, "py_func", function))


def laid_out(b: Any) -> Any:
    """[panel, step, tile, group of four, column, byte]."""
    (n, k), side, ahead = b.shape, amx.SIDE, 64
    count, steps = -(-n // side), -(-k // ahead)
    whole = np.zeros((count * side, steps * ahead), np.int8)
    whole[:n, :k] = b
    parts = whole.reshape(count, 2, 16, steps, 16, 4).transpose(0, 3, 1, 4, 2, 5)
    return np.ascontiguousarray(parts).view(np.int32).reshape(count, steps * 16, side)


@pytest.mark.usefixtures("kept_in_memory")
@pytest.mark.parametrize("size", [(65, 70, 40), (11, 133, 33), (48, 64, 64), (49, 200, 7)], ids=str)
def test_each_part_of_a_product_by_tiles(size: tuple[int, int, int]) -> None:
    (m, k, n), generator = size, np.random.default_rng(11)
    b = generator.choice(np.array([-128, 127, 3], np.int8), (n, k))
    start, of_b = np.zeros(-(-n // amx.SIDE) * amx.SIDE, np.int32), laid_out(b)
    start[:n] = generator.integers(-(2**31), 2**31, n)
    for dtype, tall, far in ((np.int8, amx.SIDE, False), (np.uint8, 2 * amx.SIDE, True)):
        a = generator.choice(np.array([np.iinfo(dtype).min, np.iinfo(dtype).max, 5], dtype), (m, k))
        left, right = (generator.integers(-128, 128, (rows, 2)).astype(np.int32) for rows in (m, n))
        out = np.full((m, n), 7, np.int32)
        want = start[:n] + a.astype(np.int64) @ b.T.astype(np.int64)
        want += left[:, 1:] * right[:, 1].astype(np.int64) - a.sum(1, dtype=np.int64)[:, None] * right[:, 0]
        x = (a.view(np.uint8), dtype == np.int8, of_b, start, left, right, out, tall, far)
        middle, half = min(amx.SIDE, m), (of_b.shape[0] + 1) // 2
        for rows in ((0, middle), (middle, m)):
            for columns in ((0, half), (half, of_b.shape[0])):
                before = out.copy()
                amx._tile_products(*x, *rows, *columns)
                touched = np.zeros((m, n), bool)
                touched[slice(*rows), columns[0] * amx.SIDE : columns[1] * amx.SIDE] = True
                assert (out[~touched] == before[~touched]).all()
        assert (out == want.astype(np.int32)).all()


@pytest.mark.usefixtures("kept_in_memory")
@pytest.mark.parametrize("b_type", [np.int8, np.uint8])
@pytest.mark.parametrize("a_type", [np.int8, np.uint8])
def test_products_of_every_sign(a_type: Any, b_type: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    generator = np.random.default_rng(12)
    for (m, k, n), tall in (((6, 3, 5), 0), ((37, 129, 35), 0), ((70, 66, 33), amx.TALL)):
        monkeypatch.setattr(amx, "TALL", tall)
        a = generator.choice(np.array([np.iinfo(a_type).min, np.iinfo(a_type).max, 5], a_type), (m, k))
        b = generator.choice(np.array([np.iinfo(b_type).min, np.iinfo(b_type).max, 9], b_type), (n, k))
        bias = generator.integers(-(2**31), 2**31, n).astype(np.int32)
        flipped = b.view(np.int8) ^ np.int8(-128 if b_type == np.uint8 else 0)
        assert (panels.pack(b).steps == laid_out(flipped)).all()
        middle = 128 if b_type == np.uint8 else 0
        many = generator.integers(0, 128, m), generator.integers(0, 128, n)
        for za, zb in ((0, middle), (7, middle), (0, 5), many, (many[0], middle)):
            left, right = a - np.reshape(za, (-1, 1)).astype(np.int64), b - np.reshape(zb, (-1, 1)).astype(np.int64)
            want = (left @ right.T + bias).astype(np.int32)
            assert (product(a, panels.packed(b, zb), a_zero_point=za, bias=bias) == want).all()


@pytest.mark.usefixtures("kept_in_memory")
@pytest.mark.parametrize("count", [1, 16, 17, 33, 48, 50])
def test_blocks_of_rows_by_tiles(count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plain_tiles, "width", lambda: 64)
    monkeypatch.setattr(blocks, "asked_for", lambda address, lines: None)
    monkeypatch.setattr(outliers, "room", lambda rows: 512)  # there are none
    for name in ("room", "laid_out", "multiplied", "_in_tiles", "_by_tiles"):
        function = getattr(blocks, name)
        monkeypatch.setattr(blocks, name, getattr(function, "py_func", function))
    generator = np.random.default_rng(5)
    q, b = (generator.choice(np.array([-128, 127, 3, -1], np.int8), (rows, 128)) for rows in (count, 128))
    kept, scratch = blocks.weight(b), blocks.room(count, 128)
    assert kept.kind == blocks.TILED
    block = blocks.laid_out(q, count, kept.arrays, kept.kind, scratch)
    for panel in range(2):
        blocks.multiplied(block, count, kept.arrays, kept.kind, panel, scratch)
        columns = slice(64 * panel, 64 * panel + 64)
        assert (scratch[3][:count] == q.astype(np.int32) @ b[columns].astype(np.int32).T).all()

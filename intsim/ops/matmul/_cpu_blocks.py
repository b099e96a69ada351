"""Products of a few rows with one panel after the other, for kernels that go on with what a panel gave.

Rows are laid out once (``lay_out``); then each panel's sums fit the first-level cache, where the kernel finishes them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from intsim.backends.tiles import BYTES, ROWS
from intsim.backends.vectors import Loop, Vectors, rung
from intsim.compiling import Int, Machine, instructions, portable, this_machine
from intsim.ops.matmul import _cpu_amx as tiled, _cpu_outliers as outliers, _cpu_tile as machine
from intsim.ops.matmul._cpu_gemm import DEPTH, lay_out, stretch
from intsim.ops.matmul._cpu_panels import SIGN, packed
from intsim.scalar.fixed_point import wrap32

PAIRS, QUADS, CROSSED, TILED = range(4)  # kinds of panels
LINE = 64  # bytes that come from memory together
WHOLE = 48  # rows: whole tiles of all kinds, and whole registers


@dataclass(frozen=True, slots=True)
class Weight:
    """An int8 matrix "n k" for ``multiplied``. arrays: panels, first sums, outliers. kind: of the panels."""

    n: int
    k: int
    arrays: tuple[Any, ...]
    kind: int


def weight(b: Any) -> Weight:
    """Raises ValueError where ``b``, int8 "n k", does not fill whole panels."""
    made = packed(b)
    columns = machine.columns(rung(this_machine()))
    if made.n % columns:
        raise ValueError(f"a weight of {made.n} rows does not fill panels of {columns}")
    start = np.zeros(made.n, np.int32) if made.crossing is None else -made.crossing
    if made.quads and not made.in_tiles:
        start = -SIGN * made.columns
    kind = TILED if made.in_tiles else QUADS if made.quads else PAIRS if made.crossing is None else CROSSED
    lacks = made.outliers
    arrays = made.steps, start.astype(np.int32), lacks.starts.astype(np.int64), lacks.where, lacks.rest
    return Weight(made.n, made.k, arrays, kind)


def _asked_for(builder: Any, machine: Machine, address: Any, lines: Any) -> None:
    """``lines`` >= 1 lines begin to come; what lies there is not read, and may be outside of every array."""
    v = Vectors(builder, rung(machine))
    loop = Loop(builder, lines, [address])
    (at,) = loop.values
    v.ask_for(at)
    loop.end([v.at(at, LINE)])


asked_for = instructions(_asked_for, 2)


@portable
def room(rows: Int, k: Int) -> tuple[Any, Any, Any, Any, Any, Any]:
    """Scratch for ``rows`` rows of at most ``k`` bytes: laid out, turned, sums of outliers, a panel's sums, what
    pairs have subtracted of int8 that was made uint8, and what crossing adds to a row, then as many zeros."""
    whole, columns = (rows + WHOLE - 1) // WHOLE * WHOLE, machine.width()
    tall = outliers.room(whole)
    return (
        np.zeros((whole, k + 4), np.int16),
        np.empty((k, tall), np.uint8),
        np.empty((columns, tall), np.int32),
        np.empty((whole, columns), np.int32),
        np.full(whole, SIGN, np.int16),
        np.zeros(2 * whole, np.int32),
    )


@portable
def _whole_registers(rows: Int) -> Int:
    """Rows up to there may be filled with anything: there is room."""
    lanes = machine.lanes()
    return (rows + lanes - 1) // lanes * lanes


@portable
def laid_out(q: Any, count: Int, weight: Any, kind: Int, scratch: Any) -> Any:
    """``count`` rows of int8 for ``multiplied``, in ``scratch``. weight: its arrays."""
    words, turned, _, _, centre, less = scratch
    if kind == TILED:
        return _in_tiles(q, count, words)
    fours = (q.shape[1] + 3) // 4
    steps = fours if kind == QUADS else 2 * fours
    block = words.reshape(-1)[: words.shape[0] * 2 * steps].reshape((words.shape[0], 2 * steps))
    block[:, 2 * steps - 4 :] = 0  # the last steps may be empty in part
    plain, bytes_ = block.view(np.uint8), q.view(np.uint8)
    for i in range(count):
        less[i] = wrap32(lay_out(bytes_, i, SIGN, False, kind == QUADS, kind == CROSSED, centre, block, plain, i))
    if weight[2].size:
        outliers.turn(plain, turned[: q.shape[1]], _whole_registers(count))
    return block


@portable
def _in_tiles(q: Any, count: Int, words: Any) -> Any:
    """As ``_cpu_amx`` takes them: there is room, for ``k`` fills whole steps."""
    bytes_, each = words.reshape(-1).view(np.uint8), tiled.SIDE * q.shape[1]
    laid = bytes_[-words.ctypes.data % LINE :]
    for i in range(0, count, tiled.SIDE):
        tiled.lay_out(q.view(np.uint8), i, min(tiled.SIDE, count - i), laid, i // tiled.SIDE * each)
    return laid[: (count + tiled.SIDE - 1) // tiled.SIDE * each].view(np.int16).reshape((-1, q.shape[1] // 2))


@portable
def _by_tiles(block: Any, count: Int, panels: Any, start: Any, panel: Int, acc: Any) -> None:
    """``multiplied`` for weights that lie in tiles, of which a panel takes several."""
    columns, size = machine.width(), 2 * block.shape[1]
    together, each = columns // tiled.SIDE, tiled.SIDE * size  # panels of ``panels``; bytes of one, and of as many rows
    source = panels.ctypes.data + each * together * panel
    parts = (count + tiled.SIDE - 1) // tiled.SIDE * together
    ahead, lines = source + each * together, (each * together // LINE + parts - 1) // parts
    tiled.configure()
    for j in range(together):
        begin = start.ctypes.data + 4 * (columns * panel + tiled.SIDE * j)
        for i in range(0, count, tiled.SIDE):
            asked_for(ahead, lines)
            ahead += LINE * lines
            tiled.add(
                True, count - i <= ROWS, block.ctypes.data + i // tiled.SIDE * each, source + each * j,
                acc.ctypes.data + 4 * (columns * i + tiled.SIDE * j), 4 * columns, size // BYTES, begin, 0,
            )  # fmt: skip
    tiled.release()


@portable
def multiplied(block: Any, count: Int, weight: Any, kind: Int, panel: Int, scratch: Any) -> None:
    """Fills the panel's sums in ``scratch``: of row i of the block with column c of a panel, up to whole tiles."""
    panels, start, starts, where, rest = weight
    _, turned, sums, acc, _, less = scratch
    if kind == TILED:
        _by_tiles(block, count, panels, start, panel, acc)
        return
    columns, steps = machine.width(), block.shape[1] // 2
    rows = machine.rows_of_quads() if kind == QUADS else machine.CROSSED if kind == CROSSED else machine.rows_of_pairs()
    source = panels.ctypes.data + 4 * columns * panel * panels.shape[1]
    begin = start.ctypes.data + 4 * columns * panel
    for step in range(0, steps, DEPTH):
        turns, right = min(DEPTH, steps - step), source + 4 * columns * step
        lines = (4 * columns * turns * rows // LINE + count - 1) // count  # of the next panel, for each tile of this
        ahead = right + 4 * columns * panels.shape[1]
        for i in range(0, count, rows):
            asked_for(ahead + LINE * lines * (i // rows), lines)
            left, target = block.ctypes.data + 4 * (i * steps + step), acc.ctypes.data + 4 * columns * i
            so_far, apart = (target, 4 * columns) if step else (begin, 0)
            off = less.ctypes.data + 4 * (acc.shape[0] if step else i)  # once: behind the rows there are zeros
            stretch(
                kind == QUADS, kind == CROSSED, left, 4 * steps, right, target, 4 * columns, turns, so_far, apart, off
            )
    if starts.size:
        outliers.add(turned, starts[panel * columns :], where, rest, sums, acc, 0, _whole_registers(count), 0)

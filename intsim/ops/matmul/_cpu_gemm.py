"""Matrix product in int32 modulo 2**32 by micro-kernels: the loops around them.

Rows of ``a`` are laid out a block at a time. A stretch of them, DEPTH steps long, goes past the same stretch
of every panel of ``b``; the sums wait in the result meanwhile.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from intsim.backends.cpu import shared_out
from intsim.backends.lines import empty
from intsim.compiling import Int, kernel, portable
from intsim.ops.matmul import _cpu_amx as tiled, _cpu_few as few, _cpu_outliers as outliers, _cpu_tile as machine
from intsim.ops.matmul._cpu_offsets import NONE, correct, corrections
from intsim.ops.matmul._cpu_panels import SIGN, Panels, pack
from intsim.scalar.fixed_point import wrap32

MANY = 48  # rows: from here on outliers cost less than the quads save
DEPTH = 2**9  # steps: so much of a panel stays in the first-level cache while the rows go past
TALL = 192  # rows: so many, DEPTH steps of each, stay in the second-level cache while the panels go past
LAID_OUT = 2**22  # bytes of ``a`` laid out at a time, at most (but for 12 rows)


def product(
    a: Any, b: Panels | Any, *, a_zero_point: Any = 0, b_zero_point: Any = 0, bias: Any = None, out: Any = None
) -> Any:
    """``bias[j] + sum_k (a[i, k] - a_zero_point[i]) (b[j, k] - b_zero_point[j])`` modulo 2**32, int32 "m n".

    a: "m k", b: "n k", C-contiguous, int8 or uint8 (int16 too, without zero points); b: the array, or
    its ``pack(b, b_zero_point)``. a_zero_point: one, or one per m. bias: int32 "n". out: where the result
    goes (C-contiguous).
    """
    m = a.shape[0]
    if out is None:
        out = empty((m, b.n if isinstance(b, Panels) else b.shape[0]), np.int32)
    if isinstance(b, Panels) and few.are(a):
        b, b_zero_point = b.source, b.zero_point
    if not isinstance(b, Panels):
        if few.are(a) and b.itemsize == 1:
            few.product(a, b, a_zero_point, b_zero_point, bias, out)
            return out
        b = pack(b, b_zero_point)
    if b.in_tiles:
        tiled.product(a, b, a_zero_point, bias, out)
        return out
    start = np.zeros(b.steps.shape[0] * b.steps.shape[2], np.int32)
    if bias is not None:
        start[: b.n] = bias
    words = a.dtype == np.int16
    flip = SIGN if a.dtype == np.int8 else 0
    offsets = np.empty(m, np.int32)
    offsets[:] = a_zero_point
    offsets += flip
    left, right = corrections(b, offsets, start) if b.quads else (NONE, NONE)
    centre = np.empty(0, np.int16) if b.quads else offsets.astype(np.int16)
    lacks = b.outliers.starts, b.outliers.where, b.outliers.rest
    crossed = b.crossing is not None
    if crossed:
        start -= b.crossing
    x = (a.view(np.uint8), flip, words, centre, b.steps, b.quads, crossed, start, left, right, out, *lacks)
    panels = b.steps.shape[0]
    work = m * b.k * b.n // machine.A_STEP
    if panels > m:
        shared_out(lambda first, last: _multiply(*x, 0, m, first, last), panels, work)
    else:
        shared_out(lambda first, last: _multiply(*x, first, last, 0, panels), m, work)
    return out


@portable
def lay_out(
    a: Any, row: Int, flip: Int, words: bool, quads: bool, crossed: bool, centre: Any, pairs: Any, plain: Any, i: Int
) -> Int:
    """Row ``row`` of ``a`` as row ``i`` of the block; the sum of its quads, or what crossing adds to it."""
    size, lanes, total = a.shape[1], machine.lanes(), np.int64(0)
    source, target = a.ctypes.data + row * size, plain.ctypes.data + i * plain.shape[1]
    if words:
        for k in range(size):
            plain[i, k] = a[row, k]
    elif quads:
        turns = size // (4 * lanes)
        if turns:
            total += machine.row_of_quads(source, target, turns, flip, 0)
        for k in range(4 * lanes * turns, size):
            plain[i, k] = a[row, k] ^ flip
            total += plain[i, k]
    else:
        turns = size // (2 * lanes)
        if turns and crossed:
            total += machine.row_crossed(source, target, turns, flip, centre[row])
        elif turns:
            machine.row_of_pairs(source, target, turns, flip, centre[row])
        for k in range(2 * lanes * turns, size):
            pairs[i, k] = np.int16(a[row, k] ^ flip) - centre[row]
            if crossed and k & 2:
                total += np.int64(pairs[i, k - 2]) * pairs[i, k]
    return total


@portable
def stretch(
    quads: bool, crossed: bool, a: Int, lda: Int, b: Int, c: Int, ldc: Int, steps: Int, start: Int, lds: Int, less: Int
) -> None:
    """A stretch of a tile, as ``_cpu_tile`` has it for quads, crossed pairs and pairs."""
    if crossed:
        machine.stretch_crossed(a, lda, b, c, ldc, steps, start, lds, less)
    elif quads:
        machine.stretch_of_quads(a, lda, b, c, ldc, steps, start, lds)
    else:
        machine.stretch_of_pairs(a, lda, b, c, ldc, steps, start, lds)


def _panel_products(
    a: Any,
    flip: int,
    words: bool,
    centre: Any,
    panels: Any,
    quads: bool,
    crossed: bool,
    start: Any,
    left: Any,
    right: Any,
    out: Any,
    starts: Any,
    where: Any,
    rest: Any,
    top: int,
    bottom: int,
    first: int,
    last: int,
) -> None:
    """Rows [top, bottom) of panels [first, last)."""
    columns = machine.width()
    rows = machine.rows_of_quads() if quads else machine.CROSSED if crossed else machine.rows_of_pairs()
    size, n = a.shape[1], out.shape[1]
    steps = -(-size // 4) if quads or words else -(-size // 4) * 2 if crossed else -(-size // 2)
    height = max(min(TALL, LAID_OUT // (4 * steps)) // 12, 1) * 12  # whole tiles of 4 and of 6 rows
    height = min(height, -(-(bottom - top) // 12) * 12)
    block = np.empty((height, 2 * steps), np.int16)
    block[:, 2 * steps - 4 :] = 0  # the last step may be half empty, and of two crossed ones the second whole
    plain = block.view(np.uint8)
    edge, less = np.empty((rows, columns), np.int32), np.zeros(2 * height, np.int32)
    tall = outliers.room(height) if starts.size else 0
    turned, sums = np.empty((size, tall), np.uint8), np.empty((columns, tall), np.int32)
    for at in range(top, bottom, height):
        count = min(height, bottom - at)
        for i in range(count):
            total = lay_out(a, at + i, flip, words, quads, crossed, centre, block, plain, i)
            less[i] = wrap32(total)
            if left.shape[0]:
                left[at + i, 0] = -total  # at most 2**20 bytes: below 2**28
        for step in range(0, steps, DEPTH):
            turns = min(DEPTH, steps - step)
            for panel in range(first, last):
                column = panel * columns
                source = panels.ctypes.data + 4 * columns * (panel * panels.shape[1] + step)
                begin = start.ctypes.data + 4 * column
                inside = count // rows * rows if column + columns <= n else 0
                for i in range(0, inside, rows):
                    tile = block.ctypes.data + 4 * (i * steps + step)
                    target = out.ctypes.data + 4 * ((at + i) * n + column)
                    if step:
                        so_far, apart = target, 4 * n
                    else:
                        so_far, apart = begin, 0
                    off = less.ctypes.data + 4 * (height if step else i)  # once: there are zeros
                    stretch(quads, crossed, tile, 4 * steps, source, target, 4 * n, turns, so_far, apart, off)
                if step:
                    continue  # the edges were done at once
                for i in range(inside, count, rows):
                    tile, target = block.ctypes.data + 4 * i * steps, edge.ctypes.data
                    off = less.ctypes.data + 4 * i
                    stretch(quads, crossed, tile, 4 * steps, source, target, 4 * columns, steps, begin, 0, off)
                    for r in range(min(rows, count - i)):
                        for j in range(min(columns, n - column)):
                            out[at + i + r, column + j] = edge[r, j]
        if starts.size:
            outliers.turn(plain, turned, count)
            for panel in range(first, last):
                outliers.add(turned, starts, where, rest, sums, out, at, count, panel * columns)
        if left.shape[0]:
            correct(out, left, right, at, at + count, first * columns, min(n, last * columns))


_multiply = kernel(_panel_products, "matmul.panels")

"""Matrix product in int32 modulo 2**32 by micro-kernels: the loops around them.

Rows of ``a`` are laid out a block at a time. A stretch of them, DEPTH steps long, goes past the same stretch
of every panel of ``b``; the sums wait in the result meanwhile.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from intsim.backends.cpu import shared_out
from intsim.compiling import Int, kernel, portable
from intsim.ops.matmul import _cpu_amx as tiled, _cpu_outliers as outliers, _cpu_tile as machine
from intsim.ops.matmul._cpu_offsets import NONE, correct, corrections
from intsim.ops.matmul._cpu_panels import SIGN, Panels, pack
from intsim.scalar.fixed_point import wrap32

MANY = 48  # rows: from here on outliers cost less than the quads save
A_STEP = 2**10  # products that take as long as a step of a plain kernel
FEW = 6  # rows: below this, laying out ``b`` costs more than it saves
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
        out = np.empty((m, b.n if isinstance(b, Panels) else b.shape[0]), np.int32)
    if isinstance(b, Panels) and few(a):
        b, b_zero_point = b.source, b.zero_point
    if not isinstance(b, Panels):
        if few(a) and b.itemsize == 1:
            _by_dots(a, b, a_zero_point, b_zero_point, bias, out)
            return out
        b = pack(b, b_zero_point)
    if b.quads and tiled.serves():
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
    x = (a.view(np.uint8), flip, words, centre, b.steps, b.quads, start, left, right, out, *lacks)
    panels = b.steps.shape[0]
    work = m * b.k * b.n // A_STEP
    if panels > m:
        shared_out(lambda first, last: _multiply(*x, 0, m, first, last), panels, work)
    else:
        shared_out(lambda first, last: _multiply(*x, first, last, 0, panels), m, work)
    return out


def few(a: Any) -> bool:
    """Whether ``product`` reads ``b`` as it lies, without panels."""
    return bool(a.shape[0] < FEW and a.itemsize == 1)


@portable
def _lay_out(a: Any, row: Int, flip: Int, words: bool, quads: bool, centre: Any, pairs: Any, plain: Any, i: Int) -> Int:
    """Row ``row`` of ``a`` as row ``i`` of the block; the sum of its quads."""
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
        if turns:
            machine.row_of_pairs(source, target, turns, flip, centre[row])
        for k in range(2 * lanes * turns, size):
            pairs[i, k] = np.int16(a[row, k] ^ flip) - centre[row]
    return total


def _panel_products(
    a: Any,
    flip: int,
    words: bool,
    centre: Any,
    panels: Any,
    quads: bool,
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
    rows = machine.rows_of_quads() if quads else machine.rows_of_pairs()
    size, n = a.shape[1], out.shape[1]
    steps = -(-size // 4) if quads or words else -(-size // 2)
    height = max(min(TALL, LAID_OUT // (4 * steps)) // 12, 1) * 12  # whole tiles of 4 and of 6 rows
    height = min(height, -(-(bottom - top) // 12) * 12)
    block = np.empty((height, 2 * steps), np.int16)
    block[:, 2 * steps - 2 :] = 0  # the last step may be half empty
    plain = block.view(np.uint8)
    edge = np.empty((rows, columns), np.int32)
    tall = outliers.room(height) if starts.size else 0
    turned, sums = np.empty((size, tall), np.uint8), np.empty((columns, tall), np.int32)
    for at in range(top, bottom, height):
        count = min(height, bottom - at)
        for i in range(count):
            total = _lay_out(a, at + i, flip, words, quads, centre, block, plain, i)
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
                    if quads:
                        machine.stretch_of_quads(tile, 4 * steps, source, target, 4 * n, turns, so_far, apart)
                    else:
                        machine.stretch_of_pairs(tile, 4 * steps, source, target, 4 * n, turns, so_far, apart)
                if step:
                    continue  # the edges were done at once
                for i in range(inside, count, rows):
                    tile, target = block.ctypes.data + 4 * i * steps, edge.ctypes.data
                    if quads:
                        machine.tile_of_quads(tile, 4 * steps, source, target, 4 * columns, steps, begin)
                    else:
                        machine.tile_of_pairs(tile, 4 * steps, source, target, 4 * columns, steps, begin)
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


def _by_dots(a: Any, b: Any, a_zero_point: Any, b_zero_point: Any, bias: Any, out: Any) -> None:
    (m, k), n = a.shape, b.shape[0]
    centred, offsets = a.astype(np.int16), np.empty(n, np.int64)
    centred -= np.asarray(a_zero_point, np.int16).reshape(-1, 1)
    flip = SIGN if b.dtype == np.int8 else 0
    offsets[:] = b_zero_point
    offsets += flip
    start = np.zeros(n, np.int32) if bias is None else bias
    x = (centred, b.view(np.uint8), flip, offsets, start, out)
    shared_out(lambda first, last: _dots(*x, first, last), n, m * k * n // A_STEP)


def _dot_products(a: Any, b: Any, flip: int, offsets: Any, start: Any, out: Any, first: int, last: int) -> None:
    """``out[i, j] = start[j] + sum_k a[i, k] ((b[j, k] ^ flip) - offsets[j])`` for columns [first, last)."""
    m, k = a.shape
    together = 2 * machine.lanes()
    turns, vectored = k // together, k // together * together
    sums, of_a = np.zeros(machine.DOTS, np.int32), np.zeros(m, np.int64)
    for i in range(m):
        for t in range(k):
            of_a[i] += a[i, t]
    for column in range(first, last, machine.DOTS):
        j = max(min(column, last - machine.DOTS), first)  # the last group overlaps the one before
        count = min(machine.DOTS, last - j)
        apart = k if count == machine.DOTS else 0  # too few columns: all of them below
        for i in range(m):
            if turns:
                machine.dots_of_bytes(
                    a.ctypes.data + 2 * i * k, b.ctypes.data + j * k, apart, sums.ctypes.data, turns, flip
                )
            for c in range(count):
                total = start[j + c] - offsets[j + c] * of_a[i]  # below 2**10 * 2**29
                if apart:
                    total += sums[c]
                for t in range(vectored if apart else 0, k):
                    total += np.int64(a[i, t]) * np.int64(b[j + c, t] ^ flip)
                out[i, j + c] = wrap32(total)


_dots = kernel(_dot_products, "matmul.dots")

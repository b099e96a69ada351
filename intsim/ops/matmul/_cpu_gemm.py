"""Matrix product in int32 modulo 2**32 by micro-kernels: the loops around them.

Rows of ``a`` are laid out a block at a time, small enough to stay in the second-level cache, and go past
every panel of ``b``.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from intsim.backends.cpu import shared_out
from intsim.compiling import kernel
from intsim.ops.matmul import _cpu_tile as machine
from intsim.ops.matmul._cpu_panels import SIGN, Panels, pack

FEW = 6  # rows: below this, laying out ``b`` costs more than it saves
BLOCK = 3 * 2**16  # bytes of ``a`` that stay in the second-level cache beside a panel


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
    few = m < FEW and a.itemsize == 1
    if isinstance(b, Panels) and few:
        b, b_zero_point = b.source, b.zero_point
    if not isinstance(b, Panels):
        if few and b.itemsize == 1:
            _by_dots(a, b, a_zero_point, b_zero_point, bias, out)
            return out
        b = pack(b, b_zero_point)
    start = np.zeros(b.steps.shape[0] * b.steps.shape[2], np.int32)
    if bias is not None:
        start[: b.n] = bias
    words = a.dtype == np.int16
    flip = SIGN * (a.dtype == np.int8)
    offsets = np.broadcast_to(np.asarray(a_zero_point, np.int64) + flip, m)
    left, right = _corrections(b, offsets, start) if b.quads else (_NONE, _NONE)
    centre = np.zeros(m, np.int16) if b.quads or words else offsets.astype(np.int16)

    x = (a.view(np.uint8), flip, words, centre, b.steps, b.quads, start, left, right, out)
    panels = b.steps.shape[0]
    work = m * b.k * b.n // 64
    if panels > m:
        shared_out(lambda first, last: _multiply(*x, 0, m, first, last), panels, work)
    else:
        shared_out(lambda first, last: _multiply(*x, first, last, 0, panels), m, work)
    return out


_NONE = np.empty((0, 2), np.int32)


def _corrections(b: Panels, offsets: Any, start: Any) -> tuple[Any, Any]:
    """What ``sum u s`` lacks of ``sum (u - offset_a) (s - offset_b)``: terms of the column go into ``start``.

    The rest is ``left[i, 0] right[j, 0] + left[i, 1] right[j, 1]``; ``left[i, 0]``, minus the sum of a row
    of ``a``, comes with the row.
    """
    columns = (b.sums.astype(np.int64) - b.k * b.offsets.astype(np.int64)).astype(np.int32)
    if offsets.size and (offsets == offsets[0]).all():
        start[: b.n] -= np.int32(offsets[0]) * columns
        offsets = np.zeros_like(offsets)
    if not offsets.any() and not b.offsets.any():
        return _NONE, _NONE
    left, right = np.zeros((offsets.size, 2), np.int32), np.zeros((b.n, 2), np.int32)
    left[:, 1], right[:, 0], right[:, 1] = -offsets, b.offsets, columns
    return left, right


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
    top: int,
    bottom: int,
    first: int,
    last: int,
) -> None:
    """Rows [top, bottom) of panels [first, last)."""
    columns, rows = machine.width(), machine.rows_of_quads() if quads else machine.rows_of_pairs()
    size, n = a.shape[1], out.shape[1]
    steps = -(-size // 4) if quads or words else -(-size // 2)
    height = max(BLOCK // (4 * steps) // 12, 2) * 12  # whole tiles of 4 and of 6 rows
    height = min(height, -(-(bottom - top) // 12) * 12)
    block = np.zeros((height, 2 * steps), np.int16)
    plain = block.view(np.uint8)
    edge = np.empty((rows, columns), np.int32)
    for at in range(top, bottom, height):
        count = min(height, bottom - at)
        for i in range(count):
            if quads:
                total = np.int32(0)
                for k in range(size):
                    plain[i, k] = a[at + i, k] ^ flip
                    total += np.int32(plain[i, k])
                if left.shape[0]:
                    left[at + i, 0] = -total
            elif words:
                for k in range(size):
                    plain[i, k] = a[at + i, k]
            else:
                less = centre[at + i]
                for k in range(size):
                    block[i, k] = np.int16(a[at + i, k] ^ flip) - less
        for panel in range(first, last):
            column = panel * columns
            source = panels.ctypes.data + 4 * panel * panels.shape[1] * columns
            begin = start.ctypes.data + 4 * column
            for i in range(0, count, rows):
                whole = i + rows <= count and column + columns <= n
                if whole:
                    target, apart = out.ctypes.data + 4 * ((at + i) * n + column), 4 * n
                else:
                    target, apart = edge.ctypes.data, 4 * columns
                if quads:
                    machine.tile_of_quads(
                        block.ctypes.data + 4 * i * steps, 4 * steps, source, target, apart, steps, begin
                    )
                else:
                    machine.tile_of_pairs(
                        block.ctypes.data + 4 * i * steps, 4 * steps, source, target, apart, steps, begin
                    )
                if not whole:
                    for r in range(min(rows, count - i)):
                        for j in range(min(columns, n - column)):
                            out[at + i + r, column + j] = edge[r, j]
            if left.shape[0]:
                for i in range(at, at + count):
                    for j in range(column, min(n, column + columns)):
                        out[i, j] = out[i, j] + left[i, 0] * right[j, 0] + left[i, 1] * right[j, 1]


_multiply = kernel(_panel_products, "matmul.panels")


def _by_dots(a: Any, b: Any, a_zero_point: Any, b_zero_point: Any, bias: Any, out: Any) -> None:
    (m, k), n = a.shape, b.shape[0]
    centred = (a.astype(np.int32) - np.asarray(a_zero_point, np.int32).reshape(-1, 1)).astype(np.int16)
    flip = SIGN * (b.dtype == np.int8)
    offsets = np.broadcast_to(np.asarray(b_zero_point, np.int64) + flip, n)
    start = np.zeros(n, np.int32) if bias is None else bias
    less = offsets * centred.sum(axis=1, dtype=np.int64)[:, None]
    b = b.view(np.uint8)
    shared_out(lambda first, last: _dots(centred, b, flip, out, first, last), n, m * k * n // 64)
    out += (start - less).astype(np.int32)


def _dot_products(a: Any, b: Any, flip: int, out: Any, first: int, last: int) -> None:
    """``out[i, j] = sum_k a[i, k] (b[j, k] ^ flip)`` for columns [first, last)."""
    m, k = a.shape
    together = 2 * machine.lanes()
    turns, vectored = k // together, k // together * together
    sums = np.zeros(machine.DOTS, np.int32)
    for column in range(first, last, machine.DOTS):
        j = max(min(column, last - machine.DOTS), 0)  # the last group overlaps the one before
        count = min(machine.DOTS, last - j)
        apart = k if count == machine.DOTS else 0  # too few columns: the first of them, and the rest below
        for i in range(m):
            if turns:
                machine.dots_of_bytes(
                    a.ctypes.data + 2 * i * k, b.ctypes.data + j * k, apart, sums.ctypes.data, turns, flip
                )
            for c in range(count):
                total = np.int64(sums[c]) if apart else np.int64(0)
                for t in range(vectored if apart else 0, k):
                    total += np.int64(a[i, t]) * np.int64(b[j + c, t] ^ flip)
                out[i, j + c] = total


_dots = kernel(_dot_products, "matmul.dots")

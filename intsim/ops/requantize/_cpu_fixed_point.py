"""Requantize with an integer product, a tile of columns at a time.

LLVM vectorises a loop at the width of its widest type, and AVX2 has neither a 64-bit arithmetic shift nor a 64-bit
clamp. So a tile takes two loops: the 64-bit product and its high word, then everything else in 32 bits.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial
from typing import Any

import numpy as np

from intsim.backends.cpu import compile, shared_out
from intsim.compiling import Int, kernel, portable
from intsim.numerics import Rounding
from intsim.ops.requantize.row_column import OP as OF_ROW_COLUMN

NEAR = 2**30 - 1  # a sum of this and a bias of half of it fits 32 bits, and saturates 16
TILE = 1024  # columns: the tile's parameters and words stay in a first-level cache of 32 KiB

i32, i64, u32 = np.int32, np.int64, np.uint32


@portable
def _even(r: Int) -> Int:
    return r & 1


@portable
def _away(r: Int) -> Int:
    return 1 if r <= 0 else 0  # the value is r - 1/2: below zero


@portable
def _positive(r: Int) -> Int:
    return 0


# rule -> what a tie takes from its result, which was rounded up
_TIES: dict[int, Any] = {
    Rounding.TIES_TO_EVEN: _even,
    Rounding.TIES_TO_AWAY: _away,
    Rounding.TIES_TO_POSITIVE: _positive,
}


@cache
def _single(rounding: int, uniform: bool) -> Callable[..., None]:
    correction = _TIES[rounding]

    def tiles(
        acc: Any,
        multiplier: Any,
        half: Any,
        shift: Any,
        zero_point: Any,
        qmin: int,
        qmax: int,
        q: Any,
        first: Int,
        last: Int,
    ) -> None:
        # 32 <= shift and |acc * multiplier| < 2**62: product + half < 2**62 + 2**61, and its high word is an int32.
        n = q.shape[1]
        a_row = (n + TILE - 1) // TILE
        high, low = np.empty(TILE, np.int32), np.empty(TILE, np.uint32)
        m0, h0, s0, z0 = multiplier[0], half[0], shift[0], zero_point[0]
        for tile in range(first, last):
            i = tile // a_row
            c = (tile - i * a_row) * TILE
            w = min(TILE, n - c)
            a, y, at = acc[i, c : c + w], q[i, c : c + w], 0 if uniform else c
            m, h, s, z = multiplier[at : at + w], half[at : at + w], shift[at : at + w], zero_point[at : at + w]
            for j in range(w):
                rounded = i64(a[j]) * i64(m0 if uniform else m[j]) + (h0 if uniform else h[j])
                high[j] = rounded >> 32
                low[j] = rounded & 0xFFFFFFFF
            for j in range(w):
                over = (s0 if uniform else s[j]) & 31  # shift - 32; the mask tells LLVM that 32 bits are enough
                r = i32(high[j] >> over)
                rest = high[j] & i32((i64(1) << over) - 1)
                tie = (rest == 0) & (low[j] == 0)
                r = i32(r - (i32(correction(r)) if tie else i32(0)))
                y[j] = min(max(i32(r + (z0 if uniform else z[j])), i32(qmin)), i32(qmax))

    return kernel(tiles, f"requantize.single_rounding.{Rounding(rounding).name}.{_label(uniform)}")


@cache
def _double(uniform: bool) -> Callable[..., None]:
    def tiles(
        acc: Any,
        multiplier: Any,
        shift: Any,
        zero_point: Any,
        qmin: int,
        qmax: int,
        q: Any,
        first: Int,
        last: Int,
    ) -> None:
        # multiplier >= 0, so the high product needs no saturation: it is at least -(2**31 - 1).
        n = q.shape[1]
        a_row = (n + TILE - 1) // TILE
        high = np.empty(TILE, np.int32)
        m0, s0, z0 = multiplier[0], shift[0], zero_point[0]
        for tile in range(first, last):
            i = tile // a_row
            c = (tile - i * a_row) * TILE
            w = min(TILE, n - c)
            a, y, at = acc[i, c : c + w], q[i, c : c + w], 0 if uniform else c
            m, s, z = multiplier[at : at + w], shift[at : at + w], zero_point[at : at + w]
            for j in range(w):
                high[j] = (i64(a[j]) * i64(m0 if uniform else m[j]) + i64(2**30)) >> 31
            for j in range(w):
                over = (s0 if uniform else s[j]) & 31  # shift - 31
                x = high[j]
                whole = i32((i64(1) << over) - 1)
                threshold = i32((whole >> 1) + (1 if x < 0 else 0))
                r = i32(i32(x >> over) + (1 if (x & whole) > threshold else 0))
                y[j] = min(max(i32(r + (z0 if uniform else z[j])), i32(qmin)), i32(qmax))

    return kernel(tiles, f"requantize.double_rounding.{_label(uniform)}")


@cache
def _by_rows(rounding: int, whole_words: bool) -> Callable[..., None]:
    correction = _TIES[rounding]

    def rows(acc: Any, row: Any, column: Any, bias: Any, of_shift: Int, qmin: int, qmax: int, q: Any,
             first: Int, last: Int) -> None:  # fmt: skip
        # |row * column| <= 2**30, so |product + half| <= 2**62, and its high word is an int32.
        n = q.shape[1]
        high, low, half = np.empty(TILE, np.int32), np.empty(TILE, np.uint32), i64(1) << (of_shift - 1)
        over = i32(of_shift & 31)  # with whole_words it is shift - 32
        rest_of_high, rest_of_low = i32((i64(1) << over) - 1), u32((i64(1) << over) - 1)
        farthest, up = i32((i64(1) << over) >> 1), i32((32 - over) & 31)
        for i in range(first, last):
            factor = i32(row[i])
            for c in range(0, n, TILE):
                w = min(TILE, n - c)
                a, m, b, y = acc[i, c : c + w], column[c : c + w], bias[c : c + w], q[i, c : c + w]
                for j in range(w):
                    rounded = i64(a[j]) * i64(i32(factor * i32(m[j]))) + half
                    high[j] = rounded >> 32
                    low[j] = rounded & 0xFFFFFFFF
                for j in range(w):
                    if whole_words:
                        r = i32(high[j] >> over)
                        tie = ((high[j] & rest_of_high) == 0) & (low[j] == 0)
                        r = i32(r - (i32(correction(r)) if tie else i32(0)))
                    else:
                        r = i32(i32(high[j] << up) | i32(u32(low[j] >> u32(over))))
                        r = i32(r - (i32(correction(r)) if (low[j] & rest_of_low) == 0 else i32(0)))
                        r = i32(NEAR) if high[j] >= farthest else (i32(-NEAR) if high[j] < -farthest else r)
                        r = min(max(r, i32(-NEAR)), i32(NEAR))
                    y[j] = min(max(i32(r + b[j]), i32(qmin)), i32(qmax))

    return kernel(rows, f"requantize.row_column.{Rounding(rounding).name}.{'words' if whole_words else 'bits'}")


def _label(uniform: bool) -> str:
    return "uniform" if uniform else "columns"


def _launch(made: Callable[[bool], Callable[..., None]], x: Any, out: Any, p: Any, parameters: tuple[Any, ...]) -> None:
    """The kernel that ``made`` gives over all of ``x.acc``, by threads. parameters: an array each, one a column."""
    acc, q, uniform = x.acc, out.q, out.q.shape[1] == 1
    if uniform:  # one set of parameters for all elements: take them as one row
        acc, q = acc.reshape(1, -1), q.reshape(1, -1)
    count, limits, tiles = q.shape[0] * -(-q.shape[1] // TILE), (p.dtype.qmin, p.dtype.qmax), made(uniform)
    shared_out(lambda first, last: tiles(acc, *parameters, *limits, q, first, last), count, q.size)


def single_rounding(x: Any, out: Any, p: Any) -> None:
    """Fills ``out.q``; serves the rules of ``_TIES``, shifts from 32 on and narrow results."""
    half = np.int64(1) << (p.shift - 1)
    columns = (p.multiplier.astype(i32), half, (p.shift - 32).astype(i32), p.zero_point.astype(i32))
    _launch(partial(_single, p.rounding), x, out, p, columns)


def double_rounding(x: Any, out: Any, p: Any) -> None:
    """Fills ``out.q``; serves shifts from 31 on and narrow results."""
    columns = (p.multiplier.astype(i32), (p.shift - 31).astype(i32), p.zero_point.astype(i32))
    _launch(_double, x, out, p, columns)


def row_column(x: Any, out: Any, p: Any) -> None:
    """Fills ``out.q``; serves the rules of ``_TIES``, shifts from 1 on, and results of more than 16 bits from 32 on."""
    if x.bias.max() > NEAR // 2 or x.bias.min() < -NEAR // 2:
        compile(OF_ROW_COLUMN.name, OF_ROW_COLUMN.program)(x, out, p, 0)
        return
    rows, parameters = (
        _by_rows(p.rounding, p.shift >= 32),
        (x.row, x.column, x.bias, p.shift, p.dtype.qmin, p.dtype.qmax),
    )
    shared_out(lambda first, last: rows(x.acc, *parameters, out.q, first, last), out.q.shape[0], out.q.size)

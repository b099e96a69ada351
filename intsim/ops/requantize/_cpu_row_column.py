"""Requantize with an integer product, a tile of columns at a time.

LLVM vectorises a loop at the width of its widest type, and AVX2 has neither a 64-bit arithmetic shift nor a 64-bit
clamp. So a tile takes two loops: the 64-bit product and its high word, then everything else in 32 bits.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
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

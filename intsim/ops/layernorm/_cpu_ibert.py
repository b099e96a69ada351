"""I-BERT's layer normalization in 32 bits a lane, for k = 0."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np

from intsim.backends.cpu import shared_out
from intsim.compiling import Int, kernel, portable
from intsim.ops.layernorm.ibert import row
from intsim.scalar.functions import isqrt
from intsim.scalar.rounding import divide

NEAR = 2**30 - 1  # a bias up to here cannot make the result saturate

i32, i64, u32 = np.int32, np.int64, np.uint32


@portable
def _isqrt(x: Int) -> Int:
    """The integer part of the root, for ``x < 2**52``: a float64 root, put right where it was rounded up."""
    root = i64(np.sqrt(np.float64(x)))
    return root - 1 if root * root > x else root


@portable
def root(x: Int) -> Int:
    """The integer part of the root, for ``x < 2**62``."""
    return _isqrt(x) if x < 2**52 else isqrt(x)


@portable
def _squares_of_16_bits(q: Any, mean: Int) -> Int:
    # |d| < 2**16: its square is an uint32, of which n upper and n lower halves sum up in another
    low: Any = u32(0)
    high: Any = u32(0)
    for j in range(q.shape[0]):
        d: Any = i64(i32(mean - i32(q[j])))
        square = u32(d * d)
        low = u32(low + (square & u32(0xFFFF)))
        high = u32(high + (square >> u32(16)))
    return (i64(high) << 16) + i64(low)


@portable
def _squares_of_24_bits(q: Any, mean: Int) -> Int:
    total: Any = i64(0)
    for j in range(q.shape[0]):
        d = i64(i32(mean - i32(q[j])))
        total += d * d  # |d| < 2**24 and n <= 2**13: below 2**61
    return total


@cache
def _kernel(wide: bool) -> Callable[..., None]:
    squares, root = (_squares_of_24_bits, isqrt) if wide else (_squares_of_16_bits, _isqrt)

    def rows(x: Any, bias: Any, out: Any, mean_rounding: Int, first: Int, last: Int) -> None:
        n = x.shape[1]
        for i in range(first, last):
            q, y = x[i], out[i]
            total: Any = i64(0) if wide else i32(0)  # n <= 2**13 values of 24 bits, or of 16
            for j in range(n):
                total = total + i64(q[j]) if wide else i32(total + i32(q[j]))
            mean = i32(divide(i64(total), n, mean_rounding))
            std = max(root(squares(q, mean)), 1)
            # std >= |d|, since the root of a sum of squares is: so |d * factor / 2| <= 2**30. Both factors with their
            # signs turned: -2**31 is an int32, and LLVM takes the 32-bit product of signed numbers.
            factor = i32(-(2**31 // std))
            for j in range(n):
                d: Any = i32(mean - i32(q[j]))
                y[j] = i32(i32((i64(d) * i64(factor)) >> 1) + bias[j])

    return kernel(rows, f"layernorm.ibert.{'wide' if wide else 'rows'}")


@cache
def _saturating() -> Callable[..., None]:
    def rows(x: Any, out: Any, p: Any, first: Int, last: Int) -> None:
        for i in range(first, last):
            row(i, x, out, p)

    return kernel(rows, "layernorm.ibert.saturating")


def layernorm(x: Any, out: Any, p: Any) -> None:
    """Fills ``out.y``; serves k = 0 and int32 results."""
    rows, count, work = _kernel(p.x.bits > 16), x.x.shape[0], x.x.size
    if x.bias.max() <= NEAR and x.bias.min() >= -NEAR:
        # arrays by themselves: Numba types a named tuple anew in every call, which is slow
        shared_out(lambda first, last: rows(x.x, x.bias, out.y, p.mean_rounding, first, last), count, work)
        return
    saturating = _saturating()
    shared_out(lambda first, last: saturating(x, out, p, first, last), count, work)

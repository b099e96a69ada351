"""I-BERT's layer normalization in 32 bits a lane, for k = 0.

The squares need no second look at the row: with d = x - mean, sum d**2 = sum x**2 - 2 mean sum x + n mean**2.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np

from intsim.backends.cpu import shared_out
from intsim.compiling import Int, kernel, portable
from intsim.ops.layernorm import _cpu_vectors as vectors
from intsim.scalar.functions import isqrt
from intsim.scalar.rounding import divide

NEAR = 2**30 - 1  # a bias up to here cannot make the result saturate
LOWEST, HIGHEST = -(2**31), 2**31 - 1

i32, i64 = np.int32, np.int64


@portable
def _isqrt(x: Int) -> Int:
    """The integer part of the root, for ``x < 2**52``: a float64 root, put right where it was rounded up."""
    root = i64(np.sqrt(np.float64(x)))
    return root - 1 if root * root > x else root


@portable
def root(x: Int) -> Int:
    """The integer part of the root, for ``x < 2**62``."""
    return _isqrt(x) if x < 2**52 else isqrt(x)


@cache
def _kernel(bits: int) -> Callable[..., None]:
    narrow = bits <= 16  # n <= 2**13: the squares sum up to less than 2**46, and to less than 2**62 where not
    moments, root = (vectors.moments8 if bits <= 8 else vectors.moments16), (_isqrt if narrow else isqrt)
    scaled = vectors.scaled8 if bits <= 8 else vectors.scaled16 if narrow else vectors.scaled32

    def rows(x: Any, bias: Any, out: Any, mean_rounding: Int, first: Int, last: Int) -> None:
        n, squares = x.shape[1], np.zeros(1, np.int64)
        width = vectors.width()
        turns = n // width
        near = True
        for j in range(n):
            near &= (bias[j] <= NEAR) & (bias[j] >= -NEAR)
        for i in range(first, last):
            q, y = x[i], out[i]
            total, of_squares, done = i64(0), i64(0), 0
            if narrow and turns > 0:
                total, done = moments(q.ctypes.data, turns, squares.ctypes.data), turns * width
                of_squares = squares[0]
            for j in range(done, n):
                value = i64(q[j])
                total += value
                of_squares += value * value
            mean = divide(total, n, mean_rounding)
            std = max(root(of_squares - 2 * mean * total + n * mean * mean), 1)
            factor = 2**31 // std
            # std >= |d|, since the root of a sum of squares is: so |d * factor| <= 2**31, and equal to it only where
            # std divides 2**31
            done = 0
            if near and turns > 0 and std & (std - 1) != 0:
                scaled(q.ctypes.data, bias.ctypes.data, y.ctypes.data, turns, mean, factor)
                done = turns * width
            for j in range(done, n):
                whole = (((i64(q[j]) - mean) * factor) >> 1) + i64(bias[j])
                y[j] = min(max(whole, LOWEST), HIGHEST)

    return kernel(rows, f"layernorm.ibert.{bits}")


def layernorm(x: Any, out: Any, p: Any) -> None:
    """Fills ``out.y``; serves k = 0 and int32 results."""
    rows, count, work = _kernel(p.x.bits), x.x.shape[0], x.x.size
    # arrays by themselves: Numba types a named tuple anew in every call, which is slow
    shared_out(lambda first, last: rows(x.x, x.bias, out.y, p.mean_rounding, first, last), count, work)

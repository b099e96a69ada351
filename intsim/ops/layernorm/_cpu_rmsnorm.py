"""Root-mean-square normalization of rows by a float64 division, which is exact enough to give the exact integer.

The quotient is A * 2**(up - shift) / root, where A = d * multiplier is below 2**47 and root below 2**31. A and its
product with a power of two are float64 integers, so that one rounding is left: it moves a quotient by at most
|A| * 2**(up - shift - 53) / root. One that is no tie is as far from the nearest as 1 / (2 root), or where shift is
larger, as 2**(up - shift - 1) / root: more than that. So it goes neither onto a tie nor past one, and a tie stays.
(Where up is larger that holds for quotients below 2**21; all others saturate.)
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np

from intsim.backends.cpu import shared_out
from intsim.compiling import Int, kernel
from intsim.scalar.functions import bit_length, isqrt

f64, i32, i64 = np.float64, np.int32, np.int64


@cache
def _kernel() -> Callable[..., None]:
    def rows(x: Any, q: Any, multiplier: Any, p: Any, first: Int, last: Int) -> None:
        zero, low, high = i32(p.a_zero_point), f64(p.dtype.qmin), f64(p.dtype.qmax)
        zero_point = f64(p.zero_point)
        for i in range(first, last):
            xs, y = x[i], q[i]
            n = y.shape[0]
            total: Any = i64(p.eps)
            for j in range(n):
                d = i64(i32(i32(xs[j]) - zero))
                total += d * d  # |d| < 2**16 and n <= 2**13: below 2**46 with eps
            up = (61 - bit_length(total)) >> 1
            root, power = f64(isqrt((total << (2 * up)) // n)), f64(i64(1) << up) / f64(i64(1) << p.shift)
            for j in range(n):
                product = f64(i32(i32(xs[j]) - zero)) * multiplier[j] * power
                y[j] = i32(min(max(np.rint(product / root) + zero_point, low), high))

    return kernel(rows, "layernorm.rmsnorm.rows")


def rmsnorm(x: Any, out: Any, p: Any) -> None:
    """Fills ``out.q``; serves TIES_TO_EVEN and results of at most 16 bits."""
    rows, multiplier = _kernel(), p.multiplier.astype(f64)
    shared_out(lambda first, last: rows(x.x, out.q, multiplier, p, first, last), x.x.shape[0], 2 * x.x.size)

"""Dynamic quantization of int16 rows by a float32 division, which is exact enough to give the exact integer.

x * qmax < 2**22 and top < 2**15 are float32 integers. Their quotient, below 2**7, is a tie or at least
1 / (2 * top) > 2**-16 away from one; rounding it to float32 moves it by at most 2**-18, so neither onto a tie nor past
one, and a tie stays. (As everywhere, ``rint`` goes to the even neighbour, whatever mode a caller left the CPU in.)
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np

from intsim.backends.cpu import shared_out
from intsim.compiling import Int, kernel

f32, i32 = np.float32, np.int32


@cache
def _kernel() -> Callable[..., None]:
    def rows(x: Any, q: Any, tops: Any, of_q: Int, first: Int, last: Int) -> None:
        qmax = i32(of_q)
        for i in range(first, last):
            xs, y = x[i], q[i]
            n = y.shape[0]
            top: Any = i32(1)
            for j in range(n):
                top = max(top, abs(i32(xs[j])))
            divisor = f32(top)
            for j in range(n):
                y[j] = i32(np.rint(np.true_divide(f32(i32(i32(xs[j]) * qmax)), divisor)))
            tops[i] = top

    return kernel(rows, "quantize.dynamic_token.rows")


def dynamic_token(x: Any, out: Any, p: Any) -> None:
    """Fills ``out.q`` and ``out.top``; serves TIES_TO_EVEN."""
    rows = _kernel()
    shared_out(lambda first, last: rows(x.x, out.q, out.top, p.dtype.qmax, first, last), x.x.shape[0], x.x.size)

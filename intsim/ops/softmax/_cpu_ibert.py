"""I-BERT's softmax in 32 bits a lane, without a division an element.

Both quotients are products with a rounded-up reciprocal. For a divisor D, f = ceil(2**s / D) and e = f D - 2**s < D,

    x f / 2**s = x / D + x e / (D 2**s),   so floor(x f / 2**s) = floor(x / D) while x e < 2**s:

x / D lies at least 1 / D below the next integer. The kernel states s and the bound of x where it divides.
TIES_TO_EVEN looks at what is left.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np

from intsim.backends.cpu import shared_out
from intsim.compiling import Int, kernel
from intsim.numerics import Rounding

PIECE = 256  # exponentials, each below 2**23: their sum fits 32 bits

i32, i64, u32, u64 = np.int32, np.int64, np.uint32, np.uint64


@cache
def _kernel(nearest: bool) -> Callable[..., None]:
    def rows(q: Any, stop: Any, probability: Any, of_ln2: Int, of_b: Int, of_c: Int, first: Int, last: Int) -> None:
        n = q.shape[1]
        exp = np.empty(n, np.uint32)
        quotients = np.empty(n if nearest else 0, np.uint32)
        # z = d // ln2 for d < 32 ln2: s = 27, and d e < 32 ln2**2 <= 2**27. (From d = 31 ln2 on, exp is 0.)
        limit = i64(32 * of_ln2 - 1)
        inverse = u32((2**27 + of_ln2 - 1) // of_ln2)
        largest = of_b * of_b + of_c
        least_shift = i64(8)
        while (i64(2) << least_shift) < largest:
            least_shift += 1
        ln2, b, c = i32(of_ln2), i32(of_b), i32(of_c)
        for i in range(first, last):
            seen: Any = i64(stop[i])
            x, y = q[i], probability[i]
            top: Any = x[0]
            for j in range(seen):
                top = max(top, x[j])
            floor = i32(max(i64(top) - limit, i64(-(2**31))))
            top32 = i32(top)
            total = i64(0)
            for start in range(0, seen, PIECE):
                width = min(PIECE, seen - start)
                xs, es = x[start : start + width], exp[start : start + width]
                part: Any = u32(0)
                for j in range(width):
                    d = i32(top32 - max(i32(xs[j]), floor))
                    z = u32(u32(u32(d) * inverse) >> u32(27))
                    r = i32(i32(i32(z) * ln2) - d)
                    t = i32(r + b)
                    e = u32(u32(i32(i32(t * t) + c)) >> z)
                    es[j] = e
                    part = u32(part + e)
                total += i64(part)
            # exp * 2**8 // total: x = exp * 2**8 < 2**31 and e < total <= 2**(shift + 1), so s = 32 + shift is enough.
            # 2**shift < total makes the reciprocal an uint32. Where total leaves 31 bits, every quotient is 0.
            if total == largest and not nearest:
                total += 1  # the quotient of the one visible exponential becomes 255, which 256 is clamped to
            shift = least_shift
            while (i64(2) << shift) < total and shift < 31:
                shift += 1
            f = u32((((i64(1) << (32 + shift)) + total - 1) // total) if shift < 31 else 0)
            down = u64(24 + shift)
            if nearest:
                for j in range(seen):
                    quotients[j] = u64(u64(exp[j]) * u64(f)) >> down
                # what is left of exp * 2**8 < 2**31 is below total < 2**31
                divisor = u32(total)
                for j in range(seen):
                    k = quotients[j]
                    left = u32(u32(exp[j] << u32(8)) - u32(k * divisor))
                    twice = u32(left + left)
                    up = u32(1) if (twice > divisor) | ((twice == divisor) & ((k & u32(1)) == u32(1))) else u32(0)
                    y[j] = min(u32(k + up), u32(255))
            else:
                for j in range(seen):
                    y[j] = u64(u64(exp[j]) * u64(f)) >> down
            for j in range(seen, n):
                y[j] = 0

    return kernel(rows, f"softmax.ibert.{'nearest' if nearest else 'rows'}")


def softmax(x: Any, out: Any, p: Any) -> None:
    """Fills ``out.probability``; serves 8 bits, rounded down or to even, where each bound above holds."""
    rows = _kernel(p.rounding == Rounding.TIES_TO_EVEN)
    shared_out(
        lambda first, last: rows(x.q, x.stop, out.probability, p.ln2, p.b, p.c, first, last), x.q.shape[0], x.q.size
    )

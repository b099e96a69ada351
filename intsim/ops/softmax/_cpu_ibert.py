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
from intsim.compiling import Int, kernel, portable
from intsim.numerics import Rounding
from intsim.ops.softmax import _cpu_vectors as vectors

ROWS, TOGETHER = 16, 4096  # rows that go together, and exponentials: they stay in a first-level cache
PIECE = 256  # exponentials, each below 2**23: their sum fits 32 bits

i64, u64 = np.int64, np.uint64


@portable
def _exponential(d: Int, inverse: Int, ln2: Int, b: Int, c: Int) -> Int:
    z = (d * inverse) >> 27
    t = z * ln2 - d + b
    return (t * t + c) >> z


@portable
def _to_even(exp: Int, k: Int, total: Int) -> Int:
    twice = 2 * ((exp << 8) - k * total)
    return k + 1 if twice > total or (twice == total and k & 1 == 1) else k


@cache
def _kernel(nearest: bool, bits: int) -> Callable[..., None]:
    largest, exponentials = _BY_BITS[bits]
    shares, shares4 = (vectors.nearest, vectors.nearest4) if nearest else (vectors.shares, vectors.shares4)
    size = bits // 8

    def rows(q: Any, stop: Any, probability: Any, ln2: Int, b: Int, c: Int, first: Int, last: Int) -> None:
        n, lanes = q.shape[1], vectors.lanes()
        a_register = 4 * lanes // size
        # Rows go together through each step: what a row waits for, its largest, its sum, a division, others need not
        together = max(1, min(ROWS, TOGETHER // n))
        exp = np.empty((together + 1, n), np.uint32)  # one more: shares may read a little past a row
        factor = np.empty(1, np.int64)
        of_q, of_exp, of_shares = q.ctypes.data, exp.ctypes.data, probability.ctypes.data
        of_factor = factor.ctypes.data
        totals, tops = np.empty(together, np.int64), np.empty(together, np.int64)
        # z = d // ln2 for d < 32 ln2: s = 27, and d e < 32 ln2**2 <= 2**27. (From d = 31 ln2 on, exp is 0.)
        limit, inverse, at_top = 32 * ln2 - 1, (2**27 + ln2 - 1) // ln2, b * b + c
        for start_row in range(first, last, together):
            count = min(together, last - start_row)
            for r in range(count):
                i = start_row + r
                seen = i64(stop[i])
                top, done = i64(q[i, 0]), seen // a_register * a_register
                if done > 0:
                    top = largest(of_q + size * n * i, seen // a_register)
                for j in range(done, seen):
                    top = max(top, i64(q[i, j]))
                tops[r] = top
            for r in range(count):
                i, top = start_row + r, tops[r]
                seen = i64(stop[i])
                floor, total = max(top - limit, -(2**31)), i64(0)
                whole = seen // lanes * lanes
                for start in range(0, whole, PIECE):
                    turns = min(PIECE, whole - start) // lanes
                    source, into = of_q + size * (n * i + start), of_exp + 4 * (n * r + start)
                    total += exponentials(source, into, turns, top, floor, inverse, ln2, b, c)
                for j in range(whole, seen):
                    exp[r, j] = _exponential(top - max(i64(q[i, j]), floor), inverse, ln2, b, c)
                    total += i64(exp[r, j])
                totals[r] = total
            for r in range(count):
                i, total = start_row + r, totals[r]
                seen = i64(stop[i])
                # exp * 2**8 // total: x = exp * 2**8 < 2**31 and e < total <= 2**(shift + 1), so s = 32 + shift is
                # enough. 2**shift < total makes the reciprocal an uint32. Where total leaves 31 bits, every quotient
                # is 0.
                if total == at_top and not nearest:
                    total += 1  # the quotient of the one visible exponential becomes 255, which 256 is clamped to
                shift = vectors.length(total - 1) - 1
                f = ((1 << (32 + shift)) + total - 1) // total if shift < 31 else 0
                factor[0] = f
                down, whole = 24 + shift, seen // lanes * lanes
                done, source, into = seen // (4 * lanes) * (4 * lanes), of_exp + 4 * n * r, of_shares + n * i
                if done > 0:
                    shares4(source, into, seen // (4 * lanes), of_factor, down, total)
                if done < whole:
                    shares(source + 4 * done, into + done, (whole - done) // lanes, of_factor, down, total)
                for j in range(whole, seen):
                    k = i64((u64(exp[r, j]) * u64(f)) >> u64(down))
                    probability[i, j] = min(_to_even(i64(exp[r, j]), k, total) if nearest else k, 255)
                for j in range(seen, n):
                    probability[i, j] = 0

    return kernel(rows, f"softmax.ibert.{'nearest' if nearest else 'rows'}.{bits}")


_BY_BITS = {
    8: (vectors.largest8, vectors.exponentials8),
    16: (vectors.largest16, vectors.exponentials16),
    32: (vectors.largest32, vectors.exponentials32),
}


def softmax(x: Any, out: Any, p: Any) -> None:
    """Fills ``out.probability``; serves 8 bits, rounded down or to even, where each bound above holds."""
    rows = _kernel(p.rounding == Rounding.TIES_TO_EVEN, 8 * x.q.itemsize)
    numbers = int(p.ln2), int(p.b), int(p.c)
    shared_out(lambda first, last: rows(x.q, x.stop, out.probability, *numbers, first, last), x.q.shape[0], x.q.size)

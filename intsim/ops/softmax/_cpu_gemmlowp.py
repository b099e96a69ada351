"""gemmlowp's softmax by tables: with 8-bit inputs a row has 256 differences, so 256 exponentials and results."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np

from intsim.backends.cpu import shared_out
from intsim.compiling import Int, kernel
from intsim.ops.softmax.gemmlowp import exponential
from intsim.scalar.fixed_point import one_over_one_plus, rounding_shift
from intsim.scalar.functions import bit_length

i64, u64 = np.int64, np.uint64


@cache
def _fill() -> Callable[..., None]:
    def fill(p: Any, exp: Any, term: Any, count: Int) -> None:
        for d in range(count):
            exp[d] = exponential(-d, p)
            term[d] = rounding_shift(i64(exp[d]), 12)

    return kernel(fill, "softmax.gemmlowp.tables")


@cache
def _kernel() -> Callable[..., None]:
    def rows(
        q: Any, stop: Any, probability: Any, exp: Any, term: Any, bits: Int, qmin: Int, qmax: Int, first: Int, last: Int
    ) -> None:
        n = q.shape[1]
        result = np.empty(256, np.int32)
        for i in range(first, last):
            seen = i64(stop[i])
            x, y = q[i], probability[i]
            top, bottom = i64(x[0]), i64(x[0])
            for j in range(seen):
                top, bottom = max(top, i64(x[j])), min(bottom, i64(x[j]))
            total = i64(0)
            for j in range(seen):
                total += i64(term[top - i64(x[j])])
            headroom = 32 - bit_length(total)
            reciprocal = u64(one_over_one_plus((total << headroom) - 2**31))
            over = 12 - headroom + 31 - bits
            # Nothing here is negative, so both roundings add a half; the product of two numbers below 2**31 does not
            # saturate, and over is at least 15: every result is below 2**31. An exponential of 0 gives qmin.
            half = u64(1) << u64(over - 1)
            for d in range(top - bottom + 1):
                high = (u64(exp[d]) * reciprocal + u64(2**30)) >> u64(31)
                result[d] = min(i64((high + half) >> u64(over)) + qmin, qmax)
            for j in range(seen):
                y[j] = result[top - i64(x[j])]
            for j in range(seen, n):
                y[j] = qmin

    return kernel(rows, "softmax.gemmlowp.rows")


def softmax(x: Any, out: Any, p: Any) -> None:
    """Fills ``out.probability``."""
    exp, term = np.zeros(256, np.uint32), np.zeros(256, np.uint32)  # 0 where a difference does not count
    _fill()(p, exp, term, min(256, ((31 << 26) >> (31 - p.shift)) + 1))
    rows, ends = _kernel(), (p.dtype.bits, p.dtype.qmin, p.dtype.qmax)
    shared_out(
        lambda first, last: rows(x.q, x.stop, out.probability, exp, term, *ends, first, last), x.q.shape[0], x.q.size
    )

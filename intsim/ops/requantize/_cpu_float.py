"""Requantize as the published systems do, in the machine's floats: one conversion, one product, one rounding.

The program computes the same IEEE 754 steps in integers. What the machine's floats could do differently is ruled
out: no addition follows a product, so nothing can be fused; operands are normal, and a subnormal product rounds to 0
whether or not the processor flushes it. Clamping before the conversion loses nothing: the bounds are whole numbers
that the float type holds.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np

from intsim.backends.cpu import shared_out
from intsim.compiling import Int, kernel

PIECE = 1024  # elements at a time where one set of parameters serves all
f32, f64, i32 = np.float32, np.float64, np.int32


@cache
def _float32() -> Callable[..., None]:
    def rows(acc: Any, factor: Any, low: Any, high: Any, zero_point: Any, q: Any, first: Int, last: Int) -> None:
        for i in range(first, last):
            a, y = acc[i], q[i]
            for j in range(y.shape[0]):
                whole = np.rint(f32(a[j]) * factor[j])
                y[j] = i32(min(max(whole, low[j]), high[j])) + zero_point[j]

    return kernel(rows, "requantize.float32_ties_even.rows")


@cache
def _float64() -> Callable[..., None]:
    def rows(
        acc: Any, factor: Any, power: Any, low: Any, high: Any, zero_point: Any, q: Any, first: Int, last: Int
    ) -> None:
        for i in range(first, last):
            a, y = acc[i], q[i]
            for j in range(y.shape[0]):
                whole = np.rint(f64(a[j]) * factor[j] * power[j])  # the second product is exact
                y[j] = i32(min(max(whole, low[j]), high[j])) + zero_point[j]

    return kernel(rows, "requantize.dyadic.rows")


def _launch(rows: Callable[..., None], x: Any, out: Any, p: Any, dtype: Any, factors: tuple[Any, ...]) -> None:
    low, high = ((bound - p.zero_point).astype(dtype) for bound in (p.dtype.qmin, p.dtype.qmax))
    columns = (*factors, low, high, p.zero_point.astype(i32))

    def part(acc: Any, q: Any, columns: tuple[Any, ...]) -> None:
        shared_out(lambda first, last: rows(acc, *columns, q, first, last), q.shape[0], q.size)

    if out.q.shape[1] > 1:
        part(x.acc, out.q, columns)
        return
    acc, q = x.acc.reshape(-1), out.q.reshape(-1)
    columns = tuple(np.repeat(v, PIECE) for v in columns)
    whole = q.size - q.size % PIECE
    part(acc[:whole].reshape(-1, PIECE), q[:whole].reshape(-1, PIECE), columns)
    part(acc[None, whole:], q[None, whole:], columns)


def float32_ties_even(x: Any, out: Any, p: Any) -> None:
    """Fills ``out.q``; serves narrow results."""
    _launch(_float32(), x, out, p, f32, (p.multiplier_bits.astype(i32).view(f32),))


def dyadic(x: Any, out: Any, p: Any) -> None:
    """Fills ``out.q``; serves narrow results."""
    _launch(_float64(), x, out, p, f64, (p.multiplier.astype(f64), 2.0**-p.shift))

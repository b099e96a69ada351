"""Wrapping matrix product by float BLAS, in pieces of K so short that every float sum is an exact integer.

A sum of ``terms`` products below ``bound`` is exact in float32 while ``terms * bound <= 2**24`` (in
float64: 2**53), in any order of addition. No compilation, so it also serves the first call.
"""

from __future__ import annotations

from typing import Any

import numpy as np

ROWS = 512  # rows of ``a`` at a time: bounds the memory of the float copies
STACK = 2**21  # elements of pairs at a time: likewise


def _farthest(qmin: int, qmax: int, zero_point: Any) -> int:
    """The largest |q - zero_point| of the type."""
    return int(max(np.max(qmax - zero_point), np.max(zero_point - qmin), 1))


def _pieces(p: Any) -> tuple[Any, int]:
    """The float type to multiply in, and the terms of which a sum is exact in it."""
    bound = _farthest(p.a.qmin, p.a.qmax, p.a_zero_point) * _farthest(p.b.qmin, p.b.qmax, p.b_zero_point)
    narrow = bound <= 2**18  # at least 64 terms a piece, else float64 is the faster one
    return (np.float32, 2**24 // bound) if narrow else (np.float64, 2**53 // bound)


def _wrap(acc: Any, p: Any) -> Any:
    if p.acc.bits >= 63:
        return acc
    low = p.acc.qmax + 1 - (1 << p.acc.bits)
    return ((acc - low) & ((1 << p.acc.bits) - 1)) + low


def matmul(x: Any, out: Any, p: Any) -> None:
    """Fills ``out.acc``; serves overflow = WRAP with operands that are not packed."""
    dtype, terms = _pieces(p)
    depth = x.a.shape[1]
    b = x.b.astype(dtype) - p.b_zero_point.astype(dtype)[:, None]
    for top in range(0, x.a.shape[0], ROWS):
        a = x.a[top : top + ROWS].astype(dtype) - dtype(p.a_zero_point)
        acc = np.zeros((a.shape[0], b.shape[0]), np.int64) + x.bias
        for k in range(0, depth, terms):
            acc += (a[:, k : k + terms] @ b[:, k : k + terms].T).astype(np.int64)
        out.acc[top : top + ROWS] = _wrap(acc, p)


def stacked(x: Any, out: Any, p: Any) -> None:
    """``matmul`` of many pairs, along the leading dimensions."""
    dtype, terms = _pieces(p)
    count = int(np.prod(out.acc.shape[:-2]))
    a_all, b_all, acc_all = (v.reshape(count, *v.shape[-2:]) for v in (x.a, x.b, out.acc))
    bias = x.bias.reshape(count, x.bias.shape[-1])
    largest = max(int(np.prod(v.shape[1:])) for v in (a_all, b_all, acc_all))
    pairs = max(1, STACK // max(largest, 1))
    for top in range(0, count, pairs):
        at = slice(top, top + pairs)
        a = a_all[at].astype(dtype) - dtype(p.a_zero_point)
        b = b_all[at].astype(dtype) - p.b_zero_point.astype(dtype)[:, None]
        acc = np.zeros(acc_all[at].shape, np.int64) + bias[at, None]
        for k in range(0, a.shape[-1], terms):
            acc += (a[..., k : k + terms] @ b[..., k : k + terms].swapaxes(-1, -2)).astype(np.int64)
        acc_all[at] = _wrap(acc, p)

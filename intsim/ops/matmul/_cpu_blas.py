"""Wrapping matrix product by float BLAS, in pieces of K so short that every float sum is an exact integer.

A sum of ``terms`` products below ``bound`` is exact in float32 while ``terms * bound <= 2**24`` (in
float64: 2**53), in any order of addition. No compilation, so it also serves the first call.
"""

from __future__ import annotations

from typing import Any

import numpy as np

ROWS = 512  # rows of ``a`` at a time: bounds the memory of the float copies


def _farthest(qmin: int, qmax: int, zero_point: Any) -> int:
    """The largest |q - zero_point| of the type."""
    return int(max(np.max(qmax - zero_point), np.max(zero_point - qmin), 1))


def matmul(x: Any, out: Any, p: Any) -> None:
    """Fills ``out.acc``; serves overflow = WRAP with operands that are not packed."""
    bound = _farthest(p.a.qmin, p.a.qmax, p.a_zero_point) * _farthest(p.b.qmin, p.b.qmax, p.b_zero_point)
    narrow = bound <= 2**18  # at least 64 terms a piece, else float64 is the faster one
    dtype, terms = (np.float32, 2**24 // bound) if narrow else (np.float64, 2**53 // bound)
    depth = x.a.shape[1]
    b = x.b.astype(dtype) - p.b_zero_point.astype(dtype)[:, None]
    bits = p.acc.bits
    for top in range(0, x.a.shape[0], ROWS):
        a = x.a[top : top + ROWS].astype(dtype) - dtype(p.a_zero_point)
        acc = np.zeros((a.shape[0], b.shape[0]), np.int64) + x.bias
        for k in range(0, depth, terms):
            acc += (a[:, k : k + terms] @ b[:, k : k + terms].T).astype(np.int64)
        if bits < 63:
            low = p.acc.qmax + 1 - (1 << bits)
            acc = ((acc - low) & ((1 << bits) - 1)) + low
        out.acc[top : top + ROWS] = acc

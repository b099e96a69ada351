"""Wrapping matrix product by float BLAS, in pieces of K so short that every float sum is an exact integer.

A sum of ``terms`` products below ``bound`` is exact in float32 while ``terms * bound <= 2**24`` (in
float64: 2**53), in any order of addition. No compilation, so it also serves the first call.
"""

from __future__ import annotations

from typing import Any

import numpy as np

ELEMENTS = 1 << 20  # of the result at a time: bounds the memory of the float copies


def _farthest(qmin: int, qmax: int, zero_point: Any) -> int:
    """The largest |q - zero_point| of the type."""
    return int(max(np.max(qmax - zero_point), np.max(zero_point - qmin), 1))


def _centred(q: Any, zero_point: Any, dtype: Any) -> Any:
    return q.astype(dtype) - zero_point.astype(dtype) if np.any(zero_point) else q.astype(dtype)


def _product(a: Any, b: Any, bias: Any, out: Any, p: Any) -> None:
    """``out = a b^T + bias``, wrapped; any leading dimensions. a, b: centred, in a float type."""
    bound = _farthest(p.a.qmin, p.a.qmax, p.a_zero_point) * _farthest(p.b.qmin, p.b.qmax, p.b_zero_point)
    terms = (2**24 if a.dtype == np.float32 else 2**53) // bound
    depth = a.shape[-1]
    top = p.acc.qmax - int(np.abs(bias.astype(np.int64)).max(initial=0))
    if depth <= terms and depth * bound <= top:  # no piece, no wrap
        out[...] = np.matmul(a, b.swapaxes(-1, -2))
        if bias.any():
            out += bias.astype(out.dtype)[..., None, :]
        return
    acc = np.zeros(out.shape, np.int64) + bias[..., None, :]
    for k in range(0, depth, terms):
        acc += np.matmul(a[..., k : k + terms], b[..., k : k + terms].swapaxes(-1, -2)).astype(np.int64)
    bits = p.acc.bits
    if bits < 63:
        low = p.acc.qmax + 1 - (1 << bits)
        acc = ((acc - low) & ((1 << bits) - 1)) + low
    out[...] = acc


def _dtype(p: Any) -> Any:
    bound = _farthest(p.a.qmin, p.a.qmax, p.a_zero_point) * _farthest(p.b.qmin, p.b.qmax, p.b_zero_point)
    return np.float32 if bound <= 2**18 else np.float64  # at least 64 terms a piece, else float64 is the faster one


def matmul(x: Any, out: Any, p: Any) -> None:
    """Fills ``out.acc``; serves overflow = WRAP with operands that are not packed."""
    dtype = _dtype(p)
    b = _centred(x.b, p.b_zero_point[:, None], dtype)
    rows = max(1, ELEMENTS // max(1, b.shape[0], x.a.shape[1]))
    for top in range(0, x.a.shape[0], rows):
        part = slice(top, top + rows)
        _product(_centred(x.a[part], np.int64(p.a_zero_point), dtype), b, x.bias, out.acc[part], p)


def batched(x: Any, out: Any, p: Any) -> None:
    """As ``matmul``, over leading dimensions that all arrays have."""
    dtype = _dtype(p)
    flat = [a.reshape(-1, *a.shape[a.ndim - n :]) for a, n in ((x.a, 2), (x.b, 2), (x.bias, 1), (out.acc, 2))]
    a, b, bias, acc = flat
    many = max(1, ELEMENTS // max(1, acc[0].size, a[0].size, b[0].size)) if len(acc) else 1
    for first in range(0, len(acc), many):
        part = slice(first, first + many)
        left = _centred(a[part], np.int64(p.a_zero_point), dtype)
        _product(left, _centred(b[part], p.b_zero_point[:, None], dtype), bias[part], acc[part], p)

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


def _centred(q: Any, zero_point: Any, dtype: Any) -> Any:
    return q.astype(dtype) - zero_point.astype(dtype) if np.any(zero_point) else q.astype(dtype)


def _product(a: Any, b: Any, bias: Any, out: Any, p: Any, terms: int) -> None:
    """``out = a b^T + bias``, wrapped. a, b: centred, in a float type; a sum of ``terms`` products is exact in it."""
    depth = a.shape[-1]
    largest = 2**24 if a.dtype == np.float32 else 2**53
    if depth <= terms and largest <= p.acc.qmax and not bias.any():
        out[...] = a @ b.swapaxes(-1, -2)  # one piece that fits: nothing wraps
        return
    acc = np.zeros(out.shape, np.int64) + bias[..., None, :]
    for k in range(0, depth, terms):
        acc += (a[..., k : k + terms] @ b[..., k : k + terms].swapaxes(-1, -2)).astype(np.int64)
    if p.acc.bits < 63:
        low = p.acc.qmax + 1 - (1 << p.acc.bits)
        acc = ((acc - low) & ((1 << p.acc.bits) - 1)) + low
    out[...] = acc


def matmul(a: Any, b: Any, bias: Any, out: Any, p: Any) -> None:
    """Fills ``out``, "m n", with the product of unpacked operands, wrapped."""
    dtype, terms = _pieces(p)
    right = _centred(b, p.b_zero_point[:, None], dtype)
    for top in range(0, a.shape[0], ROWS):
        at = slice(top, top + ROWS)
        _product(_centred(a[at], np.int64(p.a_zero_point), dtype), right, bias, out[at], p, terms)


def stacked(x: Any, out: Any, p: Any) -> None:
    """``matmul.integer`` of many pairs, along the leading dimensions; serves overflow = WRAP, operands not packed."""
    dtype, terms = _pieces(p)
    count = int(np.prod(out.acc.shape[:-2]))
    a_all, b_all, acc_all = (v.reshape(count, *v.shape[-2:]) for v in (x.a, x.b, out.acc))
    bias = x.bias.reshape(count, x.bias.shape[-1])
    largest = max(int(np.prod(v.shape[1:])) for v in (a_all, b_all, acc_all))
    pairs = max(1, STACK // max(largest, 1))
    for top in range(0, count, pairs):
        at = slice(top, top + pairs)
        a = _centred(a_all[at], np.int64(p.a_zero_point), dtype)
        b = _centred(b_all[at], p.b_zero_point[:, None], dtype)
        _product(a, b, bias[at], acc_all[at], p, terms)


def centred(a: Any, a_zero_point: Any, b: Any, b_zero_point: Any, out: Any) -> None:
    """``out = (a - a_zero_point) (b - b_zero_point)^T`` modulo 2**32, of 8-bit operands and at most 2**20 terms."""
    acc = (a - np.float64(a_zero_point)) @ (b - np.float64(b_zero_point)).T
    out[...] = acc.astype(np.int64)

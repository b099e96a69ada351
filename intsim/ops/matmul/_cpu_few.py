"""Products of few rows: the bytes of ``b`` go past once, as they lie, a row at a time.

The time is that of reading ``b``. One stream of it, asked for ahead, is what caches and memory are fastest at;
several rows of ``b`` at once would save loads of ``a``, and cost twice the time.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir

from intsim.backends.cpu import shared_out
from intsim.backends.vectors import I8, I16, I32, I64, Loop, Vectors, rung
from intsim.compiling import Machine, instructions, kernel
from intsim.ops.matmul import _cpu_tile as machine
from intsim.scalar.fixed_point import wrap32

FEW = 6  # rows: below this, laying out ``b`` costs more than it saves
TOGETHER = 2  # registers of products a turn
AHEAD = 2048  # bytes: how far in front ``b`` is asked for


def are(a: Any) -> bool:
    """Whether ``a`` has so few rows of bytes that ``b`` is read as it lies, without panels."""
    return bool(a.shape[0] < FEW and a.itemsize == 1)


def product(a: Any, b: Any, a_zero_point: Any, b_zero_point: Any, bias: Any, out: Any) -> None:
    """Fills ``out`` as ``_cpu_gemm.product`` does, for ``a`` and ``b`` of bytes."""
    (m, k), n = a.shape, b.shape[0]
    centred, offsets = a.astype(np.int16), np.empty(n, np.int64)
    centred -= np.asarray(a_zero_point, np.int16).reshape(-1, 1)
    offsets[:] = b_zero_point
    start = np.zeros(n, np.int32) if bias is None else bias
    x = (centred, b.view(np.uint8), b.dtype == np.int8, offsets, start, out)
    shared_out(lambda first, last: _dots(*x, first, last), n, m * k * n // machine.A_STEP)


def dot(signed: bool, together: int) -> Any:
    """``sum_k a[k] b[k]`` of int16 and bytes modulo 2**32; turns >= 1, each of ``together`` registers of int16."""

    def emit(builder: Any, target: Machine, a: Any, b: Any, turns: Any) -> Any:
        v = Vectors(builder, rung(target))
        span = 2 * v.rung.lanes  # bytes of ``b`` that a register of int16 meets
        loop = Loop(builder, turns, [a, b, *[v.constant(0)] * together])
        at_a, at_b, *acc = loop.values
        v.ask_for(v.at(at_b, AHEAD))
        for i in range(together):
            terms = v.load(v.at(at_b, span * i), ir.VectorType(I8, span))
            terms = (builder.sext if signed else builder.zext)(terms, v.of(I16))
            acc[i] = v.add_pairs(acc[i], v.load(v.at(at_a, 2 * span * i)), v.cast(terms, I32))
        loop.end([v.at(at_a, 2 * span * together), v.at(at_b, span * together), *acc])
        total = acc[0]
        for more in acc[1:]:
            total = builder.add(total, more)
        return builder.sext(v.sum(total), I64)

    return emit


dot_of_int8 = instructions(dot(signed=True, together=TOGETHER), 3)
dot_of_uint8 = instructions(dot(signed=False, together=TOGETHER), 3)


def _dot_products(a: Any, b: Any, signed: bool, offsets: Any, start: Any, out: Any, first: int, last: int) -> None:
    """``out[i, j] = start[j] + sum_k a[i, k] (b[j, k] - offsets[j])`` for columns [first, last)."""
    m, k = a.shape
    together = 2 * TOGETHER * machine.lanes()
    turns, whole = k // together, k // together * together
    of_a = np.zeros(m, np.int64)
    for i in range(m):
        for t in range(k):
            of_a[i] += a[i, t]
    for j in range(first, last):
        for i in range(m):
            total = start[j] - offsets[j] * of_a[i]  # below 2**9 * 2**29
            if turns:
                at_a, at_b = a.ctypes.data + 2 * i * k, b.ctypes.data + j * k
                total += dot_of_int8(at_a, at_b, turns) if signed else dot_of_uint8(at_a, at_b, turns)
            for t in range(whole, k):
                term = np.int64(b[j, t])
                total += np.int64(a[i, t]) * (term - ((term & 128) << 1) if signed else term)
            out[i, j] = wrap32(total)


_dots = kernel(_dot_products, "matmul.dots")

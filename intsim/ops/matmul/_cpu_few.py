"""Products of few rows: the bytes of ``b`` go past once, as they lie, in a few streams.

The time is that of reading ``b``: a core reads several streams far apart, asked for ahead, half again as fast as one.
Neighbouring rows of ``b`` at once are the slowest way.
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
STREAMS = 4  # rows of ``b`` at a time, a STREAMS-th of its columns apart
TOGETHER = 2  # registers of products a turn
AHEAD = 1024  # bytes: how far in front ``b`` is asked for


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


def dots(signed: bool, together: int) -> Any:
    """``out[s] = sum_k a[k] b[s, k]`` modulo 2**32 of int16 and bytes, for STREAMS rows of ``b``.

    apart: bytes between these rows. out: int32. turns >= 1, each of ``together`` registers of int16.
    """

    def emit(builder: Any, target: Machine, a: Any, b: Any, apart: Any, turns: Any, out: Any) -> None:
        v = Vectors(builder, rung(target))
        span = 2 * v.rung.lanes  # bytes of ``b`` that a register of int16 meets
        offsets = [builder.mul(apart, I64(s)) for s in range(STREAMS)]
        loop = Loop(builder, turns, [a, b, *[v.constant(0)] * STREAMS])
        at_a, at_b, *acc = loop.values
        rows = [v.load(v.at(at_a, 2 * span * i)) for i in range(together)]
        for s in range(STREAMS):
            at = builder.add(at_b, offsets[s])
            v.ask_for(v.at(at, AHEAD))
            for i in range(together):
                terms = v.load(v.at(at, span * i), ir.VectorType(I8, span))
                terms = (builder.sext if signed else builder.zext)(terms, v.of(I16))
                acc[s] = v.add_pairs(acc[s], rows[i], v.cast(terms, I32))
        loop.end([v.at(at_a, 2 * span * together), v.at(at_b, span * together), *acc])
        for s in range(STREAMS):
            v.store(v.sum(acc[s]), v.at(out, 4 * s))

    return emit


dots_of_int8 = instructions(dots(signed=True, together=TOGETHER), 5)
dots_of_uint8 = instructions(dots(signed=False, together=TOGETHER), 5)


def _dot_products(a: Any, b: Any, signed: bool, offsets: Any, start: Any, out: Any, first: int, last: int) -> None:
    """``out[i, j] = start[j] + sum_k a[i, k] (b[j, k] - offsets[j])`` for columns [first, last)."""
    m, k = a.shape
    together = 2 * TOGETHER * machine.lanes()
    turns, whole = k // together, k // together * together
    of_a, sums = np.zeros(m, np.int64), np.zeros(STREAMS, np.int32)
    for i in range(m):
        for t in range(k):
            of_a[i] += a[i, t]
    stream = (last - first) // STREAMS  # columns; those left over go one by one
    for j in range(first, last):
        streams = STREAMS if j < first + stream else 1
        if streams == 1 and j < first + STREAMS * stream:
            continue
        for i in range(m):
            if turns:
                at_a, at_b, apart = a.ctypes.data + 2 * i * k, b.ctypes.data + j * k, stream * k if streams > 1 else 0
                if signed:
                    dots_of_int8(at_a, at_b, apart, turns, sums.ctypes.data)
                else:
                    dots_of_uint8(at_a, at_b, apart, turns, sums.ctypes.data)
            for s in range(streams):
                at = j + s * stream
                total = np.int64(start[at]) + sums[s] - offsets[at] * of_a[i]  # below 2**10 * 2**29
                for t in range(whole, k):
                    term = np.int64(b[at, t])
                    total += np.int64(a[i, t]) * (term - ((term & 128) << 1) if signed else term)
                out[i, at] = wrap32(total)


_dots = kernel(_dot_products, "matmul.dots")

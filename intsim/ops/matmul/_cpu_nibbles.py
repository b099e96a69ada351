"""Matrix product by a matrix of 4-bit integers that share a byte.

For many rows it is unpacked to bytes: any two neighbours of 4 bits fit, so byte products are always
exact. For few rows the nibbles are split in registers, half the memory of bytes going past.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from intsim.backends.cpu import shared_out
from intsim.backends.vectors import I8, I16, I64, Loop, Vectors, rung
from intsim.compiling import Machine, instructions, kernel
from intsim.ops.matmul._cpu_few import AHEAD, STREAMS
from intsim.ops.matmul._cpu_panels import SIGN
from intsim.ops.matmul._cpu_tile import A_STEP, lanes
from intsim.scalar.fixed_point import wrap32

TOP = 8  # xored to a nibble, it turns int4 into uint4 that is 8 more, and back


def unpacked(packed: Any, signed: bool, high_first: bool) -> Any:
    """The elements, int8 or uint8, of uint8 "r c": "r 2c", C-contiguous."""
    out = np.empty((packed.shape[0], 2 * packed.shape[1]), np.uint8)
    shared_out(
        lambda first, last: _unpack(packed, TOP if signed else 0, high_first, out, first, last),
        packed.shape[0],
        packed.size // 8,
    )
    return out.view(np.int8) if signed else out


def _split(packed: Any, top: int, high_first: bool, out: Any, first: int, last: int) -> None:
    for i in range(first, last):
        for k in range(packed.shape[1]):
            byte = np.int64(packed[i, k])
            low, high = (((byte & 15) ^ top) - top) & 255, (((byte >> 4) ^ top) - top) & 255
            out[i, 2 * k] = high if high_first else low
            out[i, 2 * k + 1] = low if high_first else high


_unpack = kernel(_split, "matmul.unpack")


def product(
    a: Any, b: Any, *, signed: bool, high_first: bool, a_zero_point: int, b_zero_point: Any, bias: Any, out: Any
) -> None:
    """Fills ``out``, int32 "m n", as ``_cpu_gemm.product`` does: a, "m k", int8 or uint8; b, "n (k + 1) / 2", packed.

    The nibbles are split in registers, which pays for few rows. An odd k leaves the last nibble of each row of
    ``b`` unused.
    """
    (m, k), n = a.shape, b.shape[0]
    flip = SIGN if a.dtype == np.uint8 else 0
    a_offset, b_offset = a_zero_point - flip, np.asarray(b_zero_point, np.int64) + (TOP if signed else 0)
    laid = np.zeros((m + bool(a_offset), 2 * b.shape[1]), np.int8)
    sums, of_a = np.empty((len(laid), n), np.int32), np.empty(len(laid), np.int64)
    _lay(a.view(np.uint8), flip, high_first, laid, of_a)
    shared_out(
        lambda first, last: _dots(laid, b, TOP if signed else 0, sums, first, last), n, len(laid) * k * n // A_STEP
    )
    columns = sums[m].astype(np.int64) - k * b_offset if a_offset else np.int64(0)
    less = b_offset * of_a[:m, None] + a_offset * columns
    out[...] = (sums[:m] + (bias - less)).astype(np.int32)


def _lay_out(a: Any, flip: int, high_first: bool, laid: Any, sums: Any) -> None:
    """Rows of bytes, xored with ``flip``, as ``dot`` takes them, and their sums.

    A turn of ``dot`` meets the low nibbles first. What is left behind the last turn: first its half, then the other.
    A row more is of ones: it finds the sums of the columns.
    """
    (m, k), half, register = a.shape, laid.shape[1] // 2, 4 * lanes()
    xored, low = np.uint8(flip), int(high_first)
    for i in range(laid.shape[0]):
        total, row = np.int32(0), laid[i]
        for first in range(0, half, register):
            size = min(register, half - first)
            for r in range(size):
                for odd in range(2):
                    t = 2 * (first + r) + odd
                    if t < k:
                        value = np.int8(a[i, t] ^ xored) if i < m else np.int8(1)
                        row[2 * first + (size if odd != low else 0) + r] = value
                        total += value
        sums[i] = total


_lay = kernel(_lay_out, "matmul.nibbles.rows")


def dots(together: int) -> Any:
    """``out[s] = sum_k a[k] (nibble of b[s, k] ^ top)`` for STREAMS rows of packed bytes, ``apart`` bytes apart.

    out: int32. turns >= 1, each of ``together`` registers; one takes two of int8 from ``a``: what meets the low and
    the high nibbles.
    """

    def emit(builder: Any, machine: Machine, a: Any, b: Any, apart: Any, turns: Any, top: Any, out: Any) -> None:
        v = Vectors(builder, rung(machine))
        register = 4 * v.rung.lanes
        low, shift = v.constant(15, I8), v.constant(4, I16)
        tops = v.splat(builder.trunc(builder.mul(top, I64(0x11)), I8))
        offsets = [builder.mul(apart, I64(s)) for s in range(STREAMS)]
        loop = Loop(builder, turns, [a, b, *[v.constant(0)] * STREAMS])
        at_a, at_b, *acc = loop.values
        terms = [v.load(v.at(at_a, register * i), v.of(I8)) for i in range(2 * together)]
        for s in range(STREAMS):
            at, nibbles = builder.add(at_b, offsets[s]), []
            for i in range(together):
                if register * i % LINE == 0:
                    v.ask_for(v.at(at, AHEAD + register * i))
                bytes_ = builder.xor(v.load(v.at(at, register * i), v.of(I8)), tops)
                shifted = v.cast(builder.lshr(v.cast(bytes_, I16), shift), I8)
                nibbles += [builder.and_(x, low) for x in (bytes_, shifted)]
            acc[s] = v.add_small_quads(acc[s], nibbles, terms)
        loop.end([v.at(at_a, 2 * register * together), v.at(at_b, register * together), *acc])
        for s in range(STREAMS):
            v.store(v.sum(acc[s]), v.at(out, 4 * s))

    return emit


TOGETHER = 2  # registers: twice as many products of bytes are added in int16
LINE = 64  # bytes that are asked for at a time
dots_of_many = instructions(dots(TOGETHER), 6)
dots_of_one = instructions(dots(1), 6)


def _dot_products(a: Any, b: Any, top: int, out: Any, first: int, last: int) -> None:
    """Columns [first, last) of ``out``; ``a`` as ``_lay_out`` leaves it."""
    size, register = b.shape[1], 4 * lanes()
    many = size // (TOGETHER * register)
    one, begun = size // register - TOGETHER * many, TOGETHER * many * register
    done = begun + one * register
    sums = np.zeros((2, STREAMS), np.int32)
    stream = (last - first) // STREAMS  # columns; those left over go one by one
    for j in range(first, last):
        streams = STREAMS if j < first + stream else 1
        if streams == 1 and j < first + STREAMS * stream:
            continue
        apart = stream * size if streams > 1 else 0
        for i in range(a.shape[0]):
            at_a, at_b = a.ctypes.data + i * 2 * size, b.ctypes.data + j * size
            if many:
                dots_of_many(at_a, at_b, apart, many, top, sums.ctypes.data)
            if one:
                dots_of_one(at_a + 2 * begun, at_b + begun, apart, one, top, sums.ctypes.data + 4 * STREAMS)
            for s in range(streams):
                at = j + s * stream
                total = np.int64(sums[0, s]) + sums[1, s]
                for k in range(done, size):
                    byte = np.int64(b[at, k])
                    total += np.int64(a[i, done + k]) * ((byte & 15) ^ top)
                    total += np.int64(a[i, size + k]) * ((byte >> 4) ^ top)
                out[i, at] = wrap32(total)


_dots = kernel(_dot_products, "matmul.dots_of_nibbles")

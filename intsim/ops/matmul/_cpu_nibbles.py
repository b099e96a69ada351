"""Matrix product by a matrix of 4-bit integers that share a byte.

For many rows it is unpacked to bytes: any two neighbours of 4 bits fit, so byte products are always
exact. For few rows the nibbles are split in registers, half the memory of bytes going past.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from intsim.backends.cpu import shared_out
from intsim.backends.vectors import I8, I16, I64, Loop, Vectors, rung
from intsim.compiling import Machine, instructions, kernel, this_machine
from intsim.ops.matmul import _cpu_gemm as gemm
from intsim.ops.matmul._cpu_panels import SIGN
from intsim.ops.matmul._cpu_tile import lanes
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
    rows = np.zeros((m + bool(a_offset), 2 * b.shape[1]), np.int8)
    rows[:m, :k] = (a ^ np.uint8(flip)).view(np.int8) if flip else a
    if a_offset:
        rows[m, :k] = 1  # a row of ones finds the sums of the columns
    even, odd = (rows[:, 1::2], rows[:, ::2]) if high_first else (rows[:, ::2], rows[:, 1::2])
    together = 4 * rung(this_machine()).lanes
    turns = b.shape[1] // together
    halves = np.ascontiguousarray(np.stack([even, odd], axis=1))
    whole = halves[:, :, : turns * together].reshape(len(rows), 2, turns, together).swapaxes(1, 2)
    laid = np.concatenate(
        [np.ascontiguousarray(whole).reshape(len(rows), -1), halves[:, :, turns * together :].reshape(len(rows), -1)], 1
    )
    sums = np.empty((len(rows), n), np.int32)
    shared_out(
        lambda first, last: _dots(laid, b, TOP if signed else 0, turns, sums, first, last),
        n,
        len(rows) * k * n // gemm.A_STEP,
    )
    columns = sums[m].astype(np.int64) - k * b_offset if a_offset else np.int64(0)
    less = b_offset * rows[:m].sum(axis=1, dtype=np.int64)[:, None] + a_offset * columns
    out[...] = (sums[:m] + (bias - less)).astype(np.int32)


def dot(builder: Any, machine: Machine, a: Any, b: Any, turns: Any, top: Any) -> Any:
    """``sum_k a[k] (nibble of b[k] ^ top)`` for a row of packed bytes; turns >= 1.

    A turn takes a register of bytes, and two of int8 from ``a``: what meets the low and the high nibbles.
    One row at a time: ``b`` goes past as one stream, which the memory is fastest at.
    """
    v = Vectors(builder, rung(machine))
    register = 4 * v.rung.lanes
    low, shift = v.constant(15, I8), v.constant(4, I16)
    tops = v.splat(builder.trunc(builder.mul(top, I64(0x11)), I8))
    loop = Loop(builder, turns, [a, b, v.constant(0)])
    at_a, at_b, acc = loop.values
    terms = [v.load(at_a, v.of(I8)), v.load(v.at(at_a, register), v.of(I8))]
    bytes_ = builder.xor(v.load(at_b, v.of(I8)), tops)
    shifted = v.cast(builder.lshr(v.cast(bytes_, I16), shift), I8)
    acc = v.add_small_quads(acc, [builder.and_(x, low) for x in (bytes_, shifted)], terms)
    loop.end([v.at(at_a, 2 * register), v.at(at_b, register), acc])
    return builder.sext(v.sum(acc), I64)


dot_of_nibbles = instructions(dot, 4)


def _dot_products(a: Any, b: Any, top: int, turns: int, out: Any, first: int, last: int) -> None:
    """Columns [first, last) of ``out``; ``a`` as ``dot`` takes it, then the rest: its even half, its odd half."""
    size = b.shape[1]
    done = turns * 4 * lanes()
    for j in range(first, last):
        for i in range(a.shape[0]):
            total = np.int64(0)
            if turns:
                total += dot_of_nibbles(a.ctypes.data + i * 2 * size, b.ctypes.data + j * size, turns, top)
            for k in range(done, size):
                byte = np.int64(b[j, k])
                total += np.int64(a[i, done + k]) * ((byte & 15) ^ top)
                total += np.int64(a[i, size + k]) * ((byte >> 4) ^ top)
            out[i, j] = wrap32(total)


_dots = kernel(_dot_products, "matmul.dots_of_nibbles")

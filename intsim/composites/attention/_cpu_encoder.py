"""Layers of an integer encoder on the CPU: all that treats tokens apart, a block of rows from step to step.

A linear map's sums are finished panel by panel, and its rows become int8 for the next one while they are in the cache.
What a kernel needs of a linear map comes as three arguments: ``weight``, the arrays of ``matmul._cpu_blocks``;
``columns``, int32 [2, n], multipliers and zero points of ``requantize.row_column``; ``numbers``, int64, the kind of
its panels, then lift and shift of its products, once for each part of equal width.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from intsim.compiling import Int, kernel, portable
from intsim.composites.linear import _cpu_row_column_vectors as vectors
from intsim.ops.layernorm._cpu_ibert import root
from intsim.ops.matmul import _cpu_blocks as blocks, _cpu_tile as tiles
from intsim.scalar.rounding import divide

ROWS = 64  # that a thread takes, or more
TOGETHER = 2 * ROWS  # rows that share what is read of the weights
QMAX = 127
LOWEST, HIGHEST = -(2**15), 2**15 - 1  # the latter is the largest magnitude that quantize.dynamic_token takes
i32, i64 = np.int32, np.int64


@portable
def _quantized(x: Any, at: Int, count: Int, q: Any, tops: Any, refused: Any) -> None:
    """``count`` rows of int16 from ``at`` as int8, their largest elements as ``tops``."""
    n, lanes = x.shape[1], tiles.lanes()
    for i in range(count):
        source = x.ctypes.data + 2 * n * (at + i)
        top = vectors.largest(source, n // lanes)
        if top > HIGHEST:
            refused[0] = 1
        tops[i] = top
        vectors.quantized(source, n // lanes, top, QMAX, q.ctypes.data + n * i)


@portable
def _normed(total: Any, count: Int, about: Any, rounding: Int, factor: Any, out: Any, at: Int) -> None:
    """``layernorm.ibert`` of rows of int32, k = 0, and its requantization to int16 rows from ``at``."""
    n = total.shape[1]
    for i in range(count):
        row = total[i]
        sum_: Any = i64(0)
        for j in range(n):
            sum_ += i64(row[j])
        mean = i32(divide(sum_, n, rounding))
        squares: Any = i64(0)
        for j in range(n):
            d = i64(i32(row[j] - mean))
            squares += d * d  # |d| < 2**24 and n <= 2**13: below 2**61
        factor[0] = i32(-(2**31 // max(root(squares), 1)))
        vectors.normed(
            row.ctypes.data, n // tiles.lanes(), i64(mean), factor.ctypes.data, about.ctypes.data,
            out.ctypes.data + 2 * n * (at + i),
        )  # fmt: skip


def _embedded_rows(
    ids: Any, places: Any, words: Any, multiplier: Any, positions: Any, kind: Any, norm: Any, numbers: Any, x: Any,
    first: int, last: int,
) -> None:  # fmt: skip
    """Tokens [first, last) as the int16 stream x.

    ids, places: int32. words: int8 rows of the vocabulary, each by its int32 multiplier. positions: int16. kind: int16,
    the row of the one type. numbers: int64, the shift of the products, ties to even, and the rounding of the mean.
    """
    n, shift = x.shape[1], numbers[0]
    below = (i64(1) << (shift - 1)) - 1
    total, factor = np.empty((1, n), np.int32), np.empty(1, np.int32)
    for i in range(first, last):
        row, place, by = words[ids[i]], positions[places[i]], i64(multiplier[ids[i]])
        for j in range(n):
            product = i64(row[j]) * by
            word = (product + below + ((product >> shift) & 1)) >> shift
            total[0, j] = min(max(word, LOWEST), HIGHEST) + i64(place[j]) + i64(kind[j])
        _normed(total, 1, norm, numbers[1], factor, x, i)


def _pooled_rows(x: Any, begins: Any, lengths: Any, shift: int, rounding: int, q: Any, first: int, last: int) -> None:
    """The means of sentences [first, last): ``reduce.mean`` without zero points, int32."""
    n = x.shape[1]
    total = np.empty(n, np.int64)
    for s in range(first, last):
        begin, count = i64(begins[s]), i64(lengths[s])
        total[:] = 0
        for t in range(begin, begin + count):
            row = x[t]
            for j in range(n):
                total[j] += i64(row[j])
        for j in range(n):
            q[s, j] = divide(total[j] << shift, count, rounding)


def _projected_rows(
    x: Any, weight: Any, columns: Any, numbers: Any, q: Any, of_q: Any, k: Any, of_k: Any, v: Any, refused: Any,
    first: int, last: int,
) -> None:  # fmt: skip
    """Blocks [first, last) of the int16 stream x through query, key and value: one map of three parts.

    q, k: int8, a scale a head: int32 ``of_q``, ``of_k``, [heads, rows]. v: int8. refused: int32 [1], set where a row
    cannot be quantized.
    """
    (rows, n), (heads, _), width = x.shape, of_q.shape, tiles.width()
    lanes, part = tiles.lanes(), n // heads
    scratch = blocks.room(min(TOGETHER, rows), n)
    acc = scratch[3].ctypes.data
    bytes_, tops, wide = (
        np.empty((TOGETHER, n), np.int8),
        np.empty(TOGETHER, np.int32),
        np.empty((TOGETHER, 2 * n), np.int16),
    )
    for at in range(first * ROWS, min(last * ROWS, rows), TOGETHER):
        count = min(TOGETHER, last * ROWS - at, rows - at)
        _quantized(x, at, count, bytes_, tops, refused)
        block = blocks.laid_out(bytes_, count, weight, numbers[0], scratch)
        for panel in range(columns.shape[1] // width):
            blocks.multiplied(block, count, weight, numbers[0], panel, scratch)
            column = panel * width
            which, by, plus = column // n, columns[0, column:].ctypes.data, columns[1, column:].ctypes.data
            up, shift = numbers[1 + 2 * which], numbers[2 + 2 * which]
            if which < 2:
                into = wide.ctypes.data + 2 * column
                vectors.to_int16(acc, count, tops.ctypes.data, by, plus, up, shift, into, 4 * n)
            else:
                into = v.ctypes.data + at * n + column - 2 * n
                vectors.to_int8(acc, count, tops.ctypes.data, by, plus, up, shift, into, n)
        for i in range(count):
            for head in range(heads):
                source, place = wide.ctypes.data + 4 * n * i + 2 * part * head, (at + i) * n + part * head
                top = vectors.largest(source, part // lanes)
                of_q[head, at + i] = top
                vectors.quantized(source, part // lanes, top, QMAX, q.ctypes.data + place)
                other = vectors.largest(source + 2 * n, part // lanes)
                of_k[head, at + i] = other
                vectors.quantized(source + 2 * n, part // lanes, other, QMAX, k.ctypes.data + place)
                if max(top, other) > HIGHEST:
                    refused[0] = 1


@portable
def _added(x: Any, at: Int, count: Int, q: Any, tops: Any, weight: Any, columns: Any, numbers: Any, scratch: Any,
           total: Any) -> None:  # fmt: skip
    """The stream's rows from ``at`` plus a linear map of ``q``: int24 in int32."""
    n, width = total.shape[1], tiles.width()
    block = blocks.laid_out(q, count, weight, numbers[0], scratch)
    for panel in range(n // width):
        blocks.multiplied(block, count, weight, numbers[0], panel, scratch)
        column = panel * width
        vectors.with_residual(
            scratch[3].ctypes.data, count, tops.ctypes.data, columns[0, column:].ctypes.data,
            columns[1, column:].ctypes.data, numbers[1], numbers[2], total.ctypes.data + 4 * column, 4 * n,
            x.ctypes.data + 2 * (at * n + column), total.ctypes.data + 4 * column,
        )  # fmt: skip


def _fed_rows(
    context: Any, x: Any,
    out_weight: Any, out_columns: Any, out_numbers: Any, norm: Any,
    up_weight: Any, up_columns: Any, up_numbers: Any, gelu: Any, of_gelu: Any,
    down_weight: Any, down_columns: Any, down_numbers: Any, last_norm: Any, roundings: Any, refused: Any,
    first: int, last: int,
) -> None:  # fmt: skip
    """Blocks [first, last) from the int16 context to the layer's result, which replaces the int16 stream x.

    norm, last_norm: ``requantize._cpu_wide.about``. gelu: int32, b, c, one and the multiplier; of_gelu: int64, lift and
    shift of its requantization, and its zero point. roundings: int64, of the means of both norms.
    """
    (rows, n), inner, width = x.shape, up_columns.shape[1], tiles.width()
    scratch = blocks.room(min(TOGETHER, rows), max(n, inner))
    bytes_, tops, total = (
        np.empty((TOGETHER, n), np.int8),
        np.empty(TOGETHER, np.int32),
        np.empty((TOGETHER, n), np.int32),
    )
    wide, fed, factor = (
        np.empty((TOGETHER, inner), np.int16),
        np.empty((TOGETHER, inner), np.int8),
        np.empty(1, np.int32),
    )
    for at in range(first * ROWS, min(last * ROWS, rows), TOGETHER):
        count = min(TOGETHER, last * ROWS - at, rows - at)
        _quantized(context, at, count, bytes_, tops, refused)
        _added(x, at, count, bytes_, tops, out_weight, out_columns, out_numbers, scratch, total)
        _normed(total, count, norm, roundings[0], factor, x, at)
        _quantized(x, at, count, bytes_, tops, refused)
        block = blocks.laid_out(bytes_, count, up_weight, up_numbers[0], scratch)
        for panel in range(inner // width):
            blocks.multiplied(block, count, up_weight, up_numbers[0], panel, scratch)
            column = panel * width
            vectors.through_gelu(
                scratch[3].ctypes.data, count, tops.ctypes.data, up_columns[0, column:].ctypes.data,
                up_columns[1, column:].ctypes.data, up_numbers[1], up_numbers[2],
                wide.ctypes.data + 2 * column, 2 * inner, gelu.ctypes.data, of_gelu[0], of_gelu[1], of_gelu[2],
            )  # fmt: skip
        _quantized(wide, 0, count, fed, tops, refused)
        _added(x, at, count, fed, tops, down_weight, down_columns, down_numbers, scratch, total)
        _normed(total, count, last_norm, roundings[1], factor, x, at)


embedded_rows: Any = kernel(_embedded_rows, "attention.integer.embedded")
pooled_rows: Any = kernel(_pooled_rows, "attention.integer.pooled")
projected_rows: Any = kernel(_projected_rows, "attention.integer.projected")
fed_rows: Any = kernel(_fed_rows, "attention.integer.fed")

"""Rows with scales in vector instructions: rescaling, norm, match and embedding, row after row, for TIES_TO_AWAY.

Kernels take arrays and numbers, a range of rows, and no records: the callers have checked them. Scales are
packed in one int64 (``_cpu_scale``), lengths are multiples of ``WHOLE``.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from intsim.backends.cpu import shared_out
from intsim.compiling import Int, kernel, portable
from intsim.numerics import Rounding
from intsim.ops.propagate import Activation, Centring, _cpu_scale as scale, _cpu_vectors as vectors
from intsim.scalar import scale as program

NEVER = -(2**31) + 1  # a least value that no value is below
WIDE = 2**15 - 1  # of a norm's c before the gain


def packed(mantissa: Any, exponent: Any) -> Any:
    """Arrays of scales, or one, as int64."""
    return (np.asarray(exponent, np.int64) << 32) + np.asarray(mantissa, np.int64)


def unpack(scales: Any, mantissa: Any, exponent: Any) -> None:
    """The inverse, into arrays."""
    mantissa[...] = scales & 0xFFFFFFFF
    exponent[...] = scales >> 32


@portable
def narrowed(x: Int, turns: Int, top: Int, least: Int, out: Int, size: Int, qmax: Int, whole: Int, policy: Int) -> Int:
    """int32 at the address ``x`` to ``size`` bytes each at ``out``; the ratio by which they came there."""
    by = scale.ratio_of(max(top, 1), qmax, whole, policy)
    if size == 1:
        vectors.narrowed8(x, out, turns, least, scale.mantissa_of(by), scale.down(by))
    else:
        vectors.narrowed16(x, out, turns, least, scale.mantissa_of(by), scale.down(by))
    return by


def _rescale_rows(
    x: Any, scales: Any, q: Any, made: Any, qmax: int, policy: int, relu: int, first: int, last: int
) -> None:
    n = x.shape[1]
    turns, least, whole = n // vectors.lanes(), 0 if relu else NEVER, scale.of_integer(qmax)
    for i in range(first, last):
        at, into = x.ctypes.data + 4 * n * i, q.ctypes.data + q.itemsize * n * i
        top = vectors.largest_relu(at, turns) if relu else vectors.largest(at, turns)
        made[i] = scale.multiply(scales[i], narrowed(at, turns, top, least, into, q.itemsize, qmax, whole, policy))


rescale_rows: Any = kernel(_rescale_rows, "propagate.rescale.rows")


def rescale(x: Any, out: Any, p: Any) -> None:
    """``propagate.rescale``."""
    m, n = x.x.shape
    scales, made = packed(x.mantissa, x.exponent), np.empty(m, np.int64)
    behind = int(p.dtype.qmax), int(p.policy), int(p.activation == Activation.RELU)
    shared_out(lambda first, last: rescale_rows(x.x, scales, out.q, made, *behind, first, last), m, m * n // 8)
    unpack(made, out.mantissa, out.exponent)


@portable
def added(x: Int, of_x: Int, left: Int, y: Int, of_y: Int, z: Int, turns: Int) -> tuple[Int, Int]:
    """``propagate.add`` of a row: int16 at ``x``, int32 at ``y`` to int32 at ``z``; the largest and the scale."""
    of_x += left << 32
    match = min(of_x, of_y)
    by_x, by_y = scale.quotient(match, of_x), scale.quotient(match, of_y)
    top = vectors.matched16(
        x, left, scale.mantissa_of(by_x), scale.down(by_x), y, 0, scale.mantissa_of(by_y), scale.down(by_y), z, turns
    )
    return top, match


def _norm_rows(x: Any, weight: Any, bias: Any, gain: int, of_bias: int, q: Any, made: Any, qmax: int, policy: int,
               exact: int, first: int, last: int) -> None:  # fmt: skip
    n = x.shape[1]
    turns, rounding = n // vectors.lanes(), np.int64(Rounding.TIES_TO_AWAY)
    width, whole, full = scale.of_integer(n), scale.of_integer(qmax), scale.of_integer(WIDE)
    part, part_exponent = program.quotient(
        np.int64(2**30), np.int64(-30), np.int64(scale.mantissa_of(width)), np.int64(scale.exponent_of(width))
    )
    y, found = np.empty(n, np.int32), np.empty(1, np.int64)
    for i in range(first, last):
        at = x.ctypes.data + 2 * n * i
        less, times = vectors.total(at, turns), np.int64(n)
        if not exact:
            less, times = program.apply(less, part, part_exponent, rounding), np.int64(1)
        norm = vectors.deviation(at, turns, times, less, found.ctypes.data)
        own = scale.quotient(scale.of_integer(max(norm, 1)), width)
        wide = scale.ratio_of(max(found[0], 1), WIDE, full, policy)
        own = scale.multiply(scale.multiply(own, wide), gain)
        match = min(own, of_bias)
        by, add = scale.quotient(match, own), scale.quotient(match, of_bias)
        top = vectors.gained(
            at, turns, times, less, scale.mantissa_of(wide), scale.down(wide), weight.ctypes.data,
            scale.mantissa_of(by), scale.down(by), bias.ctypes.data, scale.mantissa_of(add), scale.down(add),
            y.ctypes.data,
        )  # fmt: skip
        into = q.ctypes.data + q.itemsize * n * i
        to = narrowed(y.ctypes.data, turns, top, NEVER, into, q.itemsize, qmax, whole, policy)
        made[i] = scale.multiply(match, to)


norm_rows: Any = kernel(_norm_rows, "propagate.l1_norm.rows")


def norm_arguments(p: Any) -> tuple[Any, ...]:
    """The record of ``propagate.l1_norm`` as ``norm_rows`` takes it: (before the results, behind them)."""
    scales = packed(p.weight_mantissa, p.weight_exponent), packed(p.bias_mantissa, p.bias_exponent)
    before = (p.weight.astype(np.int32), p.bias.astype(np.int32), *map(int, scales))
    return before, (int(p.dtype.qmax), int(p.policy), int(p.centring == Centring.EXACT))


def l1_norm(x: Any, out: Any, p: Any) -> None:
    """``propagate.l1_norm``."""
    before, behind = norm_arguments(p)
    (m, n), made = x.x.shape, np.empty(len(x.x), np.int64)
    shared_out(lambda first, last: norm_rows(x.x, *before, out.q, made, *behind, first, last), m, m * n // 4)
    unpack(made, out.mantissa, out.exponent)


def _embed_rows(ids: Any, places: Any, table: Any, of_table: Any, positions: Any, of_positions: Any, z: Any, made: Any,
                left: int, factor: int, first: int, last: int) -> None:  # fmt: skip
    n = z.shape[1]
    turns = n // vectors.lanes()
    for i in range(first, last):
        at, place = np.int64(ids[i]), np.int64(places[i])
        word, own = scale.multiply(of_table[at], factor), of_positions[place]
        match = min(word, own)
        by, by_own = scale.quotient(match, word), scale.quotient(match, own)
        vectors.matched8(
            table.ctypes.data + n * at, left, scale.mantissa_of(by), scale.down(by),
            positions.ctypes.data + n * place, left, scale.mantissa_of(by_own), scale.down(by_own),
            z.ctypes.data + 4 * n * i, turns,
        )  # fmt: skip
        made[i] = match + (left << 32)


embed_rows: Any = kernel(_embed_rows, "propagate.embed.rows")


def embed(x: Any, out: Any, p: Any) -> None:
    """``propagate.embed``."""
    (m, n), made = out.z.shape, np.empty(len(out.z), np.int64)
    words, own = packed(x.table_mantissa, x.table_exponent), packed(x.positions_mantissa, x.positions_exponent)
    before = x.ids, x.places, x.table, words, x.positions, own, out.z, made
    behind = int(p.left_shift), int(packed(p.factor_mantissa, p.factor_exponent))
    shared_out(lambda first, last: embed_rows(*before, *behind, first, last), m, m * n // 8)
    unpack(made, out.mantissa, out.exponent)

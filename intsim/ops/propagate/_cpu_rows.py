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
AT_ONCE = scale.AT_ONCE  # rows that are worked on together


def packed(mantissa: Any, exponent: Any) -> Any:
    """Arrays of scales, or one, as int64."""
    return (np.asarray(exponent, np.int64) << 32) + np.asarray(mantissa, np.int64)


def unpack(scales: Any, mantissa: Any, exponent: Any) -> None:
    """The inverse, into arrays."""
    mantissa[...] = scales & 0xFFFFFFFF
    exponent[...] = scales >> 32


@portable
def narrowed(x: Int, turns: Int, by: Int, least: Int, out: Int, size: Int) -> None:
    """int32 at the address ``x`` by the ratio ``by`` to ``size`` bytes each at ``out``."""
    if size == 1:
        vectors.narrowed8(x, out, turns, least, scale.mantissa_of(by), scale.down(by))
    else:
        vectors.narrowed16(x, out, turns, least, scale.mantissa_of(by), scale.down(by))


@portable
def narrowing(count: Int, top: Int, of: Int, by: Int, made: Int, policy: Int, size: Int) -> None:
    """Of ``count`` rows, at addresses: the largest and the scale to the ratio that fits ``size`` bytes, and
    the scale by it."""
    if size == 1:
        scale.narrowing8(count, top, of, by, made, policy)
    else:
        scale.narrowing16(count, top, of, by, made, policy)


@portable
def rescaled(x: Any, scales: Any, q: Any, made: Any, policy: Int, relu: Int, first: Int, last: Int) -> None:
    """``propagate.rescale`` of rows."""
    n, size, by = x.shape[1], q.itemsize, np.zeros((2, AT_ONCE), np.int64)
    turns, least, top, of = n // vectors.lanes(), 0 if relu else NEVER, by[0].ctypes.data, by[1].ctypes.data
    for at in range(first, last, AT_ONCE):
        count = min(AT_ONCE, last - at)
        for r in range(count):
            z, by[1, r] = x.ctypes.data + 4 * n * (at + r), scales[at + r]
            by[0, r] = vectors.largest_relu(z, turns) if relu else vectors.largest(z, turns)
        narrowing(count, top, of, top, of, policy, size)
        for r in range(count):
            i = at + r
            narrowed(x.ctypes.data + 4 * n * i, turns, by[0, r], least, q.ctypes.data + size * n * i, size)
            made[i] = by[1, r]


def _rescale_rows(x: Any, scales: Any, q: Any, made: Any, policy: int, relu: int, first: int, last: int) -> None:
    rescaled(x, scales, q, made, policy, relu, first, last)


rescale_rows: Any = kernel(_rescale_rows, "propagate.rescale.rows")


def rescale(x: Any, out: Any, p: Any) -> None:
    """``propagate.rescale``."""
    m, n = x.x.shape
    scales, made = packed(x.mantissa, x.exponent), np.empty(m, np.int64)
    behind = int(p.policy), int(p.activation == Activation.RELU)
    shared_out(lambda first, last: rescale_rows(x.x, scales, out.q, made, *behind, first, last), m, m * n // 8)
    unpack(made, out.mantissa, out.exponent)


def _of_norm(s: Any, norm: Any, top: Any, width: Any, policy: Any, gain: Any, of_bias: Any) -> tuple[Any, ...]:
    """Of the sum and the largest of a row's magnitudes: what brings c to 15 bits; then ``matched``."""
    wide = s.ratio_of(top, 15, policy)
    own = s.quotient(s.of_integer(s.larger(norm, s.number(1))), width)
    own = s.multiply(s.multiply(own, wide), gain)
    match = s.smaller(own, of_bias)
    return wide, s.quotient(match, own), s.quotient(match, of_bias), match


_scales_of_norm = scale.each(_of_norm, 2, 4, 4)


@portable
def normed(x: Any, weight: Any, bias: Any, gain: Int, of_bias: Int, q: Any, made: Any, policy: Int, exact: Int,
           first: Int, last: Int) -> None:  # fmt: skip
    """``propagate.l1_norm`` of rows."""
    n, size = x.shape[1], q.itemsize
    turns, rounding, times = (
        n // vectors.lanes(),
        np.int64(Rounding.TIES_TO_AWAY),
        np.int64(n) if exact else np.int64(1),
    )
    width = scale.of_integer(n)
    part, part_exponent = program.quotient(
        np.int64(2**30), np.int64(-30), np.int64(scale.mantissa_of(width)), np.int64(scale.exponent_of(width))
    )
    y, mean, by = np.empty((AT_ONCE, n), np.int32), np.empty(AT_ONCE, np.int64), np.zeros((6, AT_ONCE), np.int64)
    norm, top, wide = by[0].ctypes.data, by[1].ctypes.data, by[2].ctypes.data
    to, add, match = by[3].ctypes.data, by[4].ctypes.data, by[5].ctypes.data
    for at in range(first, last, AT_ONCE):
        count = min(AT_ONCE, last - at)
        for r in range(count):
            row = x.ctypes.data + 2 * n * (at + r)
            less = vectors.total(row, turns)
            if not exact:
                less = program.apply(less, part, part_exponent, rounding)
            mean[r], by[0, r] = less, vectors.deviation(row, turns, times, less, top + 8 * r)
        _scales_of_norm(count, norm, top, wide, to, add, match, width, policy, gain, of_bias)
        for r in range(count):
            by[1, r] = vectors.gained(
                x.ctypes.data + 2 * n * (at + r), turns, times, mean[r], scale.mantissa_of(by[2, r]),
                scale.down(by[2, r]), weight.ctypes.data, scale.mantissa_of(by[3, r]), scale.down(by[3, r]),
                bias.ctypes.data, scale.mantissa_of(by[4, r]), scale.down(by[4, r]), y.ctypes.data + 4 * n * r,
            )  # fmt: skip
        narrowing(count, top, match, top, match, policy, size)
        for r in range(count):
            i = at + r
            narrowed(y.ctypes.data + 4 * n * r, turns, by[1, r], NEVER, q.ctypes.data + size * n * i, size)
            made[i] = by[5, r]


def _norm_rows(x: Any, weight: Any, bias: Any, gain: int, of_bias: int, q: Any, made: Any, policy: int, exact: int,
               first: int, last: int) -> None:  # fmt: skip
    normed(x, weight, bias, gain, of_bias, q, made, policy, exact, first, last)


norm_rows: Any = kernel(_norm_rows, "propagate.l1_norm.rows")


def norm_arguments(p: Any) -> tuple[Any, ...]:
    """The record of ``propagate.l1_norm`` as ``norm_rows`` takes it: (before the results, behind them)."""
    scales = packed(p.weight_mantissa, p.weight_exponent), packed(p.bias_mantissa, p.bias_exponent)
    before = (p.weight.astype(np.int32), p.bias.astype(np.int32), *map(int, scales))
    return before, (int(p.policy), int(p.centring == Centring.EXACT))


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

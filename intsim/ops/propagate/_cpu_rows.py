"""Rows with scales in vector instructions: rescaling, norm, match and embedding, row after row, for TIES_TO_AWAY.

The scales are worked out by the functions of ``intsim.scalar.scale``, as in the programs; only what is
done to each element is written anew. Kernels take arrays and numbers, a range of rows, and no records:
the callers have checked them. Lengths are multiples of ``WHOLE``.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from intsim.backends.cpu import shared_out
from intsim.compiling import Int, kernel, portable
from intsim.numerics import Rounding
from intsim.ops.propagate import Activation, Centring, _cpu_vectors as vectors
from intsim.ops.propagate._rescaling import ratio_of
from intsim.scalar import scale

NEVER = -(2**31) + 1  # a least value that no value is below
WIDE = 2**15 - 1  # of a norm's c before the gain


@portable
def down(exponent: Int) -> Int:
    """The right shift of a ratio's exponent; beyond 63 nothing is left of a product below 2**62."""
    return min(-exponent, 63)


@portable
def narrowed(x: Int, count: Int, top: Int, least: Int, out: Int, size: Int, qmax: Int, policy: Int) -> tuple[Int, Int]:
    """``count`` int32 at the address ``x`` to ``size`` bytes each at ``out``; the ratio by which they came there."""
    by, by_exponent = ratio_of(max(top, 1), qmax, policy)
    turns = count // vectors.lanes()
    if size == 1:
        vectors.narrowed8(x, out, turns, least, by, down(by_exponent))
    else:
        vectors.narrowed16(x, out, turns, least, by, down(by_exponent))
    return by, by_exponent


def _rescale_rows(x: Any, mantissa: Any, exponent: Any, q: Any, made: Any, made_exponent: Any, qmax: int, policy: int,
                  relu: bool, first: int, last: int) -> None:  # fmt: skip
    n = x.shape[1]
    turns, least = n // vectors.lanes(), 0 if relu else NEVER
    for i in range(first, last):
        at, into = x.ctypes.data + 4 * n * i, q.ctypes.data + q.itemsize * n * i
        top = vectors.largest_relu(at, turns) if relu else vectors.largest(at, turns)
        by, by_exponent = narrowed(at, n, top, least, into, q.itemsize, qmax, policy)
        made[i], made_exponent[i] = scale.multiply(np.int64(mantissa[i]), np.int64(exponent[i]), by, by_exponent)


rescale_rows = kernel(_rescale_rows, "propagate.rescale.rows")


def rescale(x: Any, out: Any, p: Any) -> None:
    """``propagate.rescale``."""
    m, n = x.x.shape
    relu = p.activation == Activation.RELU
    shared_out(
        lambda first, last: rescale_rows(*x, *out, int(p.dtype.qmax), int(p.policy), relu, first, last), m, m * n // 8
    )


@portable
def added(x: Int, x_m: Int, x_e: Int, left: Int, y: Int, y_m: Int, y_e: Int, z: Int, turns: Int) -> tuple[Int, Int, Int]:
    """``propagate.add`` of a row: int16 at ``x``, int32 at ``y`` to int32 at ``z``; the largest and the scale."""
    x_e += left
    mantissa, exponent = y_m, y_e
    if scale.less(x_m, x_e, y_m, y_e):
        mantissa, exponent = x_m, x_e
    by_x, by_x_exponent = scale.quotient(mantissa, exponent, x_m, x_e)
    by_y, by_y_exponent = scale.quotient(mantissa, exponent, y_m, y_e)
    top = vectors.matched16(x, left, by_x, down(by_x_exponent), y, 0, by_y, down(by_y_exponent), z, turns)
    return top, mantissa, exponent


def _norm_rows(x: Any, weight: Any, bias: Any, gain: Any, gain_exponent: Any, of_bias: Any, of_bias_exponent: Any,
               q: Any, mantissa: Any, exponent: Any, qmax: int, policy: int, exact: bool,
               first: int, last: int) -> None:  # fmt: skip
    n = x.shape[1]
    turns, rounding = n // vectors.lanes(), np.int64(Rounding.TIES_TO_AWAY)
    width, width_exponent = scale.of_integer(np.int64(n))
    part, part_exponent = scale.quotient(np.int64(2**30), np.int64(-30), width, width_exponent)
    y, found = np.empty(n, np.int32), np.empty(1, np.int64)
    for i in range(first, last):
        at = x.ctypes.data + 2 * n * i
        less, times = vectors.total(at, turns), np.int64(n)
        if not exact:
            less, times = scale.apply(less, part, part_exponent, rounding), np.int64(1)
        norm = vectors.deviation(at, turns, times, less, found.ctypes.data)
        made, made_exponent = scale.of_integer(max(norm, np.int64(1)))
        made, made_exponent = scale.quotient(made, made_exponent, width, width_exponent)
        wide, wide_exponent = ratio_of(max(found[0], np.int64(1)), np.int64(WIDE), policy)
        made, made_exponent = scale.multiply(made, made_exponent, wide, wide_exponent)
        made, made_exponent = scale.multiply(made, made_exponent, gain, gain_exponent)
        match, match_exponent = made, made_exponent
        if scale.less(of_bias, of_bias_exponent, made, made_exponent):
            match, match_exponent = of_bias, of_bias_exponent
        by, by_exponent = scale.quotient(match, match_exponent, made, made_exponent)
        add, add_exponent = scale.quotient(match, match_exponent, of_bias, of_bias_exponent)
        top = vectors.gained(
            at, turns, times, less, wide, down(wide_exponent), weight.ctypes.data, by, down(by_exponent),
            bias.ctypes.data, add, down(add_exponent), y.ctypes.data,
        )  # fmt: skip
        into = q.ctypes.data + q.itemsize * n * i
        to, to_exponent = narrowed(y.ctypes.data, n, top, NEVER, into, q.itemsize, qmax, policy)
        mantissa[i], exponent[i] = scale.multiply(match, match_exponent, to, to_exponent)


norm_rows = kernel(_norm_rows, "propagate.l1_norm.rows")


def norm_arguments(p: Any) -> tuple[Any, ...]:
    """The record of ``propagate.l1_norm`` as ``norm_rows`` takes it: (before the results, behind them)."""
    scales = (p.weight_mantissa, p.weight_exponent, p.bias_mantissa, p.bias_exponent)
    before = (p.weight.astype(np.int32), p.bias.astype(np.int32), *map(int, scales))
    return before, (int(p.dtype.qmax), int(p.policy), p.centring == Centring.EXACT)


def l1_norm(x: Any, out: Any, p: Any) -> None:
    """``propagate.l1_norm``."""
    before, behind = norm_arguments(p)
    m, n = x.x.shape
    shared_out(lambda first, last: norm_rows(x.x, *before, *out, *behind, first, last), m, m * n // 4)


def _embed_rows(ids: Any, places: Any, table: Any, table_m: Any, table_e: Any, positions: Any, positions_m: Any,
                positions_e: Any, z: Any, mantissa: Any, exponent: Any, left: int, factor: int, factor_exponent: int,
                first: int, last: int) -> None:  # fmt: skip
    n = z.shape[1]
    turns = n // vectors.lanes()
    for i in range(first, last):
        at, place = np.int64(ids[i]), np.int64(places[i])
        word, word_exponent = scale.multiply(
            np.int64(table_m[at]), np.int64(table_e[at]), np.int64(factor), np.int64(factor_exponent)
        )
        own, own_exponent = np.int64(positions_m[place]), np.int64(positions_e[place])
        made, made_exponent = own, own_exponent
        if scale.less(word, word_exponent, own, own_exponent):
            made, made_exponent = word, word_exponent
        by, by_exponent = scale.quotient(made, made_exponent, word, word_exponent)
        by_own, by_own_exponent = scale.quotient(made, made_exponent, own, own_exponent)
        vectors.matched8(
            table.ctypes.data + n * at, left, by, down(by_exponent), positions.ctypes.data + n * place, left, by_own,
            down(by_own_exponent), z.ctypes.data + 4 * n * i, turns,
        )  # fmt: skip
        mantissa[i], exponent[i] = made, made_exponent + left


embed_rows = kernel(_embed_rows, "propagate.embed.rows")


def embed(x: Any, out: Any, p: Any) -> None:
    """``propagate.embed``."""
    m, n = out.z.shape
    behind = int(p.left_shift), int(p.factor_mantissa), int(p.factor_exponent)
    shared_out(lambda first, last: embed_rows(*x, *out, *behind, first, last), m, m * n // 8)

"""``matmul.integer`` with an accumulator that saturates after every term, in order, on the CPU.

Where no prefix of a sum can leave the accumulator, saturating is plain addition. So a tile is summed by
the plain micro-kernel, a stretch of terms at a time, and proved as it goes:

    |prefix| <= |sum at the last stop| + |a over the stretch| |b over the stretch|        (Cauchy and Schwarz)

Only a tile whose proof fails is done again, one term after the other.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from intsim.backends.cpu import shared_out
from intsim.backends.vectors import I32, I64, Loop, Vectors, rung
from intsim.compiling import Int, Machine, instructions, kernel, portable, this_machine
from intsim.numerics import Order
from intsim.ops.matmul import _cpu_gemm as gemm, _cpu_nibbles as nibbles, _cpu_panels as panels, _cpu_tile as tiles

STRETCH = 32  # steps, of two terms each
WIDEST = 31  # bits: a term below 2**17 cannot carry a sum of them past int32
PROBES = 16  # tiles tried before giving up the proof where more than 6 of 10 fail
AT_A_TIME = 3  # rows of an ordered tile: its sums, bounds and masks fill the registers


def matmul(x: Any, out: Any, p: Any, kept: Any) -> None:
    """Fills ``out.acc``; serves overflow = SATURATE with operands of at most 8 bits and at most WIDEST bits of sum."""
    a, b = (nibbles.unpacked(q, t.qmin < 0, bool(p.nibbles)) if t.bits == 4 else q for q, t in ((x.a, p.a), (x.b, p.b)))
    k = min(a.shape[1], b.shape[1])
    a, b = np.ascontiguousarray(a[:, :k]), np.ascontiguousarray(b[:, :k])
    low, high = p.acc.qmin, p.acc.qmax
    start = np.zeros_like(x.bias) if p.bias_added == Order.LAST else np.clip(x.bias, low, high)
    far = [max(t.qmax - np.min(z), np.max(z) - t.qmin) for t, z in ((p.a, p.a_zero_point), (p.b, p.b_zero_point))]
    if int(far[0]) * int(far[1]) * k + int(np.abs(start).max()) <= high:
        acc = gemm.product(a, b, a_zero_point=p.a_zero_point, b_zero_point=p.b_zero_point, bias=start)
    else:
        right = kept.once(f"right {k}", lambda: laid_out(b, p.b_zero_point), of=("b",))
        acc, _ = ordered(a, right, p.a_zero_point, start, low, high)
    if p.bias_added == Order.LAST:
        out.acc[...] = np.clip(acc + x.bias.astype(np.int64), low, high)
    else:
        out.acc[...] = acc


class Right(NamedTuple):
    """The right operand, "n k", and of each panel the largest sum of squares over a stretch of a column."""

    panels: Any
    squares: Any
    columns: int


def laid_out(b: Any, zero_point: Any) -> Right:
    """b: bytes, "n k"."""
    kept = panels.pack(b, zero_point, quads=False)
    count, _, columns = kept.steps.shape
    squares = _largest_squares(b, zero_point, count * columns, columns)
    return Right(kept.steps, squares, b.shape[0])


def _largest_squares(q: Any, zero_point: Any, tall: int, together: int) -> Any:
    """Over stretches of rows of ``q`` without the zero point, the largest of each ``together``."""
    squares, zero_points = np.zeros((tall, -(-q.shape[1] // (2 * STRETCH))), np.int64), np.empty(q.shape[0], np.int64)
    zero_points[:] = zero_point
    _squares(q.view(np.uint8), panels.SIGN * (q.dtype == np.int8), zero_points, squares)
    return squares.reshape(-1, together, squares.shape[1]).max(axis=1)


def ordered(a: Any, right: Right, a_zero_point: int, start: Any, low: int, high: int) -> tuple[Any, int]:
    """The saturated sums, int32 "m n", and how many tiles were summed term by term.

    a: bytes, "m k". start: int32 "n", within [low, high], which is at most WIDEST bits wide.
    """
    (m, k), n, steps = a.shape, right.columns, -(-a.shape[1] // 2)
    rows = tiles.shape(rung(this_machine()), False)[0]
    tall = -(-m // rows) * rows
    words = np.zeros((tall, 2 * steps), np.int16)
    words[:m, :k] = a
    words[:m, :k] -= np.int16(a_zero_point)
    of_a, of_b = _largest_squares(a, a_zero_point, tall, rows), right.squares
    first_sums = np.zeros(of_b.shape[0] * right.panels.shape[2], np.int32)
    first_sums[:n] = start
    out, again = np.empty((m, n), np.int32), np.zeros(of_b.shape[0], np.int64)
    shared_out(
        lambda first, last: _fill(words, right.panels, of_a, of_b, first_sums, low, high, out, again, first, last),
        of_b.shape[0],
        m * n * k // tiles.A_STEP,
    )
    return out, int(again.sum())


def saturating_tile(
    builder: Any,
    machine: Machine,
    a: Any,
    lda: Any,
    b: Any,
    c: Any,
    ldc: Any,
    steps: Any,
    start: Any,
    low: Any,
    high: Any,
) -> None:
    """``c = start + a b`` for AT_A_TIME rows of pairs, the sums kept within [low, high] after every term."""
    v = Vectors(builder, rung(machine))
    _, vectors = tiles.shape(v.rung, False)
    size, upper = 4 * v.rung.lanes, v.constant(-(2**16))
    least, most = v.splat(builder.trunc(low, I32)), v.splat(builder.trunc(high, I32))
    offsets = [builder.mul(lda, I64(r)) for r in range(AT_A_TIME)]
    first = [v.load(v.at(start, size * j)) for j in range(vectors)]
    loop = Loop(builder, steps, [a, b, *first * AT_A_TIME])
    at_a, at_b, *acc = loop.values
    whole = [v.load(v.at(at_b, size * j)) for j in range(vectors)]
    halves = [[builder.and_(x, builder.not_(upper)) for x in whole], [builder.and_(x, upper) for x in whole]]
    for r in range(AT_A_TIME):
        step = v.splat(v.load(builder.add(at_a, offsets[r]), I32))
        for half in halves:
            for j in range(vectors):
                i = r * vectors + j
                total = v.add_pairs(acc[i], step, half[j])
                total = builder.select(builder.icmp_signed("<", total, most), total, most)
                acc[i] = builder.select(builder.icmp_signed(">", total, least), total, least)
    loop.end([v.at(at_a, 4), v.at(at_b, size * vectors), *acc])
    for r in range(AT_A_TIME):
        for j in range(vectors):
            v.store(acc[r * vectors + j], v.at(builder.add(c, builder.mul(ldc, I64(r))), size * j))


def farthest(builder: Any, machine: Machine, c: Any) -> Any:
    """The largest |value| of a tile of pairs that lies in one piece."""
    v = Vectors(builder, rung(machine))
    rows, vectors = tiles.shape(v.rung, False)
    values = [v.load(v.at(c, 4 * v.rung.lanes * i)) for i in range(rows * vectors)]
    least = most = values[0]
    for value in values[1:]:
        least = builder.select(builder.icmp_signed("<", value, least), value, least)
        most = builder.select(builder.icmp_signed(">", value, most), value, most)
    below = v.call(f"llvm.vector.reduce.smin.v{v.rung.lanes}i32", I32, least)
    above = builder.sext(v.call(f"llvm.vector.reduce.smax.v{v.rung.lanes}i32", I32, most), I64)
    negated = builder.sub(I64(0), builder.sext(below, I64))
    return builder.select(builder.icmp_signed(">", negated, above), negated, above)


ordered_tile = instructions(saturating_tile, 9)
farthest_of_tile = instructions(farthest, 1)


def _sums_of_squares(x: Any, flip: int, zero_points: Any, out: Any) -> None:
    terms, width = 2 * STRETCH, x.shape[1]
    for i in range(x.shape[0]):
        centre = np.int16(zero_points[i] + flip)
        for s in range(out.shape[1]):
            total = np.int32(0)  # 128 squares below 2**16
            row = x[i, s * terms : min((s + 1) * terms, width)]
            for k in range(row.size):
                term = np.int16(np.int16(row[k] ^ np.uint8(flip)) - centre)
                total += np.int32(np.int32(term) * np.int32(term))
            out[i, s] = total


_squares = kernel(_sums_of_squares, "matmul.squares")


@portable
def _proved(
    tile: Int, lda: Int, panel: Int, steps: Int, begin: Int, most: Int, of_a: Any, of_b: Any, limit: Int, edge: Any
) -> bool:
    """Whether no prefix of the tile's sums leaves [-limit, limit]; ``edge`` then holds the sums.

    most: the largest |value| that the sums start with.
    """
    columns, so_far, apart = edge.shape[1], begin, 0
    for stretch in range(of_a.size):
        step, room = stretch * STRETCH, limit - most
        if room < 0 or room * room < of_a[stretch] * of_b[stretch]:
            return False
        tiles.stretch_of_pairs(
            tile + 4 * step,
            lda,
            panel + 4 * columns * step,
            edge.ctypes.data,
            4 * columns,
            min(STRETCH, steps - step),
            so_far,
            apart,
        )
        so_far, apart = edge.ctypes.data, 4 * columns
        most = farthest_of_tile(edge.ctypes.data)
    return bool(most <= limit)


def _saturated_panels(
    words: Any,
    panels: Any,
    of_a: Any,
    of_b: Any,
    start: Any,
    low: int,
    high: int,
    out: Any,
    again: Any,
    first: int,
    last: int,
) -> None:
    """Panels [first, last) of ``out``; again: of each the tiles that were summed term by term."""
    rows, columns, steps = tiles.rows_of_pairs(), tiles.width(), words.shape[1] // 2
    m, n = out.shape
    lda = 4 * steps
    edge = np.empty((rows, columns), np.int32)
    tried = failed = 0
    for panel in range(first, last):
        source = panels.ctypes.data + 4 * columns * panel * panels.shape[1]
        begin = start.ctypes.data + 4 * columns * panel
        most = np.int64(0)
        for j in range(panel * columns, (panel + 1) * columns):
            most = max(most, abs(np.int64(start[j])))
        for top in range(0, m, rows):
            tile = words.ctypes.data + lda * top
            proved = False
            if tried < PROBES or failed * 10 < tried * 6:
                proved = _proved(tile, lda, source, steps, begin, most, of_a[top // rows], of_b[panel], high, edge)
                tried += 1
                failed += not proved
            if not proved:
                again[panel] += 1
                for r in range(0, rows, AT_A_TIME):
                    target = edge.ctypes.data + 4 * columns * r
                    ordered_tile(tile + lda * r, lda, source, target, 4 * columns, steps, begin, low, high)
            for r in range(min(rows, m - top)):
                for j in range(min(columns, n - panel * columns)):
                    out[top + r, panel * columns + j] = edge[r, j]


_fill = kernel(_saturated_panels, "matmul.saturating")

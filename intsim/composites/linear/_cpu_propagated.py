"""A linear layer with propagated scales on the CPU: product, bias and what follows, a few rows at a time.

A tile's rows go through all columns into a scratch that stays in the first-level cache; then each row is
finished by vector instructions and leaves as the type that the next layer takes. Scales are worked out
by the functions of the programs, those of a tile's rows together: a division waits for nothing but its
operands, so that those of several rows run at once. Serves TIES_TO_AWAY.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from intsim.compiling import Int, kernel, portable
from intsim.ops.matmul import _cpu_tile as tiles
from intsim.ops.propagate import _cpu_scale as scale, _cpu_vectors as vectors
from intsim.ops.propagate._cpu_rows import AT_ONCE, NEVER, narrowed, packed

TOGETHER = 48  # rows that share a panel of an output layer: whole tiles on every machine
STEPS, ABOUT, START, LEAST, DEPTH, PANELS, WEIGHT, BIAS, FIELDS = range(9)  # a layer's numbers
HEADS = 4  # whose scales lie together
OFFSET = 128  # added to int8, it makes the uint8 that quads take
MOST = 2**31 - 1
ONE = 30  # bits behind the point of ``Layer.least``


@dataclass(frozen=True, slots=True)
class Layer:
    """A weight and a ``propagate.bias`` record, laid out for the kernels.

    steps: int32 (panels, steps, columns), two int16 or four int8 of k in each. about: the ``channels``, padded to
    whole panels. start: int32, what the columns begin with: those that are none lie below all others. least: int64,
    a panel's smallest quotient of an accumulator and its result. numbers: the above for kernels, as addresses.
    """

    n: int
    steps: Any
    about: Any
    start: Any
    least: Any
    numbers: Any


def layer(weight: Any, p: Any) -> Layer:
    """weight: int8 "n k"; p: the record of ``propagate.bias``."""
    (n, k), (lanes, columns, quads) = weight.shape, _sizes_of_a_tile()
    panels, together = -(-n // columns), 4 if quads else 2
    laid = np.zeros((panels * columns, -(-k // together) * together), np.int8 if quads else np.int16)
    laid[:n, :k] = weight
    steps = np.ascontiguousarray(laid.view(np.int32).reshape(panels, columns, -1).swapaxes(1, 2))
    start = np.full(panels * columns, NEVER // 2, np.int32)
    start[:n] = -OFFSET * weight.sum(axis=1, dtype=np.int32) if quads else 0

    def padded(channels: Any, fill: int) -> Any:
        made = np.full(panels * columns, fill, np.int32)
        made[:n] = channels
        return made

    mantissa, shift = padded(p.ratio_mantissa, 2**30), padded(np.minimum(-p.ratio_exponent, 63), 30)
    about = vectors.channels(lanes, mantissa, shift, padded(p.bias, 0))
    each = [min((1 << (ONE + s)) // m, 2**31) for m, s in zip(mantissa.tolist(), shift.tolist(), strict=True)]
    least = np.array(each, np.int64).reshape(panels, columns).min(axis=1)
    scales = packed(p.weight_mantissa, p.weight_exponent), packed(p.bias_mantissa, p.bias_exponent)
    numbers = [a.ctypes.data for a in (steps, about, start, least)] + [steps.shape[1], panels, *map(int, scales)]
    return Layer(n, steps, about, start, least, np.array(numbers, np.int64))


def _sizes() -> tuple[int, int, int]:
    return vectors.lanes(), tiles.width(), tiles.by_quads()


_sizes_of_a_tile: Any = kernel(_sizes, "linear.propagated.sizes")


@portable
def room(depth: Int, columns: Int, groups: Int) -> tuple[Any, Any, Any]:
    """Scratch for a tile of layers of at most ``depth`` steps, ``columns`` with those of the last panel, ``groups``.

    The last holds numbers of a tile's rows: their scale, what brings product and bias to one scale, that, then for
    each group what brings it to the type of the result; then for each group its scale.
    """
    rows = tiles.rows_of_pairs()
    numbers = np.zeros((4 + 2 * groups, AT_ONCE), np.int64)
    return np.zeros((rows, 4 * depth), np.uint8), np.empty((rows, columns), np.int32), numbers


@portable
def laid_out(x: Any, row: Int, words: Any, r: Int) -> None:
    """A row of int8 as row ``r`` of what tiles take. What lies behind it is met by zeros of the weight."""
    k, lanes, source = x.shape[1], vectors.lanes(), x.ctypes.data + row * x.shape[1]
    into = words.ctypes.data + r * words.shape[1]
    if tiles.by_quads():
        turns = k // (4 * lanes)
        if turns:
            tiles.row_of_quads(source, into, turns, OFFSET, 0)
        for j in range(4 * lanes * turns, k):
            words[r, j] = np.int64(x[row, j]) + OFFSET
    else:
        pairs, turns = words.view(np.int16), k // (2 * lanes)
        if turns:
            tiles.row_of_pairs(source, into, turns, OFFSET, OFFSET)
        for j in range(2 * lanes * turns, k):
            pairs[r, j] = x[row, j]


@portable
def product(x: Any, top: Int, count: Int, numbers: Any, words: Any, acc: Any) -> None:
    """``count`` rows of ``x`` from ``top`` by all panels into ``acc``."""
    depth, columns = numbers[DEPTH], tiles.width()
    for r in range(count):
        laid_out(x, top + r, words, r)
    for panel in range(numbers[PANELS]):
        tiles.tile_of_steps(
            words.ctypes.data, words.shape[1], numbers[STEPS] + 4 * panel * depth * columns,
            acc.ctypes.data + 4 * panel * columns, 4 * acc.shape[1], depth, numbers[START] + 4 * panel * columns,
        )  # fmt: skip


@portable
def finished(z: Int, about: Int, turns: Int, relu: Int, own: Int, other: Int) -> Int:
    """``propagate.bias`` of the row at ``z``, in place: ratios of the product and of the bias; the largest."""
    m, s, o, d = scale.mantissa_of(own), scale.down(own), scale.mantissa_of(other), scale.down(other)
    if own == scale.ONE:
        if relu:
            return vectors.finished_relu(z, about, turns, m, s, o, d)
        return vectors.finished(z, about, turns, m, s, o, d)
    if relu:
        return vectors.moved_relu(z, about, turns, m, s, o, d)
    return vectors.moved(z, about, turns, m, s, o, d)


@portable
def multiplied(x: Any, of_x: Any, at: Int, count: Int, numbers: Any, groups: Int, turns: Int, relu: Int,
               words: Any, acc: Any, by: Any) -> None:  # fmt: skip
    """The layer's result for rows from ``at``, in ``acc``; the largest of each of its groups of ``turns`` registers."""
    product(x, at, count, numbers, words, acc)
    for r in range(count):
        by[0, r] = of_x[at + r]
    own, n = by.ctypes.data, turns * vectors.lanes()
    scale.matched_product(
        count, own, own + 8 * AT_ONCE, own + 16 * AT_ONCE, own + 24 * AT_ONCE, numbers[WEIGHT], numbers[BIAS]
    )
    for r in range(count):
        for g in range(groups):
            z, about = acc.ctypes.data + 4 * (r * acc.shape[1] + g * n), 4 * vectors.CHANNEL * g * n
            by[4 + g, r] = finished(z, numbers[ABOUT] + about, turns, relu, by[1, r], by[2, r])


@portable
def rescaled(x: Any, of_x: Any, numbers: Any, q: Any, made: Any, places: Any, spots: Any, apart: Int, policy: Int,
             relu: Int, first: Int, last: Int, words: Any, acc: Any, by: Any) -> None:  # fmt: skip
    """The layer's result rescaled to int8, each of its groups by itself.

    x: int8 [rows, k]. places: where a row goes in q [.., groups, width of a group]. spots: where the scale of its
    first group goes in ``made``; HEADS of them lie together, the next ``apart`` from there. words, acc, by: ``room``.
    """
    rows, (groups, n) = tiles.rows_of_pairs(), q.shape[1:]
    turns, least, data = n // vectors.lanes(), 0 if relu else NEVER, by.ctypes.data
    for at in range(first, last, rows):
        count = min(rows, last - at)
        multiplied(x, of_x, at, count, numbers, groups, turns, relu, words, acc, by)
        for g in range(groups):
            top = data + 8 * AT_ONCE * (4 + g)
            scale.narrowing8(count, top, data + 24 * AT_ONCE, top, top + 8 * AT_ONCE * groups, policy)
        for r in range(count):
            into, spot = q.ctypes.data + np.int64(places[at + r]) * groups * n, np.int64(spots[at + r])
            for g in range(groups):
                narrowed(acc.ctypes.data + 4 * (r * acc.shape[1] + g * n), turns, by[4 + g, r], least, into + g * n, 1)
                made[spot + g // HEADS * apart + g % HEADS] = by[4 + groups + g, r]


@portable
def summed(stream: Any, of_stream: Any, x: Any, of_x: Any, numbers: Any, q: Any, made: Any, left: Int, policy: Int,
           first: Int, last: Int, words: Any, acc: Any, by: Any) -> None:  # fmt: skip
    """The layer's result added to the int16 ``stream``, and rescaled to int16. ``q`` may be ``stream`` itself."""
    rows, n, data = tiles.rows_of_pairs(), q.shape[1], by.ctypes.data
    turns, own, other, match, top = (
        n // vectors.lanes(),
        data,
        data + 16 * AT_ONCE,
        data + 24 * AT_ONCE,
        data + 32 * AT_ONCE,
    )
    for at in range(first, last, rows):
        count = min(rows, last - at)
        multiplied(x, of_x, at, count, numbers, 1, turns, 0, words, acc, by)
        for r in range(count):
            by[0, r] = of_stream[at + r] + (left << 32)
        scale.matched(count, own, match, own, other, match)
        for r in range(count):
            z = acc.ctypes.data + 4 * r * acc.shape[1]
            by[4, r] = vectors.matched16(
                stream.ctypes.data + 2 * n * (at + r), left, scale.mantissa_of(by[0, r]), scale.down(by[0, r]),
                z, 0, scale.mantissa_of(by[2, r]), scale.down(by[2, r]), z, turns,
            )  # fmt: skip
        scale.narrowing16(count, top, match, top, match, policy)
        for r in range(count):
            i = at + r
            narrowed(acc.ctypes.data + 4 * r * acc.shape[1], turns, by[4, r], NEVER, q.ctypes.data + 2 * n * i, 2)
            made[i] = by[3, r]


def _plain_rows(x: Any, of_x: Any, numbers: Any, z: Any, made: Any, first: int, last: int) -> None:
    """``propagate.bias`` of the product."""
    rows, n = tiles.rows_of_pairs(), z.shape[1]
    words, acc, by = room(numbers[DEPTH], numbers[PANELS] * tiles.width(), 1)
    for at in range(first, last, rows):
        count = min(rows, last - at)
        multiplied(x, of_x, at, count, numbers, 1, acc.shape[1] // vectors.lanes(), 0, words, acc, by)
        for r in range(count):
            made[at + r] = by[3, r]
            for j in range(n):
                z[at + r, j] = acc[r, j]


def _rescaled_rows(x: Any, of_x: Any, numbers: Any, q: Any, made: Any, places: Any, spots: Any, apart: int,
                   policy: int, relu: int, first: int, last: int) -> None:  # fmt: skip
    words, acc, by = room(numbers[DEPTH], numbers[PANELS] * tiles.width(), q.shape[1])
    rescaled(x, of_x, numbers, q, made, places, spots, apart, policy, relu, first, last, words, acc, by)


def _best_rows(x: Any, numbers: Any, least: Any, best: Any, first: int, last: int) -> None:
    """The column of each row's greatest result, the lowest of equals; no bias. least: the layer's.

    A result above ``top``, not below 0, needs an accumulator above (top + 1/2) times its quotient: a tile
    without one is passed over, which are nearly all. Columns come in ascending order, so equals do not count.
    """
    rows, lanes, columns, depth = tiles.rows_of_pairs(), vectors.lanes(), tiles.width(), numbers[DEPTH]
    words, acc, _ = room(depth, columns, 1)
    words = np.zeros((TOGETHER, words.shape[1]), np.uint8)
    found, tops = np.empty((TOGETHER, 2, lanes), np.int32), np.empty(TOGETHER, np.int64)
    bars = np.empty(TOGETHER, np.int32)
    for at in range(first, last, TOGETHER):
        count = min(TOGETHER, last - at)
        for r in range(count):
            laid_out(x, at + r, words, r)
        found[:, 0], tops[:], bars[:] = NEVER, -1, MOST
        for panel in range(numbers[PANELS]):
            column, quotient = panel * columns, least[panel]
            for r in range(count):
                bars[r] = min(tops[r] * quotient >> ONE, MOST) if tops[r] >= 0 else NEVER
            for r in range(0, count, rows):
                if not tiles.tile_sought(
                    words.ctypes.data + words.shape[1] * r, words.shape[1], numbers[STEPS] + 4 * column * depth,
                    acc.ctypes.data, 4 * columns, depth, numbers[START] + 4 * column, bars.ctypes.data + 4 * r,
                ):  # fmt: skip
                    continue
                for t in range(r, min(r + rows, count)):
                    vectors.folded(
                        acc.ctypes.data + 4 * columns * (t - r),
                        numbers[ABOUT] + 4 * vectors.CHANNEL * column,
                        found.ctypes.data + 8 * lanes * t, column, columns // lanes,
                    )  # fmt: skip
                    for lane in range(lanes):
                        tops[t] = max(tops[t], np.int64(found[t, 0, lane]))
        for r in range(count):
            top, where = found[r, 0, 0], found[r, 1, 0]
            for lane in range(1, lanes):
                z, column = found[r, 0, lane], found[r, 1, lane]
                if z > top or (z == top and column < where):
                    top, where = z, column
            best[at + r] = where


plain_rows: Any = kernel(_plain_rows, "linear.propagated.rows")
rescaled_rows: Any = kernel(_rescaled_rows, "linear.propagated_rescaled.rows")
best_rows: Any = kernel(_best_rows, "linear.propagated_best.rows")

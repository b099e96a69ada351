"""A linear layer with propagated scales on the CPU: product, bias and what follows, a few rows at a time.

A tile's rows go through all columns into a scratch that stays in the first-level cache; then each row is
finished by vector instructions and leaves as the type that the next layer takes. Scales are worked out
by the functions of the programs. Serves TIES_TO_AWAY.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from intsim.compiling import Int, kernel, portable
from intsim.ops.matmul import _cpu_tile as tiles
from intsim.ops.propagate import _cpu_scale as scale, _cpu_vectors as vectors
from intsim.ops.propagate._cpu_rows import NEVER, added, narrowed, packed

TOGETHER = 48  # rows that share a panel of an output layer: whole tiles on every machine


@dataclass(frozen=True, slots=True)
class Layer:
    """A weight and a ``propagate.bias`` record, laid out for the kernels.

    steps: int32 (panels, steps, columns), two int16 of k in each. about: the ``channels``, padded to whole panels.
    scales: of the weight and of the bias, packed.
    """

    n: int
    steps: Any
    about: Any
    scales: tuple[int, int]

    @property
    def start(self) -> Any:
        """What the columns begin with, for a search: those that are none lie below all others."""
        made = np.full(self.steps.shape[0] * self.steps.shape[2], NEVER // 2, np.int32)
        made[: self.n] = 0
        return made

    def arguments(self) -> tuple[Any, ...]:
        return (self.steps, self.about, *self.scales)


def layer(weight: Any, p: Any) -> Layer:
    """weight: int8 "n k"; p: the record of ``propagate.bias``."""
    (n, k), (lanes, columns) = weight.shape, _lanes_and_width()
    panels = -(-n // columns)
    words = np.zeros((panels * columns, -(-k // 2) * 2), np.int16)
    words[:n, :k] = weight
    steps = np.ascontiguousarray(words.view(np.int32).reshape(panels, columns, -1).swapaxes(1, 2))

    def padded(channels: Any, fill: int) -> Any:
        made = np.full(panels * columns, fill, np.int32)
        made[:n] = channels
        return made

    return Layer(
        n,
        steps,
        vectors.channels(
            lanes, padded(p.ratio_mantissa, 2**30), padded(np.minimum(-p.ratio_exponent, 63), 30), padded(p.bias, 0)
        ),
        (int(packed(p.weight_mantissa, p.weight_exponent)), int(packed(p.bias_mantissa, p.bias_exponent))),
    )


def _sizes() -> tuple[int, int]:
    return vectors.lanes(), tiles.width()


_lanes_and_width: Any = kernel(_sizes, "linear.propagated.sizes")


@portable
def product(x: Any, top: Int, count: Int, words: Any, steps: Any, start: Any, acc: Any) -> None:
    """``count`` rows of ``x`` from ``top`` by all panels into ``acc``; words: room for them as int16, at first 0."""
    panels, depth, columns = steps.shape
    for r in range(count):
        for k in range(x.shape[1]):
            words[r, k] = x[top + r, k]
    for panel in range(panels):
        tiles.tile_of_pairs(
            words.ctypes.data, 4 * depth, steps.ctypes.data + 4 * panel * depth * columns,
            acc.ctypes.data + 4 * panel * columns, 4 * panels * columns, depth, start.ctypes.data,
        )  # fmt: skip


@portable
def finished(z: Int, turns: Int, relu: Int, of_x: Int, about: Any, weight: Int, of_bias: Int) -> tuple[Int, Int]:
    """``propagate.bias`` of the row at ``z``, in place: the largest and the scale."""
    own = scale.multiply(of_x, weight)
    match = min(own, of_bias)
    by, other = scale.quotient(match, own), scale.quotient(match, of_bias)
    m, s, o, d = scale.mantissa_of(by), scale.down(by), scale.mantissa_of(other), scale.down(other)
    if match == own:
        if relu:
            return vectors.finished_relu(z, about.ctypes.data, turns, m, s, o, d), match
        return vectors.finished(z, about.ctypes.data, turns, m, s, o, d), match
    if relu:
        return vectors.moved_relu(z, about.ctypes.data, turns, m, s, o, d), match
    return vectors.moved(z, about.ctypes.data, turns, m, s, o, d), match


def _plain_rows(x: Any, of_x: Any, steps: Any, about: Any, weight: int, of_bias: int,
                z: Any, made: Any, first: int, last: int) -> None:  # fmt: skip
    """``propagate.bias`` of the product."""
    panels, depth, columns = steps.shape
    rows, n = tiles.rows_of_pairs(), z.shape[1]
    words, start = np.zeros((rows, 2 * depth), np.int16), np.zeros(columns, np.int32)
    acc = np.empty((rows, panels * columns), np.int32)
    turns = panels * columns // vectors.lanes()
    for top in range(first, last, rows):
        count = min(rows, last - top)
        product(x, top, count, words, steps, start, acc)
        for r in range(count):
            i, at = top + r, acc.ctypes.data + 4 * r * panels * columns
            _, made[i] = finished(at, turns, 0, of_x[i], about, weight, of_bias)
            for j in range(n):
                z[i, j] = acc[r, j]


def _rescaled_rows(x: Any, of_x: Any, steps: Any, about: Any, weight: int, of_bias: int,
                   q: Any, made: Any, places: Any, qmax: int, policy: int, relu: int,
                   first: int, last: int) -> None:  # fmt: skip
    """The same rescaled, each of its groups by itself. places: where a row goes in q [.., groups, width of a group]."""
    panels, depth, columns = steps.shape
    rows, lanes, (groups, n) = tiles.rows_of_pairs(), vectors.lanes(), q.shape[1:]
    words, start = np.zeros((rows, 2 * depth), np.int16), np.zeros(columns, np.int32)
    acc = np.empty((rows, panels * columns), np.int32)
    turns, least, whole = panels * columns // lanes, 0 if relu else NEVER, scale.of_integer(qmax)
    for at in range(first, last, rows):
        count = min(rows, last - at)
        product(x, at, count, words, steps, start, acc)
        for r in range(count):
            place, z = np.int64(places[at + r]), acc.ctypes.data + 4 * r * panels * columns
            top, match = finished(z, turns, relu, of_x[at + r], about, weight, of_bias)
            into = q.ctypes.data + q.itemsize * place * groups * n
            for g in range(groups):
                if groups > 1:
                    top = vectors.largest_relu(z, n // lanes) if relu else vectors.largest(z, n // lanes)
                by = narrowed(z, n // lanes, top, least, into, q.itemsize, qmax, whole, policy)
                made[place, g] = scale.multiply(match, by)
                z, into = z + 4 * n, into + q.itemsize * n


def _summed_rows(stream: Any, of_stream: Any, x: Any, of_x: Any, steps: Any, about: Any,
                 weight: int, of_bias: int, q: Any, made: Any, left: int, qmax: int, policy: int,
                 first: int, last: int) -> None:  # fmt: skip
    """The same added to the int16 ``stream`` and rescaled."""
    panels, depth, columns = steps.shape
    rows, n = tiles.rows_of_pairs(), q.shape[1]
    words, start = np.zeros((rows, 2 * depth), np.int16), np.zeros(columns, np.int32)
    acc = np.empty((rows, panels * columns), np.int32)
    turns, own_turns, whole = panels * columns // vectors.lanes(), n // vectors.lanes(), scale.of_integer(qmax)
    for at in range(first, last, rows):
        count = min(rows, last - at)
        product(x, at, count, words, steps, start, acc)
        for r in range(count):
            i, z = at + r, acc.ctypes.data + 4 * r * panels * columns
            _, match = finished(z, turns, 0, of_x[i], about, weight, of_bias)
            top, match = added(stream.ctypes.data + 2 * n * i, of_stream[i], left, z, match, z, own_turns)
            into = q.ctypes.data + q.itemsize * n * i
            made[i] = scale.multiply(match, narrowed(z, own_turns, top, NEVER, into, q.itemsize, qmax, whole, policy))


def _best_rows(x: Any, steps: Any, about: Any, start: Any, best: Any, first: int, last: int) -> None:
    """The column of each row's greatest result, the lowest of equals; no bias. start: far below 0 beyond the last."""
    panels, depth, columns = steps.shape
    rows, lanes = tiles.rows_of_pairs(), vectors.lanes()
    words, acc = np.zeros((TOGETHER, 2 * depth), np.int16), np.empty((rows, columns), np.int32)
    found = np.empty((TOGETHER, 2, lanes), np.int32)
    for at in range(first, last, TOGETHER):
        count = min(TOGETHER, last - at)
        for r in range(count):
            for k in range(x.shape[1]):
                words[r, k] = x[at + r, k]
        found[:, 0] = NEVER
        for panel in range(panels):
            column = panel * columns
            for r in range(0, count, rows):
                tiles.tile_of_pairs(
                    words.ctypes.data + 4 * depth * r, 4 * depth, steps.ctypes.data + 4 * column * depth,
                    acc.ctypes.data, 4 * columns, depth, start.ctypes.data + 4 * column,
                )  # fmt: skip
                for t in range(min(rows, count - r)):
                    vectors.folded(
                        acc.ctypes.data + 4 * columns * t, about.ctypes.data + 4 * vectors.CHANNEL * column,
                        found.ctypes.data + 8 * lanes * (r + t), column, columns // lanes,
                    )  # fmt: skip
        for r in range(count):
            top, where = found[r, 0, 0], found[r, 1, 0]
            for lane in range(1, lanes):
                z, column = found[r, 0, lane], found[r, 1, lane]
                if z > top or (z == top and column < where):
                    top, where = z, column
            best[at + r] = where


plain_rows: Any = kernel(_plain_rows, "linear.propagated.rows")
rescaled_rows: Any = kernel(_rescaled_rows, "linear.propagated_rescaled.rows")
summed_rows: Any = kernel(_summed_rows, "linear.propagated_sum.rows")
best_rows: Any = kernel(_best_rows, "linear.propagated_best.rows")

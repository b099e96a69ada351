"""``matmul.prefix_extremes`` on the CPU: tiles summed one term at a time, with the extremes in registers."""

from __future__ import annotations

from typing import Any

import numpy as np

from intsim.backends.cpu import compile, shared_out
from intsim.backends.vectors import I32, I64, Loop, Vectors, rung
from intsim.compiling import Machine, instructions, kernel
from intsim.ops.matmul import _cpu_panels as panels, _cpu_tile as tiles
from intsim.ops.matmul.prefix_extremes import OP

LARGEST = 2**30  # of a bias: below it, nothing leaves int32
TOGETHER = 2  # rows of a tile: sums, extremes and two halves of a panel fill the registers


def matmul(x: Any, out: Any, p: Any, kept: Any) -> None:
    """Fills ``out.least`` and ``out.most``; serves operands of 8 bits and short rows."""
    if x.bias.max() > LARGEST or x.bias.min() < -LARGEST:
        compile(OP.name, OP.program)(x, out, p, 0)
        return
    (m, k), n = x.a.shape, x.b.shape[0]
    pairs = kept.once("pairs", lambda: panels.pack(x.b, p.b_zero_point, quads=False), of=("b",)).steps
    words = np.zeros((-(-m // TOGETHER) * TOGETHER, -(-k // 2) * 2), np.int16)
    words[:m, :k] = x.a
    words[:m, :k] -= np.int16(p.a_zero_point)
    start = np.zeros(pairs.shape[0] * pairs.shape[2], np.int32)
    start[:n] = x.bias
    shared_out(
        lambda first, last: _fill(words, pairs, start, out.least, out.most, first, last),
        pairs.shape[0],
        m * n * k // tiles.A_STEP,
    )


def extremes(
    builder: Any, machine: Machine, a: Any, lda: Any, b: Any, least: Any, most: Any, ldc: Any, steps: Any, start: Any
) -> None:
    """The extremes of ``start + a b`` for TOGETHER rows of pairs, after no term and after every term; steps >= 1."""
    v = Vectors(builder, rung(machine))
    _, vectors = tiles.shape(v.rung, False)
    size, upper, count = 4 * v.rung.lanes, v.constant(-(2**16)), TOGETHER * vectors
    offsets = [builder.mul(lda, I64(r)) for r in range(TOGETHER)]
    first = [v.load(v.at(start, size * j)) for j in range(vectors)] * TOGETHER
    loop = Loop(builder, steps, [a, b, *first * 3])
    at_a, at_b, *state = loop.values
    acc, low, high = (state[i * count : (i + 1) * count] for i in range(3))
    whole = [v.load(v.at(at_b, size * j)) for j in range(vectors)]
    rows = [v.splat(v.load(builder.add(at_a, offset), I32)) for offset in offsets]
    for half in range(2):
        mask = upper if half else builder.not_(upper)
        terms = [builder.and_(x, mask) for x in whole]
        for i in range(count):
            acc[i] = v.add_pairs(acc[i], rows[i // vectors], terms[i % vectors])
            low[i] = builder.select(builder.icmp_signed("<", acc[i], low[i]), acc[i], low[i])
            high[i] = builder.select(builder.icmp_signed(">", acc[i], high[i]), acc[i], high[i])
    loop.end([v.at(at_a, 4), v.at(at_b, size * vectors), *acc, *low, *high])
    for i in range(count):
        offset = builder.add(builder.mul(ldc, I64(i // vectors)), I64(size * (i % vectors)))
        v.store(low[i], builder.add(least, offset))
        v.store(high[i], builder.add(most, offset))


tile_of_extremes = instructions(extremes, 8)


def _extremes_of_panels(words: Any, panels: Any, start: Any, least: Any, most: Any, first: int, last: int) -> None:
    columns, steps, (m, n) = tiles.width(), words.shape[1] // 2, least.shape
    low, high = np.empty((TOGETHER, columns), np.int32), np.empty((TOGETHER, columns), np.int32)
    for panel in range(first, last):
        column = panel * columns
        source = panels.ctypes.data + 4 * column * panels.shape[1]
        for top in range(0, m, TOGETHER):
            tile_of_extremes(
                words.ctypes.data + 4 * steps * top, 4 * steps, source, low.ctypes.data, high.ctypes.data,
                4 * columns, steps, start.ctypes.data + 4 * column,
            )  # fmt: skip
            for r in range(min(TOGETHER, m - top)):
                for j in range(min(columns, n - column)):
                    least[top + r, column + j], most[top + r, column + j] = low[r, j], high[r, j]


_fill = kernel(_extremes_of_panels, "matmul.prefixes")

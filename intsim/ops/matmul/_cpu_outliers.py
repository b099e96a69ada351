"""What panels of quads lack, added to the product: for two outliers of a column, many rows at a time.

The bytes of ``a`` are turned, so that the rows that an outlier meets lie side by side; the sums are turned back.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir

from intsim.backends.vectors import I8, I16, I32, I64, Loop, Vectors, rung
from intsim.compiling import Int, Machine, instructions, portable
from intsim.ops.matmul import _cpu_tile as machine
from intsim.scalar.fixed_point import wrap32

UNITS = 8  # registers of sums
FEW = 2  # of the last rows


def scaled(units: int) -> Any:
    """``sums = sum_t rest[t] turned[where[t]]`` for ``units`` registers of rows, two t a turn; pairs >= 1.

    apart: bytes from row to row of ``turned``. Inside a piece of 128 bits, neighbours come from the two outliers;
    so the rows of two registers lie mixed until the end.
    """

    def emit(
        builder: Any, target: Machine, turned: Any, apart: Any, where: Any, rest: Any, pairs: Any, sums: Any
    ) -> None:
        v = Vectors(builder, rung(target))
        lanes = v.rung.lanes
        low = [8 * b + x for b in range(lanes // 4) for x in range(4)]
        mixed = [[i for row in rows for i in (row, row + 2 * lanes)] for rows in (low, [row + 4 for row in low])]
        sorted_ = [4 * (row // 8) + row % 4 + (lanes if row % 8 > 3 else 0) for row in range(2 * lanes)]
        loop = Loop(builder, pairs, [where, rest, *[v.constant(0)] * units])
        at_where, at_rest, *acc = loop.values
        rows = [
            builder.add(turned, builder.mul(builder.sext(v.load(v.at(at_where, at), I32), I64), apart)) for at in (0, 4)
        ]
        factors = v.splat(builder.or_(
            builder.shl(v.load(v.at(at_rest, 4), I32), I32(16)), builder.and_(v.load(at_rest, I32), I32(0xFFFF))
        ))  # fmt: skip
        bytes_, words = ir.VectorType(I8, 2 * lanes), v.of(I16)
        for u in range(0, units, 2):
            one, two = (builder.zext(v.load(v.at(row, lanes * u), bytes_), words) for row in rows)
            for half in range(2):
                acc[u + half] = v.add_pairs(acc[u + half], v.cast(v.shuffle(one, two, mixed[half]), I32), factors)
        loop.end([v.at(at_where, 8), v.at(at_rest, 8), *acc])
        for u in range(0, units, 2):
            for half in range(2):
                picks = sorted_[half * lanes : (half + 1) * lanes]
                v.store(v.shuffle(acc[u], acc[u + 1], picks), v.at(sums, 4 * lanes * (u + half)))

    return emit


def added(builder: Any, target: Machine, sums: Any, apart: Any, out: Any, ldo: Any) -> None:
    """A square of ``out``, rows ``ldo`` bytes apart, plus the transpose of one of ``sums``."""
    v = Vectors(builder, rung(target))
    rows = [v.load(builder.add(sums, builder.mul(apart, I64(r)))) for r in range(v.rung.lanes)]
    for r, row in enumerate(v.transpose(rows)):
        at = builder.add(out, builder.mul(ldo, I64(r)))
        v.store(builder.add(v.load(at), row), at)


def turned_square(builder: Any, target: Machine, source: Any, apart: Any, turned: Any, ldt: Any) -> None:
    """Bytes: four times ``lanes`` of ``lanes`` rows, ``apart`` bytes apart, as so many rows of ``lanes``."""
    v = Vectors(builder, rung(target))
    lanes = v.rung.lanes
    rows = [v.load(builder.add(source, builder.mul(apart, I64(r)))) for r in range(lanes)]
    for s, step in enumerate(v.transpose(rows)):
        four = v.cast(step, I8)
        for byte in range(4):
            made = v.shuffle(four, four, [4 * lane + byte for lane in range(lanes)])
            v.store(made, builder.add(turned, builder.mul(ldt, I64(4 * s + byte))))


square_turned = instructions(turned_square, 4)
scaled_rows, scaled_few = (instructions(scaled(units), 6) for units in (UNITS, FEW))
added_square = instructions(added, 4)


@portable
def room(rows: Int) -> Int:
    """``rows``, and more up to whole turns of ``scaled``."""
    together = UNITS * machine.lanes()
    return (rows + together - 1) // together * together


@portable
def turn(plain: Any, turned: Any, count: Int) -> None:
    """``turned[k, i] = plain[i, k]`` for ``count`` rows i."""
    lanes = machine.lanes()
    whole_k, whole_i = turned.shape[0] // (4 * lanes) * 4 * lanes, count // lanes * lanes
    size, tall = plain.shape[1], turned.shape[1]
    for k in range(0, whole_k, 4 * lanes):
        for i in range(0, whole_i, lanes):
            square_turned(plain.ctypes.data + i * size + k, size, turned.ctypes.data + k * tall + i, tall)
    for i in range(whole_i, count):
        for k in range(whole_k):
            turned[k, i] = plain[i, k]
    for k in range(whole_k, turned.shape[0]):
        for i in range(count):
            turned[k, i] = plain[i, k]


@portable
def add(turned: Any, starts: Any, where: Any, rest: Any, sums: Any, out: Any, at: Int, count: Int, column: Int) -> None:
    """What the panel that begins at ``column`` lacks, added to ``count`` rows of ``out`` from ``at``.

    sums: room, int32 (columns of a panel, ``room`` of the rows).
    """
    lanes, (n, tall) = machine.lanes(), (out.shape[1], sums.shape[1])
    width = min(sums.shape[0], n - column)
    for c in range(width):
        first, many = starts[column + c], starts[column + c + 1] - starts[column + c]
        if many == 0:
            sums[c] = 0
            continue
        at_where, at_rest = where.ctypes.data + 4 * first, rest.ctypes.data + 4 * first
        i = 0
        while i < count:
            source, into = turned.ctypes.data + i, sums.ctypes.data + 4 * (c * tall + i)
            if count - i > UNITS // 2 * lanes:
                scaled_rows(source, turned.shape[1], at_where, at_rest, many // 2, into)
                i += UNITS * lanes
            else:
                scaled_few(source, turned.shape[1], at_where, at_rest, many // 2, into)
                i += FEW * lanes
    whole = count // lanes * lanes if width == sums.shape[0] else 0
    for i in range(0, whole, lanes):
        for c in range(0, width, lanes):
            target = out.ctypes.data + 4 * ((at + i) * n + column + c)
            added_square(sums.ctypes.data + 4 * (c * tall + i), 4 * tall, target, 4 * n)
    for i in range(whole, count):
        for c in range(width):
            out[at + i, column + c] = wrap32(np.int64(out[at + i, column + c]) + sums[c, i])

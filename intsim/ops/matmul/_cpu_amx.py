"""Matrix product in int32 modulo 2**32 by tile registers: what a step of them is, and the loops around it.

A step is 16 rows of ``a`` by 64 bytes, and of ``b`` as many bytes of 16 columns: 16 groups of four. Two tiles of
each make four of sums, which stay in registers for all steps. Rows of ``a`` are laid out as tiles, as those of ``b``
were: one after another, each the 16 lines of cache that an instruction loads.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np

from intsim.backends.cpu import shared_out
from intsim.backends.tiles import BYTES, ROWS, SIZE, Tiles
from intsim.backends.vectors import I8, I64, Loop, Vectors, rung
from intsim.compiling import Int, instructions, kernel, portable, this_machine
from intsim.ops.matmul import _cpu_offsets as offsets

Emit = Any

SIDE = 2 * ROWS  # rows and columns of a block of sums
NEAR = 2**20  # bytes: panels that stay in the second-level cache go past a block of rows after another
TALL = 2**19  # bytes: else, as many rows as stay there go past a panel after another
FAR = 2**22  # bytes: then, blocks of a larger result are asked for before they are written
ONE = (int, np.integer)  # what a zero point of all rows is
A_STEP = 2**12  # products that take as long as a step of a plain kernel


@cache
def serves() -> bool:
    """Whether this machine has tiles: then the panels of quads are laid out for them."""
    return rung(this_machine()).tiles is not None


def sums(tiles: int, *, signed: bool) -> Emit:
    """``c = start + a b`` for ``tiles`` times 16 rows and SIDE columns.

    signed: whether ``a`` is. Addresses of ``a`` and of the panel as they are laid out, of ``c`` (rows ldc bytes apart)
    and of the row that all sums start with; steps >= 1. far: whether ``c`` is asked for before.
    """

    def emit(builder: Any, machine: Any, a: Any, b: Any, c: Any, ldc: Any, steps: Any, start: Any, far: Any) -> None:
        v = Vectors(builder, rung(machine))
        if v.rung.tiles is None:
            return  # kernels that choose when they run hold the call, and never make it
        t, two = Tiles(v), range(2)
        acc, of_a, of_b = ((0, 1), (2, 3)), (4, 5), (6, 7)
        rows = [builder.add(c, builder.mul(ldc, I64(r))) for r in range(ROWS * tiles)]
        with builder.if_then(builder.icmp_signed("!=", far, I64(0))):
            for row in rows:
                for j in two:
                    v.ask_for(v.at(row, BYTES * j), to_write=True)
        for i in range(tiles):
            for j in two:
                t.load(acc[i][j], v.at(start, BYTES * j), I64(0))
        loop = Loop(builder, steps, [a, b])
        at_a, at_b = loop.values
        for j in two:
            t.load(of_b[j], v.at(at_b, SIZE * j), I64(BYTES))
        for i in range(tiles):
            t.load(of_a[i], v.at(at_a, SIZE * i), I64(BYTES))
            for j in two:
                t.add_products(acc[i][j], of_a[i], of_b[j], signed=signed)
        loop.end([v.at(at_a, 2 * SIZE), v.at(at_b, 2 * SIZE)])
        for i in range(tiles):
            for j in two:
                t.store(acc[i][j], v.at(rows[ROWS * i], BYTES * j), ldc)

    return emit


def spread_steps(builder: Any, machine: Any, source: Any, target: Any, turns: Any) -> None:
    """The ``turns`` steps of one row of ``a``, as they lie in a scratch for SIDE rows."""
    v = Vectors(builder, rung(machine))
    loop = Loop(builder, turns, [source, target])
    at, into = loop.values
    v.store(v.load(at, v.of(I8)), into)
    loop.end([v.at(at, BYTES), v.at(into, SIDE * BYTES)])


def configured(builder: Any, machine: Any) -> None:
    """Before the first ``sums`` of a thread, and ``released`` after its last: no other code of it may use tiles."""
    if rung(machine).tiles is not None:
        Tiles(Vectors(builder, rung(machine))).configure()


def released(builder: Any, machine: Any) -> None:
    if rung(machine).tiles is not None:
        Tiles(Vectors(builder, rung(machine))).release()


configure = instructions(configured, 0)
release = instructions(released, 0)
spread = instructions(spread_steps, 3)
two_of_signed = instructions(sums(2, signed=True), 7)
two_of_unsigned = instructions(sums(2, signed=False), 7)
one_of_signed = instructions(sums(1, signed=True), 7)
one_of_unsigned = instructions(sums(1, signed=False), 7)


def product(a: Any, b: Any, a_zero_point: Any, bias: Any, out: Any) -> None:
    """``_cpu_gemm.product`` for rows of bytes; b: ``Panels``, of quads."""
    (m, n), steps = out.shape, b.steps
    panels, each, _ = steps.shape
    each *= 4 * SIDE  # bytes of a panel, or of as many rows
    start = np.zeros(panels * SIDE, np.int32)
    if bias is not None:
        start[:n] = bias
    left, right = offsets.NONE, offsets.NONE
    if b.shifted or not isinstance(a_zero_point, ONE):
        left, right = offsets.corrections(b, np.broadcast_to(np.asarray(a_zero_point, np.int32), m), start)
    elif a_zero_point:
        start[:n] -= np.int32(a_zero_point) * b.columns
    near = panels * each <= min(NEAR, a.nbytes)
    tall = SIDE if near else max(TALL // each, 1) * SIDE
    x = (a.view(np.uint8), a.dtype.kind == "i", steps, start, left, right, out, tall, out.nbytes > FAR)
    blocks, work = -(-m // SIDE), m * b.k * n // A_STEP
    if n > m:  # the larger operand is shared out, each reads all of the smaller one
        shared_out(lambda first, last: multiply(*x, 0, m, first, last), panels, work)
    else:
        shared_out(lambda first, last: multiply(*x, first * SIDE, min(last * SIDE, m), 0, panels), blocks, work)


@portable
def lay_out(a: Any, row: Int, count: Int, laid: Any, at: Int) -> None:
    """Rows [row, row + count) of ``a``, at most SIDE, into ``laid`` from ``at``; what is no row's stays as it is.

    It meets zeros of ``b``, or makes sums that nobody reads.
    """
    size = a.shape[1]
    turns = size // BYTES
    for r in range(count):
        into = at + r * BYTES
        if turns:
            spread(a.ctypes.data + (row + r) * size, laid.ctypes.data + into, turns)
        for k in range(turns * BYTES, size):
            laid[into + turns * (SIDE - 1) * BYTES + k] = a[row + r, k]


@portable
def add(signed: bool, one: bool, a: Int, b: Int, c: Int, ldc: Int, steps: Int, start: Int, far: Int) -> None:
    """``sums`` of a block: of 16 rows if ``one``, else of SIDE."""
    if signed:
        if one:
            one_of_signed(a, b, c, ldc, steps, start, far)
        else:
            two_of_signed(a, b, c, ldc, steps, start, far)
    elif one:
        one_of_unsigned(a, b, c, ldc, steps, start, far)
    else:
        two_of_unsigned(a, b, c, ldc, steps, start, far)


def _tile_products(
    a: Any,
    signed: bool,
    panels: Any,
    start: Any,
    left: Any,
    right: Any,
    out: Any,
    tall: int,
    far: bool,
    top: int,
    bottom: int,
    first: int,
    last: int,
) -> None:
    """Rows [top, bottom) of panels [first, last), ``tall`` rows past a panel after another: a multiple of SIDE.

    far: see ``sums``.
    """
    (_, size), n, steps = a.shape, out.shape[1], panels.shape[1] // ROWS
    each = steps * SIDE * BYTES  # bytes of a panel, or of as many rows
    tall = min(tall, -(-(bottom - top) // SIDE) * SIDE)
    room = np.empty(tall // SIDE * each + BYTES, np.uint8)
    laid = room[-room.ctypes.data % BYTES :]
    edge = np.empty((SIDE, SIDE), np.int32)
    configure()
    for at in range(top, bottom, max(tall, 1)):
        count = min(tall, bottom - at)
        for i in range(0, count, SIDE):
            lay_out(a, at + i, min(SIDE, count - i), laid, i // SIDE * each)
        for panel in range(first, last):
            column = panel * SIDE
            of_b, begin = panels.ctypes.data + panel * each, start.ctypes.data + 4 * column
            for i in range(0, count, SIDE):
                high, wide = min(SIDE, count - i), min(SIDE, n - column)
                of_a = laid.ctypes.data + i // SIDE * each
                if high == SIDE and wide == SIDE:
                    target = out.ctypes.data + 4 * ((at + i) * n + column)
                    add(signed, False, of_a, of_b, target, 4 * n, steps, begin, far)
                    continue
                add(signed, high <= ROWS, of_a, of_b, edge.ctypes.data, 4 * SIDE, steps, begin, 0)
                for r in range(high):
                    for j in range(wide):
                        out[at + i + r, column + j] = edge[r, j]
    release()
    if left.shape[0]:
        flip = 128 if signed else 0
        for i in range(top, bottom):
            total = np.int64(flip) * size
            for k in range(size):
                total -= a[i, k] ^ flip
            left[i, 0] = total  # at most 2**20 bytes: below 2**28
        offsets.correct(out, left, right, top, bottom, first * SIDE, min(n, last * SIDE))


multiply = kernel(_tile_products, "matmul.tiles")

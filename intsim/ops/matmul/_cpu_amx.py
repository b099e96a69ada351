"""Matrix product in int32 modulo 2**32 by tile registers: what a step of them is, and the loops around it.

A step is 16 rows of ``a`` by 64 bytes, and of ``b`` as many bytes of 16 columns: 16 groups of four. Two tiles of
each make four of sums, which stay in registers for DEPTH steps. ``a`` is read where it lies if its rows are whole
steps; what is not goes through a scratch filled up with zeros.
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
DEPTH = 16  # steps: so much of SIDE columns stays in the first-level cache while the rows go past
TALL = 512  # rows: so many, DEPTH steps of each, stay in the second-level cache while the columns go past
LAB = (DEPTH, TALL, 0, 0)
A_STEP = 2**13  # products that take as long as a step of a plain kernel


@cache
def serves() -> bool:
    """Whether this machine has tiles: then the panels of quads are laid out for them."""
    return rung(this_machine()).tiles is not None


def sums(tiles: int, *, signed: bool) -> Emit:
    """``c = start + a b`` for ``tiles`` times 16 rows and SIDE columns, or for a stretch of their steps.

    signed: whether ``a`` is. Addresses of ``a`` (rows lda bytes apart, steps next_a, tiles down_a), of the panel, of
    ``c`` (rows ldc bytes apart) and of what the sums start with (rows lds bytes apart; 0: one row for all); turns >= 1.
    """

    def emit(
        builder: Any, machine: Any, a: Any, lda: Any, next_a: Any, down_a: Any, b: Any, c: Any, ldc: Any, turns: Any,
        start: Any, lds: Any,
    ) -> None:  # fmt: skip
        v = Vectors(builder, rung(machine))
        t = Tiles(v)
        acc, of_a, of_b = range(4), (4, 5), (6, 7)
        places = [(2 * i + j, i, BYTES * j) for i in range(tiles) for j in range(2)]
        for register, i, aside in places:
            at = builder.add(start, builder.mul(lds, I64(ROWS * i)))
            t.load(acc[register], v.at(at, aside), lds)
        loop = Loop(builder, turns, [a, b])
        at_a, at_b = loop.values
        for j in range(2):
            t.load(of_b[j], v.at(at_b, SIZE * j), I64(BYTES))
        for i in range(tiles):
            t.load(of_a[i], builder.add(at_a, down_a) if i else at_a, lda)
            for j in range(2):
                t.add_products(acc[2 * i + j], of_a[i], of_b[j], signed=signed)
        loop.end([builder.add(at_a, next_a), v.at(at_b, 2 * SIZE)])
        for register, i, aside in places:
            at = builder.add(c, builder.mul(ldc, I64(ROWS * i)))
            t.store(acc[register], v.at(at, aside), ldc)

    return emit


def _spread(builder: Any, machine: Any, source: Any, target: Any, turns: Any) -> None:
    """The ``turns`` steps of one row of ``a``, as they lie in a scratch for SIDE rows."""
    v = Vectors(builder, rung(machine))
    loop = Loop(builder, turns, [source, target])
    at, into = loop.values
    v.store(v.load(at, v.of(I8)), into)
    loop.end([v.at(at, BYTES), v.at(into, SIDE * BYTES)])


def _configure(builder: Any, machine: Any) -> None:
    Tiles(Vectors(builder, rung(machine))).configure()


def _release(builder: Any, machine: Any) -> None:
    Tiles(Vectors(builder, rung(machine))).release()


configure = instructions(_configure, 0)
release = instructions(_release, 0)
spread = instructions(_spread, 3)
two_of_signed = instructions(sums(2, signed=True), 10)
two_of_unsigned = instructions(sums(2, signed=False), 10)
one_of_signed = instructions(sums(1, signed=True), 10)
one_of_unsigned = instructions(sums(1, signed=False), 10)


def product(a: Any, b: Any, a_zero_point: Any, bias: Any, out: Any) -> None:
    """``_cpu_gemm.product`` for rows of bytes; b: ``Panels``, of quads."""
    m, n = out.shape
    start = np.zeros(b.steps.shape[0] * SIDE, np.int32)
    if bias is not None:
        start[:n] = bias
    left, right = offsets.NONE, offsets.NONE
    if b.shifted or not isinstance(a_zero_point, int | np.integer):
        left, right = offsets.corrections(b, np.broadcast_to(np.asarray(a_zero_point, np.int32), m), start)
    elif a_zero_point:
        start[:n] -= np.int32(a_zero_point) * b.columns
    x = (a.view(np.uint8), a.dtype == np.int8, b.steps, start, left, right, out, *LAB)
    blocks, panels = -(-m // SIDE), b.steps.shape[0]
    work = m * b.k * n // A_STEP
    if n > m:  # the larger operand is shared out, each reads all of the smaller one
        shared_out(lambda first, last: _multiply(*x, 0, m, first, last), panels, work)
    else:
        shared_out(lambda first, last: _multiply(*x, first * SIDE, min(last * SIDE, m), 0, panels), blocks, work)


@portable
def _lay_out(a: Any, row: Int, count: Int, laid: Any, at: Int) -> None:
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
def _sums(signed: bool, one: bool, a: Int, lda: Int, next_a: Int, b: Int, c: Int, ldc: Int, turns: Int, start: Int,
          lds: Int) -> None:  # fmt: skip
    """``sums`` of a block: of 16 rows if ``one``, else of SIDE."""
    down = ROWS * lda
    if signed:
        if one:
            one_of_signed(a, lda, next_a, down, b, c, ldc, turns, start, lds)
        else:
            two_of_signed(a, lda, next_a, down, b, c, ldc, turns, start, lds)
    elif one:
        one_of_unsigned(a, lda, next_a, down, b, c, ldc, turns, start, lds)
    else:
        two_of_unsigned(a, lda, next_a, down, b, c, ldc, turns, start, lds)


def _tile_products(
    a: Any,
    signed: bool,
    panels: Any,
    start: Any,
    left: Any,
    right: Any,
    out: Any,
    depth: int,
    tall: int,
    order: int,
    packs: int,
    top: int,
    bottom: int,
    first: int,
    last: int,
) -> None:
    """Rows [top, bottom) of panels [first, last)."""
    (m, size), n, steps = a.shape, out.shape[1], panels.shape[1] // ROWS
    tall = max(min(tall, bottom - top), 1)
    behind = BYTES * steps - size  # bytes of the next row that the last step of a row holds
    inside = 0 if packs else (m * size - behind) // size  # rows whose steps do not leave the array
    most = -(-tall // SIDE) if inside < SIDE else 1 + -(-(m - inside) // SIDE)
    room = np.empty((min(most, -(-tall // SIDE)) * steps * SIDE + 1) * BYTES, np.uint8)
    laid = room[-room.ctypes.data % BYTES :]
    edge = np.empty((SIDE, SIDE), np.int32)
    configure()
    for at in range(top, bottom, tall):
        count = min(tall, bottom - at)
        blocks = -(-count // SIDE)
        plain = max(min(count, inside - at), 0) // SIDE  # blocks of rows that are read as they lie
        for i in range(plain, blocks):
            row = i * SIDE
            _lay_out(a, at + row, min(SIDE, count - row), laid, (i - plain) * steps * SIDE * BYTES)
        for step in range(0, steps, depth):
            for t in range(blocks * (last - first)):
                if order == 0:
                    i, panel = t % blocks, first + t // blocks
                else:
                    i, panel = t // (last - first), first + t % (last - first)
                row, column, turns = i * SIDE, panel * SIDE, min(depth, steps - step)
                high, wide = min(SIDE, count - row), min(SIDE, n - column)
                whole = high == SIDE and wide == SIDE
                if step and not whole:
                    continue  # the edges were done at once
                if i < plain:
                    source, lda, next_a = a.ctypes.data + (at + row) * size + step * BYTES, size, BYTES
                else:
                    source = laid.ctypes.data + ((i - plain) * steps + step) * SIDE * BYTES
                    lda, next_a = BYTES, SIDE * BYTES
                of_b = panels.ctypes.data + (panel * steps + step) * 2 * SIZE
                target, ldc = out.ctypes.data + 4 * ((at + row) * n + column), 4 * n
                begin, lds = start.ctypes.data + 4 * column, 0
                if step:
                    begin, lds = target, ldc
                if not whole:
                    target, ldc, turns = edge.ctypes.data, 4 * SIDE, steps
                _sums(signed, high <= ROWS, source, lda, next_a, of_b, target, ldc, turns, begin, lds)
                if not whole:
                    for r in range(high):
                        for j in range(wide):
                            out[at + row + r, column + j] = edge[r, j]
    release()
    if left.shape[0]:
        flip = 128 if signed else 0
        for i in range(top, bottom):
            total = np.int64(flip) * size
            for k in range(size):
                total -= a[i, k] ^ flip
            left[i, 0] = total  # at most 2**20 bytes: below 2**28
        offsets.correct(out, left, right, top, bottom, first * SIDE, min(n, last * SIDE))


_multiply = kernel(_tile_products, "matmul.tiles")

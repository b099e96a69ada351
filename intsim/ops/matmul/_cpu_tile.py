"""Micro-kernels of the matrix product: the instructions of one tile, of one packed block, of one row.

Both operands reach a tile in steps, an int32 each: two int16 ("pairs": zero points subtracted, exact
for all 8-bit operands and for int16 without zero points) or four bytes ("quads": uint8 by int8). A
step of ``a`` is broadcast to all lanes; a step of ``b`` is a row of a panel, one int32 a column. The sum
is int32 modulo 2**32 whatever the rung.

Pairs of bytes may be "crossed": x y' + y x' = (x + x') (y + y') - x y - x' y' makes one product of two (Winograd, "A
new algorithm for inner product", IEEE Transactions on Computers 1968). Here x and y are the first and the second of
two steps of ``a``, x' and y' those of ``b``; the terms of ``a`` alone are a number a row, of ``b`` alone a number a
column.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from intsim.backends.vectors import I8, I16, I32, I64, Loop, Rung, Vectors, rung
from intsim.compiling import Machine, instructions

Emit = Callable[..., Any]

A_STEP = 2**10  # products that take as long as a step of a plain kernel


def shape(r: Rung, quads: bool) -> tuple[int, int]:
    """Rows and vectors of a tile: its sums, a row of ``b`` and two temporaries fill the registers."""
    if r.lanes == 16:
        return 6, 4  # 24 sums of 32 registers
    return (4 if quads and r.quads is None else 6), 2  # 12 sums of 16; bytes alone need a constant and a temporary


def columns(r: Rung) -> int:
    """Columns of a tile and of a panel; the same for pairs and quads."""
    return r.lanes * shape(r, False)[1]


def tile(quads: bool, sought: bool = False) -> Emit:
    """``c = start + a b`` for one tile, or for a stretch of its steps.

    Addresses of ``a`` (rows lda bytes apart), the panel, ``c`` (rows ldc bytes apart) and the int32 that
    the sums start with (rows lds bytes apart; 0: one row for all); steps >= 1.
    """

    def emit(
        builder: Any, machine: Machine, a: Any, lda: Any, b: Any, c: Any, ldc: Any, steps: Any, start: Any, lds: Any,
        *bars: Any,
    ) -> Any:  # fmt: skip
        v = Vectors(builder, rung(machine))
        rows, vectors = shape(v.rung, quads)
        size = 4 * v.rung.lanes
        offsets = [builder.mul(lda, I64(r)) for r in range(rows)]
        starts = [builder.add(start, builder.mul(lds, I64(r))) for r in range(rows)]
        first = [v.load(v.at(at, size * j)) for at in starts for j in range(vectors)]
        loop = Loop(builder, steps, [a, b, *first])
        at_a, at_b, *acc = loop.values
        panel = [v.load(v.at(at_b, size * j)) for j in range(vectors)]
        for r in range(rows):
            step = v.splat(v.load(builder.add(at_a, offsets[r]), I32))
            for j in range(vectors):
                add = v.add_quads if quads else v.add_pairs
                acc[r * vectors + j] = add(acc[r * vectors + j], step, panel[j])
        loop.end([v.at(at_a, 4), v.at(at_b, size * vectors), *acc])
        for r in range(rows):
            row = builder.add(c, builder.mul(ldc, I64(r)))
            for j in range(vectors):
                v.store(acc[r * vectors + j], v.at(row, size * j))
        if not sought:
            return None
        above = v.constant(0)
        for r in range(rows):
            bar = v.splat(v.load(v.at(bars[0], 4 * r), I32))
            for j in range(vectors):
                above = builder.or_(above, builder.sext(builder.icmp_signed(">", acc[r * vectors + j], bar), v.type))
        return builder.zext(v.call(f"llvm.vector.reduce.or.v{v.rung.lanes}i32", I32, above), I64)

    return emit


def crossed_tile(
    builder: Any, machine: Machine, a: Any, lda: Any, b: Any, c: Any, ldc: Any, steps: Any, start: Any, lds: Any,
    less: Any,
) -> None:  # fmt: skip
    """A ``tile`` of CROSSED rows by crossed pairs of 9 bits; steps even. less: int32, one to take off each row."""
    v = Vectors(builder, rung(machine))
    rows, vectors, size = CROSSED, shape(v.rung, False)[1], 4 * v.rung.lanes
    offsets = [builder.mul(lda, I64(r)) for r in range(rows)]
    first = []
    for r in range(rows):
        off, at = v.splat(v.load(v.at(less, 4 * r), I32)), builder.add(start, builder.mul(lds, I64(r)))
        first += [builder.sub(v.load(v.at(at, size * j)), off) for j in range(vectors)]
    loop = Loop(builder, builder.lshr(steps, I64(1)), [a, b, *first])
    at_a, at_b, *acc = loop.values
    panel = [v.cast(v.load(v.at(at_b, size * j)), I16) for j in range(2 * vectors)]
    for r in range(rows):
        at = builder.add(at_a, offsets[r])
        x, y = (v.cast(v.splat(v.load(v.at(at, step), I32)), I16) for step in (0, 4))
        for j in range(vectors):
            sums = builder.add(x, panel[vectors + j]), builder.add(y, panel[j])
            acc[r * vectors + j] = v.add_pairs(acc[r * vectors + j], *(v.cast(s, I32) for s in sums))
    loop.end([v.at(at_a, 8), v.at(at_b, 2 * size * vectors), *acc])
    for r in range(rows):
        row = builder.add(c, builder.mul(ldc, I64(r)))
        for j in range(vectors):
            v.store(acc[r * vectors + j], v.at(row, size * j))


CROSSED = 4  # rows of a crossed tile: 8 sums of 16, two steps of a panel, and the two crossed sums


def crossing(builder: Any, machine: Machine, panel: Any, twos: Any, out: Any) -> None:
    """The sums over two steps of a panel's products that crossing adds: an int32 a column. twos >= 1."""
    v = Vectors(builder, rung(machine))
    vectors, size = shape(v.rung, False)[1], 4 * v.rung.lanes
    loop = Loop(builder, twos, [panel, *[v.constant(0)] * vectors])
    at, *acc = loop.values
    for j in range(vectors):
        acc[j] = v.add_pairs(acc[j], v.load(v.at(at, size * j)), v.load(v.at(at, size * (vectors + j))))
    loop.end([v.at(at, 2 * size * vectors), *acc])
    for j in range(vectors):
        v.store(acc[j], v.at(out, size * j))


def by_rung(builder: Any, machine: Machine, *values: Any) -> Any:
    """All steps of a tile for weights laid out once: quads where an instruction adds four exact products.

    The arguments of ``tile`` but for ``lds``; with one more, those of a tile that is ``sought``.
    """
    emit = tile(rung(machine).quads is not None, sought=len(values) == SOUGHT)
    return emit(builder, machine, *values[:7], I64(0), *values[7:])


SOUGHT = 8  # arguments


def block(span: int, quads: bool) -> Emit:
    """A square of steps of ``b``, ``lanes`` columns by ``lanes`` steps, from rows of ``b`` to rows of a panel.

    span: bytes of ``b`` in a step: 2 (bytes to pairs) or 4 (bytes to quads; int16 to pairs). Takes the
    addresses of source and target and the bytes between their rows, the byte that is xored to each byte
    (0x80 turns int8 into uint8 and back), and the address of the int16 that pairs have subtracted.
    """

    def emit(
        builder: Any, machine: Machine, source: Any, lds: Any, target: Any, ldt: Any, flip: Any, centre: Any
    ) -> None:
        v = Vectors(builder, rung(machine))
        lanes = v.rung.lanes
        rows = []
        for r in range(lanes):
            at = builder.add(source, builder.mul(lds, I64(r)))
            if span == 4 and not quads:
                row = v.load(at, v.of(I16))
            else:
                row = v.load(at, v.of(I8) if quads else _halved(v))
                row = builder.xor(row, v.splat(builder.trunc(flip, I8), row.type.count))
            if not quads:
                row = row if row.type == v.of(I16) else builder.zext(row, v.of(I16))
                row = builder.sub(row, v.splat(v.load(v.at(centre, 2 * r), I16)))
            rows.append(v.cast(row, I32))
        for s, step in enumerate(v.transpose(rows)):
            v.store(step, builder.add(target, builder.mul(ldt, I64(s))))

    return emit


def row(quads: bool, crossed: bool = False) -> Emit:
    """A row of bytes of ``a``, xored with ``flip``: as pairs less ``centre``, or as quads.

    Takes the addresses of source and target and the turns, each of a register of the target. Returns the sum of
    quads, or of the products of two neighbouring pairs that crossing adds.
    """

    def emit(builder: Any, machine: Machine, source: Any, target: Any, turns: Any, flip: Any, centre: Any) -> Any:
        v = Vectors(builder, rung(machine))
        taken, made = (v.of(I8), I8) if quads else (_halved(v), I16)
        flips = v.splat(builder.trunc(flip, I8), taken.count)
        less = v.splat(builder.trunc(centre, I16))
        loop = Loop(builder, turns, [source, target, v.constant(0)])
        at, into, total = loop.values
        value = builder.xor(v.load(at, taken), flips)
        if quads:
            total = v.add_quads(total, v.cast(value, I32), v.cast(v.constant(1, I8), I32))
        else:
            value = builder.sub(builder.zext(value, v.of(made)), less)
        if crossed:
            twos = builder.bitcast(value, v.of(I64))
            second = builder.lshr(twos, v.constant(32, I64))  # beside a zero: the first is met once
            total = v.add_pairs(total, v.cast(twos, I32), v.cast(second, I32))
        v.store(value, into)
        loop.end([v.at(at, taken.count), v.at(into, 4 * v.rung.lanes), total])
        return builder.sext(v.sum(total), I64) if quads or crossed else None

    return emit


def _halved(v: Vectors) -> Any:
    """As many bytes as a register holds int16."""
    from llvmlite import ir

    return ir.VectorType(I8, 2 * v.rung.lanes)


def _number(of: Callable[[Rung], int]) -> Any:
    """A number of the rung, a constant in the kernel."""
    return instructions(lambda builder, machine: I64(of(rung(machine))), 0)


lanes = _number(lambda r: r.lanes)
width = _number(columns)
rows_of_pairs = _number(lambda r: shape(r, False)[0])
rows_of_quads = _number(lambda r: shape(r, True)[0])
by_quads = _number(lambda r: int(r.quads is not None))
tile_of_steps = instructions(by_rung, SOUGHT - 1)
tile_sought = instructions(by_rung, SOUGHT)
stretch_of_pairs = instructions(tile(quads=False), 8)
stretch_crossed = instructions(crossed_tile, 9)
crossing_of_panel = instructions(crossing, 3)
block_of_pairs = instructions(block(2, quads=False), 6)
block_of_words = instructions(block(4, quads=False), 6)
block_of_quads = instructions(block(4, quads=True), 6)


row_of_pairs = instructions(row(quads=False), 5)
row_crossed = instructions(row(quads=False, crossed=True), 5)


stretch_of_quads = instructions(tile(quads=True), 8)
row_of_quads = instructions(row(quads=True), 5)

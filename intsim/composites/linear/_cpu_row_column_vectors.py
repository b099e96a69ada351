"""The end of a linear layer between integer rows, in vector instructions: a panel's columns of a few rows.

Sums become ``requantize.row_column``, and what follows column by column: a narrower type, I-BERT's GELU, the residual.
All functions take addresses; rows of sums lie a panel's width apart.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from intsim.backends.vectors import I8, I16, I32, I64, Loop, rung
from intsim.compiling import Machine, instructions
from intsim.ops.matmul import _cpu_tile as tiles
from intsim.ops.requantize._cpu_wide import ABOUT, Wide

ERF_SHIFT = 14  # of activation.gelu_ibert
GELU = 4  # int32 that tell of it: b, c, one, multiplier
Step = Callable[[Wide, Any, Any, Any], None]  # (v, results, address of the row's first result of a register, more)


def _finished(size: int, step: Step, more: int = 0) -> Any:
    """``f(acc, rows, tops, column, bias, up, shift, out, apart, *more)``.

    rows >= 1. tops: int32 a row; column, bias: int32 a column; up, shift: of the products. out: of results of ``size``
    bytes, rows ``apart`` bytes apart.
    """

    def emit(builder: Any, machine: Machine, acc: Any, rows: Any, tops: Any, column: Any, bias: Any, up: Any,
             shift: Any, out: Any, apart: Any, *others: Any) -> None:  # fmt: skip
        v = Wide(builder, rung(machine))
        lanes, count = v.rung.lanes, tiles.columns(v.rung) // v.rung.lanes
        lift, down = v.spread(up), v.spread(shift)
        loop = Loop(builder, rows, [acc, tops, out])
        at, top, into = loop.values
        factor = v.number_at(top)
        for j in range(count):
            by = builder.mul(factor, v.load(v.at(column, 4 * lanes * j)))
            made = v.by_row(v.load(v.at(at, 4 * lanes * j)), by, v.load(v.at(bias, 4 * lanes * j)), lift, down)
            step(v, made, v.at(into, size * lanes * j), others)
        loop.end([v.at(at, 4 * lanes * count), v.at(top, 4), builder.add(into, apart)])

    return instructions(emit, 9 + more)


def _gelu(v: Wide, x: Any, into: Any, others: Any) -> None:
    """More: the address of ``GELU`` int32, up and shift of the requantization, and its zero point as an int32."""
    build, (about, up, shift, zero_point) = v.builder, others
    b, c, one, multiplier = (v.number_at(v.at(about, 4 * i)) for i in range(GELU))
    x = v.saturated(x, 16)
    below = build.sub(v.constant(0), b)
    size = v.magnitude(x)
    inside = build.add(build.select(build.icmp_signed("<", size, below), size, below), b)
    erf, sign = build.add(build.mul(inside, inside), c), build.ashr(x, v.constant(31))
    erf = build.sub(build.xor(erf, sign), sign)  # of x = 0 the result is 0 whatever this is
    y = build.mul(x, build.add(build.ashr(erf, v.constant(ERF_SHIFT)), one))
    zero_point = v.splat(build.trunc(zero_point, I32))
    v.store_narrow(v.by_row(y, multiplier, zero_point, v.spread(up), v.spread(shift)), 16, into)


def _summed(v: Wide, x: Any, into: Any, others: Any) -> None:
    """More: what is added, int16, is to the results as ``others[0]`` + half their distance to ``others[1]``."""
    build, (stream, out) = v.builder, others
    at = build.add(stream, build.lshr(build.sub(into, out), I64(1)))
    v.store(v.saturated(build.add(x, v.widened(at, I16)), 24), into)


def _by_columns(builder: Any, machine: Machine, acc: Any, rows: Any, about: Any, out: Any, apart: Any) -> None:
    """Sums by a factor a column, to int16 rows ``apart`` bytes apart: ``requantize.single_rounding``."""
    v = Wide(builder, rung(machine))
    lanes, count = v.rung.lanes, tiles.columns(v.rung) // v.rung.lanes
    loop = Loop(builder, rows, [acc, out])
    at, into = loop.values
    for j in range(count):
        x = v.load(v.at(at, 4 * lanes * j))
        v.store_narrow(v.by_column(x, v.at(about, 4 * lanes * ABOUT * j)), 16, v.at(into, 2 * lanes * j))
    loop.end([v.at(at, 4 * lanes * count), builder.add(into, apart)])


def _normed(builder: Any, machine: Machine, x: Any, turns: Any, mean: Any, factor: Any, about: Any, out: Any) -> None:
    """A row of int32, less the mean, by factor / 2, by a factor a column: int16. factor: the address of an int32.

    The difference and the factor both have their signs turned, as -2**31 is an int32.
    """
    v = Wide(builder, rung(machine))
    lanes = v.rung.lanes
    middle, one = v.splat(builder.trunc(mean, I32)), v.wide_constant(1)
    loop = Loop(builder, turns, [x, about, out])
    at, by, into = loop.values
    d = builder.sub(middle, v.load(at))
    halves = [builder.lshr(product, one) for product in v.products(d, v.number_at(factor))]
    v.store_narrow(v.by_column(v.joined(*halves), by), 16, into)
    loop.end([v.at(at, 4 * lanes), v.at(by, 4 * lanes * ABOUT), v.at(into, 2 * lanes)])


def _quantized(builder: Any, machine: Machine, x: Any, turns: Any, top: Any, qmax: Any, out: Any) -> None:
    """A row of int16 to int8: ``quantize.dynamic_token`` with ties to even, see its kernel for the proof.

    2**23 ends a float32's fraction before the point, half as much again keeps the sign: sums of it and less than
    2**22 are rounded as they have to be, and hold the result in two's complement.
    """
    from llvmlite import ir

    v = Wide(builder, rung(machine))
    lanes, of = v.rung.lanes, ir.VectorType(ir.FloatType(), v.rung.lanes)
    divisor = builder.sitofp(v.splat(builder.trunc(top, I32)), of)
    times, magic = v.splat(builder.trunc(qmax, I32)), ir.Constant(of, [1.5 * 2.0**23] * lanes)
    loop = Loop(builder, turns, [x, out])
    at, into = loop.values
    quotient = builder.fdiv(builder.sitofp(builder.mul(v.widened(at, I16), times), of), divisor)
    whole = builder.bitcast(builder.fadd(quotient, magic), v.type)
    v.store(builder.trunc(whole, v.narrow(I8)), into)
    loop.end([v.at(at, 2 * lanes), v.at(into, lanes)])


def _largest(builder: Any, machine: Machine, x: Any, turns: Any) -> Any:
    """The largest magnitude of int16, at least 1; 2**15 where an element is -2**15."""
    v = Wide(builder, rung(machine))
    loop = Loop(builder, turns, [x, v.constant(1)])
    at, top = loop.values
    size = v.magnitude(v.widened(at, I16))
    top = builder.select(builder.icmp_signed(">", size, top), size, top)
    loop.end([v.at(at, 2 * v.rung.lanes), top])
    return builder.sext(v.call(f"llvm.vector.reduce.smax.v{v.rung.lanes}i32", I32, top), I64)


to_int16 = _finished(2, lambda v, x, into, others: v.store_narrow(x, 16, into))
to_int8 = _finished(1, lambda v, x, into, others: v.store_narrow(x, 8, into))
through_gelu = _finished(2, _gelu, 4)
with_residual = _finished(4, _summed, 2)
by_columns = instructions(_by_columns, 5)
normed = instructions(_normed, 6)
quantized = instructions(_quantized, 5)
largest = instructions(_largest, 2)

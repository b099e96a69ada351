"""Rows of narrow integers in vector instructions: their sums, and what normalizes them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir

from intsim.backends.vectors import I8, I16, I32, I64, Loop, Vectors, rung
from intsim.compiling import Machine, instructions


def _moments(element: Any) -> Callable[..., Any]:
    """The sum of the elements, below 2**31; the sum of their squares, below 2**63, goes to ``squares_at``.

    A turn is a register of int16. Two squares of 16 bits sum up to at most 2**31: as unsigned numbers they fit 32 bits.
    """

    def emit(builder: Any, machine: Machine, x: Any, turns: Any, squares_at: Any) -> Any:
        v = Vectors(builder, rung(machine))
        pairs, wide = ir.VectorType(I16, 2 * v.rung.lanes), ir.VectorType(I64, v.rung.lanes // 2)
        low, up, none = (ir.Constant(wide, [n] * wide.count) for n in (0xFFFFFFFF, 32, 0))
        loop = Loop(builder, turns, [x, v.constant(0), none])
        at, total, squares = loop.values
        values = v.load(at, ir.VectorType(element, pairs.count))
        values = builder.sext(values, pairs) if element != I16 else values
        total = v.add_pairs(total, values, ir.Constant(pairs, [1] * pairs.count))
        both = builder.bitcast(v.add_pairs(v.constant(0), values, values), wide)
        squares = builder.add(squares, builder.add(builder.and_(both, low), builder.lshr(both, up)))
        loop.end([builder.add(at, I64(pairs.count * element.width // 8)), total, squares])
        made = v.call(f"llvm.vector.reduce.add.v{wide.count}i64", I64, squares)
        builder.store(made, builder.inttoptr(squares_at, I64.as_pointer()))
        return builder.sext(v.sum(total), I64)

    return emit


def _scaled(element: Any) -> Callable[..., Any]:
    """``y = ((x - mean) * factor >> 1) + bias``, modulo 2**32; x and y: width() elements a turn."""

    def emit(builder: Any, machine: Machine, x: Any, bias: Any, y: Any, turns: Any, mean: Any, factor: Any) -> None:
        v = Vectors(builder, rung(machine))
        less, times, one = v.splat(builder.trunc(mean, I32)), v.splat(builder.trunc(factor, I32)), v.constant(1)
        loop = Loop(builder, turns, [x, I64(0)])
        at, turned = loop.values
        for half in range(2):
            given = v.load(v.at(at, half * v.rung.lanes * element.width // 8), ir.VectorType(element, v.rung.lanes))
            value = builder.sext(given, v.type) if element != I32 else given
            made = builder.ashr(builder.mul(builder.sub(value, less), times), one)
            column = v.at(turned, half * 4 * v.rung.lanes)
            v.store(builder.add(made, v.load(builder.add(bias, column))), builder.add(y, column))
        loop.end(
            [builder.add(at, I64(2 * v.rung.lanes * element.width // 8)), builder.add(turned, I64(8 * v.rung.lanes))]
        )

    return emit


width = instructions(lambda builder, machine: I64(2 * rung(machine).lanes), 0)
moments8, moments16 = (instructions(_moments(element), 3) for element in (I8, I16))
scaled8, scaled16, scaled32 = (instructions(_scaled(element), 6) for element in (I8, I16, I32))

"""``matmul.counted`` on the CPU: the plain product in int32, which holds the exact sums, and one pass over it."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
from llvmlite import ir

from intsim.backends.cpu import compile, shared_out
from intsim.backends.vectors import I8, I16, I32, I64, Loop, Vectors, rung
from intsim.compiling import Int, Machine, instructions, kernel
from intsim.ops.matmul import _cpu_integer as integer
from intsim.ops.matmul.counted import OP

GROUP = 4  # registers of sums a turn: a register of 8-bit results
LARGEST = 2**30  # of a bias: below it, nothing leaves int32

i32 = np.int32


def matmul(x: Any, out: Any, p: Any, kept: Any) -> None:
    """Fills ``out.acc`` and ``out.wrapped``; serves operands of 8 bits, at most 32 bits of sum and short rows."""
    if x.bias.max() > LARGEST or x.bias.min() < -LARGEST:
        compile(OP.name, OP.program)(x, out, p, 0)
        return
    exact = out.acc if out.acc.dtype == np.int32 else np.empty(out.acc.shape, np.int32)
    integer.exact(x, exact, p, kept)
    rows, arrays = _wrap(out.acc.itemsize), (exact, p.acc.bits, out.acc, out.wrapped)
    shared_out(lambda first, last: rows(*arrays, first, last), out.acc.shape[0], out.acc.size)


def _wrapped(element: Any) -> Any:
    """``f(sums, acc, turns, bits)``: addresses of int32 and of results; how many of the sums do not fit ``bits``."""

    def emit(builder: Any, machine: Machine, sums: Any, acc: Any, turns: Any, bits: Any) -> Any:
        v = Vectors(builder, rung(machine))
        away = v.splat(builder.sub(I32(32), builder.trunc(bits, I32)))
        loop = Loop(builder, turns, [sums, acc, v.constant(0)])
        at, into, count = loop.values
        made = []
        for i in range(GROUP):
            s = v.load(v.at(at, 4 * v.rung.lanes * i))
            inside = builder.ashr(builder.shl(s, away), away)
            count = builder.sub(count, builder.sext(builder.icmp_signed("!=", inside, s), v.type))
            made.append(inside)
        if element != I32:
            while len(made) > 1:
                made = [v.shuffle(a, b, range(2 * a.type.count)) for a, b in zip(made[::2], made[1::2], strict=True)]
            half = 2 ** (element.width - 1)
            made = [v.within(made[0], -half, half - 1)]  # they are: LLVM narrows by saturating instructions
            made = [builder.trunc(made[0], ir.VectorType(element, made[0].type.count))]
        for i, value in enumerate(made):
            v.store(value, v.at(into, value.type.count * element.width // 8 * i))
        step = GROUP * v.rung.lanes
        loop.end([builder.add(at, I64(4 * step)), builder.add(into, I64(step * element.width // 8)), count])
        return builder.zext(v.sum(count), I64)

    return instructions(emit, 4)


_width = instructions(lambda builder, machine: I64(GROUP * rung(machine).lanes), 0)
_wrapped_to = {size: _wrapped(element) for size, element in ((1, I8), (2, I16), (4, I32))}


@cache
def _wrap(size: int) -> Callable[..., None]:
    """size: bytes of a result."""
    in_registers = _wrapped_to[size]

    def rows(exact: Any, bits: int, acc: Any, wrapped: Any, first: Int, last: Int) -> None:
        n, width, away = exact.shape[1], _width(), i32(32 - bits)
        turns, sums, into = n // width, exact.ctypes.data, acc.ctypes.data
        for i in range(first, last):
            count = in_registers(sums + 4 * n * i, into + size * n * i, turns, bits) if turns > 0 else 0
            for j in range(turns * width, n):
                inside = i32(i32(exact[i, j] << away) >> away)
                count += 1 if inside != exact[i, j] else 0
                acc[i, j] = inside
            wrapped[i] = count

    return kernel(rows, f"matmul.counted.rows.{size}")

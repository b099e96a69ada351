"""Sums in int32 wrapped to fewer bits, in vector instructions, and how many of a row did not fit."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
from llvmlite import ir

from intsim.backends.cpu import shared_out
from intsim.backends.vectors import I8, I16, I32, I64, Loop, Vectors, rung
from intsim.compiling import Int, Machine, instructions, kernel

GROUP = 4  # registers of sums a turn: a register of 8-bit results

i32 = np.int32


def wrap(sums: Any, bits: int, acc: Any, wrapped: Any) -> None:
    """Fills ``acc``, "m n" of int8, int16 or int32, and ``wrapped``, "m"; sums: int32, may be ``acc`` itself."""
    rows = _wrap(acc.itemsize)
    shared_out(lambda first, last: rows(sums, bits, acc, wrapped, first, last), acc.shape[0], acc.size)


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

    def rows(sums: Any, bits: int, acc: Any, wrapped: Any, first: Int, last: Int) -> None:
        n, width, away = sums.shape[1], _width(), i32(32 - bits)
        turns, source, into = n // width, sums.ctypes.data, acc.ctypes.data
        for i in range(first, last):
            count = in_registers(source + 4 * n * i, into + size * n * i, turns, bits) if turns > 0 else 0
            for j in range(turns * width, n):
                inside = i32(i32(sums[i, j] << away) >> away)
                count += 1 if inside != sums[i, j] else 0
                acc[i, j] = inside
            wrapped[i] = count

    return kernel(rows, f"matmul.wrapped.{size}")

"""I-BERT's softmax of one row of int16 in vector instructions, 32 bits a lane, 8 bits out, ties to even.

z = floor(d / ln2), d < 2**16:   (d + 1/2) * (1 / ln2) in float32. The true quotient lies at least 1 / (2 ln2) from
    any whole number, three roundings move it by less than 2**16 * 3 * 2**-24 / ln2.
k = round(x / total), x = exp * 2**8 < 2**39:   in float32 three roundings move a quotient of at most 2**8 by less
    than 2**-14, so that a result less than 1/2 - ``CLEAR`` away from what was rounded is right. Rows with another
    are divided in float64: a quotient that is no tie lies at least 1 / (2 total) from one, and total < 2**44, so
    that rounding it to float64, by at most 2**-45, moves it neither onto a tie nor past one; and a tie stays.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from llvmlite import ir

from intsim.backends.vectors import I8, I16, I32, I64, Loop, Vectors, rung
from intsim.compiling import Int, Machine, instructions, portable
from intsim.numerics import Rounding
from intsim.ops.softmax import LONGEST
from intsim.ops.softmax.ibert import terms_fit_int32

CLEAR = 2.0**-13
NUMBERS = 3  # int32 that tell of it: ln2, b, c
FLOAT, DOUBLE = ir.FloatType(), ir.DoubleType()


def serves(p: Any, size: Mapping[str, int]) -> bool:
    fits = terms_fit_int32(p) and p.ln2 < 2**24 and size["n"] <= min(LONGEST, 2**13)
    return bool(fits and p.q.bits == 16 and p.out_bits == 8 and p.rounding == Rounding.TIES_TO_EVEN)


def numbers(p: Any) -> Any:
    """Of the parameters."""
    return np.array([p.ln2, p.b, p.c], np.int32)


def _registers(builder: Any, stop: Any, lanes: int) -> Any:
    return builder.udiv(builder.add(stop, I64(lanes - 1)), I64(lanes))


def _exponentials(builder: Any, machine: Machine, q: Any, stop: Any, top: Any, about: Any, out: Any) -> Any:
    """int32 of int16, 0 from ``stop`` >= 1 on, in whole registers; their sum. about: address of ``numbers``."""
    v = Vectors(builder, rung(machine))
    lanes, of, halves = v.rung.lanes, ir.VectorType(FLOAT, v.rung.lanes), ir.VectorType(I64, v.rung.lanes // 2)
    ln2, b, c = (v.splat(v.load(v.at(about, 4 * i), I32)) for i in range(NUMBERS))
    inverse = builder.fdiv(ir.Constant(of, [1.0] * lanes), builder.sitofp(ln2, of))
    half, up = ir.Constant(of, [0.5] * lanes), ir.Constant(halves, [32] * halves.count)
    # from 31 ln2 on the exponential is 0, and no difference of int16 is larger than 2**16 - 1
    limit, farthest = builder.sub(builder.shl(ln2, v.constant(5)), v.constant(1)), v.constant(2**16 - 1)
    limit = builder.select(builder.icmp_signed("<", limit, farthest), limit, farthest)
    highest = v.splat(builder.trunc(top, I32))
    lane, end = ir.Constant(v.type, list(range(lanes))), v.splat(builder.trunc(stop, I32))
    none = ir.Constant(halves, [0] * halves.count)
    loop = Loop(builder, _registers(builder, stop, lanes), [I64(0), none, none])
    at, even, odd = loop.values
    scores = v.load(builder.add(q, builder.shl(at, I64(1))), ir.VectorType(I16, lanes))
    d = builder.sub(highest, builder.sext(scores, v.type))
    d = builder.select(builder.icmp_unsigned("<", d, limit), d, limit)  # behind ``stop`` it may be below 0
    z = builder.fptosi(builder.fmul(builder.fadd(builder.sitofp(d, of), half), inverse), v.type)
    t = builder.add(builder.sub(builder.mul(z, ln2), d), b)
    seen = builder.icmp_signed("<", builder.add(v.splat(builder.trunc(at, I32)), lane), end)
    exp = builder.select(seen, builder.lshr(builder.add(builder.mul(t, t), c), z), v.constant(0))
    v.store(exp, builder.add(out, builder.shl(at, I64(2))))
    both = builder.bitcast(exp, halves)
    even = builder.add(even, builder.lshr(builder.shl(both, up), up))
    odd = builder.add(odd, builder.lshr(both, up))
    loop.end([builder.add(at, I64(lanes)), even, odd])
    return v.call(f"llvm.vector.reduce.add.v{halves.count}i64", I64, builder.add(even, odd))


def _narrowed(v: Vectors, k: Any, into: Any) -> None:
    k = v.builder.select(v.builder.icmp_signed("<", k, v.constant(255)), k, v.constant(255))
    v.store(v.builder.trunc(k, ir.VectorType(I8, v.rung.lanes)), into)


def _shares(builder: Any, machine: Machine, exp: Any, stop: Any, total: Any, out: Any) -> Any:
    """uint8, in whole registers. Returns 0 where one of them may be wrong.

    2**23 ends a float32's fraction before the point, half as much again keeps the sign: a sum with it is rounded to a
    whole number, which it holds in two's complement.
    """
    v = Vectors(builder, rung(machine))
    lanes, of = v.rung.lanes, ir.VectorType(FLOAT, v.rung.lanes)
    by = v.splat(builder.fptrunc(builder.fdiv(DOUBLE(256.0), builder.sitofp(total, DOUBLE)), FLOAT), lanes)
    magic, bar = (ir.Constant(of, [number] * lanes) for number in (1.5 * 2.0**23, 0.5 - CLEAR))
    bits = v.constant(int(np.float32(1.5 * 2.0**23).view(np.int32)))
    loop = Loop(builder, _registers(builder, stop, lanes), [exp, out, v.constant(0)])
    at, into, unclear = loop.values
    share = builder.fmul(builder.sitofp(v.load(at), of), by)
    sum_ = builder.fadd(share, magic)
    away = builder.fsub(share, builder.fsub(sum_, magic))
    for sign in ("<", ">"):
        side = bar if sign == ">" else builder.fsub(ir.Constant(of, [0.0] * lanes), bar)
        unclear = builder.or_(unclear, builder.sext(builder.fcmp_ordered(sign, away, side), v.type))
    _narrowed(v, builder.sub(builder.bitcast(sum_, v.type), bits), into)
    loop.end([v.at(at, 4 * lanes), v.at(into, lanes), unclear])
    found = v.call(f"llvm.vector.reduce.or.v{lanes}i32", I32, unclear)
    return builder.zext(builder.icmp_signed("==", found, I32(0)), I64)


def _exact_shares(builder: Any, machine: Machine, exp: Any, stop: Any, total: Any, out: Any) -> None:
    """The same in float64, with 2**52 in place of 2**23: see the module."""
    v = Vectors(builder, rung(machine))
    lanes, of = v.rung.lanes, ir.VectorType(DOUBLE, v.rung.lanes)
    divisor = v.splat(builder.sitofp(total, DOUBLE), lanes)
    whole, magic = (ir.Constant(of, [number] * lanes) for number in (256.0, 1.5 * 2.0**52))
    loop = Loop(builder, _registers(builder, stop, lanes), [exp, out])
    at, into = loop.values
    share = builder.fdiv(builder.fmul(builder.sitofp(v.load(at), of), whole), divisor)
    words = builder.bitcast(builder.fadd(share, magic), ir.VectorType(I32, 2 * lanes))
    _narrowed(v, v.shuffle(words, words, range(0, 2 * lanes, 2)), into)
    loop.end([v.at(at, 4 * lanes), v.at(into, lanes)])


exponentials: Callable[..., Int] = instructions(_exponentials, 5)
shares: Callable[..., Int] = instructions(_shares, 4)
exact_shares: Callable[..., Int] = instructions(_exact_shares, 4)


@portable
def softmax(q: Any, stop: Int, about: Any, exp: Any, out: Any) -> None:
    """A row of uint8 probabilities, those behind ``stop`` 0 up to whole registers; exp: int32, room for the row."""
    top: Any = q[0]
    for j in range(stop):
        top = max(top, q[j])
    total = exponentials(q.ctypes.data, stop, np.int64(top), about.ctypes.data, exp.ctypes.data)
    if not shares(exp.ctypes.data, stop, total, out.ctypes.data):
        exact_shares(exp.ctypes.data, stop, total, out.ctypes.data)

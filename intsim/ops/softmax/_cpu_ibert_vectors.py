"""I-BERT's softmax of one row in vector instructions, 32 bits a lane, 8 bits out, rounded to the nearest, ties to even.

Exponentials as in ``_cpu_ibert``. A share k = exp * 2**8 / total is guessed in float32: exp is below 2**23, three
roundings move a quotient of at most 2**8 by less than 2**-14, so the guess is next to the truth or it, and

    left = exp * 2**8 - k * total,   |left| <= total * (1/2 + 2**-14)

says which. With a total up to ``MOST``, twice that is an int32.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from llvmlite import ir

from intsim.backends.vectors import I16, I32, I64, Loop, Vectors, rung
from intsim.compiling import Int, Machine, instructions, portable
from intsim.numerics import Rounding

MOST = 2**31 - 2**19
NUMBERS = 4  # int32 that tell of it: ln2, its reciprocal, b, c


def serves(p: Any, size: Mapping[str, int]) -> bool:
    largest = max(p.b, p.ln2) ** 2 + p.c
    narrow = p.ln2 <= 2**11 and largest < 2**23 and largest * size["n"] <= MOST
    return bool(narrow and p.q.bits == 16 and p.out_bits == 8 and p.rounding == Rounding.TIES_TO_EVEN)


def numbers(p: Any) -> Any:
    """Of the parameters."""
    return np.array([p.ln2, -(-(2**27) // p.ln2), p.b, p.c], np.int64).astype(np.int32)


def _within(v: Vectors, at: Any, stop: Any) -> Any:
    """Lanes of the elements from ``at`` on that lie before ``stop``."""
    build = v.builder
    here = build.add(v.splat(build.trunc(at, I32)), ir.Constant(v.type, list(range(v.rung.lanes))))
    return build.icmp_signed("<", here, v.splat(build.trunc(stop, I32)))


def _exponentials(builder: Any, machine: Machine, q: Any, stop: Any, top: Any, about: Any, out: Any) -> Any:
    """int32 of int16, 0 from ``stop`` >= 1 on, in whole registers; their sum. about: address of ``numbers``."""
    v = Vectors(builder, rung(machine))
    lanes, short = v.rung.lanes, ir.VectorType(I16, v.rung.lanes)
    ln2, inverse, b, c = (v.splat(v.load(v.at(about, 4 * i), I32)) for i in range(NUMBERS))
    limit, highest = builder.sub(builder.shl(ln2, v.constant(5)), v.constant(1)), v.splat(builder.trunc(top, I32))
    turns = builder.udiv(builder.add(stop, I64(lanes - 1)), I64(lanes))
    loop = Loop(builder, turns, [I64(0), v.constant(0)])
    at, total = loop.values
    d = builder.sub(highest, builder.sext(v.load(builder.add(q, builder.shl(at, I64(1))), short), v.type))
    d = builder.select(builder.icmp_unsigned("<", d, limit), d, limit)  # behind ``stop`` it may be below 0
    z = builder.lshr(builder.mul(d, inverse), v.constant(27))
    t = builder.add(builder.sub(builder.mul(z, ln2), d), b)
    exp = builder.lshr(builder.add(builder.mul(t, t), c), z)
    exp = builder.select(_within(v, at, stop), exp, v.constant(0))
    v.store(exp, builder.add(out, builder.shl(at, I64(2))))
    total = builder.add(total, exp)
    loop.end([builder.add(at, I64(lanes)), total])
    return builder.sext(v.sum(total), I64)


def _shares(builder: Any, machine: Machine, exp: Any, stop: Any, total: Any, out: Any) -> None:
    """int16, in whole registers."""
    v = Vectors(builder, rung(machine))
    lanes, of = v.rung.lanes, ir.VectorType(ir.FloatType(), v.rung.lanes)
    whole = v.splat(builder.trunc(total, I32))
    by = builder.fdiv(ir.Constant(of, [256.0] * lanes), builder.sitofp(whole, of))
    magic = ir.Constant(of, [1.5 * 2.0**23] * lanes)  # see quantize: a sum with it is rounded to a whole number
    turns = builder.udiv(builder.add(stop, I64(lanes - 1)), I64(lanes))
    loop = Loop(builder, turns, [exp, out])
    at, into = loop.values
    x = v.load(at)
    k = builder.fadd(builder.fmul(builder.sitofp(x, of), by), magic)
    k = builder.sub(builder.bitcast(k, v.type), builder.bitcast(magic, v.type))
    left = builder.sub(builder.shl(x, v.constant(8)), builder.mul(k, whole))
    twice, odd = builder.shl(left, v.constant(1)), builder.and_(k, v.constant(1))
    # an odd k gives way to its neighbour on a tie, an even one does not: "greater than total - 1" of whole numbers
    bar = builder.sub(whole, odd)
    up = builder.zext(builder.icmp_signed(">", twice, bar), v.type)
    down = builder.zext(builder.icmp_signed("<", twice, builder.sub(v.constant(0), bar)), v.type)
    k = builder.sub(builder.add(k, up), down)
    k = builder.select(builder.icmp_signed("<", k, v.constant(255)), k, v.constant(255))
    v.store(builder.trunc(k, ir.VectorType(I16, lanes)), into)
    loop.end([v.at(at, 4 * lanes), v.at(into, 2 * lanes)])


exponentials = instructions(_exponentials, 5)
shares = instructions(_shares, 4)


@portable
def softmax(q: Any, stop: Int, about: Any, exp: Any, out: Any) -> None:
    """A row of int16 probabilities, those behind ``stop`` 0 up to whole registers; exp: int32, room for the row."""
    top: Any = q[0]
    for j in range(stop):
        top = max(top, q[j])
    total = exponentials(q.ctypes.data, stop, np.int64(top), about.ctypes.data, exp.ctypes.data)
    shares(exp.ctypes.data, stop, total, out.ctypes.data)

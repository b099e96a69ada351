"""Requantizing a register of accumulators in vector instructions, a set of parameters a column.

A form is what follows from an accumulator before it saturates. Integer products have 64 bits, so they are
made of the even columns and of the odd ones, and joined again where 32 bits are enough.

A form's parameters are registers that lie one behind the other, for as many columns as a register has int32.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir

from intsim.backends.vectors import I32, I64, Loop, Vectors, rung
from intsim.compiling import Machine, instructions
from intsim.numerics import IntType

GROUP = 4  # registers of accumulators a turn: a register of 8-bit results
FAR = 2**30  # nearer to 0 than this is every result that does not saturate; a float32
Load = Callable[
    ..., Any
]  # (type, bytes=0, peek=False): the next parameter; a little past it, or left to be the next again
Form = Callable[["Columns", Any, Load], Any]  # (v, accumulators, load) -> int32


class Columns(Vectors):
    """Signed products of 64 bits, by even and odd columns."""

    def products(self, acc: Any, load: Load) -> tuple[Any, Any]:
        """``acc`` times the next parameter in 64 bits: of the even columns, of the odd ones."""
        build, up = self.builder, self.wide_constant(32)
        both = self.builder.bitcast(acc, self.wide)
        odd, even = load(self.wide, 4, peek=True), load(self.wide)  # an odd column's is the lower word, four bytes on
        made = [
            build.mul(a, build.ashr(build.shl(factor, up), up))
            for a, factor in ((build.ashr(build.shl(both, up), up), even), (build.ashr(both, up), odd))
        ]
        return made[0], made[1]

    def joined(self, even: Any, odd: Any, word_of_even: int, word_of_odd: int) -> Any:
        """A word of each int64, in the order of the columns."""
        lanes = self.rung.lanes
        picks = [lane + word_of_even if lane % 2 == 0 else lanes + lane - 1 + word_of_odd for lane in range(lanes)]
        return self.shuffle(self.builder.bitcast(even, self.type), self.builder.bitcast(odd, self.type), picks)

    def words_of(self, of: Any) -> Any:
        return ir.VectorType(I32, of.count * 2)

    def mask(self, test: Any) -> Any:
        return self.builder.sext(test, self.type)

    def named(self, name: str, x: Any, *others: Any, fastmath: tuple[str, ...] = ()) -> Any:
        """LLVM's function of floats by this name; a number stands for itself in all lanes."""
        bits = 32 if x.type.element == ir.FloatType() else 64
        made = self.function(f"llvm.{name}.v{x.type.count}f{bits}", x.type, [x.type] * (1 + len(others)))
        values = [ir.Constant(x.type, [n] * x.type.count) if isinstance(n, float) else n for n in others]
        return self.builder.call(made, [x, *values], fastmath=fastmath)


def to_even(v: Columns, acc: Any, load: Load) -> Any:
    """shift >= 32. Parameters: multiplier, halves of what is shifted out (even, odd), shift - 32, rest of the high
    word, zero point.

    |acc * multiplier| < 2**62: product + half < 2**62 + 2**61, and its high word is an int32. Where nothing is left
    of the rounded product, it was a tie that went up.
    """
    build = v.builder
    even, odd = (build.add(x, load(v.wide)) for x in v.products(acc, load))
    high = v.joined(even, odd, 1, 1)
    r = build.ashr(high, load(v.type))
    left = build.or_(build.and_(high, load(v.type)), v.joined(even, odd, 0, 0))
    tie = v.mask(build.icmp_signed("==", left, v.constant(0)))
    return build.add(build.sub(r, build.and_(tie, build.and_(r, v.constant(1)))), load(v.type))


def by_addend(signs: int) -> Form:
    """shift >= 32, by any other rule: an addend below 2**shift, one of two by the product's sign, before the floor.

    Parameters: multiplier, the addend (even, odd), that of products below 0 where signs = 2, shift - 32, zero point.
    """

    def form(v: Columns, acc: Any, load: Load) -> Any:
        build, (even, odd) = v.builder, v.products(acc, load)
        addends = [load(v.wide), load(v.wide)]
        if signs == 2:
            none, below = v.wide_constant(0), [load(v.wide), load(v.wide)]
            negative = [build.icmp_signed("<", x, none) for x in (even, odd)]
            addends = [build.select(*parts) for parts in zip(negative, below, addends, strict=True)]
        high = v.joined(build.add(even, addends[0]), build.add(odd, addends[1]), 1, 1)
        return build.add(build.ashr(high, load(v.type)), load(v.type))

    return form


def by_float(element: Any, far: bool, away: bool = False) -> Form:
    """Parameters: the factor as a float, zero point. To the nearest, ties to even; in float64 also ties away.

    far: whether a product can leave [-FAR, FAR]; it then becomes the nearer of these.
    """

    def form(v: Columns, acc: Any, load: Load) -> Any:
        build, of = v.builder, ir.VectorType(element, v.rung.lanes)
        product = build.fmul(build.sitofp(acc, of), load(of))
        if far:
            product = v.named("maxnum", product, float(-FAR), fastmath=("nnan",))  # finite by finite: never a NaN
            product = v.named("minnum", product, float(FAR), fastmath=("nnan",))
        if element == ir.FloatType():
            return build.add(build.fptosi(v.named("rint", product), v.type), load(v.type))
        # 2**52 ends the fraction of a float64 before the point; half as much again keeps the sign: two's complement
        magic = ir.Constant(of, [1.5 * 2.0**52] * of.count)
        made = build.fadd(product, magic)
        if away:  # a tie that went toward 0 lies half a step beyond what it was rounded to, exactly
            step = v.named("copysign", ir.Constant(of, [0.5] * of.count), product)
            tie = build.fcmp_ordered("==", build.fsub(product, build.fsub(made, magic)), step)
            made = build.fadd(made, build.select(tie, build.fadd(step, step), ir.Constant(of, [0.0] * of.count)))
        bits = build.bitcast(made, v.words_of(of))
        whole = v.shuffle(bits, bits, range(0, 2 * v.rung.lanes, 2))
        return build.add(whole, load(v.type))

    return form


def _reader(v: Columns, about: Any) -> tuple[Load, Callable[[], int]]:
    """Loads of the parameters at ``about``, and how many bytes were loaded so far."""
    offset = 0

    def load(of: Any, more: int = 0, peek: bool = False) -> Any:
        nonlocal offset
        loaded = v.load(v.at(about, offset + more), of)
        if not peek:
            offset += of.count * (64 if of.element in (I64, ir.DoubleType()) else 32) // 8
        return loaded

    return load, lambda: offset


def tile(form: Form, dtype: IntType) -> Any:
    """``f(acc, parameters, q, turns)``: addresses of int32, parameters and results; GROUP registers a turn."""

    def emit(builder: Any, machine: Machine, acc: Any, parameters: Any, q: Any, turns: Any) -> None:
        v = Columns(builder, rung(machine))
        result = ir.IntType(8 if dtype.storage.endswith("t8") else 16)
        loop = Loop(builder, turns, [acc, parameters, q])
        at, about, into = loop.values
        load, loaded = _reader(v, about)
        made = [form(v, v.load(v.at(at, 4 * v.rung.lanes * i)), load) for i in range(GROUP)]
        while len(made) > 1:
            count = range(2 * made[0].type.count)
            made = [v.shuffle(a, b, count) for a, b in zip(made[::2], made[1::2], strict=True)]
        narrow = ir.VectorType(result, made[0].type.count)
        v.store(builder.trunc(v.within(made[0], dtype.qmin, dtype.qmax), narrow), into)
        step = GROUP * v.rung.lanes
        steps = (at, 4 * step), (about, loaded()), (into, step * result.width // 8)
        loop.end([builder.add(x, I64(n)) for x, n in steps])

    return instructions(emit, 4)


def difference(one: Form, other: Form, dtype: IntType) -> Any:
    """``f(low, parameters of one, of other, registers)``: on how many of the accumulators from ``low`` on they differ.

    Below 2**31 / lanes registers, and no accumulator past the last int32.
    """

    def emit(builder: Any, machine: Machine, low: Any, first: Any, second: Any, registers: Any) -> Any:
        v = Columns(builder, rung(machine))
        start = builder.add(v.splat(builder.trunc(low, I32)), ir.Constant(v.type, list(range(v.rung.lanes))))
        loop = Loop(builder, registers, [start, first, second, v.constant(0)])
        acc, first, second, count = loop.values
        made, steps = [], []
        for form, about in ((one, first), (other, second)):
            load, loaded = _reader(v, about)
            made.append(v.within(form(v, acc, load), dtype.qmin, dtype.qmax))
            steps.append(builder.add(about, I64(loaded())))
        count = builder.sub(count, v.mask(builder.icmp_signed("!=", *made)))
        loop.end([builder.add(acc, v.constant(v.rung.lanes)), *steps, count])
        return builder.zext(v.sum(count), I64)

    return instructions(emit, 4)

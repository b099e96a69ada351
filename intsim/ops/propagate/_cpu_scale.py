"""Scales in one int64 each, for vector kernels: ``exponent * 2**32 + mantissa``, so that order is that of integers.

The rules of ``intsim.scalar.scale``, without branches and calls: a row needs a dozen of them, as long as
its elements take. They are written for one scale or for a register of them; the scales of several rows,
or heads, are worked out together, from arrays of whole registers of AT_ONCE.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir

from intsim.backends.vectors import I64, Loop, Vectors, rung
from intsim.compiling import Int, Machine, instructions, portable

I1 = ir.IntType(1)
ONE = (-30 << 32) + 2**30
AT_ONCE = 8  # scales: whole registers of int64 on every rung
FIRST, SLOPE = 48 * 2**30 // 17, 16 * 2**32 // 17  # 48/17 - 32/17 d is 1/d for d in [1/2, 1] but for 1/17 of it


class Scales:
    """Writes operations on packed scales, int64 or vectors of int64."""

    def __init__(self, builder: Any, of: Any = I64) -> None:
        self.builder, self.type = builder, of
        self.count = of.count if isinstance(of, ir.VectorType) else 0

    def number(self, value: int) -> Any:
        return ir.Constant(self.type, [value] * self.count if self.count else value)

    def parts(self, scale: Any) -> tuple[Any, Any]:
        return self.builder.and_(scale, self.number(0xFFFFFFFF)), self.builder.ashr(scale, self.number(32))

    def packed(self, mantissa: Any, exponent: Any) -> Any:
        return self.builder.or_(self.builder.shl(exponent, self.number(32)), mantissa)

    def normal(self, mantissa: Any, exponent: Any) -> Any:
        """``mantissa`` in [2**30, 2**31]."""
        over = self.builder.lshr(mantissa, self.number(31))
        return self.packed(self.builder.lshr(mantissa, over), self.builder.add(exponent, over))

    def smaller(self, a: Any, b: Any) -> Any:
        return self.builder.select(self.builder.icmp_signed("<", a, b), a, b)

    def larger(self, a: Any, b: Any) -> Any:
        return self.builder.select(self.builder.icmp_signed("<", a, b), b, a)

    def multiply(self, a: Any, b: Any) -> Any:
        build = self.builder
        (a, a_exponent), (b, b_exponent) = self.parts(a), self.parts(b)
        product = build.mul(a, b)
        more = build.zext(build.icmp_unsigned(">=", product, self.number(2**61)), self.type)
        shift = build.add(more, self.number(30))
        product = build.lshr(build.add(product, build.shl(self.number(2**29), more)), shift)
        return self.normal(product, build.add(build.add(a_exponent, b_exponent), shift))

    def quotient(self, a: Any, b: Any) -> Any:
        build = self.builder
        (a, a_exponent), (b, b_exponent) = self.parts(a), self.parts(b)
        shift = build.add(build.zext(build.icmp_unsigned("<", a, b), self.type), self.number(30))
        dividend = build.add(build.shl(a, shift), build.lshr(b, self.number(1)))
        made = self._divided(dividend, a, shift, b) if self.count else build.udiv(dividend, b)
        return self.normal(made, build.sub(build.sub(a_exponent, b_exponent), shift))

    def _divided(self, dividend: Any, a: Any, shift: Any, b: Any) -> Any:
        """``dividend // b`` for ``dividend = (a << shift) + b // 2`` and a quotient of 31 bits; all below 2**62.

        Machines divide no vectors. x = 2**61 / b comes from a line and three steps of Newton's, each rounded
        down and so never above it: below by less than 2**-29 of it. ``a x`` is then short by less than 5 of the
        quotient; the remainder, by x again, gives them but for one.
        """
        build, low = self.builder, self.number(0xFFFFFFFF)

        def product(x: Any, y: Any) -> Any:  # of 32 bits each, which LLVM must see
            return build.mul(build.and_(x, low), build.and_(y, low))

        x = build.sub(self.number(FIRST), build.lshr(product(b, self.number(SLOPE)), self.number(32)))
        for _ in range(3):
            lacking = build.lshr(build.sub(self.number(2**62), product(b, x)), self.number(30))  # 2 - b x
            x = build.lshr(product(x, lacking), self.number(31))
        made = build.lshr(product(a, x), build.sub(self.number(61), shift))
        left = build.sub(dividend, product(made, b))
        more = build.lshr(product(build.lshr(left, self.number(20)), x), self.number(41))
        left = build.sub(left, product(more, b))
        last = build.zext(build.icmp_signed(">=", left, b), self.type)
        return build.add(build.add(made, more), last)

    def length(self, n: Any) -> Any:
        """Bits of ``n``."""
        build, name = self.builder, f"llvm.ctlz.v{self.count}i64" if self.count else "llvm.ctlz.i64"
        function = build.module.globals.get(name) or ir.Function(
            build.module, ir.FunctionType(self.type, [self.type, I1]), name
        )
        return build.sub(self.number(64), build.call(function, [n, I1(0)]))

    def of_integer(self, n: Any) -> Any:
        """``1 <= n < 2**53``: lengths above 31 bits are rounded."""
        build = self.builder
        right = build.sub(self.length(n), self.number(31))
        long = build.icmp_signed(">", right, self.number(0))
        shift = build.select(long, right, self.number(1))
        rounded = build.lshr(build.add(n, build.shl(self.number(1), build.sub(shift, self.number(1)))), shift)
        left = build.select(long, self.number(0), build.sub(self.number(0), right))
        return self.normal(build.select(long, rounded, build.shl(n, left)), right)

    def down(self, ratio: Any) -> Any:
        """The right shift of a ratio; beyond 63 nothing is left of a product below 2**62."""
        shift = self.builder.sub(self.number(0), self.builder.ashr(ratio, self.number(32)))
        return self.smaller(shift, self.number(63))

    def scaled(self, magnitude: Any, ratio: Any) -> Any:
        """``round(magnitude * ratio)`` of ``0 <= magnitude < 2**31``, half up; exponent < 0."""
        build, mantissa, shift = self.builder, self.parts(ratio)[0], self.down(ratio)
        half = build.shl(self.number(1), build.sub(shift, self.number(1)))
        return build.lshr(build.add(build.mul(magnitude, mantissa), half), shift)

    def apply(self, x: Any, ratio: Any) -> Any:
        """``round(x * ratio)``, half away from zero: ``|x| < 2**31``, exponent < 0."""
        build, sign = self.builder, self.builder.ashr(x, self.number(63))
        made = self.scaled(build.sub(build.xor(x, sign), sign), ratio)
        return build.sub(build.xor(made, sign), sign)

    def ratio_of(self, top: Any, bits: int, policy: Any) -> Any:
        """As in ``_rescaling``, for qmax = 2**bits - 1 and ``0 <= top < 2**31``."""
        build, whole = self.builder, self.number((1 << bits) - 1)
        made = self.quotient(self.of_integer(whole), self.of_integer(self.larger(top, self.number(1))))
        fits = build.icmp_signed("<=", top, whole)
        keeps = build.and_(fits, build.icmp_signed("!=", policy, self.number(1)))  # Policy.ALWAYS
        shift = self.larger(build.sub(self.length(top), self.number(bits)), self.number(0))
        over = build.icmp_signed(">", top, build.shl(whole, shift))
        shift = build.add(shift, build.zext(over, self.type))
        power = build.sub(self.number(ONE), build.shl(shift, self.number(32)))
        made = build.select(build.icmp_signed("==", policy, self.number(2)), power, made)  # Policy.POWERS_OF_TWO
        return build.select(keeps, self.number(ONE), made)


def each(emit: Callable[..., tuple[Any, ...]], taken: int, made: int, numbers: int) -> Any:
    """A function of a count of scales, the addresses of ``taken`` arrays and of those ``made``, and numbers.

    Arrays are as long as whole AT_ONCE, so that a register may go past the count.
    ``emit(scales, *registers of the arrays, *registers of the numbers)`` gives registers of the arrays that are made.
    """

    def written(builder: Any, machine: Machine, count: Any, *values: Any) -> None:
        v = Vectors(builder, rung(machine))
        wide = ir.VectorType(I64, v.rung.lanes // 2)
        spread = [v.splat(number, wide.count) for number in values[taken + made :]]
        turns = builder.udiv(builder.add(count, I64(wide.count - 1)), I64(wide.count))
        loop = Loop(builder, turns, [I64(0)])
        (at,) = loop.values
        given = [v.load(builder.add(address, at), wide) for address in values[:taken]]
        for result, address in zip(emit(Scales(builder, wide), *given, *spread), values[taken:], strict=False):
            v.store(result, builder.add(address, at))
        loop.end([builder.add(at, I64(8 * wide.count))])

    return instructions(written, 1 + taken + made + numbers)


def _matched(s: Scales, own: Any, other: Any) -> tuple[Any, ...]:
    """What brings two scales to the smaller, and that."""
    match = s.smaller(own, other)
    return s.quotient(match, own), s.quotient(match, other), match


def _narrowing(bits: int) -> Callable[..., tuple[Any, ...]]:
    def emit(s: Scales, top: Any, scale: Any, policy: Any) -> tuple[Any, ...]:
        by = s.ratio_of(top, bits, policy)
        return by, s.multiply(scale, by)

    return emit


matched = each(_matched, 2, 3, 0)
matched_product = each(lambda s, x, weight, bias: _matched(s, s.multiply(x, weight), bias), 1, 3, 2)
narrowing8, narrowing16 = (each(_narrowing(bits), 2, 2, 1) for bits in (7, 15))


def _writes(name: str, arguments: int) -> Any:
    def emit(builder: Any, _machine: Machine, *values: Any) -> Any:
        return getattr(Scales(builder), name)(*values)

    return instructions(emit, arguments)


multiply, quotient = (_writes(name, 2) for name in ("multiply", "quotient"))
of_integer, down = (_writes(name, 1) for name in ("of_integer", "down"))


@portable
def mantissa_of(scale: Int) -> Int:
    return scale & 0xFFFFFFFF


@portable
def exponent_of(scale: Int) -> Int:
    return scale >> 32

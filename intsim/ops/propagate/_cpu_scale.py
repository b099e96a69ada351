"""Scales in one int64 each, for vector kernels: ``exponent * 2**32 + mantissa``, so that order is that of integers.

The rules of ``intsim.scalar.scale``, without branches and calls: a row needs a dozen of them, as long as
its elements take. Division and the length in bits are the machine's own.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir

from intsim.backends.vectors import I64
from intsim.compiling import Int, Machine, instructions, portable

I1 = ir.IntType(1)
LOW = I64(0xFFFFFFFF)
ONE = (-30 << 32) + 2**30


class Scales:
    """Writes operations on packed scales."""

    def __init__(self, builder: Any) -> None:
        self.builder = builder

    def parts(self, scale: Any) -> tuple[Any, Any]:
        return self.builder.and_(scale, LOW), self.builder.ashr(scale, I64(32))

    def packed(self, mantissa: Any, exponent: Any) -> Any:
        return self.builder.or_(self.builder.shl(exponent, I64(32)), mantissa)

    def normal(self, mantissa: Any, exponent: Any) -> Any:
        """``mantissa`` in [2**30, 2**31]."""
        over = self.builder.lshr(mantissa, I64(31))
        return self.packed(self.builder.lshr(mantissa, over), self.builder.add(exponent, over))

    def multiply(self, a: Any, b: Any) -> Any:
        build = self.builder
        (a, a_exponent), (b, b_exponent) = self.parts(a), self.parts(b)
        product = build.mul(a, b)
        more = build.zext(build.icmp_unsigned(">=", product, I64(2**61)), I64)
        shift = build.add(more, I64(30))
        product = build.lshr(build.add(product, build.shl(I64(2**29), more)), shift)
        return self.normal(product, build.add(build.add(a_exponent, b_exponent), shift))

    def quotient(self, a: Any, b: Any) -> Any:
        build = self.builder
        (a, a_exponent), (b, b_exponent) = self.parts(a), self.parts(b)
        shift = build.add(build.zext(build.icmp_unsigned("<", a, b), I64), I64(30))
        made = build.udiv(build.add(build.shl(a, shift), build.lshr(b, I64(1))), b)
        return self.normal(made, build.sub(build.sub(a_exponent, b_exponent), shift))

    def of_integer(self, n: Any) -> Any:
        """``1 <= n < 2**53``: lengths above 31 bits are rounded."""
        build = self.builder
        function = build.module.globals.get("llvm.ctlz.i64") or ir.Function(
            build.module, ir.FunctionType(I64, [I64, I1]), "llvm.ctlz.i64"
        )
        length = build.sub(I64(64), build.call(function, [n, I1(1)]))
        right = build.sub(length, I64(31))
        long = build.icmp_signed(">", right, I64(0))
        shift = build.select(long, right, I64(1))
        rounded = build.lshr(build.add(n, build.shl(I64(1), build.sub(shift, I64(1)))), shift)
        left = build.select(long, I64(0), build.sub(I64(0), right))
        return self.normal(build.select(long, rounded, build.shl(n, left)), right)

    def apply(self, x: Any, ratio: Any) -> Any:
        """``round(x * ratio)``, half away from zero: ``|x| < 2**31``, exponent < 0."""
        build = self.builder
        mantissa, exponent = self.parts(ratio)
        shift = build.sub(I64(0), exponent)
        shift = build.select(build.icmp_signed(">", shift, I64(63)), I64(63), shift)
        sign = build.ashr(x, I64(63))
        product = build.mul(build.sub(build.xor(x, sign), sign), mantissa)
        half = build.shl(I64(1), build.sub(shift, I64(1)))
        return build.sub(build.xor(build.lshr(build.add(product, half), shift), sign), sign)


def _writes(name: str, arguments: int) -> Any:
    def emit(builder: Any, _machine: Machine, *values: Any) -> Any:
        return getattr(Scales(builder), name)(*values)

    return instructions(emit, arguments)


multiply, quotient, apply = (_writes(name, 2) for name in ("multiply", "quotient", "apply"))
of_integer = _writes("of_integer", 1)


@portable
def packed(mantissa: Int, exponent: Int) -> Int:
    return (exponent << 32) + mantissa


@portable
def mantissa_of(scale: Int) -> Int:
    return scale & 0xFFFFFFFF


@portable
def exponent_of(scale: Int) -> Int:
    return scale >> 32


@portable
def down(ratio: Int) -> Int:
    """The right shift of a ratio; beyond 63 nothing is left of a product below 2**62."""
    return min(-(ratio >> 32), 63)


@portable
def ratio_of(top: Int, qmax: Int, whole: Int, policy: Int) -> Int:
    """As in ``_rescaling``; whole: ``qmax`` as a scale."""
    if top <= qmax and policy != 1:  # Policy.ALWAYS
        return (-30 << 32) + 2**30
    if policy == 2:  # Policy.POWERS_OF_TWO
        shift = 0
        while top > qmax << shift:
            shift += 1
        return ((-30 - shift) << 32) + 2**30
    return quotient(whole, of_integer(top))

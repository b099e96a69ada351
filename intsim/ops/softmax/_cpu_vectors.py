"""I-BERT's softmax on a row in vector instructions; the bounds are in ``_cpu_ibert``.

All functions take addresses and a number of turns, each of which is a register of int32 wide, or as many of the
input as a register holds.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir

from intsim.backends.vectors import I8, I16, I32, I64, Loop, Vectors, rung
from intsim.compiling import Machine, instructions

Emit = Callable[..., Any]


def _on_rows(emit: Emit) -> Emit:
    def made(builder: Any, machine: Machine, *values: Any) -> Any:
        return emit(Vectors(builder, rung(machine)), *values)

    return made


def _largest(element: Any) -> Emit:
    def emit(v: Vectors, x: Any, turns: Any) -> Any:
        build, of = v.builder, v.of(element)
        loop = Loop(build, turns, [x, v.load(x, of)])
        at, top = loop.values
        value = v.load(at, of)
        top = build.select(build.icmp_signed(">", value, top), value, top)
        loop.end([build.add(at, I64(of.count * element.width // 8)), top])
        return build.sext(v.call(f"llvm.vector.reduce.smax.v{of.count}i{element.width}", element, top), I64)

    return _on_rows(emit)


def _exponentials(element: Any) -> Emit:
    """Exponentials of a row, as uint32; their sum, which fits 32 bits."""

    def emit(v: Vectors, x: Any, exp: Any, turns: Any, *numbers: Any) -> Any:
        build = v.builder
        top, floor, inverse, ln2, b, c = (v.splat(build.trunc(n, I32)) for n in numbers)
        loop = Loop(build, turns, [x, exp, v.constant(0)])
        at, into, total = loop.values
        value = v.load(at, ir.VectorType(element, v.rung.lanes))
        value = value if element == I32 else build.sext(value, v.type)
        d = build.sub(top, build.select(build.icmp_signed(">", value, floor), value, floor))
        z = build.lshr(build.mul(d, inverse), v.constant(27))
        t = build.add(build.sub(build.mul(z, ln2), d), b)
        e = build.lshr(build.add(build.mul(t, t), c), z)
        v.store(e, into)
        total = build.add(total, e)
        steps = (at, v.rung.lanes * element.width // 8), (into, 4 * v.rung.lanes)
        loop.end([*(build.add(a, I64(n)) for a, n in steps), total])
        return build.zext(v.sum(total), I64)

    return _on_rows(emit)


def _shares(nearest: bool, registers: int) -> Emit:
    """``exp * factor >> down`` for ``down >= 32``, in 8 bits; nearest: put right by what is left of exp * 2**8.

    factor_at: where it lies, as int64. Four bytes past the exponentials can be read.
    """

    def emit(v: Vectors, exp: Any, y: Any, turns: Any, factor_at: Any, down: Any, total: Any) -> None:
        build, lanes = v.builder, v.rung.lanes
        wide = ir.VectorType(I64, lanes // 2)
        low = ir.Constant(wide, [0xFFFFFFFF] * wide.count)
        shift, divisor = v.splat(build.trunc(build.sub(down, I64(32)), I32)), v.splat(build.trunc(total, I32))
        loop = Loop(build, turns, [exp, y])
        at, into = loop.values
        # read in every turn: out of its sight LLVM forgets that the factor has 32 bits, and would multiply by 64
        factor = v.again(build.inttoptr(factor_at, I64.as_pointer()), I64)
        by = build.and_(v.splat(factor, wide.count), low)
        made = []
        for i in range(registers):
            here = v.at(at, 4 * lanes * i)
            # the odd exponentials are the lower words four bytes on
            even, odd = (build.mul(build.and_(v.load(v.at(here, n), wide), low), by) for n in (0, 4))
            picks = [lane + 1 if lane % 2 == 0 else lanes + lane for lane in range(lanes)]
            k = build.lshr(v.shuffle(build.bitcast(even, v.type), build.bitcast(odd, v.type), picks), shift)
            made.append(_put_right(v, k, v.load(here), divisor) if nearest else k)
        while len(made) > 1:
            made = [v.shuffle(a, b, range(2 * a.type.count)) for a, b in zip(made[::2], made[1::2], strict=True)]
        whole = v.within(made[0], 0, 255)  # no share is below 0: LLVM narrows by saturating instructions
        v.store(build.trunc(whole, ir.VectorType(I8, whole.type.count)), into)
        loop.end([build.add(at, I64(4 * lanes * registers)), build.add(into, I64(lanes * registers))])

    return _on_rows(emit)


def _put_right(v: Vectors, k: Any, exp: Any, divisor: Any) -> Any:
    """The nearest to exp * 2**8 / divisor, ties to even, from its integer part; all below 2**31."""
    build = v.builder
    left = build.sub(build.shl(exp, v.constant(8)), build.mul(k, divisor))
    rest = build.sub(divisor, left)
    odd = build.icmp_signed("!=", build.and_(k, v.constant(1)), v.constant(0))
    tie = build.and_(build.icmp_signed("==", left, rest), odd)
    return build.sub(k, build.sext(build.or_(build.icmp_signed(">", left, rest), tie), v.type))


def _length(builder: Any, _machine: Machine, n: Any) -> Any:
    """Bits of ``n`` > 0."""
    name, bit = "llvm.ctlz.i64", ir.IntType(1)
    found = builder.module.globals.get(name)
    found = ir.Function(builder.module, ir.FunctionType(I64, [I64, bit]), name) if found is None else found
    return builder.sub(I64(64), builder.call(found, [n, bit(1)]))


length = instructions(_length, 1)
lanes = instructions(lambda builder, machine: I64(rung(machine).lanes), 0)
largest8, largest16, largest32 = (instructions(_largest(element), 2) for element in (I8, I16, I32))
exponentials8, exponentials16, exponentials32 = (instructions(_exponentials(element), 9) for element in (I8, I16, I32))
shares, shares4, nearest, nearest4 = (instructions(_shares(n, r), 6) for n in (False, True) for r in (1, 4))

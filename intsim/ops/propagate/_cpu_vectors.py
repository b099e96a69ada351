"""Rows of integers by ratios in vector instructions, for kernels that serve TIES_TO_AWAY.

A ratio is a mantissa below 2**31 and a right shift from 1 to 63; half away from zero is half up on the
magnitude. So ``round(x * mantissa / 2**shift)`` is a product of 32 bits by 32, half a step and a
logical shift, on the even and the odd elements apart; then the sign comes back. A shift above 62
leaves 0 of a product below 2**62, and so does 63: shifts are cut there.

All functions take addresses and a number of turns, each a register of int32 wide; a row's length
must be a multiple of ``lanes()``. Those that make int32 return the largest magnitude they made.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from llvmlite import ir

from intsim.backends.vectors import I8, I16, I32, I64, Loop, Vectors, rung
from intsim.compiling import Machine, instructions

LOW = 0xFFFFFFFF
CHANNEL = 9  # vectors that tell of a register of channels: see ``channels``
Emit = Callable[..., Any]


class Rows(Vectors):
    """Signed int32 of which the magnitude is scaled."""

    def with_sign(self, value: Any, x: Any) -> Any:
        """The magnitude ``value`` with the sign of ``x``; 0 where ``x`` is 0."""
        if self.rung.name == "avx2":
            return self.call("llvm.x86.avx2.psign.d", self.type, value, x)
        sign = self.builder.ashr(x, self.constant(31))
        return self.builder.sub(self.builder.xor(value, sign), sign)

    def more(self, a: Any, b: Any) -> Any:
        return self.builder.select(self.builder.icmp_signed(">", a, b), a, b)

    def largest(self, a: Any) -> Any:
        """Of the elements, as int64."""
        made = self.call(f"llvm.vector.reduce.smax.v{self.rung.lanes}i32", I32, a)
        return self.builder.sext(made, I64)

    def halves(self, x: Any) -> tuple[Any, Any]:
        """Unsigned int32 as int64: the even elements, the odd ones."""
        both = self.builder.bitcast(x, self.wide)
        return self.builder.and_(both, self.wide_constant(LOW)), self.builder.lshr(both, self.wide_constant(32))

    def joined(self, even: Any, odd: Any) -> Any:
        made = self.builder.or_(even, self.builder.shl(odd, self.wide_constant(32)))
        return self.builder.bitcast(made, self.type)

    def ratio(self, mantissa: Any, shift: Any) -> tuple[Any, Any, Any]:
        """What ``applied`` takes, from int64 scalars; to be written before the loop.

        The factor is kept in memory: out of sight LLVM forgets that it has 32 bits, and would multiply by 64.
        """
        build = self.builder
        with build.goto_entry_block():
            slot = build.alloca(self.type)
        build.store(self.splat(build.trunc(mantissa, I32)), slot).align = 4
        half = build.shl(I64(1), build.sub(shift, I64(1)))
        return slot, self.spread(half), self.spread(shift)

    def applied(self, x: Any, ratio: tuple[Any, Any, Any]) -> Any:
        """By one ratio for all elements."""
        build, (slot, half, count) = self.builder, ratio
        factor = self.again(slot)
        parts = zip(self.halves(self.magnitude(x)), self.halves(factor), strict=True)
        made = [build.lshr(build.add(build.mul(a, b), half), count) for a, b in parts]
        return self.with_sign(self.joined(*made), x)

    def applied_each(self, x: Any, at: Any) -> Any:
        """By a ratio an element: ``CHANNEL`` wide vectors at ``at``, see ``channels``."""
        build, size = self.builder, 4 * self.rung.lanes
        parts = [self.load(self.at(at, size * i), self.wide) for i in range(6)]
        made = []
        both = self.halves(self.magnitude(x))
        for a, mantissa, half, shift in zip(both, parts[:2], parts[2:4], parts[4:], strict=True):
            product = build.mul(a, build.and_(mantissa, self.wide_constant(LOW)))
            made.append(build.lshr(build.add(product, half), shift))
        return self.with_sign(self.joined(*made), x)

    def applied_bias(self, at: Any, ratio: tuple[Any, Any, Any]) -> Any:
        """The bias of ``channels`` by one ratio."""
        build, size, (slot, half, count) = self.builder, 4 * self.rung.lanes, ratio
        factor = self.halves(self.again(slot))[0]  # the odd elements have the same
        made = []
        for i in (6, 7):
            magnitude = build.and_(self.load(self.at(at, size * i), self.wide), self.wide_constant(LOW))
            made.append(build.lshr(build.add(build.mul(magnitude, factor), half), count))
        return self.with_sign(self.joined(*made), self.load(self.at(at, size * 8)))


def channels(lanes: int, mantissa: Any, shift: Any, bias: Any) -> Any:
    """A ratio and a bias a channel, as ``applied_each`` and ``applied_bias`` read them: int64 [turns, CHANNEL, ..].

    A turn holds mantissas, halves of the shifted-out part and shifts, then the bias's magnitudes: of the
    even channels, of the odd ones; at last the bias as int32. Lengths are multiples of ``lanes``.
    """
    made = np.empty((len(mantissa) // lanes, CHANNEL, lanes // 2), np.int64)
    shift = np.asarray(shift, np.int64)
    for i, values in enumerate((mantissa, np.int64(1) << (shift - 1), shift, np.abs(bias))):
        turns = np.asarray(values, np.int64).reshape(-1, lanes // 2, 2)
        made[:, 2 * i], made[:, 2 * i + 1] = turns[..., 0], turns[..., 1]
    made[:, 8] = np.asarray(bias, np.int32).view(np.int64).reshape(-1, lanes // 2)
    return made


def on_rows(emit: Callable[..., Any]) -> Emit:
    def made(builder: Any, machine: Machine, *values: Any) -> Any:
        return emit(Rows(builder, rung(machine)), *values)

    return made


def _finished(relu: bool, moves: bool) -> Emit:
    """The end of a linear layer on one row: see ``propagate.bias``.

    Addresses of the accumulators, which the results replace, and of the ``channels``; the two ratios of the
    match. relu: the largest is that of the values, not of the magnitudes. moves: whether the first of the
    two ratios is not 1.
    """

    def emit(v: Rows, acc: Any, about: Any, turns: Any, own: Any, own_shift: Any, other: Any, other_shift: Any) -> Any:
        build, step = v.builder, I64(4 * v.rung.lanes)
        match = v.ratio(own, own_shift), v.ratio(other, other_shift)
        loop = Loop(build, turns, [acc, about, v.constant(0)])
        at, about, top = loop.values
        z = v.applied_each(v.load(at), about)
        if moves:
            z = v.applied(z, match[0])
        z = build.add(z, v.applied_bias(about, match[1]))
        v.store(z, at)
        top = v.more(z if relu else v.magnitude(z), top)
        loop.end([build.add(at, step), build.add(about, I64(CHANNEL * 4 * v.rung.lanes)), top])
        return v.largest(top)

    return on_rows(emit)


def _matched(x: Any, y: Any) -> Emit:
    """``out = round((x << shift_x) * ratio_x) + round((y << shift_y) * ratio_y)``; x, y: the types in memory."""

    def emit(v: Rows, a: Any, left_a: Any, by_a: Any, down_a: Any, b: Any, left_b: Any, by_b: Any, down_b: Any,
             out: Any, turns: Any) -> Any:  # fmt: skip
        build = v.builder
        both = (a, x, left_a, v.ratio(by_a, down_a)), (b, y, left_b, v.ratio(by_b, down_b))
        loop = Loop(build, turns, [I64(0), v.constant(0)])
        turn, top = loop.values
        sides = []
        for address, of, left, ratio in both:
            at = build.add(address, build.mul(turn, I64(v.rung.lanes * of.width // 8)))
            value = v.load(at) if of == I32 else v.widened(at, of)
            value = build.shl(value, v.splat(build.trunc(left, I32)))
            sides.append(v.applied(value, ratio))
        z = build.add(*sides)
        v.store(z, build.add(out, build.mul(turn, I64(4 * v.rung.lanes))))
        top = v.more(v.magnitude(z), top)
        loop.end([build.add(turn, I64(1)), top])
        return v.largest(top)

    return on_rows(emit)


def _narrowed(out_type: Any) -> Emit:
    """int32 by one ratio, values below ``least`` as ``least`` before; the results fit the type."""

    def emit(v: Rows, x: Any, out: Any, turns: Any, least: Any, by: Any, down: Any) -> None:
        build, ratio = v.builder, v.ratio(by, down)
        loop = Loop(build, turns, [I64(0)])
        (turn,) = loop.values
        value = v.load(build.add(x, build.mul(turn, I64(4 * v.rung.lanes))))
        value = v.more(value, v.splat(build.trunc(least, I32)))
        made = build.trunc(v.applied(value, ratio), v.narrow(out_type))
        v.store(made, build.add(out, build.mul(turn, I64(v.rung.lanes * out_type.width // 8))))
        loop.end([build.add(turn, I64(1))])

    return on_rows(emit)


def _largest(relu: bool) -> Emit:
    def emit(v: Rows, x: Any, turns: Any) -> Any:
        build = v.builder
        loop = Loop(build, turns, [I64(0), v.constant(0)])
        at, top = loop.values
        value = v.load(build.add(x, at))
        top = v.more(value if relu else v.magnitude(value), top)
        loop.end([build.add(at, I64(4 * v.rung.lanes)), top])
        return v.largest(top)

    return on_rows(emit)


def _total(v: Rows, x: Any, turns: Any) -> Any:
    """The sum of int16, below 2**31."""
    build = v.builder
    loop = Loop(build, turns, [x, v.constant(0)])
    at, total = loop.values
    total = build.add(total, v.widened(at, I16))
    loop.end([build.add(at, I64(2 * v.rung.lanes)), total])
    return build.sext(v.sum(total), I64)


def _deviation(v: Rows, x: Any, turns: Any, times: Any, less: Any, top_at: Any) -> Any:
    """Of ``c = times * x - less``, below 2**31: the sum of magnitudes; the largest of them goes to ``top_at``."""
    build = v.builder
    factor, shift = (v.splat(build.trunc(value, I32)) for value in (times, less))
    loop = Loop(build, turns, [x, v.wide_constant(0), v.constant(0)])
    at, total, top = loop.values
    c = v.magnitude(build.sub(build.mul(v.widened(at, I16), factor), shift))
    total, top = build.add(total, build.add(*v.halves(c))), v.more(c, top)
    loop.end([build.add(at, I64(2 * v.rung.lanes)), total, top])
    build.store(v.largest(top), build.inttoptr(top_at, I64.as_pointer()))
    return v.call(f"llvm.vector.reduce.add.v{v.wide.count}i64", I64, total)


def _gained(v: Rows, x: Any, turns: Any, times: Any, less: Any, wide: Any, wide_down: Any, weight: Any,
            by: Any, down: Any, bias: Any, add: Any, add_down: Any, out: Any) -> Any:  # fmt: skip
    """The second half of ``propagate.l1_norm``: c by the first ratio, times the gain, and the bias matched to it."""
    build = v.builder
    factor, shift = (v.splat(build.trunc(value, I32)) for value in (times, less))
    ratios = v.ratio(wide, wide_down), v.ratio(by, down), v.ratio(add, add_down)
    loop = Loop(build, turns, [x, I64(0), v.constant(0)])
    at, turned, top = loop.values
    c = build.sub(build.mul(v.widened(at, I16), factor), shift)
    c = build.mul(v.applied(c, ratios[0]), v.load(build.add(weight, turned)))
    y = build.add(v.applied(c, ratios[1]), v.applied(v.load(build.add(bias, turned)), ratios[2]))
    v.store(y, build.add(out, turned))
    top, step = v.more(v.magnitude(y), top), I64(4 * v.rung.lanes)
    loop.end([build.add(at, I64(2 * v.rung.lanes)), build.add(turned, step), top])
    return v.largest(top)


def _brought(v: Rows, z: Any, turns: Any, by: Any, down: Any) -> None:
    """int32 by one ratio, in place."""
    build, ratio = v.builder, v.ratio(by, down)
    loop = Loop(build, turns, [z])
    (at,) = loop.values
    v.store(v.applied(v.load(at), ratio), at)
    loop.end([build.add(at, I64(4 * v.rung.lanes))])


def _folded(v: Rows, acc: Any, about: Any, best: Any, column: Any, vectors: Any) -> None:
    """Each lane's greatest ``propagate.bias`` without a bias so far, and its column: int32 [2, lanes] at ``best``.

    Of equals the lowest column stays, as columns come in ascending order.
    """
    build = v.builder
    of_columns = v.at(best, 4 * v.rung.lanes)
    count = ir.Constant(v.type, list(range(v.rung.lanes)))
    here = build.add(v.splat(build.trunc(column, I32)), count)
    loop = Loop(build, vectors, [acc, about, v.load(best), v.load(of_columns), here])
    at, about, top, where, here = loop.values
    z = v.applied_each(v.load(at), about)
    more = build.icmp_signed(">", z, top)
    top, where = build.select(more, z, top), build.select(more, here, where)
    step, on = I64(4 * v.rung.lanes), I64(CHANNEL * 4 * v.rung.lanes)
    loop.end([build.add(at, step), build.add(about, on), top, where, build.add(here, v.constant(v.rung.lanes))])
    v.store(top, best)
    v.store(where, of_columns)


lanes = instructions(lambda builder, machine: I64(rung(machine).lanes), 0)
finished, finished_relu = (instructions(_finished(relu, moves=False), 7) for relu in (False, True))
moved, moved_relu = (instructions(_finished(relu, moves=True), 7) for relu in (False, True))
matched16 = instructions(_matched(I16, I32), 10)
matched8 = instructions(_matched(I8, I8), 10)
narrowed8 = instructions(_narrowed(I8), 6)
narrowed16 = instructions(_narrowed(I16), 6)
largest = instructions(_largest(relu=False), 2)
largest_relu = instructions(_largest(relu=True), 2)
total = instructions(on_rows(_total), 2)
deviation = instructions(on_rows(_deviation), 5)
gained = instructions(on_rows(_gained), 13)
brought = instructions(on_rows(_brought), 4)
folded = instructions(on_rows(_folded), 5)

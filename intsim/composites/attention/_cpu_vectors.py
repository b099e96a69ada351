"""Attention in vector instructions: products with keys and values, and the weights between them, for one query and head.

Arrays of a number a key are as long as whole registers of int32; what lies behind the last key counts for nothing.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir

from intsim.backends.vectors import I8, I16, I32, I64, Loop
from intsim.compiling import instructions
from intsim.ops.propagate._cpu_vectors import LOW, Rows, on_rows


def _scores(v: Rows, q: Any, k: Any, apart: Any, count: Any, turns: Any, out: Any) -> None:
    """The int32 products of the int8 at ``q`` with each of ``count`` >= 1 rows, ``apart`` bytes apart from ``k``.

    turns: registers of int16 in a row.
    """
    build, short = v.builder, ir.VectorType(I8, 2 * v.rung.lanes)

    def words(address: Any) -> Any:
        return v.cast(build.sext(v.load(address, short), v.of(I16)), I32)

    keys = Loop(build, count, [k, out])
    key, into = keys.values
    inner = Loop(build, turns, [I64(0), v.constant(0)])
    at, total = inner.values
    total = v.add_pairs(total, words(build.add(q, at)), words(build.add(key, at)))
    inner.end([build.add(at, I64(2 * v.rung.lanes)), total])
    build.store(v.sum(total), build.inttoptr(into, I32.as_pointer()))
    keys.end([build.add(key, apart), build.add(into, I64(4))])


def _mixed(v: Rows, weights: Any, values: Any, apart: Any, count: Any, turns: Any, out: Any) -> None:
    """The int32 sum of ``count`` >= 1 rows of int8, each times its int32 weight below 2**15."""
    build = v.builder
    columns = Loop(build, turns, [values, out])
    value, into = columns.values
    keys = Loop(build, count, [value, weights, v.constant(0)])
    at, weight, total = keys.values
    # the upper halves of a weight are 0, so those of the values do not count
    total = v.add_pairs(total, v.widened(at, I8), v.splat(v.load(weight, I32)))
    keys.end([build.add(at, apart), build.add(weight, I64(4)), total])
    v.store(total, into)
    columns.end([build.add(value, I64(v.rung.lanes)), build.add(into, I64(4 * v.rung.lanes))])


def _by_keys(v: Rows, x: Any, ratios: Any, apart: Any) -> Any:
    """int32 by a ratio each: mantissas at ``ratios``, shifts ``apart`` bytes behind them, int64."""
    build, half = v.builder, v.rung.lanes // 2
    magnitude, made = v.magnitude(x), []
    for first in (0, half):
        part = v.shuffle(magnitude, magnitude, range(first, first + half))
        at = v.at(ratios, 8 * first)
        mantissa = build.and_(v.load(at, v.wide), v.wide_constant(LOW))
        shift = v.load(build.add(at, apart), v.wide)
        step = build.shl(v.wide_constant(1), build.sub(shift, v.wide_constant(1)))
        product = build.mul(build.zext(part, v.wide), mantissa)
        made.append(build.trunc(build.lshr(build.add(product, step), shift), ir.VectorType(I32, half)))
    return v.with_sign(v.shuffle(*made, range(2 * half)), x)


def _visible(v: Rows, value: Any, key: Any, count: Any) -> Any:
    """0 from the key of number ``count`` on; ``key``: int32, that of the first lane."""
    build = v.builder
    keys = build.add(v.splat(key), ir.Constant(v.type, list(range(v.rung.lanes))))
    return build.select(build.icmp_signed("<", keys, v.splat(build.trunc(count, I32))), value, v.constant(0))


def _shifted(v: Rows, t: Any, ratios: Any, apart: Any, count: Any, turns: Any, shift: Any) -> Any:
    """Scores by their ratios, plus ``shift``, not below 0, in place; the largest."""
    build = v.builder
    b = v.splat(build.trunc(shift, I32))
    loop = Loop(build, turns, [t, ratios, I32(0), v.constant(0)])
    at, by, key, top = loop.values
    r = v.more(build.add(_by_keys(v, v.load(at), by, apart), b), v.constant(0))
    r = _visible(v, r, key, count)
    v.store(r, at)
    step, top = 4 * v.rung.lanes, v.more(r, top)
    loop.end([v.at(at, step), v.at(by, 2 * step), build.add(key, I32(v.rung.lanes)), top])
    return v.largest(top)


def _weighed(v: Rows, t: Any, count: Any, turns: Any, by: Any, down: Any, degree: Any, floor: Any,
             ratios: Any, apart: Any, total_at: Any) -> Any:  # fmt: skip
    """int32 by one ratio, to the power ``degree`` >= 1, plus ``floor``: below 2**31; their sum goes to ``total_at``.

    Then by their ratios, in place; the largest.
    """
    build, ratio = v.builder, v.ratio(by, down)
    least = v.splat(build.trunc(floor, I32))
    loop = Loop(build, turns, [t, ratios, I32(0), v.wide_constant(0), v.constant(0)])
    at, each, key, total, top = loop.values
    r = v.applied(v.load(at), ratio)
    powers = Loop(build, degree, [v.constant(1)])
    power = build.mul(powers.values[0], r)
    powers.end([power])
    weight = _visible(v, build.add(power, least), key, count)
    total = build.add(total, build.add(*v.halves(weight)))
    weight = _by_keys(v, weight, each, apart)
    v.store(weight, at)
    step, top = 4 * v.rung.lanes, v.more(weight, top)
    loop.end([v.at(at, step), v.at(each, 2 * step), build.add(key, I32(v.rung.lanes)), total, top])
    whole = v.call(f"llvm.vector.reduce.add.v{v.wide.count}i64", I64, total)
    build.store(whole, build.inttoptr(total_at, I64.as_pointer()))
    return v.largest(top)


scores = instructions(on_rows(_scores), 6)
mixed = instructions(on_rows(_mixed), 6)
shifted = instructions(on_rows(_shifted), 6)
weighed = instructions(on_rows(_weighed), 10)

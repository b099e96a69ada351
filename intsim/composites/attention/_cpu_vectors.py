"""Attention in vector instructions: products with keys and values, and the weights between them, for one query and head.

Arrays of a number a key are as long as whole registers of int32; what lies behind the last key counts for nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir

from intsim.backends.vectors import I8, I16, I32, I64, Loop
from intsim.compiling import instructions
from intsim.ops.propagate._cpu_scale import ONE, Scales, each
from intsim.ops.propagate._cpu_vectors import Rows, on_rows


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
    """The int32 sum of ``count`` >= 1 rows of int8, each times its int32 weight from 0 to 2**15, two rows a turn.

    The weight behind the last is 0 where ``count`` is odd.
    """
    build, lanes = v.builder, v.rung.lanes
    twice = [pick for column in range(lanes) for pick in (column, column + lanes)]
    columns = Loop(build, turns, [values, out])
    value, into = columns.values
    pairs = Loop(build, build.lshr(build.add(count, I64(1)), I64(1)), [value, weights, I64(1), v.constant(0)])
    at, weight, key, total = pairs.values
    other = build.select(build.icmp_signed("<", key, count), build.add(at, apart), at)
    rows = v.shuffle(*(v.load(row, v.narrow(I8)) for row in (at, other)), twice)
    both = build.load(build.inttoptr(weight, I64.as_pointer()))
    both.align = 4
    both = build.trunc(build.or_(both, build.lshr(both, I64(16))), I32)  # below 2**15: the upper half of the first is 0
    total = v.add_pairs(total, v.cast(build.sext(rows, v.of(I16)), I32), v.splat(both))
    step = build.mul(apart, I64(2))
    pairs.end([build.add(at, step), build.add(weight, I64(8)), build.add(key, I64(2)), total])
    v.store(total, into)
    columns.end([build.add(value, I64(lanes)), build.add(into, I64(4 * lanes))])


def _by_keys(v: Rows, x: Any, scales: Any, ratio: Callable[[Scales, Any], Any]) -> Any:
    """int32 by a ratio each, which follows from its key's scale."""
    build, half = v.builder, v.rung.lanes // 2
    s, magnitude, made = Scales(build, v.wide), v.magnitude(x), []
    for first in (0, half):
        part = build.zext(v.shuffle(magnitude, magnitude, range(first, first + half)), v.wide)
        by = ratio(s, v.load(v.at(scales, 8 * first), v.wide))
        made.append(build.trunc(s.scaled(part, by), ir.VectorType(I32, half)))
    return v.with_sign(v.shuffle(*made, range(2 * half)), x)


def _visible(v: Rows, value: Any, key: Any, count: Any, other: Any) -> Any:
    """``other`` from the key of number ``count`` on; ``key``: that of the first lane."""
    build, of = v.builder, value.type
    keys = build.add(v.splat(build.trunc(key, of.element), of.count), ir.Constant(of, list(range(of.count))))
    return build.select(build.icmp_signed("<", keys, v.splat(build.trunc(count, of.element), of.count)), value, other)


def _lowest(v: Rows, scales: Any, count: Any) -> Any:
    """The smallest of ``count`` >= 1 scales."""
    build, each = v.builder, v.wide.count
    most = v.wide_constant(2**62)
    turns = build.lshr(build.add(count, I64(each - 1)), I64(each.bit_length() - 1))
    loop = Loop(build, turns, [scales, I64(0), most])
    at, key, low = loop.values
    low = Scales(build, v.wide).smaller(low, _visible(v, v.load(at, v.wide), key, count, most))
    loop.end([v.at(at, 8 * each), build.add(key, I64(each)), low])
    return v.call(f"llvm.vector.reduce.smin.v{each}i64", I64, low)


def _shifted(v: Rows, t: Any, count: Any, turns: Any, shift: Any, scales: Any, query: Any, match: Any) -> Any:
    """Scores brought to the scale ``match``, plus ``shift``, not below 0, in place; the largest.

    scales: of the keys; that of a score is its key's by ``query``.
    """
    build = v.builder
    b, query, match = v.splat(build.trunc(shift, I32)), v.spread(query), v.spread(match)
    loop = Loop(build, turns, [t, scales, I64(0), v.constant(0)])
    at, each, key, top = loop.values
    r = _by_keys(v, v.load(at), each, lambda s, of_key: s.quotient(match, s.multiply(query, of_key)))
    r = _visible(v, v.more(build.add(r, b), v.constant(0)), key, count, v.constant(0))
    v.store(r, at)
    step, top = 4 * v.rung.lanes, v.more(r, top)
    loop.end([v.at(at, step), v.at(each, 2 * step), build.add(key, I64(v.rung.lanes)), top])
    return v.largest(top)


def _weighed(v: Rows, t: Any, count: Any, turns: Any, by: Any, down: Any, degree: Any, floor: Any,
             scales: Any, low: Any, total_at: Any) -> Any:  # fmt: skip
    """int32 by one ratio, to the power ``degree`` >= 1, plus ``floor``: below 2**31; their sum goes to ``total_at``.

    Then brought to the scale of the value that is the ``low``est, in place; the largest.
    """
    build, ratio = v.builder, v.ratio(by, down)
    least, low = v.splat(build.trunc(floor, I32)), v.spread(low)
    loop = Loop(build, turns, [t, scales, I64(0), v.wide_constant(0), v.constant(0)])
    at, each, key, total, top = loop.values
    r = v.applied(v.load(at), ratio)
    powers = Loop(build, degree, [v.constant(1)])
    power = build.mul(powers.values[0], r)
    powers.end([power])
    weight = _visible(v, build.add(power, least), key, count, v.constant(0))
    total = build.add(total, build.add(*v.halves(weight)))
    weight = _by_keys(v, weight, each, lambda s, of_value: s.quotient(low, of_value))
    v.store(weight, at)
    step, top = 4 * v.rung.lanes, v.more(weight, top)
    loop.end([v.at(at, step), v.at(each, 2 * step), build.add(key, I64(v.rung.lanes)), total, top])
    whole = v.call(f"llvm.vector.reduce.add.v{v.wide.count}i64", I64, total)
    build.store(whole, build.inttoptr(total_at, I64.as_pointer()))
    return v.largest(top)


def _matched(s: Scales, query: Any, low: Any, b: Any, of_b: Any, root: Any, of_root: Any, of_width: Any) -> Any:
    """The scale of a query by the root of the width; the one that scores, b and the root of delta are brought to;
    b and that root, at least 1, on it. low: the smallest of the keys' scales."""
    own = s.multiply(query, of_width)
    match = s.smaller(s.smaller(s.multiply(own, low), of_b), of_root)
    floor = s.larger(s.apply(root, s.quotient(match, of_root)), s.number(1))
    return own, match, s.apply(b, s.quotient(match, of_b)), floor


def _topped(s: Scales, top: Any, match: Any, of_whole: Any, root: Any, policy: Any, degree: Any) -> Any:
    """What brings scores to 7 bits, and delta on the scale of their power; 0 where its ``root`` is."""
    build, to = s.builder, s.ratio_of(top, 7, policy)
    step = s.multiply(of_whole, s.multiply(match, to))
    powers = Loop(build, build.extract_element(degree, I32(0)), [s.number(ONE)])
    power = s.multiply(powers.values[0], step)  # by 1 it is itself
    powers.end([power])
    return to, build.select(build.icmp_signed("==", root, s.number(0)), s.number(0), s.scaled(s.number(1), power))


def _last(s: Scales, top: Any, total: Any, low: Any, policy: Any) -> Any:
    """What brings weights to 8 bits, and the scale of their products with values."""
    by = s.ratio_of(top, 8, policy)
    return by, s.multiply(s.multiply(s.of_integer(s.larger(total, s.number(1))), low), by)


scores = instructions(on_rows(_scores), 6)
mixed = instructions(on_rows(_mixed), 6)
lowest = instructions(on_rows(_lowest), 2)
shifted = instructions(on_rows(_shifted), 7)
weighed = instructions(on_rows(_weighed), 10)
matched = each(_matched, 7, 4, 0)
topped = each(_topped, 4, 2, 2)
last = each(_last, 3, 2, 1)
joined = each(lambda s, scale, low: (s.quotient(low, scale),), 1, 1, 1)

"""Attention in vector instructions: products with keys and values, and the weights between them, for one query.

HEADS heads go together: a register of int32 holds one or more keys of all of them. Arrays of scores and of
scales, [keys, HEADS], are as long as whole registers; what lies behind the last key counts for nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from llvmlite import ir

from intsim.backends.vectors import I8, I16, I32, I64, Loop
from intsim.compiling import instructions
from intsim.composites.linear import _cpu_propagated as linear
from intsim.ops.propagate import WHOLE
from intsim.ops.propagate._cpu_scale import ONE, Scales, each
from intsim.ops.propagate._cpu_vectors import Rows, on_rows


HEADS = linear.HEADS  # that are worked on together; where there are fewer, the last one more than once


def _keys_in(v: Rows) -> int:
    """Keys of HEADS heads each in a register of int32."""
    return v.rung.lanes // HEADS


def _all_turns(v: Rows, count: Any) -> Any:
    return v.builder.udiv(v.builder.add(count, I64(_keys_in(v) - 1)), I64(_keys_in(v)))


def _scores(v: Rows, q: Any, k: Any, apart: Any, count: Any, turns: Any, heads: Any, out: Any) -> None:
    """int32 [count, HEADS] products of the int8 at ``q`` with each of ``count`` >= 1 keys, ``apart`` bytes apart.

    turns: registers of int16 in a head; that many heads there are.
    """
    build, lanes, short = v.builder, v.rung.lanes, ir.VectorType(I8, 2 * v.rung.lanes)

    def words(address: Any) -> Any:
        return v.cast(build.sext(v.load(address, short), v.of(I16)), I32)

    def in_fours(first: Sequence[int], second: Sequence[int]) -> list[list[int]]:
        return [[base + pick % 4 + pick // 4 * lanes for base in range(0, lanes, 4) for pick in picks]
                for picks in (first, second)]  # fmt: skip

    def folded(a: Any, b: Any, picks: list[list[int]]) -> Any:
        return build.add(*(v.shuffle(a, b, each) for each in picks))

    width = build.mul(turns, I64(2 * lanes))
    last = build.sub(heads, I64(1))
    heads_at = [
        build.mul(build.select(build.icmp_signed("<", I64(h), last), I64(h), last), width) for h in range(HEADS)
    ]
    keys = Loop(build, count, [k, out])
    key, into = keys.values
    inner = Loop(build, turns, [I64(0), *[v.constant(0)] * HEADS])
    at, *totals = inner.values
    for h, place in enumerate(heads_at):
        here = build.add(at, place)
        totals[h] = v.add_pairs(totals[h], words(build.add(q, here)), words(build.add(key, here)))
    inner.end([build.add(at, I64(2 * lanes)), *totals])
    singles, doubles = in_fours((0, 4, 1, 5), (2, 6, 3, 7)), in_fours((0, 1, 4, 5), (2, 3, 6, 7))
    total = folded(folded(totals[0], totals[1], singles), folded(totals[2], totals[3], singles), doubles)
    v.store(_by_heads(v, total, build.add), into)
    keys.end([build.add(key, apart), build.add(into, I64(4 * HEADS))])


def _by_heads(v: Rows, x: Any, join: Callable[[Any, Any], Any]) -> Any:
    """A register whose lanes are of one head after the other, joined to HEADS elements."""
    count = v.rung.lanes
    while count > HEADS:
        count //= 2
        x = join(v.shuffle(x, x, range(count)), v.shuffle(x, x, range(count, 2 * count)))
    return x


def _mixed(v: Rows, weights: Any, values: Any, apart: Any, count: Any, columns: Any, out: Any) -> None:
    """The int32 sum of ``count`` >= 1 rows of int8, each times its int32 weight from 0 to 2**15, two rows a turn.

    Weights are HEADS apart. columns: a multiple of 2 WHOLE.
    """
    build, lanes = v.builder, v.rung.lanes
    together = 2 * WHOLE // lanes
    twice = [pick for column in range(lanes) for pick in (column, column + lanes)]
    blocks = Loop(build, build.lshr(columns, I64((2 * WHOLE).bit_length() - 1)), [values, out])
    value, into = blocks.values
    pairs = Loop(
        build, build.lshr(build.add(count, I64(1)), I64(1)), [value, weights, I64(1), *[v.constant(0)] * together]
    )
    at, weight, key, *totals = pairs.values
    two = build.icmp_signed("<", key, count)
    other = build.select(two, build.add(at, apart), at)
    pair = [build.load(build.inttoptr(v.at(weight, 4 * HEADS * i), I32.as_pointer())) for i in (0, 1)]
    both = v.splat(build.or_(pair[0], build.select(two, build.shl(pair[1], I32(16)), I32(0))))
    for i in range(together):
        first, second = (v.load(v.at(row, lanes * i), v.narrow(I8)) for row in (at, other))
        rows = v.shuffle(first, second, twice)
        totals[i] = v.add_pairs(totals[i], v.cast(build.sext(rows, v.of(I16)), I32), both)
    step = build.mul(apart, I64(2))
    pairs.end([build.add(at, step), v.at(weight, 8 * HEADS), build.add(key, I64(2)), *totals])
    for i, total in enumerate(totals):
        v.store(total, v.at(into, 4 * lanes * i))
    blocks.end([v.at(value, 2 * WHOLE), v.at(into, 8 * WHOLE)])


def _of_heads(v: Rows, address: Any) -> tuple[Any, Any]:
    """HEADS int64 for the first and the second half of a register of int32; read where this is written, so that LLVM
    sees what follows from it beside its use."""
    build, half = v.builder, v.rung.lanes // 2
    of = ir.VectorType(I64, HEADS)
    four = v.again(build.inttoptr(address, of.as_pointer()), of)
    first, second = (v.shuffle(four, four, [(at + i) % HEADS for i in range(half)]) for at in (0, half))
    return first, second


def _narrow_of_heads(v: Rows, address: Any) -> Any:
    four = v.builder.trunc(v.load(address, ir.VectorType(I64, HEADS)), ir.VectorType(I32, HEADS))
    return v.shuffle(four, four, [i % HEADS for i in range(v.rung.lanes)])


def _store_of_heads(v: Rows, value: Any, address: Any) -> None:
    v.store(v.builder.sext(value, ir.VectorType(I64, HEADS)), address)


def _by_ratios(v: Rows, x: Any, ratios: Sequence[Any]) -> Any:
    """int32 by a ratio each: those of the first half of the register, and of the second."""
    build, half = v.builder, v.rung.lanes // 2
    s, magnitude, made = Scales(build, v.wide), v.magnitude(x), []
    for first, by in zip((0, half), ratios, strict=True):
        part = build.zext(v.shuffle(magnitude, magnitude, range(first, first + half)), v.wide)
        made.append(build.trunc(s.scaled(part, by), ir.VectorType(I32, half)))
    return v.with_sign(v.shuffle(made[0], made[1], range(2 * half)), x)


def _both(v: Rows, scales: Any) -> tuple[Any, Any]:
    return v.load(scales, v.wide), v.load(v.at(scales, 8 * v.wide.count), v.wide)


def _visible(v: Rows, value: Any, key: Any, count: Any) -> Any:
    """0 from the key of number ``count`` on; ``key``: that of the first lane."""
    build = v.builder
    own = ir.Constant(v.type, [lane // HEADS for lane in range(v.rung.lanes)])
    keys = build.add(v.splat(build.trunc(key, I32)), own)
    return build.select(build.icmp_signed("<", keys, v.splat(build.trunc(count, I32))), value, v.constant(0))


def _lowest(v: Rows, scales: Any, count: Any, out: Any) -> None:
    """The smallest of ``count`` >= 1 scales of each of HEADS heads."""
    build, of = v.builder, ir.VectorType(I64, HEADS)
    loop = Loop(build, count, [scales, v.load(scales, of)])
    at, low = loop.values
    low = Scales(build, of).smaller(low, v.load(at, of))
    loop.end([v.at(at, 8 * HEADS), low])
    v.store(low, out)


def _shifted(v: Rows, t: Any, count: Any, scales: Any, query: Any, match: Any, shift: Any, top: Any) -> None:
    """Scores brought to the scale ``match``, plus ``shift``, not below 0, in place; the largest at ``top``, and not
    below what is there.

    scales: of the keys; that of a score is its key's by ``query``.
    """
    build, s = v.builder, Scales(v.builder, v.wide)
    b = _narrow_of_heads(v, shift)
    loop = Loop(build, _all_turns(v, count), [t, scales, I64(0), _narrow_of_heads(v, top)])
    at, each, key, most = loop.values
    own = [s.multiply(*pair) for pair in zip(_of_heads(v, query), _both(v, each), strict=True)]
    ratios = [s.quotient(*pair) for pair in zip(_of_heads(v, match), own, strict=True)]
    r = v.more(build.add(_by_ratios(v, v.load(at), ratios), b), v.constant(0))
    r = _visible(v, r, key, count)
    v.store(r, at)
    step, most = 4 * v.rung.lanes, v.more(r, most)
    loop.end([v.at(at, step), v.at(each, 2 * step), build.add(key, I64(_keys_in(v))), most])
    _store_of_heads(v, _by_heads(v, most, v.more), top)


def _weighed(v: Rows, t: Any, count: Any, by: Any, degree: Any, floor: Any, scales: Any, low: Any, total_at: Any,
             top: Any) -> None:  # fmt: skip
    """int32 by the ratios ``by``, to the power ``degree`` >= 1, plus ``floor``: below 2**31; the sums at ``total_at``.

    Then brought to the ``low``est scale of the values, in place; the largest at ``top``.
    """
    build, s = v.builder, Scales(v.builder, v.wide)
    least, none = _narrow_of_heads(v, floor), v.wide_constant(0)
    loop = Loop(build, _all_turns(v, count), [t, scales, I64(0), none, none, v.constant(0)])
    at, each, key, *totals, most = loop.values
    r = _by_ratios(v, v.load(at), _of_heads(v, by))
    powers = Loop(build, degree, [v.constant(1)])
    power = build.mul(powers.values[0], r)
    powers.end([power])
    weight = _visible(v, build.add(power, least), key, count)
    half = v.wide.count
    for i in (0, 1):
        part = v.shuffle(weight, weight, range(half * i, half * (i + 1)))
        totals[i] = build.add(totals[i], build.zext(part, v.wide))
    ratios = [s.quotient(*pair) for pair in zip(_of_heads(v, low), _both(v, each), strict=True)]
    weight = _by_ratios(v, weight, ratios)
    v.store(weight, at)
    step, most = 4 * v.rung.lanes, v.more(weight, most)
    loop.end([v.at(at, step), v.at(each, 2 * step), build.add(key, I64(_keys_in(v))), *totals, most])
    v.store(_by_heads(v, v.shuffle(totals[0], totals[1], range(2 * half)), build.add), total_at)
    _store_of_heads(v, _by_heads(v, most, v.more), top)


def _lowered(v: Rows, t: Any, count: Any, by: Any) -> None:
    """int32 by the ratios ``by``, in place."""
    build = v.builder
    loop = Loop(build, _all_turns(v, count), [t])
    (at,) = loop.values
    v.store(_by_ratios(v, v.load(at), _of_heads(v, by)), at)
    loop.end([v.at(at, 4 * v.rung.lanes)])


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


scores = instructions(on_rows(_scores), 7)
mixed = instructions(on_rows(_mixed), 6)
lowest = instructions(on_rows(_lowest), 3)
shifted = instructions(on_rows(_shifted), 7)
weighed = instructions(on_rows(_weighed), 9)
lowered = instructions(on_rows(_lowered), 3)
matched = each(_matched, 7, 4, 0)
topped = each(_topped, 4, 2, 2)
last = each(_last, 3, 2, 1)
joined = each(lambda s, scale, low: (s.quotient(low, scale),), 1, 1, 1)

"""Attention with propagated scales on the CPU: one query and head at a time, over its visible keys alone.

Serves TIES_TO_AWAY, weights of 8 bits whose sum stays in the scale. Products are vector instructions; the
weights follow ``propagate.polynomial`` step by step, but every ratio is divided once and kept.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from intsim.backends.cpu import shared_out
from intsim.compiling import Int, kernel, portable
from intsim.composites.attention import _cpu_vectors as vectors_of_keys
from intsim.ops.propagate import _cpu_scale as scale, _cpu_vectors as vectors
from intsim.ops.propagate._cpu_rows import packed, unpack
from intsim.scalar import scale as program
from intsim.ops.propagate.polynomial import TOP

QMAX = 255


def head_arguments(p: Any, heads: int) -> tuple[Any, ...]:
    """The record of ``propagate.polynomial`` as ``attend_rows`` takes it.

    int64 [6, heads]: b, its packed scale, the root of delta, its packed scale, that of the root itself, the root of
    the width; then numbers.
    """

    def each(name: str) -> Any:
        return np.resize(getattr(p, name), heads)

    parts = [
        part
        for name in ("b", "delta_root")
        for part in (each(name), packed(each(f"{name}_mantissa"), each(f"{name}_exponent")))
    ]
    whole = [program.of_integer(max(int(n), 1)) for n in parts[2]]
    of_root = each("delta_root_mantissa"), each("delta_root_exponent")
    parts.append(
        np.array([packed(*program.quotient(*n, int(m), int(e))) for n, m, e in zip(whole, *of_root, strict=True)])
    )
    parts.append(np.resize(packed(p.root_mantissa, p.root_exponent), heads))
    return np.array(parts, np.int64), int(p.degree), int(p.policy)


@portable
def _ratios(values: Any, slot: Int, seen: Int, low: Any, into: Any) -> None:
    """What brings the values of ``seen`` keys to the lowest of their scales, by heads; that scale in ``low``."""
    heads, half = low.shape[0], into.shape[2]
    for h in range(heads):
        low[h] = values[slot, 0, h]
        for j in range(1, seen):
            low[h] = min(low[h], values[slot, j, h])
    for h in range(heads):
        for j in range(seen):
            by = scale.quotient(low[h], values[slot, j, h])
            into[h, 0, j], into[h, 1, j] = scale.mantissa_of(by), scale.down(by)


@portable
def _matched(query: Any, keys: Any, slot: Int, seen: Int, head: Any, into: Any, by: Any) -> None:
    """What brings scores, b and the root of delta to one scale: ``into`` for scores, and in ``by`` of each head
    that scale, b and the root brought to it."""
    heads = by.shape[0]
    for h in range(heads):
        own = scale.multiply(query[h], head[5, h])
        by[h, 0] = own
        low = keys[slot, 0, h]
        for j in range(1, seen):
            low = min(low, keys[slot, j, h])
        by[h, 1] = min(scale.multiply(own, low), head[1, h], head[3, h])
    for h in range(heads):
        s = by[h, 1]
        by[h, 2] = scale.apply(head[0, h], scale.quotient(s, head[1, h]))
        by[h, 3] = max(np.int64(1), scale.apply(head[2, h], scale.quotient(s, head[3, h])))
    for h in range(heads):
        own, s = by[h, 0], by[h, 1]
        for j in range(seen):
            to = scale.quotient(s, scale.multiply(own, keys[slot, j, h]))
            into[h, 0, j], into[h, 1, j] = scale.mantissa_of(to), scale.down(to)


@portable
def _floor(head: Any, h: Int, s: Int, to: Int, degree: Int) -> Int:
    """Delta on the scale of the weights; s: the scale of scores, to: what brought them to TOP."""
    step = scale.multiply(head[4, h], scale.multiply(s, to))
    power = step
    for _ in range(1, degree):
        power = scale.multiply(power, step)
    return scale.apply(np.int64(1), power)


@portable
def attended(q: Any, q_scale: Any, k: Any, k_scale: Any, v: Any, v_scale: Any, slots: Any, stop: Any,
             head: Any, degree: Int, policy: Int, z: Any, made: Any, first: Int, last: Int) -> None:  # fmt: skip
    """Texts [first, last): all arrays begin with texts. Packed scales: [texts, tokens, heads], [slots, columns, heads].

    slots: int32, the number of a text's keys and values. z: int32 [texts * tokens, heads * width of a head].
    """
    lanes, tokens, heads, c, d = vectors.lanes(), q.shape[1], q.shape[2], q.shape[3], v.shape[3]
    columns = k.shape[1]
    width = -(-columns // lanes) * lanes
    t, low, by = np.zeros((heads, width), np.int32), np.empty(heads, np.int64), np.empty((heads, 6), np.int64)
    of_keys, of_values = np.full((heads, 2, width), 30, np.int64), np.full((heads, 2, width), 30, np.int64)
    total, apart = np.empty(heads, np.int64), 8 * width
    top, whole = scale.of_integer(np.int64(TOP)), scale.of_integer(np.int64(QMAX))
    for b in range(first, last):
        slot, known = np.int64(slots[b]), np.int64(0)
        for i in range(tokens):
            seen, row = np.int64(stop[b, i]), z.ctypes.data + 4 * (b * tokens + i) * heads * d
            turns = (seen + lanes - 1) // lanes
            for h in range(heads):
                vectors_of_keys.scores(
                    q.ctypes.data + ((b * tokens + i) * heads + h) * c, k.ctypes.data + (slot * columns * heads + h) * c,
                    heads * c, seen, c // (2 * lanes), t.ctypes.data + 4 * width * h,
                )  # fmt: skip
            if seen != known:
                _ratios(v_scale, slot, seen, low, of_values)
                known = seen
            _matched(q_scale[b, i], k_scale, slot, seen, head, of_keys, by)
            for h in range(heads):
                at, ratios = t.ctypes.data + 4 * width * h, of_keys.ctypes.data + 2 * apart * h
                by[h, 4] = max(by[h, 3], vectors_of_keys.shifted(at, ratios, apart, seen, turns, by[h, 2]))
            for h in range(heads):
                by[h, 4] = scale.ratio_of(by[h, 4], np.int64(TOP), top, policy)
                by[h, 5] = _floor(head, h, by[h, 1], by[h, 4], degree) if head[2, h] else np.int64(0)
            for h in range(heads):
                at, ratios = t.ctypes.data + 4 * width * h, of_values.ctypes.data + 2 * apart * h
                by[h, 5] = vectors_of_keys.weighed(
                    at, seen, turns, scale.mantissa_of(by[h, 4]), scale.down(by[h, 4]), degree, by[h, 5],
                    ratios, apart, total.ctypes.data + 8 * h,
                )  # fmt: skip
            for h in range(heads):
                by[h, 5] = scale.ratio_of(max(by[h, 5], np.int64(1)), np.int64(QMAX), whole, policy)
                made_of = scale.multiply(scale.of_integer(max(total[h], np.int64(1))), low[h])
                by[h, 1] = scale.multiply(made_of, by[h, 5])
            for h in range(heads):
                at = t.ctypes.data + 4 * width * h
                vectors.brought(at, turns, scale.mantissa_of(by[h, 5]), scale.down(by[h, 5]))
                vectors_of_keys.mixed(
                    at, v.ctypes.data + (slot * columns * heads + h) * d, heads * d, seen, d // lanes, row + 4 * h * d
                )
            lowest = by[0, 1]
            for h in range(1, heads):
                lowest = min(lowest, by[h, 1])
            for h in range(heads):
                by[h, 0] = scale.quotient(lowest, by[h, 1])
            for h in range(heads):
                vectors.brought(row + 4 * h * d, d // lanes, scale.mantissa_of(by[h, 0]), scale.down(by[h, 0]))
            made[b, i] = lowest


def _attend_rows(q: Any, q_scale: Any, k: Any, k_scale: Any, v: Any, v_scale: Any, slots: Any, stop: Any,
                 head: Any, degree: int, policy: int, z: Any, made: Any, first: int, last: int) -> None:  # fmt: skip
    attended(q, q_scale, k, k_scale, v, v_scale, slots, stop, head, degree, policy, z, made, first, last)


attend_rows: Any = kernel(_attend_rows, "attention.propagated.rows")


def attend(x: Any, out: Any, p: Any) -> None:
    """``attention.propagated`` without leading dimensions."""
    stacked(type(x)(*(a[None] for a in x)), type(out)(*(a[None] for a in out)), p)


def stacked(x: Any, out: Any, p: Any) -> None:
    """``attention.propagated`` of many texts, along the leading dimensions."""

    def texts(a: Any, core: int) -> Any:
        return np.ascontiguousarray(a).reshape(-1, *a.shape[a.ndim - core :])

    def scales(mantissa: Any, exponent: Any) -> Any:
        return texts(packed(mantissa, exponent), 2)

    q, k, v = (texts(a, 3) for a in (x.q, x.k, x.v))
    of_q, of_k, of_v = (scales(*parts) for parts in (x[1:3], x[4:6], x[7:9]))
    given = (q, of_q, k, of_k, v, of_v, np.arange(len(q), dtype=np.int32), texts(x.stop, 1))
    z, made = out.z.reshape(-1, *out.z.shape[-3:]), np.empty((len(q), x.q.shape[-3]), np.int64)
    head = head_arguments(p.polynomial, q.shape[2])
    work = q.size * k.shape[1] // 8
    shared_out(lambda first, last: attend_rows(*given, *head, z, made, first, last), len(q), work)
    unpack(made.reshape(out.mantissa.shape), out.mantissa, out.exponent)

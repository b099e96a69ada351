"""Attention with propagated scales on the CPU: one query and head at a time, over its visible keys alone.

Serves TIES_TO_AWAY, weights of 8 bits whose sum stays in the scale. Products are vector instructions; the
weights follow ``propagate.polynomial`` step by step, but every ratio is divided once and kept.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from intsim.backends.cpu import shared_out
from intsim.compiling import Int, kernel, portable
from intsim.ops.propagate import _cpu_scale as scale, _cpu_vectors as vectors
from intsim.ops.propagate._cpu_rows import packed, unpack
from intsim.scalar import scale as program
from intsim.ops.propagate.polynomial import TOP

QMAX = 255


def head_arguments(p: Any, heads: int) -> tuple[Any, ...]:
    """The record of ``propagate.polynomial`` as ``attend_rows`` takes it.

    int64 [5, heads]: b, its packed scale, the root of delta, its packed scale, that of the root itself; then numbers.
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
    root = int(packed(p.root_mantissa, p.root_exponent))
    return np.array(parts, np.int64), root, int(p.degree), int(p.policy)


@portable
def _lowest(scales: Any, b: Int, h: Int, stop: Int) -> Int:
    low = scales[b, 0, h]
    for j in range(1, stop):
        low = min(low, scales[b, j, h])
    return low


@portable
def weighed(t: Any, b: Int, h: Int, stop: Int, query: Int, keys: Any, values: Any,
            head: Any, degree: Int, policy: Int) -> Int:  # fmt: skip
    """``propagate.polynomial`` of the scores ``t[:stop]``, in place; the scale."""
    of_shift, root, of_root = head[1, h], head[2, h], head[3, h]
    s = min(scale.multiply(query, _lowest(keys, b, h, stop)), of_shift, of_root)
    shift = scale.apply(head[0, h], scale.quotient(s, of_shift))
    top = max(np.int64(1), scale.apply(root, scale.quotient(s, of_root)))
    for j in range(stop):
        by = scale.quotient(s, scale.multiply(query, keys[b, j, h]))
        r = max(scale.apply(np.int64(t[j]), by) + shift, np.int64(0))
        t[j] = r
        top = max(top, r)
    to = scale.ratio_of(top, np.int64(TOP), scale.of_integer(np.int64(TOP)), policy)
    floor = np.int64(0)
    if root:
        step = scale.multiply(head[4, h], scale.multiply(s, to))
        power = step
        for _ in range(1, degree):
            power = scale.multiply(power, step)
        floor = scale.apply(np.int64(1), power)
    low = _lowest(values, b, h, stop)
    total, largest = np.int64(0), np.int64(1)
    for j in range(stop):
        r = scale.apply(np.int64(t[j]), to)
        weight = r
        for _ in range(1, degree):
            weight *= r
        weight += floor
        total += weight
        weight = scale.apply(weight, scale.quotient(low, values[b, j, h]))
        t[j] = weight
        largest = max(largest, weight)
    last = scale.ratio_of(largest, np.int64(QMAX), scale.of_integer(np.int64(QMAX)), policy)
    for j in range(stop):
        t[j] = scale.apply(np.int64(t[j]), last)
    return scale.multiply(scale.multiply(scale.of_integer(max(total, np.int64(1))), low), last)


def _attend_rows(q: Any, q_scale: Any, k: Any, k_scale: Any, v: Any, v_scale: Any, slots: Any, stop: Any,
                 head: Any, root: int, degree: int, policy: int,
                 z: Any, made: Any, first: int, last: int) -> None:  # fmt: skip
    """Texts [first, last): all arrays begin with texts. Packed scales: [texts, tokens, heads], [slots, columns, heads].

    slots: int32, the number of a text's keys and values.
    """
    lanes, tokens, heads, c, d = vectors.lanes(), q.shape[1], q.shape[2], q.shape[3], v.shape[3]
    columns = k.shape[1]
    t, by_head = np.empty(columns, np.int32), np.empty(heads, np.int64)
    for b in range(first, last):
        slot = np.int64(slots[b])
        for i in range(tokens):
            seen, row = np.int64(stop[b, i]), z.ctypes.data + 4 * (b * tokens + i) * heads * d
            for h in range(heads):
                at = (b * tokens + i) * heads + h
                vectors.scores(
                    q.ctypes.data + at * c, k.ctypes.data + (slot * columns * heads + h) * c, heads * c, seen,
                    c // (2 * lanes), t.ctypes.data,
                )  # fmt: skip
                query = scale.multiply(q_scale[b, i, h], root)
                by_head[h] = weighed(t, slot, h, seen, query, k_scale, v_scale, head, degree, policy)
                vectors.mixed(
                    t.ctypes.data, v.ctypes.data + (slot * columns * heads + h) * d, heads * d, seen, d // lanes,
                    row + 4 * h * d,
                )  # fmt: skip
            low = by_head[0]
            for h in range(1, heads):
                low = min(low, by_head[h])
            for h in range(heads):
                by = scale.quotient(low, by_head[h])
                vectors.brought(row + 4 * h * d, d // lanes, scale.mantissa_of(by), scale.down(by))
            made[b, i] = low


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

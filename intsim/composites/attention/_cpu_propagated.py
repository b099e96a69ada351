"""Attention with propagated scales on the CPU: one query and head at a time, over its visible keys alone.

Serves TIES_TO_AWAY, weights of 8 bits whose sum stays in the scale. The weights follow ``propagate.polynomial``
step by step, with the keys of a head in the lanes of a register, and the heads where a head has one number.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from intsim.backends.cpu import shared_out
from intsim.compiling import Int, kernel, portable
from intsim.composites.attention import _cpu_vectors as keys
from intsim.composites.attention._cpu_vectors import HEADS
from intsim.ops.propagate import WHOLE, _cpu_scale as scale, _cpu_vectors as vectors
from intsim.ops.propagate._cpu_rows import AT_ONCE, packed, unpack
from intsim.scalar import scale as program


def head_arguments(p: Any, heads: int) -> Any:
    """The record of ``propagate.polynomial`` as ``attend_rows`` takes it: int64 [groups of HEADS, 6, AT_ONCE].

    b, its packed scale, the root of delta, its packed scale, that of the root itself, the root of the width.
    """
    groups = groups_of(heads)
    many = np.minimum(np.arange(groups * HEADS), heads - 1)

    def each(name: str) -> Any:
        return np.resize(getattr(p, name), heads)[many]

    made = np.resize(np.array([[0], [scale.ONE]]), (6, groups * HEADS))
    for row, name in ((0, "b"), (2, "delta_root")):
        made[row], made[row + 1] = each(name), packed(each(f"{name}_mantissa"), each(f"{name}_exponent"))
    whole = [program.of_integer(max(int(n), 1)) for n in made[2]]
    of_root = each("delta_root_mantissa"), each("delta_root_exponent")
    made[4] = [packed(*program.quotient(*n, int(m), int(e))) for n, m, e in zip(whole, *of_root, strict=True)]
    made[5] = packed(p.root_mantissa, p.root_exponent)
    laid = np.full((groups, 6, AT_ONCE), scale.ONE, np.int64)
    laid[:, :, :HEADS] = made.reshape(6, groups, HEADS).swapaxes(0, 1)
    return laid


def groups_of(heads: int) -> int:
    return -(-heads // HEADS)


def whole_registers(columns: int) -> int:
    """So many keys have room in the scales of ``columns``."""
    return -(-columns // (WHOLE // HEADS)) * (WHOLE // HEADS)


@portable
def attended(q: Any, q_scale: Any, k: Any, k_scale: Any, v: Any, v_scale: Any, slots: Any, stop: Any,
             head: Any, degree: Int, policy: Int, z: Any, made: Any, first: Int, last: Int) -> None:  # fmt: skip
    """Texts [first, last): all arrays begin with texts.

    Packed scales: [texts, tokens, heads] of q; [slots, groups, whole registers of columns, HEADS] of k and v. slots:
    int32, the number of a text's keys and values. z: int32 [texts * tokens, heads * width of a head].
    """
    lanes, tokens, heads, c, d = vectors.lanes(), q.shape[1], q.shape[2], q.shape[3], v.shape[3]
    columns, groups, padded = k.shape[1], k_scale.shape[1], k_scale.shape[2]
    t = np.zeros(HEADS * padded, np.int32)
    lows, by = np.full((groups, 2, AT_ONCE), scale.ONE, np.int64), np.full((7, AT_ONCE), scale.ONE, np.int64)
    of_heads = np.full((2, -(-heads // AT_ONCE) * AT_ONCE), scale.ONE, np.int64)
    weights, query, row_of = t.ctypes.data, by.ctypes.data, 8 * AT_ONCE
    own, match, shift, top = query + row_of, query + 2 * row_of, query + 3 * row_of, query + 4 * row_of
    floor, total = query + 5 * row_of, query + 6 * row_of
    for b in range(first, last):
        slot, before = np.int64(slots[b]), np.int64(0)
        for i in range(tokens):
            seen, row = np.int64(stop[b, i]), z.ctypes.data + 4 * (b * tokens + i) * heads * d
            for g in range(groups):
                h, here = g * HEADS, min(HEADS, heads - g * HEADS)
                of_keys = k_scale.ctypes.data + 8 * HEADS * padded * (slot * groups + g)
                of_values = v_scale.ctypes.data + 8 * HEADS * padded * (slot * groups + g)
                low, low_value, of_head = lows[g, 0].ctypes.data, lows[g, 1].ctypes.data, head[g].ctypes.data
                if seen != before:
                    keys.lowest(of_keys, seen, low)
                    keys.lowest(of_values, seen, low_value)
                for n in range(here):
                    by[0, n] = q_scale[b, i, h + n]
                keys.scores(
                    q.ctypes.data + ((b * tokens + i) * heads + h) * c,
                    k.ctypes.data + (slot * columns * heads + h) * c, heads * c, seen, c // (2 * lanes), here, weights,
                )  # fmt: skip
                keys.matched(
                    HEADS, query, low, of_head, of_head + row_of, of_head + 2 * row_of, of_head + 3 * row_of,
                    of_head + 5 * row_of, own, match, shift, top,
                )  # fmt: skip
                keys.shifted(weights, seen, of_keys, own, match, shift, top)
                keys.topped(HEADS, top, match, of_head + 4 * row_of, of_head + 2 * row_of, top, floor, policy, degree)
                keys.weighed(weights, seen, top, degree, floor, of_values, low_value, total, own)
                keys.last(HEADS, own, total, low_value, top, total, policy)
                keys.lowered(weights, seen, top)
                for n in range(here):
                    keys.mixed(
                        weights + 4 * n, v.ctypes.data + (slot * columns * heads + h + n) * d, heads * d, seen, d,
                        row + 4 * (h + n) * d,
                    )  # fmt: skip
                    of_heads[0, h + n] = by[6, n]
            before = seen
            lowest = of_heads[0, 0]
            for h in range(1, heads):
                lowest = min(lowest, of_heads[0, h])
            keys.joined(heads, of_heads[0].ctypes.data, of_heads[1].ctypes.data, lowest)
            for h in range(heads):
                by_h = of_heads[1, h]
                vectors.brought(row + 4 * h * d, d // lanes, scale.mantissa_of(by_h), scale.down(by_h))
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

    def by_heads(mantissa: Any, exponent: Any) -> Any:
        given = scales(mantissa, exponent)
        count, columns, heads = given.shape
        made = np.full((count, whole_registers(columns), groups_of(heads), HEADS), scale.ONE, np.int64)
        made.reshape(count, made.shape[1], -1)[:, :columns, :heads] = given
        return np.ascontiguousarray(made.swapaxes(1, 2))

    q, k, v = (texts(a, 3) for a in (x.q, x.k, x.v))
    of_q, of_k, of_v = scales(*x[1:3]), by_heads(*x[4:6]), by_heads(*x[7:9])
    given = (q, of_q, k, of_k, v, of_v, np.arange(len(q), dtype=np.int32), texts(x.stop, 1))
    z, made = out.z.reshape(-1, *out.z.shape[-3:]), np.empty((len(q), x.q.shape[-3]), np.int64)
    how = head_arguments(p.polynomial, q.shape[2]), int(p.polynomial.degree), int(p.polynomial.policy)
    work = q.size * k.shape[1] // 8
    shared_out(lambda first, last: attend_rows(*given, *how, z, made, first, last), len(q), work)
    unpack(made.reshape(out.mantissa.shape), out.mantissa, out.exponent)

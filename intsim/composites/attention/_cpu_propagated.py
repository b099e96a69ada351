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
from intsim.ops.propagate import WHOLE, _cpu_scale as scale, _cpu_vectors as vectors
from intsim.ops.propagate._cpu_rows import AT_ONCE, packed, unpack
from intsim.scalar import scale as program


def head_arguments(p: Any, heads: int) -> Any:
    """The record of ``propagate.polynomial`` as ``attend_rows`` takes it: int64 [6, heads, padded to whole registers].

    b, its packed scale, the root of delta, its packed scale, that of the root itself, the root of the width.
    """
    made = np.resize(np.array([[0], [scale.ONE]]), (6, -(-heads // AT_ONCE) * AT_ONCE))

    def each(name: str) -> Any:
        return np.resize(getattr(p, name), heads)

    for row, name in ((0, "b"), (2, "delta_root")):
        made[row, :heads] = each(name)
        made[row + 1, :heads] = packed(each(f"{name}_mantissa"), each(f"{name}_exponent"))
    whole = [program.of_integer(max(int(n), 1)) for n in made[2, :heads]]
    of_root = each("delta_root_mantissa"), each("delta_root_exponent")
    made[4, :heads] = [packed(*program.quotient(*n, int(m), int(e))) for n, m, e in zip(whole, *of_root, strict=True)]
    made[5] = packed(p.root_mantissa, p.root_exponent)
    return made


@portable
def attended(q: Any, q_scale: Any, k: Any, k_scale: Any, v: Any, v_scale: Any, slots: Any, stop: Any,
             head: Any, degree: Int, policy: Int, z: Any, made: Any, first: Int, last: Int) -> None:  # fmt: skip
    """Texts [first, last): all arrays begin with texts.

    Packed scales: [texts, tokens, heads] of q; [slots, heads, columns, padded to WHOLE] of k and v. slots: int32, the
    number of a text's keys and values. z: int32 [texts * tokens, heads * width of a head].
    """
    lanes, tokens, heads, c, d = vectors.lanes(), q.shape[1], q.shape[2], q.shape[3], v.shape[3]
    columns, padded, wide = k.shape[1], k_scale.shape[2], head.shape[1]
    t, by = np.zeros((heads, padded), np.int32), np.full((9, wide), scale.ONE, np.int64)
    of_head, count, known = head.ctypes.data, wide // AT_ONCE, by[0].ctypes.data
    query, low_key, low_value, own, match, shift, floor, top, total = [known + 8 * wide * i for i in range(9)]
    for b in range(first, last):
        slot, before = np.int64(slots[b]), np.int64(0)
        for i in range(tokens):
            seen, row = np.int64(stop[b, i]), z.ctypes.data + 4 * (b * tokens + i) * heads * d
            turns = (seen + lanes - 1) // lanes
            for h in range(heads):
                by[0, h] = q_scale[b, i, h]
                if seen != before:
                    of_h = 8 * padded * (slot * heads + h)
                    by[1, h] = keys.lowest(k_scale.ctypes.data + of_h, seen)
                    by[2, h] = keys.lowest(v_scale.ctypes.data + of_h, seen)
                keys.scores(
                    q.ctypes.data + ((b * tokens + i) * heads + h) * c, k.ctypes.data + (slot * columns * heads + h) * c,
                    heads * c, seen, c // (2 * lanes), t.ctypes.data + 4 * padded * h,
                )  # fmt: skip
            before = seen
            keys.matched(
                count, query, low_key, of_head, of_head + 8 * wide, of_head + 16 * wide, of_head + 24 * wide,
                of_head + 40 * wide, own, match, shift, floor,
            )  # fmt: skip
            for h in range(heads):
                at, of_keys = t.ctypes.data + 4 * padded * h, k_scale.ctypes.data + 8 * padded * (slot * heads + h)
                by[7, h] = max(by[6, h], keys.shifted(at, seen, turns, by[5, h], of_keys, by[3, h], by[4, h]))
            keys.topped(count, top, match, of_head + 32 * wide, of_head + 16 * wide, top, floor, policy, degree)
            for h in range(heads):
                at, of_values = t.ctypes.data + 4 * padded * h, v_scale.ctypes.data + 8 * padded * (slot * heads + h)
                by[7, h] = keys.weighed(
                    at, seen, turns, scale.mantissa_of(by[7, h]), scale.down(by[7, h]), degree, by[6, h],
                    of_values, by[2, h], total + 8 * h,
                )  # fmt: skip
            keys.last(count, top, total, low_value, top, total, policy)
            for h in range(heads):
                at = t.ctypes.data + 4 * padded * h
                vectors.brought(at, turns, scale.mantissa_of(by[7, h]), scale.down(by[7, h]))
                keys.mixed(
                    at, v.ctypes.data + (slot * columns * heads + h) * d, heads * d, seen, d // lanes, row + 4 * h * d
                )
            lowest = by[8, 0]
            for h in range(1, heads):
                lowest = min(lowest, by[8, h])
            keys.joined(count, total, own, lowest)
            for h in range(heads):
                vectors.brought(row + 4 * h * d, d // lanes, scale.mantissa_of(by[3, h]), scale.down(by[3, h]))
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
        given = scales(mantissa, exponent).swapaxes(1, 2)
        made = np.full((*given.shape[:2], whole_registers(given.shape[2])), scale.ONE, np.int64)
        made[..., : given.shape[2]] = given
        return made

    q, k, v = (texts(a, 3) for a in (x.q, x.k, x.v))
    of_q, of_k, of_v = scales(*x[1:3]), by_heads(*x[4:6]), by_heads(*x[7:9])
    given = (q, of_q, k, of_k, v, of_v, np.arange(len(q), dtype=np.int32), texts(x.stop, 1))
    z, made = out.z.reshape(-1, *out.z.shape[-3:]), np.empty((len(q), x.q.shape[-3]), np.int64)
    how = head_arguments(p.polynomial, q.shape[2]), int(p.polynomial.degree), int(p.polynomial.policy)
    work = q.size * k.shape[1] // 8
    shared_out(lambda first, last: attend_rows(*given, *how, z, made, first, last), len(q), work)
    unpack(made.reshape(out.mantissa.shape), out.mantissa, out.exponent)


def whole_registers(columns: int) -> int:
    """So many scales does a head have of ``columns`` keys."""
    return -(-columns // WHOLE) * WHOLE

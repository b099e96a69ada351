"""Rotary position embedding of integers by tables in fixed point: the definition of this package.

    a, b = x[one] - a_zero_point, x[other] - a_zero_point          the two elements of pair i, by ``layout``
    q[one]   = saturate(round((a * cos - b * sin) / 2**fraction_bits) + zero_point)
    q[other] = saturate(round((b * cos + a * sin) / 2**fraction_bits) + zero_point)

cos and sin are row ``position`` of the tables, column i. The first ``2 * pairs`` elements of a row turn
(all that make whole pairs, where pairs is that large); the rest keeps its value on the new zero point.
q has the scale of x, so what turns by an angle can exceed the type by sqrt(2): ``dtype`` saturates it
or is wider. Each element rounds once, after the sum, which stays below 2**33.

With tables from ``intsim.ops.rope.tables`` an element is within
``1/2 + sqrt(a**2 + b**2) * 2**-(fraction_bits + 1) * sqrt(2)`` of the real rotation before it saturates.

Differs from float implementations that keep the angle in float32: within 4096 positions that angle is
off by up to 2**-12 (base 10000, width 128), where these tables are off by 2**-15 at most.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from intsim.compiling import Int, portable
from intsim.numerics import IntType, Rounding, int8, int16, int32, uint8, unlimited
from intsim.op import Elementwise, Op, Oracle, Port, Size
from intsim.ops.rope import Layout, tables
from intsim.params import Params as Base, int_type, integer, rule
from intsim.registry import register
from intsim.scalar.rounding import saturate, shift_right
from intsim.spec import rounding


@dataclass(frozen=True, slots=True, eq=False)
class Params(Base):
    fraction_bits: int = integer(0, 15, default=14)
    pairs: int = integer(0, 2**31 - 1, default=2**31 - 1)
    a_zero_point: int = integer(-(2**15), 2**15 - 1, inside="x", default=0)
    zero_point: int = integer(-(2**15), 2**15, default=0)
    layout: Layout = rule(Layout, Layout.HALVES)
    x: IntType = int_type(int8, uint8, int16, role="operand")
    dtype: IntType = int_type(int8, uint8, int16, unlimited, role="result")
    rounding: Rounding = rule(Rounding, Rounding.TIES_TO_EVEN)


def spec(x: Any, position: Any, cos: Any, sin: Any, p: Params) -> Any:
    d = x - p.a_zero_point
    at = position.astype(int)
    c, s = cos[at], sin[at]
    h = cos.shape[-1]
    one, other = (slice(0, 2 * h, 2), slice(1, 2 * h, 2)) if p.layout == Layout.PAIRS else (slice(h), slice(h, 2 * h))
    turned = d * (1 << p.fraction_bits)
    turned[:, one] = d[:, one] * c - d[:, other] * s
    turned[:, other] = d[:, other] * c + d[:, one] * s
    return rounding.saturate(rounding.shift_right(turned, p.fraction_bits, p.rounding) + p.zero_point, p.dtype)


@portable
def element(i: Int, j: Int, x: Any, p: Any) -> Int:
    h = x.cos.shape[1]
    d = np.int64(x.x[i, j]) - p.a_zero_point
    if j >= 2 * h:
        return saturate(d + p.zero_point, p.dtype)
    if p.layout == Layout.PAIRS:
        column, second = j >> 1, j & 1
        mate = j + 1 - 2 * second
    else:
        second = 1 if j >= h else 0
        column = j - h * second
        mate = column + h * (1 - second)
    e = np.int64(x.x[i, mate]) - p.a_zero_point
    at = np.int64(x.position[i])
    sine = np.int64(x.sin[at, column])
    # |d| and |e| are below 2**16 and the entries at most 2**15: below 2**32 in all
    total = d * np.int64(x.cos[at, column]) + (e * sine if second else -e * sine)
    return saturate(shift_right(total, p.fraction_bits, p.rounding) + p.zero_point, p.dtype)


def examples() -> dict[str, Any]:
    cos, sin = tables(64, 6)
    far = np.array([0, 1, 2, 63], np.int32)
    x = np.array([[127, -128, 5, -7, 100, 0, 9], [127, 127, -128, -128, 1, -1, -9]] * 2, np.int8)
    quarter = np.array([[0, 1 << 14]], np.int16)
    turn = (np.array([[1, 2, 3, 4], [-1, -2, -3, -4], [-128, 5, 7, 127]], np.int8), np.zeros(3, np.int32))
    made: dict[str, Any] = {}
    half = np.array([[1 << 13, 1 << 13]], np.int16)
    for r in Rounding:
        made[f"ties, {r.name}"] = ((*turn, half, half[:, ::-1] * 0), Params(rounding=r))
    for layout in Layout:
        made[f"quarter turns of pair 0, {layout.name}"] = ((*turn, quarter[:, ::-1], quarter), Params(layout=layout))
        made[f"true tables, {layout.name}, saturates"] = ((x, far, cos, sin), Params(layout=layout))
        made[f"one pair of three, {layout.name}"] = ((x, far, cos[:, :1], sin[:, :1]), Params(pairs=1, layout=layout))
    full = tables(64, 6, fraction_bits=15)
    wide = (x[:, :6].astype(np.int16) << 8) - 1
    made["int16, 15 fraction bits: 1 is 32767"] = ((wide, far, *full), Params(15, x=int16, dtype=int16))
    made["zero points; unsigned"] = (
        (x.view(np.uint8), far, cos, sin),
        Params(a_zero_point=200, zero_point=128, x=uint8, dtype=uint8),
    )
    low = np.full((1, 3), -(2**15), np.int16)
    made["the largest sums"] = (
        (np.full((1, 6), -(2**15), np.int16), far[:1], low, low),
        Params(0, x=int16, dtype=unlimited),
    )
    made["nothing turns"] = ((x, far, cos[:, :0], sin[:, :0]), Params(pairs=0, zero_point=100))
    return made


def _real(x: Any, position: Any, cos: Any, sin: Any, p: Params) -> Any:
    z, h, at = x - p.a_zero_point, cos.shape[-1], position.astype(int)
    if p.layout == Layout.PAIRS:
        z = np.concatenate([z[:, : 2 * h : 2], z[:, 1 : 2 * h : 2], z[:, 2 * h :]], axis=1)
    turned = (z[:, :h] + 1j * z[:, h : 2 * h]) * (cos[at] + 1j * sin[at]) / 2.0**p.fraction_bits
    if p.layout == Layout.PAIRS:
        return np.concatenate([np.stack([turned.real, turned.imag], -1).reshape(-1, 2 * h), z[:, 2 * h :]], axis=1)
    return np.concatenate([turned.real, turned.imag, z[:, 2 * h :]], axis=1)


OP = register(
    Op(
        name="rope.fixed_point",
        version=1,
        cites="Su et al. 2021 (arXiv 2104.09864), eq. (34); EleutherAI/gpt-neox "
        "megatron/model/positional_embeddings.py (halves); in integers: the rounding rules are this package's",
        inputs=(
            Port("x", "m n", lambda p: p.x),
            Port("position", "m", int32, below="v"),
            Port("cos", "v h", int16),
            Port("sin", "v h", int16),
        ),
        outputs=(Port("q", "m n", lambda p: p.dtype),),
        params=Params,
        spec=spec,
        program=Elementwise(element),
        sizes={
            "v": Size(1),
            "n": Size(2),
            "h": Size(
                derived=lambda p, size: min(p.pairs, size["n"] // 2), says="one column a pair: n // 2, at most pairs"
            ),
        },
        examples=examples,
        oracle=Oracle(
            params=lambda scale: Params(fraction_bits=round(scale), dtype=unlimited, layout=Layout(round(scale) % 2)),
            scales=(8.0, 15.0),
            real=_real,
            value=lambda q, p: q,
            bound=lambda p: 0.5,
        ),
    )
)

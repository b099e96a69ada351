"""Attention with Scale Propagation: int8 queries, keys and values with a scale a head, int32 out with a scale a row.

    t = q k^T;   w, s = propagate.polynomial(t, s_q, s_k, s_v);   z = propagate.join(w v, s)

Row i sees key j where ``j < stop[i]``: causal (past + i + 1), padding (a length) and a cache with room
to spare (hidden keys still hold legal scales). Every maximum and minimum is over one query and its
visible keys, so that a cache, a batch and any padding give the same integers.

The layout is that of a linear layer's rows, (time, heads, width). |z| < 2**31 needs t <= 2**16 where
the weights are 8-bit, t <= 512 where they are 16-bit.

Differs from ``polynomial``: nothing is calibrated, and the sum of the weights stays in the scale.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from intsim.numerics import IntType, Overflow, Rounding, int8, int16, int32, uint8
from intsim.op import Composition, Op, Port, Size, Tuned
from intsim.ops.matmul import integer as matmul
from intsim.ops.propagate import (
    MADE_SCALE,
    WHOLE,
    Policy,
    Probabilities,
    join as joining,
    polynomial as weights,
    scale_ports,
)
from intsim.params import Limit, Params as Base, stage
from intsim.registry import register
from intsim.resident import broadcast

WIDEST = 2**16 - 1  # products of two int8 of which the sum stays below 2**30
LONGEST = 2**16
EXPONENT = IntType(11)  # so that those between the stages have 12 bits


@dataclass(frozen=True, slots=True, eq=False)
class Params(Base):
    score: matmul.Params = stage(
        matmul.Params,
        dims={"n": "t", "k": "c"},
        a=int8,
        b=int8,
        a_zero_point=0,
        b_zero_point=0,
        acc=int32,
        overflow=Overflow.WRAP,
    )
    polynomial: weights.Params = stage(weights.Params, dims={"n": "t"})
    mix: matmul.Params = stage(
        matmul.Params,
        dims={"n": "d", "k": "t"},
        b=int8,
        a_zero_point=0,
        b_zero_point=0,
        acc=int32,
        overflow=Overflow.WRAP,
    )
    join: joining.Params = stage(joining.Params)

    limits = (Limit("mix.a = polynomial.dtype", lambda p: bool(p.mix.a == p.polynomial.dtype)),)

    @classmethod
    def from_real(cls, b: Any, delta: Any, degree: int, head_width: int, **fields: Any) -> Params:
        """The parameters for the b and delta of the paper, a float a head each; fields: of ``propagate.polynomial``."""
        made = weights.Params.from_real(b, delta, degree, head_width, **fields)
        return cls(matmul.Params(), made, matmul.Params(a=made.dtype), joining.Params(made.rounding))


def wire(
    run: Any,
    q: Any,
    q_mantissa: Any,
    q_exponent: Any,
    k: Any,
    k_mantissa: Any,
    k_exponent: Any,
    v: Any,
    v_mantissa: Any,
    v_exponent: Any,
    stop: Any,
    p: Params,
) -> Any:
    (m, h), t, d = q.shape[-3:-1], k.shape[-3], v.shape[-1]
    if p.mix.a.qmax > 255 and t > 512:
        raise ValueError(f"attention.propagated: needs t <= 512 for {p.mix.a} weights, got t = {t}; uint8 takes more")
    leading = [a.shape[:-2] for a in (q_mantissa, q_exponent, k_mantissa, k_exponent, v_mantissa, v_exponent)]
    loop = np.broadcast_shapes(*leading, q.shape[:-3], k.shape[:-3], v.shape[:-3], stop.shape[:-1])

    def heads(a: Any, core: int) -> Any:
        """(.., time, h, ..) as (*loop, h, time, ..)."""
        return broadcast(a, loop + a.shape[a.ndim - core :]).swapaxes(len(loop), len(loop) + 1)

    def groups(a: Any) -> Any:
        return heads(a, 2).reshape(-1, t)

    count = int(np.prod(loop)) * h
    scores = run("matmul.integer", heads(q, 3), heads(k, 3), p=p.score)
    w, *scale = run(
        "propagate.polynomial",
        scores.reshape(count * m, t),
        heads(q_mantissa, 2).reshape(-1),
        heads(q_exponent, 2).reshape(-1),
        groups(k_mantissa),
        groups(k_exponent),
        groups(v_mantissa),
        groups(v_exponent),
        head_of_row(count, m),
        broadcast(stop.reshape(*stop.shape[:-1], 1, m), (*loop, h, m)).reshape(-1),
        p=p.polynomial,
    )
    z = run("matmul.integer", w.reshape(*loop, h, m, t), heads(v, 3).swapaxes(-1, -2), p=p.mix)
    rows = (z.reshape(*loop, h, m, d), *(part.reshape(*loop, h, m) for part in scale))
    return run("propagate.join", *(a.swapaxes(len(loop), len(loop) + 1) for a in rows), p=p.join)


@lru_cache(64)  # the same array for the same shape, and read-only: a GPU keeps its copy
def head_of_row(heads: int, rows: int) -> Any:
    made = np.repeat(np.arange(heads, dtype=np.int32), rows)
    made.flags.writeable = False
    return made


def whole_registers(p: Any, size: Mapping[str, int]) -> bool:
    """Whether the vector kernel serves: 8-bit weights, rounded half away from zero, and heads of whole registers."""
    inner = p.polynomial
    return bool(
        inner.rounding == p.join.rounding == Rounding.TIES_TO_AWAY
        and inner.dtype == uint8
        and inner.probabilities == Probabilities.DENOMINATOR
        and size["c"] % (2 * WHOLE) == 0
        and size["d"] % (2 * WHOLE) == 0
    )


def examples() -> dict[str, Any]:
    q = np.array([[[-128, 127, 1], [5, -3, 9]], [[127, 127, 127], [0, 0, 1]], [[0, 0, 0], [40, 50, -60]]], np.int8)
    k = np.array([[[-128, 127, 0], [1, 2, 3]], [[-9, 4, 0], [127, -127, 3]], [[-128, -128, 5], [7, 7, 7]]], np.int8)
    v = np.array([[[-128, 127], [1, 0]], [[64, -64], [-7, 100]], [[127, -128], [3, -3]]], np.int8)
    mantissa = np.array([[2**30, 2**31 - 1], [3 * 2**29, 2**30], [2**30 + 5, 2**30]], np.int32)
    near = np.array([[-25, -24], [-26, -25], [-25, -27]], np.int16)
    low, high = np.full((3, 2), -1024, np.int16), np.full((3, 2), 1023, np.int16)
    causal = np.array([1, 2, 3], np.int32)
    inputs = (q, mantissa, near, k, mantissa[::-1].copy(), near, v, mantissa, near[::-1].copy())
    two = Params.from_real([0.5, -0.1], [0.05, 0.2], 3, 3)
    made: dict[str, Any] = {"every row sees every key": (inputs, two), "causal": ((*inputs, causal), two)}
    for policy in Policy:
        made[f"causal, {policy.name}"] = ((*inputs, causal), Params.from_real(0.5, 0.1, 2, 3, policy=policy))
    for dtype in (uint8, int8, int16):
        explicit = Params.from_real(0.5, 0.1, 3, 3, dtype=dtype, probabilities=Probabilities.EXPLICIT)
        made[f"explicit probabilities, {dtype}"] = ((*inputs, causal), explicit)
    made["the ends of the exponents"] = ((q, mantissa, low, k, mantissa, high, v, mantissa, low), two)
    made["the other ends"] = ((q, mantissa, high, k, mantissa, low, v, mantissa, high), two)
    return made


OP = register(
    Op(
        name="attention.propagated",
        version=1,
        cites="Lin et al. 2020 (arXiv 2009.08034), eq. (11) and (12), and section 3",
        inputs=(
            Port("q", "m h c", int8),
            *scale_ports("m h", "q", EXPONENT),
            Port("k", "t h c", int8),
            *scale_ports("t h", "k", EXPONENT),
            Port("v", "t h d", int8),
            *scale_ports("t h", "v", EXPONENT),
            Port("stop", "m", int32, fill="t", upto="t"),
        ),
        outputs=(Port("z", "m h d", int32), *MADE_SCALE),
        params=Params,
        spec=wire,
        program=Composition(wire),
        sizes={"h": Size(1), "c": Size(1, WIDEST), "t": Size(1, LONGEST), "d": Size(1)},
        examples=examples,
        tuned=(
            Tuned("cpu", "intsim.composites.attention._cpu_propagated:attend", whole_registers),
            Tuned("cpu", "intsim.composites.attention._cpu_propagated:stacked", whole_registers, leading=True),
        ),
    )
)

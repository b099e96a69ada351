"""L1 layer normalization with the denominator left to the scale: Lin et al. 2020 (Integer Transformer).

    c = n x - sum x;   norm = max(1, sum |c|);   y = c * weight;   top = max(1, max |y|)
    q = y where top <= qmax, else round(y * qmax / top)

real = q * max(top, qmax) / qmax * n / norm, for x on any scale (the quotient cancels it): nothing is
divided but by the row's own maximum, so no precision is lost before the scale is known.

Differs from the paper: it subtracts a rounded mean on the int8 grid; the centring here is exact.
From ``ibert``: the mean absolute deviation instead of the standard deviation.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from intsim.compiling import Int, portable
from intsim.numerics import IntType, Rounding, int8, int16, int48
from intsim.op import Op, Oracle, Port, Rowwise, Size
from intsim.ops.layernorm import LONGEST, centred
from intsim.params import Params as Base, int_type, rule
from intsim.registry import register
from intsim.scalar.rounding import divide
from intsim.spec import rounding


@dataclass(frozen=True, slots=True, eq=False)
class Params(Base):
    x: IntType = int_type(int16, int8, role="operand")
    dtype: IntType = int_type(int16, int8, role="operand")  # nothing saturates: |q| <= qmax by construction
    rounding: Rounding = rule(Rounding, Rounding.TIES_TO_EVEN)


def spec(x: Any, weight: Any, p: Params) -> Any:
    n, qmax = x.shape[-1], p.dtype.qmax
    c = n * x - x.sum(axis=-1, keepdims=True)
    norm = np.maximum(abs(c).sum(axis=-1), 1)
    y = c * weight
    top = np.maximum(abs(y).max(axis=-1, keepdims=True), 1)
    q = np.where(top <= qmax, y, rounding.divide(y * qmax, top, p.rounding))
    return q, top[:, 0], norm


@portable
def row(i: Int, x: Any, out: Any, p: Any) -> None:
    q, y = x.x[i], out.q[i]
    n, qmax = q.shape[0], p.dtype.qmax
    total = np.int64(0)
    for j in range(n):
        total += np.int64(q[j])
    norm, top = np.int64(0), np.int64(1)
    for j in range(n):
        c = n * np.int64(q[j]) - total  # |c| < 2**13 * 2**16
        norm += abs(c)
        top = max(top, abs(c * np.int64(x.weight[j])))  # below 2**36: times qmax it fits 51 bits
    for j in range(n):
        c = (n * np.int64(q[j]) - total) * np.int64(x.weight[j])
        y[j] = c if top <= qmax else divide(c * qmax, top, p.rounding)
    out.top[i] = top
    out.norm[i] = max(norm, 1)


def examples() -> dict[str, Any]:
    x = np.array([[1, 2, 4, 8], [7, 7, 7, 7], [-32768, 32767, -32768, 32767], [0, 0, 0, 1]], np.int16)
    weight = np.array([127, -128, 1, 0], np.int8)
    tie = np.array([[-3, 0, 1, 2], [508, -127, 127, -508], [254, -1, 1, -254], [254, -3, 3, -254]], np.int16)
    made: dict[str, Any] = {f"ties, {r.name}": ((tie,), Params(dtype=int8, rounding=r)) for r in Rounding}
    made["ordinary, constant, extreme, one spike; with weights"] = ((x, weight), Params())
    return made


OP = register(
    Op(
        name="layernorm.l1",
        version=1,
        cites="Lin et al. 2020 (arXiv 2009.08034), L1 layer normalization",
        inputs=(Port("x", "m n", lambda p: p.x), Port("weight", "n", int8, fill=1)),
        outputs=(Port("q", "m n", lambda p: p.dtype), Port("top", "m", int48), Port("norm", "m", int48)),
        params=Params,
        spec=spec,
        program=Rowwise(row),
        sizes={"n": Size(1, LONGEST)},
        examples=examples,
        oracle=Oracle(
            params=lambda scale: Params(),
            scales=(1.0, 1.0),
            real=lambda x, weight, p: (
                centred(x) * weight / np.maximum(np.abs(centred(x)).mean(axis=-1, keepdims=True), 1e-300)
            ),
            value=lambda q, top, norm, p: (
                q * (np.maximum(top, p.dtype.qmax) / p.dtype.qmax * q.shape[-1] / norm)[:, None]
            ),
            bound=lambda p: 0.5 * 128 * LONGEST / p.dtype.qmax,  # half a step of the largest possible row
        ),
    )
)

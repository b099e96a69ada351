"""Polynomial attention weights, normalised: Lin et al. 2020 (Integer Transformer).

    r = ReLU(q + b);   p = r**degree + delta_root**degree   on the visible columns
    probability = min(round(p * 2**out_bits / sum p), 2**out_bits - 1)

Where r or delta_root is above 127 in a row, both are brought to 127 first (ties to even), so that
p stays below 2**28. delta_root is |delta|**(1/degree) on the grid of q, so that delta scales with r.
The mask comes after delta: a masked column gets 0, not delta. A row whose p are all 0 is uniform.

Differs from the paper: the digest leaves the degree, the form of delta and the place of the mask
open; these are the choices. From ``ibert``: no exponential.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from intsim.compiling import Int, portable
from intsim.numerics import IntType, Rounding, int8, int16, int32
from intsim.op import Op, Oracle, Port, Rowwise, Size
from intsim.ops.softmax import LONGEST, UNSIGNED_ROUNDINGS, Steps
from intsim.params import Params as Base, int_type, integer, real, rule
from intsim.registry import register
from intsim.scalar.rounding import divide
from intsim.spec import rounding

TOP = 127


@dataclass(frozen=True, slots=True, eq=False)
class Params(Base):
    b: int = integer(-(2**15), 2**15, default=0)
    delta_root: int = integer(0, 2**15, default=1)
    degree: int = integer(1, 4, default=3)
    out_bits: int = integer(2, 16, default=8)
    q: IntType = int_type(int16, int8, role="operand")
    rounding: Rounding = rule(Rounding, Rounding.TIES_TO_EVEN, among=UNSIGNED_ROUNDINGS)
    scale: float = real()  # only the oracle reads it

    @classmethod
    def from_scale(cls, scale: float, *, b: float = 0.5, delta: float = 0.1, degree: int = 3, **fields: Any) -> Params:
        """The parameters for inputs ``real = scale * q``; scale: a positive float; b, delta as in the paper."""
        if not scale > 0:
            raise ValueError(f"softmax.polynomial: scale is positive, got {scale}")
        root = abs(delta) ** (1 / degree) / scale
        return cls(round(b / scale), round(root), degree, scale=scale, **fields)


def spec(q: Any, stop: Any, p: Params) -> Any:
    seen = np.arange(q.shape[-1]) < stop.reshape(-1, 1)
    r = np.where(seen, np.maximum(q + p.b, 0), 0)
    top = np.maximum(np.maximum(r.max(axis=-1, keepdims=True), p.delta_root), TOP)
    r = rounding.divide(r * TOP, top, Rounding.TIES_TO_EVEN)
    delta_root = rounding.divide(p.delta_root * TOP + 0 * top, top, Rounding.TIES_TO_EVEN)
    weight = np.where(seen, r**p.degree + delta_root**p.degree, 0)
    weight = np.where(weight.sum(axis=-1, keepdims=True) == 0, seen.astype(weight.dtype), weight)
    total = weight.sum(axis=-1, keepdims=True)
    return np.minimum(rounding.divide(weight << p.out_bits, total, p.rounding), (1 << p.out_bits) - 1)


@portable
def _power(r: Int, degree: Int) -> Int:
    product = r
    for _ in range(1, degree):
        product *= r
    return product


@portable
def term(q: Int, top: Int, p: Any) -> Int:
    highest = max(np.int64(TOP), p.delta_root, top + p.b)
    r = divide(max(q + p.b, 0) * TOP, highest, Rounding.TIES_TO_EVEN)
    delta_root = divide(p.delta_root * TOP, highest, Rounding.TIES_TO_EVEN)
    return _power(r, p.degree) + _power(delta_root, p.degree)  # at most 2 * 127**4 < 2**29


@portable
def added(weight: Int, p: Any) -> Int:
    return weight


@portable
def settled(total: Int, seen: Int, p: Any) -> tuple[Int, Int]:
    return total, seen


@portable
def share(weight: Int, of: tuple[Int, Int], p: Any) -> Int:
    if of[0] == 0:  # every weight is 0: uniform
        return min(divide(np.int64(1) << p.out_bits, of[1], p.rounding), (1 << p.out_bits) - 1)
    return min(divide(weight << p.out_bits, of[0], p.rounding), (1 << p.out_bits) - 1)


STEPS = Steps(term, added, settled, share)


@portable
def row(i: Int, x: Any, out: Any, p: Any) -> None:
    q, stop, y = x.q[i], np.int64(x.stop[i]), out.probability[i]
    top = np.int64(q[0])
    for j in range(1, stop):
        top = max(top, np.int64(q[j]))
    total = np.int64(0)
    for j in range(stop):
        total += term(np.int64(q[j]), top, p)
    for j in range(stop):
        y[j] = share(term(np.int64(q[j]), top, p), (total, stop), p)
    for j in range(stop, q.shape[0]):
        y[j] = 0


def examples() -> dict[str, Any]:
    q = np.array([[0, 0, 0, 0], [100, 50, -50, 1], [32767, -32768, 16384, 0], [-9, -8, -7, -6]], np.int16)
    stop = np.array([1, 3, 4, 2], np.int32)
    made: dict[str, Any] = {f"degree {n}": ((q, stop), Params(5, 9, n, 12)) for n in (1, 2, 3, 4)}
    halves = np.array([[254, 1, 5, 3]], np.int16)
    made["halves before the power: ties to even"] = ((halves,), Params(0, 5, 1, 16))
    made["all zero: uniform"] = ((q, stop), Params(-(2**15), 0))
    sixteenths = np.array([[6, 3, 3, 1, 1, 1, 1]], np.int16)
    for r in UNSIGNED_ROUNDINGS:
        made[f"probabilities, {r.name}"] = ((q,), Params(3, 1, 2, rounding=r))
        made[f"ties at 1/2 and 3/2, {r.name}"] = ((sixteenths,), Params(0, 0, 1, 3, rounding=r))
    made["int8"] = ((np.array([[-128, 127, 126, 0]], np.int8),), Params(q=int8))
    return made


def _real(q: Any, stop: Any, p: Params) -> Any:
    seen = np.arange(q.shape[-1]) < np.asarray(stop).reshape(-1, 1)
    weight = np.where(seen, np.maximum(q + p.b, 0.0) ** p.degree + float(p.delta_root) ** p.degree, 0)
    return weight / weight.sum(axis=-1, keepdims=True)


OP = register(
    Op(
        name="softmax.polynomial",
        version=1,
        cites="Lin et al. 2020 (Towards Fully 8-bit Integer Inference for the Transformer Model, arXiv 2009.08034)",
        inputs=(Port("q", "m n", lambda p: p.q), Port("stop", "m", int32, fill="n", upto="n")),
        outputs=(Port("probability", "m n", lambda p: IntType(p.out_bits, signed=False)),),
        params=Params,
        spec=spec,
        program=Rowwise(row),
        sizes={"n": Size(1, LONGEST)},
        examples=examples,
        exempt={"shift_invariant": "ReLU(q + b) has a fixed zero: that is the design of the paper"},
        oracle=Oracle(
            params=lambda scale: Params.from_scale(scale, out_bits=12),
            scales=(2e-3, 0.05),
            real=_real,
            value=lambda out, p: out / 2.0**p.out_bits,
            # half a step of 127 in each r moves p by degree / 254 of the largest; numerator and total
            bound=lambda p: p.degree / 127.0 + 2.0**-p.out_bits,
        ),
    )
)

"""Softmax by shifts: Shiftmax of I-ViT, Li and Gu 2023, Algorithm 1, as the published module computes it.

    d = q - max q;   d = max(d + (d >> 1) - (d >> 4), -precision * unit)           d log2(e), nearly
    k = -d // unit;  r = d + k * unit;  exp = (r + 2 * unit << (precision - k)) >> 1
    total = min(sum exp, 2**31 - 1);  probability = exp * ((2**31 - 1) // total) >> (31 - out_bits)

unit is 1 / scale, rounded up. out_bits is one less than the module's output_bit: 7 there by default.
However far below the maximum, exp is at least unit.

Differs from ``ibert``: base 2 with a line for the power, a factor in place of the division, and a
total that is capped (a long row sums to less than 1). From the authors' TVM deployment: that one
takes precision 16, truncates, drops the half bit of r / 2 and does not cap the total.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from intsim.compiling import Int, portable
from intsim.numerics import IntType, int8, int16, int32
from intsim.op import Op, Oracle, Port, Rowwise, Size
from intsim.ops.softmax import LONGEST, real_softmax
from intsim.params import Limit, Params as Base, int_type, integer, real
from intsim.registry import register

MOST = 2**31 - 1


@dataclass(frozen=True, slots=True, eq=False)
class Params(Base):
    unit: int = integer(1, 2**20)
    precision: int = integer(1, 24, default=15)  # bits of the exponential below 1
    out_bits: int = integer(2, 16, default=7)
    q: IntType = int_type(int16, int8, int32, role="operand")
    scale: float = real()  # only the oracle reads it
    limits: ClassVar = (Limit("unit * 2**precision < 2**31", lambda p: p.unit << p.precision <= MOST),)

    @classmethod
    def from_scale(cls, scale: float, **fields: Any) -> Params:
        """The parameters for inputs ``real = scale * q``; scale: a float in [2**-15, 1]."""
        if not 2.0**-15 <= scale <= 1:
            raise ValueError(f"softmax.shiftmax_ivit: scale is in [2**-15, 1], got {scale}")
        return cls(-math.floor(-1 / scale), scale=scale, **fields)


def spec(q: Any, stop: Any, p: Params) -> Any:
    seen = np.arange(q.shape[-1]) < stop.reshape(-1, 1)
    d = np.minimum(q - np.where(seen, q, p.q.qmin).max(axis=-1, keepdims=True), 0)
    d = np.maximum(d + d // 2 - d // 16, -p.precision * p.unit)
    k, r = d // -p.unit, -(-d % p.unit)
    exp = np.where(seen, (r + 2 * p.unit) * 2 ** (p.precision - k) // 2, 0)
    factor = MOST // np.minimum(exp.sum(axis=-1, keepdims=True), MOST)
    return exp * factor >> (31 - p.out_bits)


@portable
def shifted_exp(d: Int, p: Any) -> Int:
    d = max(d + (d >> 1) - (d >> 4), -p.precision * p.unit)
    k = -d // p.unit
    return ((d + k * p.unit + 2 * p.unit) << (p.precision - k)) >> 1  # at most unit << precision < 2**31


@portable
def row(i: Int, x: Any, out: Any, p: Any) -> None:
    q, stop, y = x.q[i], np.int64(x.stop[i]), out.probability[i]
    top = np.int64(q[0])
    for j in range(1, stop):
        top = max(top, np.int64(q[j]))
    total = np.int64(0)
    for j in range(stop):
        total += shifted_exp(np.int64(q[j]) - top, p)  # 2**16 terms below 2**31
    factor = 2147483647 // min(total, np.int64(2147483647))
    for j in range(stop):
        y[j] = (shifted_exp(np.int64(q[j]) - top, p) * factor) >> (31 - p.out_bits)  # exp <= total: below 2**31
    for j in range(stop, q.shape[0]):
        y[j] = 0


def examples() -> dict[str, Any]:
    q = np.array([[0, 0, 0, 0], [0, -14, -1000, -32767], [32767, 32767, -32768, 0], [3, 1, 0, 2]], np.int16)
    every = -np.arange(64, dtype=np.int8).reshape(1, 64)
    long = np.zeros((1, 80), np.int16)
    return {
        "equal, far apart, extreme": ((q,), Params.from_scale(0.05)),
        "masked, to 16 bits": ((q, np.array([1, 2, 3, 4], np.int32)), Params.from_scale(0.05, out_bits=16)),
        "every difference down to the floor, an odd unit": (
            (every,),
            Params.from_scale(1 / 7, precision=8, out_bits=16, q=int8),
        ),
        "the total is capped: 1/2**15 is the finest scale": ((long,), Params.from_scale(2.0**-15, out_bits=16)),
        "int32, both ends": ((np.array([[2**31 - 1, -(2**31), 0]], np.int32),), Params.from_scale(0.01, q=int32)),
        "a unit of 1: r is always 0": ((q,), Params(1)),
    }


OP = register(
    Op(
        name="softmax.shiftmax_ivit",
        version=1,
        cites="Li and Gu 2023 (arXiv 2207.01405), Algorithm 1; zkkli/I-ViT "
        "models/quantization_utils/quant_modules.py IntSoftmax",
        inputs=(Port("q", "m n", lambda p: p.q), Port("stop", "m", int32, fill="n", upto="n")),
        outputs=(Port("probability", "m n", lambda p: IntType(p.out_bits, signed=False)),),
        params=Params,
        spec=spec,
        program=Rowwise(row),
        sizes={"n": Size(1, LONGEST)},
        examples=examples,
        oracle=Oracle(
            params=lambda scale: Params.from_scale(scale, out_bits=12),
            scales=(2e-3, 0.2),
            real=lambda q, stop, p: real_softmax(q * p.scale, stop),
            value=lambda out, p: out / 2.0**p.out_bits,
            # the line is within 0.062 of the power, which moves a probability by 0.03; one step of q in d, and
            # the ceiling in unit. For rows of a few columns: the factor keeps 2**31 // total.
            bound=lambda p: 0.04 + p.scale,
        ),
    )
)

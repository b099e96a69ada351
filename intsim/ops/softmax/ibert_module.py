"""Integer-only softmax as the published I-BERT module computes it: IntSoftmax, with a 16-bit exponential.

    d = max(q - max q, -30 * ln2);   z = -d // ln2;   r = d + z * ln2
    exp = max((r + b_over_a) * r + c_over_a, 0) << (30 - z)
    e = min(round(exp * e_multiplier / 2**e_shift), 2**15 - 1)              ties to even
    probability = e * (2**32 // sum e) >> (32 - out_bits)

The quadratic is a (x**2 + b/a x + c/a), both constants on the grid of q. e_multiplier / 2**e_shift is
the dyadic number of a requantization to 16 bits: one over the scale of e in units of exp.

The module hands that requantization the integer exp as if it were a real value, so its calibrated range
counts integers and its float path divides by a scale near 2**-40 first; here it is the product of two
integers. A row of one column reaches 2**out_bits where e divides 2**32 (so the result has one bit more).

Differs from ``ibert``, the paper's algorithm: exp has 30 bits of fraction, then 16 bits in all, and a
factor takes the place of the division.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from intsim.compiling import Int, portable
from intsim.numerics import IntType, Rounding, int8, int16, int32
from intsim.op import Op, Oracle, Port, Rowwise, Size
from intsim.ops.softmax import LONGEST, real_softmax
from intsim.params import Limit, Params as Base, int_type, integer, real
from intsim.registry import register
from intsim.scalar.rounding import shift_right
from intsim.spec import rounding

A, B, C, LN2 = 0.35815147, 0.96963238, 1.0, 0.6931
PRECISION, MOST = 30, 2**15 - 1


@dataclass(frozen=True, slots=True, eq=False)
class Params(Base):
    ln2: int = integer(1, 2**15)
    b_over_a: int = integer(0, 2**15)
    c_over_a: int = integer(1, 2**30)
    e_multiplier: int = integer(1, 2**31 - 1)
    e_shift: int = integer(PRECISION, 92)
    out_bits: int = integer(2, 16, default=8)
    q: IntType = int_type(int16, int8, int32, role="operand")
    scale: float = real()  # only the oracle reads it
    limits: ClassVar = (  # e of the largest element is at least 1, so the total is
        Limit(
            "c_over_a * e_multiplier >= 2**(e_shift - 30)",
            lambda p: p.c_over_a * p.e_multiplier >= 1 << (p.e_shift - PRECISION),
        ),
    )

    @classmethod
    def from_scale(cls, scale: float, *, most: float | None = None, **fields: Any) -> Params:
        """The parameters for inputs ``real = scale * q``; scale: a float in [1e-4, 0.69].

        most: the largest exp of the calibration; left out, that of the row's maximum.
        """
        if not 1e-4 <= scale <= 0.69:
            raise ValueError(f"softmax.ibert_module: scale is in [1e-4, 0.69], got {scale}")
        c = math.floor(C / A / scale**2)
        fraction, exponent = math.frexp(MOST / (c * 2.0**PRECISION if most is None else most))
        multiplier = math.floor(fraction * 2**31 + 0.5)
        if multiplier == 2**31:
            multiplier, exponent = 2**30, exponent + 1
        return cls(
            -math.floor(-LN2 / scale), math.floor(B / A / scale), c, multiplier, 31 - exponent, scale=scale, **fields
        )


def spec(q: Any, stop: Any, p: Params) -> Any:
    seen = np.arange(q.shape[-1]) < stop.reshape(-1, 1)
    d = np.maximum(np.minimum(q - np.where(seen, q, p.q.qmin).max(axis=-1, keepdims=True), 0), -PRECISION * p.ln2)
    z, r = d // -p.ln2, -(-d % p.ln2)
    quadratic = np.maximum((r + p.b_over_a) * r + p.c_over_a, 0)
    # exp * m / 2**e_shift is quadratic * m / 2**(e_shift - 30 + z); the product is below 2**62, half of 2**63
    places = p.e_shift - PRECISION + z
    e = rounding.shift_right(quadratic * p.e_multiplier, np.minimum(places, 62), Rounding.TIES_TO_EVEN)
    e = np.where(seen & (places <= 62), np.minimum(e, MOST), 0)
    return e * ((1 << 32) // e.sum(axis=-1, keepdims=True)) >> (32 - p.out_bits)


@portable
def short_exp(d: Int, p: Any) -> Int:
    d = max(d, -30 * p.ln2)
    z = -d // p.ln2
    r = d + z * p.ln2
    # |r| < 2**15 and b_over_a <= 2**15: the quadratic is at most 2**30 + 2**30
    product = max((r + p.b_over_a) * r + p.c_over_a, 0) * p.e_multiplier  # below 2**62
    places = p.e_shift - 30 + z
    if places > 62:
        return 0  # less than a half
    return min(shift_right(product, places, Rounding.TIES_TO_EVEN), 32767)


@portable
def row(i: Int, x: Any, out: Any, p: Any) -> None:
    q, stop, y = x.q[i], np.int64(x.stop[i]), out.probability[i]
    top = np.int64(q[0])
    for j in range(1, stop):
        top = max(top, np.int64(q[j]))
    total = np.int64(0)
    for j in range(stop):
        total += short_exp(np.int64(q[j]) - top, p)
    factor = 4294967296 // total
    for j in range(stop):
        y[j] = (short_exp(np.int64(q[j]) - top, p) * factor) >> (32 - p.out_bits)  # e <= total: at most 2**32
    for j in range(stop, q.shape[0]):
        y[j] = 0


def examples() -> dict[str, Any]:
    q = np.array([[0, 0, 0, 0], [0, -14, -1000, -32767], [32767, 32767, -32768, 0], [3, 1, 0, 2]], np.int16)
    stop = np.array([1, 2, 3, 4], np.int32)
    return {
        "equal, far apart, extreme": ((q,), Params.from_scale(0.05)),
        "masked, to 16 bits": ((q, stop), Params.from_scale(0.05, out_bits=16)),
        "a calibration that saturates e": ((q,), Params.from_scale(0.05, most=2.0**35)),
        "a calibration so wide that e has few bits": ((q,), Params.from_scale(0.05, most=2.0**52)),
        "e is a power of two: one column reaches 2**out_bits": ((q, stop), Params(14, 54, 4, 2**30, 48)),
        "e is 2.5, a tie to even": ((np.array([[0, -1, -2, -3]], np.int16),), Params(2, 0, 1, 2**30 + 2**28, 59)),
        "places of 61, 62 and 63": (
            (np.array([[0, -65535, -98303, -131071]], np.int32),),
            Params(2**15, 0, 2**30, 2**31 - 1, 90, q=int32),
        ),
        "a total of 641, a divisor of 2**32 + 1": ((np.zeros((1, 1), np.int16),), Params(1, 0, 641, 2**30, 60)),
        "e is 1.5, a tie": ((np.array([[0, -1, -2, -3]], np.int16),), Params(2, 0, 1, 2**30 + 2**29, 59)),
        "places beyond 62": ((q,), Params.from_scale(0.002)),
        "int32, both ends": ((np.array([[2**31 - 1, -(2**31), 0]], np.int32),), Params.from_scale(0.01, q=int32)),
    }


OP = register(
    Op(
        name="softmax.ibert_module",
        version=1,
        cites="Kim et al. 2021 (arXiv 2101.01321); kssteven418/I-BERT fairseq/quantization/utils/quant_modules.py "
        "IntSoftmax",
        inputs=(Port("q", "m n", lambda p: p.q), Port("stop", "m", int32, fill="n", upto="n")),
        outputs=(Port("probability", "m n", lambda p: IntType(p.out_bits + 1, signed=False)),),
        params=Params,
        spec=spec,
        program=Rowwise(row),
        sizes={"n": Size(1, LONGEST)},
        examples=examples,
        oracle=Oracle(
            params=lambda scale: Params.from_scale(scale, out_bits=12),
            scales=(2e-3, 0.3),
            real=lambda q, stop, p: real_softmax(q * p.scale, stop),
            value=lambda out, p: out / 2.0**p.out_bits,
            bound=lambda p: 0.01 + p.scale,
        ),
    )
)

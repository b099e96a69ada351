"""Log-int-softmax: probabilities that are powers of two, FQ-ViT, Lin et al. 2022, section 3.3.

    d = max(q - max q, -30 * ln2);   z = -d // ln2;   r = d + z * ln2
    exp = max((r + b_over_a) * r + c_over_a, 0) << (30 - z)
    ratio = round(sum exp / exp)  (ties to even);   code = log2 ratio, 1.5 * 2**k rounds up to k + 1
    probability = 2**-code where code < 2**code_bits, else 0

The result is held on the grid 2**-(2**code_bits - 1): one bit of 2**code_bits is set, or none, so
that a shift by the code is a product with it. Where exp is 0 the probability is 0.

Differs from ``ibert_module``: exp keeps all its bits and is not normalised but divides the total. The
published code computes in float32; it is exact at scales that are powers of two (elsewhere (q * scale)
/ scale is not q), in float64 and while the quotient is not within an ulp of a tie.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from intsim.compiling import Int, portable
from intsim.numerics import IntType, Rounding, int8, int16, int32
from intsim.op import Op, Oracle, Port, Rowwise, Size
from intsim.ops.softmax import real_softmax
from intsim.params import Limit, Params as Base, int_type, integer, real
from intsim.registry import register
from intsim.scalar.functions import bit_length
from intsim.scalar.rounding import divide
from intsim.spec import functions, rounding

A, B, C, LN2 = 0.35815147, 0.96963238, 1.0, 0.6931
PRECISION = 30
MOST = 2**11  # columns: exp is at most 2**50, so the total stays below 2**62


@dataclass(frozen=True, slots=True, eq=False)
class Params(Base):
    ln2: int = integer(1, 2**10)
    b_over_a: int = integer(0, 2**12)
    c_over_a: int = integer(1, 2**20)
    code_bits: int = integer(1, 5, default=4)
    q: IntType = int_type(int8, int16, int32, role="operand")
    scale: float = real()  # only the oracle reads it
    limits: ClassVar = (  # so the quadratic is at most c_over_a
        Limit("ln2 <= b_over_a + 1", lambda p: p.ln2 <= p.b_over_a + 1),
    )

    @classmethod
    def from_scale(cls, scale: float, **fields: Any) -> Params:
        """The parameters for inputs ``real = scale * q``; scale: a float in [0.002, 0.69], best a power of two."""
        if not 0.002 <= scale <= 0.69:
            raise ValueError(f"softmax.fqvit: scale is in [0.002, 0.69], got {scale}")
        c = math.floor(C / A / scale**2)
        return cls(-math.floor(-LN2 / scale), math.floor(B / A / scale), c, scale=scale, **fields)


def spec(q: Any, stop: Any, p: Params) -> Any:
    seen = np.arange(q.shape[-1]) < stop.reshape(-1, 1)
    d = np.maximum(np.minimum(q - np.where(seen, q, p.q.qmin).max(axis=-1, keepdims=True), 0), -PRECISION * p.ln2)
    z, r = d // -p.ln2, -(-d % p.ln2)
    exp = np.where(seen, np.maximum((r + p.b_over_a) * r + p.c_over_a, 0) * 2 ** (PRECISION - z), 0)
    ratio = rounding.divide(exp.sum(axis=-1, keepdims=True), np.maximum(exp, 1), Rounding.TIES_TO_EVEN)
    floor = functions.bit_length(ratio) - 1
    code = floor + (2 * (ratio - 2**floor) >= 2**floor)
    most = 2**p.code_bits - 1
    return np.where((exp > 0) & (code <= most), 1 << np.clip(most - code, 0, most), 0)


@portable
def long_exp(d: Int, p: Any) -> Int:
    d = max(d, -30 * p.ln2)
    z = -d // p.ln2
    r = d + z * p.ln2
    return max((r + p.b_over_a) * r + p.c_over_a, 0) << (30 - z)  # at most c_over_a << 30


@portable
def row(i: Int, x: Any, out: Any, p: Any) -> None:
    q, stop, y = x.q[i], np.int64(x.stop[i]), out.probability[i]
    most = (1 << p.code_bits) - 1
    top = np.int64(q[0])
    for j in range(1, stop):
        top = max(top, np.int64(q[j]))
    total = np.int64(0)
    for j in range(stop):
        total += long_exp(np.int64(q[j]) - top, p)
    for j in range(q.shape[0]):
        y[j] = 0
        if j < stop:
            exp = long_exp(np.int64(q[j]) - top, p)
            if exp > 0:
                ratio = divide(total, exp, Rounding.TIES_TO_EVEN)
                code = bit_length(ratio) - 1
                if code > 0:
                    code += (ratio >> (code - 1)) & 1  # the bit below the highest
                if code <= most:
                    y[j] = 1 << (most - code)


def examples() -> dict[str, Any]:
    q = np.array([[0, 0, 0, 0, 0, 0], [0, -14, -100, -127, 127, 126], [127, 127, -128, 0, 1, 2]], np.int8)
    return {
        "equal, far apart, extreme": ((q,), Params.from_scale(2.0**-4)),
        "rows of 1, 3 and 6 equal columns: ratio 3 is 1.5 * 2": (
            (np.zeros((4, 6), np.int8), np.array([1, 2, 3, 6], np.int32)),
            Params.from_scale(2.0**-4),
        ),
        "ratios 3, 3, 6, 6": ((np.array([[0, -1, -2, -3]], np.int8),), Params(2, 1, 2)),
        "a ratio of 2.5: 2, whose code is 1": ((np.array([[0, -1, -2]], np.int8),), Params(2, 1, 2)),
        "exp is 0": ((np.array([[0, -1, -2, -3]], np.int8),), Params(2, 3, 1)),
        "codes of 3 bits: small ones are 0": ((q,), Params.from_scale(2.0**-4, code_bits=3)),
        "codes of 5 bits: the floor of exp at 30 halvings": ((q,), Params.from_scale(0.5, code_bits=5)),
        "int16, the finest scale": (
            (np.array([[-32768, 32767, 32000, 32767]], np.int16),),
            Params.from_scale(0.002, q=int16),
        ),
    }


OP = register(
    Op(
        name="softmax.fqvit",
        version=1,
        cites="Lin et al. 2022 (arXiv 2111.13824), section 3.3; megvii-research/FQ-ViT models/ptq/layers.py "
        "QIntSoftmax",
        inputs=(Port("q", "m n", lambda p: p.q), Port("stop", "m", int32, fill="n", upto="n")),
        outputs=(Port("probability", "m n", lambda p: IntType(2**p.code_bits, signed=False)),),
        params=Params,
        spec=spec,
        program=Rowwise(row),
        sizes={"n": Size(1, MOST)},
        examples=examples,
        oracle=Oracle(
            params=lambda scale: Params.from_scale(scale, q=int16),
            scales=(2e-3, 0.3),
            real=lambda q, stop, p: real_softmax(q * p.scale, stop),
            value=lambda out, p: out / 2.0 ** (2**p.code_bits - 1),
            # a ratio just below 1.5 is 1, one just below 2.5 is 2 and one of 2.5 is 2: probabilities 0.67 and 0.5
            bound=lambda p: 0.34 + p.scale,
        ),
    )
)

"""Softmax by I-BERT's quadratic on int8, as Deeploy's C kernel computes it, with the words it computes in.

    d = q - max q;   z = clip(int8(-d // log2), 0, 31);   r = d + z * log2
    y = uint32((a * (r + b)**2 + c) >> z);   total = uint32(sum y), at least 1
    probability = int8(uint32(y * (levels - 1)) // total - levels // 2)

Conversions wrap. They bite where the scale is very coarse (log2 = 1: z beyond 127 turns negative and
is clipped to 0, so that the farthest columns count most) or fine (c > 2**24: the product leaves 32
bits). A total of 0 modulo 2**32 traps in C; here it counts as 1. A masked column gets -levels // 2.

Differs from ``ibert``: the step that halves is quantlib's round(1 / scale), where ln 2 / scale would
fit the quadratic: on each such step the result falls to 0.39 and starts again from 0.5, so it is not
monotone. And results that start at -levels // 2.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from intsim.compiling import Int, portable
from intsim.numerics import IntType, int8, int32
from intsim.op import Op, Oracle, Port, Rowwise, Size
from intsim.ops.softmax import LONGEST, real_softmax
from intsim.params import Limit, Params as Base, integer, real
from intsim.registry import register
from intsim.spec import rounding

UINT32 = IntType(32, signed=False)
A, B, C = 0.3585, 1.353, 0.344


@dataclass(frozen=True, slots=True, eq=False)
class Params(Base):
    log2: int = integer(1, 2**24)
    b: int = integer(0, 2**15)
    c: int = integer(0, 2**40)
    a: int = integer(1, 2**15, default=1)
    levels: int = integer(2, 256, default=256)
    scale: float = real()  # only the oracle reads it
    limits: ClassVar = (  # beyond, the int32 product overflows, which C does not define
        Limit("a * max(b, 255)**2 < 2**31", lambda p: p.a * max(p.b, 255) ** 2 < 2**31),
    )

    @classmethod
    def from_scale(cls, scale: float, **fields: Any) -> Params:
        """quantlib's parameters for inputs ``real = scale * q``; scale: a float in [2**-14, 1]."""
        if not 2.0**-14 <= scale <= 1:
            raise ValueError(f"softmax.deeploy: scale is in [2**-14, 1], got {scale}")
        return cls(round(1 / scale), round(B / scale), round(C / (A * scale**2)), scale=scale, **fields)


def spec(q: Any, stop: Any, p: Params) -> Any:
    seen = np.arange(q.shape[-1]) < stop.reshape(-1, 1)
    d = np.minimum(q - np.where(seen, q, int8.qmin).max(axis=-1, keepdims=True), 0)
    z = np.clip(rounding.wrap(-d // p.log2, int8), 0, 31)
    r = rounding.wrap(d + z * p.log2, IntType(16))
    y = rounding.wrap((p.a * (r + p.b) ** 2 + p.c) >> z, UINT32)
    total = rounding.wrap(np.where(seen, y, 0).sum(axis=-1, keepdims=True), UINT32)
    share = rounding.wrap(y * (p.levels - 1), UINT32) // np.maximum(total, 1)
    return np.where(seen, rounding.wrap(share - p.levels // 2, int8), -(p.levels // 2))


@portable
def quadratic(d: Int, p: Any) -> Int:
    z = -d // p.log2  # 0 to 255; above 127 an int8 is negative
    z = 0 if z > 127 else min(z, 31)
    r = d + z * p.log2  # -255 to 0: z * log2 <= -d
    return ((p.a * (r + p.b) * (r + p.b) + p.c) >> z) & 4294967295


@portable
def row(i: Int, x: Any, out: Any, p: Any) -> None:
    q, stop, y = x.q[i], np.int64(x.stop[i]), out.probability[i]
    half = p.levels >> 1
    top = np.int64(q[0])
    for j in range(1, stop):
        top = max(top, np.int64(q[j]))
    total = np.int64(0)
    for j in range(stop):
        total += quadratic(np.int64(q[j]) - top, p)  # 2**16 terms: below 2**48
    total = max(total & 4294967295, np.int64(1))
    for j in range(stop):
        share = ((quadratic(np.int64(q[j]) - top, p) * (p.levels - 1)) & 4294967295) // total
        y[j] = ((share - half + 128) & 255) - 128
    for j in range(stop, q.shape[0]):
        y[j] = -half


def examples() -> dict[str, Any]:
    q = np.array([[-128, 127, 126, 0, 111], [5, 5, 5, 5, 5], [-128, -128, 127, -100, -1]], np.int8)
    step = np.array([[0, -9, -10, -11, -20]], np.int8)
    return {
        "scale 0.03": ((q,), Params.from_scale(0.03)),
        "not monotone: a step of 10 halves from 1 again": ((step,), Params.from_scale(0.1)),
        "log2 = 1: z wraps to a negative int8, and 31 is its most": ((q,), Params.from_scale(1.0)),
        "c above 2**24: the product leaves 32 bits": ((q,), Params.from_scale(0.00014)),
        "y leaves 32 bits": ((q,), Params(100, 2000, 2**40)),
        "31 shifts at most, of a c beyond 32 bits": (
            (np.array([[127, -128]], np.int8),),
            Params(4, 4, 2**36),
        ),
        "a total of 0 modulo 2**32": ((q,), Params(100, 0, 2**32)),
        "masked": ((q, np.array([1, 3, 4], np.int32)), Params.from_scale(0.03)),
        "16 levels, a = 3": ((q,), Params(30, 60, 1000, a=3, levels=16)),
    }


OP = register(
    Op(
        name="softmax.deeploy",
        version=1,
        cites="pulp-platform/Deeploy TargetLibraries/Generic/src/Softmax_s8.c Softmax_s8_s8; "
        "pulp-platform/quantlib algorithms/pact/pact_ops.py",
        inputs=(Port("q", "m n", int8), Port("stop", "m", int32, fill="n", upto="n")),
        outputs=(Port("probability", "m n", int8),),
        params=Params,
        spec=spec,
        program=Rowwise(row),
        sizes={"n": Size(1, LONGEST)},
        examples=examples,
        exempt={"order_preserving": "the quadratic ends at 0.39 where the halved one starts at 0.5"},
        oracle=Oracle(
            params=Params.from_scale,
            scales=(1e-3, 0.3),
            real=lambda q, stop, p: real_softmax(q * p.scale, stop),
            value=lambda out, p: (out + p.levels // 2) / (p.levels - 1),
            # base 2 where e is meant: 1 / (1 + 0.5) for 1 / (1 + 1 / e) at a difference of 1, and so on
            bound=lambda p: 0.25 + p.scale,
        ),
    )
)

"""Mean over the tokens of a sentence, padding left out.

    q[i, j] = saturate(round(2**shift * sum_{t < stop[i]} (x[i, t, j] - a_zero_point) / stop[i]) + zero_point)

``shift`` is the number of fraction bits that the mean gains. Differs from TFLite MEAN, which
multiplies by a rounded reciprocal: this division is exact, so a mean of equal values is that value.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from intsim.compiling import Int, portable
from intsim.numerics import IntType, Rounding, int8, int16, int32, unlimited
from intsim.op import Elementwise, Op, Oracle, Port, Size
from intsim.params import Params as Base, int_type, integer, rule
from intsim.registry import register
from intsim.scalar.rounding import divide, saturate
from intsim.spec import rounding

LONGEST = 2**20  # 17-bit terms and a shift of 16: the sum stays below 2**53


@dataclass(frozen=True, slots=True, eq=False)
class Params(Base):
    shift: int = integer(0, 16, default=0)
    a_zero_point: int = integer(-(2**15), 2**15, default=0)
    zero_point: int = integer(-(2**15), 2**15, default=0)
    x: IntType = int_type(int16, int8, role="operand")
    dtype: IntType = int_type(int32, int8, int16, unlimited, role="result")
    rounding: Rounding = rule(Rounding, Rounding.TIES_TO_EVEN)


def spec(x: Any, stop: Any, p: Params) -> Any:
    seen = np.arange(x.shape[-2]) < stop.reshape(-1, 1)
    total = np.where(seen[:, :, None], x - p.a_zero_point, 0).sum(axis=-2)
    return rounding.saturate(rounding.divide(total << p.shift, stop.reshape(-1, 1), p.rounding) + p.zero_point, p.dtype)


@portable
def element(i: Int, j: Int, x: Any, p: Any) -> Int:
    stop = np.int64(x.stop[i])
    total = np.int64(0)
    for t in range(stop):
        total += np.int64(x.x[i, t, j]) - p.a_zero_point
    return saturate(divide(total << p.shift, stop, p.rounding) + p.zero_point, p.dtype)


def examples() -> dict[str, Any]:
    x = np.array([[[1, -3], [0, -4], [4, 100]], [[32767, -32768], [32767, -32768], [5, 6]]], np.int16)
    stop = np.array([2, 3], np.int32)
    made: dict[str, Any] = {f"ties and padding, {r.name}": ((x, stop), Params(rounding=r)) for r in Rounding}
    made["fraction bits and zero points"] = ((x,), Params(shift=8, a_zero_point=3, zero_point=-7, dtype=int16))
    return made


OP = register(
    Op(
        name="reduce.mean",
        version=1,
        cites="Reimers and Gurevych 2019 (Sentence-BERT, arXiv 1908.10084), mean pooling",
        inputs=(Port("x", "m t n", lambda p: p.x), Port("stop", "m", int32, fill="t", upto="t")),
        outputs=(Port("q", "m n", lambda p: p.dtype),),
        params=Params,
        spec=spec,
        program=Elementwise(element),
        sizes={"t": Size(1, LONGEST)},
        examples=examples,
        oracle=Oracle(
            params=lambda scale: Params(shift=8, dtype=unlimited),
            scales=(1.0, 1.0),
            real=lambda x, stop, p: np.stack([row[: int(n)].mean(axis=0) for row, n in zip(x, stop, strict=True)]),
            value=lambda q, p: q / 2.0**p.shift,
            bound=lambda p: 2.0 ** -(p.shift + 1),
        ),
    )
)

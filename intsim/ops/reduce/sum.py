"""Sum of a row of plain integers in a stated accumulator.

    acc = sum_j x[j]

With WRAP modulo 2**bits, in any order; with SATURATE after every element, from the first on.

Differs from ``sum_tflite``: no zero points and no rescaling.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from intsim.compiling import Int, portable
from intsim.numerics import IntType, Overflow, int8, int16, int32, uint8, unlimited
from intsim.op import Op, Port, Rowwise, Size
from intsim.params import Params as Base, int_type, rule
from intsim.registry import register
from intsim.scalar.rounding import saturate, wrap
from intsim.spec import rounding

LONGEST = 2**20  # |x| <= 2**31: a sum stays below 2**52


@dataclass(frozen=True, slots=True, eq=False)
class Params(Base):
    x: IntType = int_type(int32, int16, int8, uint8, role="operand")
    acc: IntType = int_type(int32, int16, unlimited, role="accumulator")
    overflow: Overflow = rule(Overflow, Overflow.WRAP)


def spec(x: Any, p: Params) -> Any:
    if p.overflow == Overflow.WRAP:
        return rounding.wrap(x.sum(axis=-1), p.acc)
    acc = x[:, 0] * 0
    for j in range(x.shape[-1]):
        acc = rounding.saturate(acc + x[:, j], p.acc)
    return acc


@portable
def row(i: Int, x: Any, out: Any, p: Any) -> None:
    acc = np.int64(0)
    if p.overflow == Overflow.WRAP:
        for j in range(x.x.shape[1]):
            acc += np.int64(x.x[i, j])
        acc = wrap(acc, p.acc)
    else:
        for j in range(x.x.shape[1]):
            acc = saturate(acc + np.int64(x.x[i, j]), p.acc)
    out.acc[i] = acc


def examples() -> dict[str, Any]:
    high, low = 2**31 - 1, -(2**31)
    x = np.array([[high, 1, -1], [high, high, high], [low, -1, 1], [low, low, low], [3, -5, 7]], np.int32)
    made: dict[str, Any] = {f"leaves int32, {o.name}": ((x,), Params(overflow=o)) for o in Overflow}
    made["a wide accumulator holds it"] = ((x,), Params(acc=unlimited))
    small = np.array([[127, 127, 127, 127], [-128, -128, -128, -128], [1, 2, 3, -4]], np.int8)
    made["int8"] = ((small,), Params(int8))
    made["uint8"] = ((small.view(np.uint8),), Params(uint8))
    long = np.repeat(np.array([[32767, -32768]], np.int16), 3, axis=1)
    made["int16 saturates on the way"] = ((long,), Params(int16, int16, Overflow.SATURATE))
    made["int16 wraps"] = ((np.sort(long),), Params(int16, int16))
    return made


OP = register(
    Op(
        name="reduce.sum",
        version=1,
        cites="TOSA 1.0 REDUCE_SUM (int32); ONNX ReduceSum-13",
        inputs=(Port("x", "m n", lambda p: p.x),),
        outputs=(Port("acc", "m", lambda p: p.acc),),
        params=Params,
        spec=spec,
        program=Rowwise(row),
        sizes={"n": Size(1, LONGEST)},
        examples=examples,
    )
)

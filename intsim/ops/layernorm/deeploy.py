"""Layer normalization of int8 rows, as Deeploy's C kernel computes it: Layernorm_s8_s8.

    mean = sum(x + offset) / n;   d = x + offset - mean;   std = isqrt(sum d**2 / n + 1)
    y = (d * weight / std + bias) >> shift

All quotients drop their fraction toward zero (C's division); the last shift takes the floor. shift is
the kernel's log2D. The offset cancels but for the fraction of the mean, whose direction it decides.

The C result wraps to int8 without saturation; quantlib, which trains for it, clips: ``overflow``.
Differs from ``ibert``: an eps of 1, a variance instead of a sum, and weights inside.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from intsim.compiling import Int, portable
from intsim.numerics import Overflow, Rounding, int8, int32
from intsim.op import Op, Port, Rowwise, Size
from intsim.ops.layernorm import LONGEST
from intsim.params import Params as Base, integer, rule
from intsim.registry import register
from intsim.scalar.functions import isqrt
from intsim.scalar.rounding import divide
from intsim.spec import functions, rounding


@dataclass(frozen=True, slots=True, eq=False)
class Params(Base):
    shift: int = integer(0, 31, default=0)
    offset: int = integer(-(2**15), 2**15, default=0)
    mean_rounding: Rounding = rule(Rounding, Rounding.TOWARD_ZERO)
    rounding: Rounding = rule(Rounding, Rounding.TOWARD_ZERO)  # of the quotient by std
    overflow: Overflow = rule(Overflow, Overflow.WRAP)


def spec(x: Any, weight: Any, bias: Any, p: Params) -> Any:
    n = x.shape[-1]
    d = x + p.offset - rounding.divide((x + p.offset).sum(axis=-1, keepdims=True), n, p.mean_rounding)
    std = functions.isqrt((d**2).sum(axis=-1, keepdims=True) // n + 1)
    return rounding.fit((rounding.divide(d * weight, std, p.rounding) + bias) >> p.shift, int8, p.overflow)


@portable
def row(i: Int, x: Any, out: Any, p: Any) -> None:
    q, y = x.x[i], out.y[i]
    n = q.shape[0]
    total = np.int64(0)
    for j in range(n):
        total += np.int64(q[j]) + p.offset
    mean = divide(total, n, p.mean_rounding)
    squares = np.int64(0)
    for j in range(n):
        d = np.int64(q[j]) + p.offset - mean  # |d| <= 255, so the kernel's int16 holds it
        squares += d * d
    std = isqrt(squares // n + 1)
    for j in range(n):
        d = np.int64(q[j]) + p.offset - mean
        v = (divide(d * np.int64(x.weight[j]), std, p.rounding) + np.int64(x.bias[j])) >> p.shift
        if p.overflow == Overflow.WRAP:
            y[j] = ((v + 128) & 255) - 128
        else:
            y[j] = min(max(v, -128), 127)


def examples() -> dict[str, Any]:
    x = np.array(
        [[-128, 127, -128, 127, 0, 1], [7, 7, 7, 7, 7, 7], [1, 2, 4, 8, 16, 32], [-3, -3, -3, -3, -4, -4]], np.int8
    )
    weight = np.array([2**31 - 1, -(2**31), 100, -100, 1, 7], np.int32)
    bias = np.array([0, 1, -5, 2**31 - 1, -(2**31), 64], np.int32)
    tie = np.array([[0, 1], [-1, 0], [1, 2], [-3, 0]], np.int8)
    flat = np.array([1000, 1000], np.int32)
    made: dict[str, Any] = {
        f"mean and quotient are ties, {r.name}": (
            (tie, np.array([1, 3], np.int32)),
            Params(mean_rounding=r, rounding=r),
        )
        for r in Rounding
    }
    halves = np.array([[1, 3, -1, -3]], np.int8)  # std is 2: quotients of 1/2 and 3/2
    for r in Rounding:
        made[f"quotients of 1/2 and 3/2, {r.name}"] = ((halves, np.ones(4, np.int32)), Params(rounding=r))
    made["ordinary: results wrap"] = ((x, weight, bias), Params())
    made["shifted: the floor of negatives"] = ((x, weight, bias), Params(shift=24))
    made["clipped"] = ((x, weight, bias), Params(overflow=Overflow.SATURATE))
    made["the offset turns the fraction of the mean"] = ((tie, flat), Params(offset=-100, shift=4))
    made["the largest offset"] = ((x, weight, bias), Params(offset=2**15, shift=7))
    return made


OP = register(
    Op(
        name="layernorm.deeploy",
        version=1,
        cites="pulp-platform/Deeploy TargetLibraries/Generic/src/Layernorm_s8.c Layernorm_s8_s8",
        inputs=(Port("x", "m n", int8), Port("weight", "n", int32), Port("bias", "n", int32, fill=0)),
        outputs=(Port("y", "m n", int8),),
        params=Params,
        spec=spec,
        program=Rowwise(row),
        sizes={"n": Size(1, LONGEST)},
        examples=examples,
    )
)

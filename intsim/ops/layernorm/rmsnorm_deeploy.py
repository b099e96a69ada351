"""Root-mean-square normalization of int8 rows, as Deeploy's C kernel computes it: iRMSnorm_s8_s8.

    v = x + offset;   rms = isqrt(sum v**2 / n + 1);   y = saturate((v * weight / rms) >> shift)

Both quotients drop their fraction toward zero (C's division); the shift takes the floor. shift is the
kernel's log2D. The product is an int32 there, which weights of 24 bits keep it inside.

Differs from ``deeploy``: no mean and no bias, and a result that saturates.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from intsim.compiling import Int, portable
from intsim.numerics import IntType, Rounding, int8, int24, unlimited
from intsim.op import Op, Port, Rowwise, Size
from intsim.ops.layernorm import LONGEST
from intsim.params import Params as Base, int_type, integer, rule
from intsim.registry import register
from intsim.scalar.functions import isqrt
from intsim.scalar.rounding import divide, saturate
from intsim.spec import functions, rounding


@dataclass(frozen=True, slots=True, eq=False)
class Params(Base):
    shift: int = integer(0, 31, default=0)
    offset: int = integer(-127, 127, default=0)
    dtype: IntType = int_type(int8, unlimited, role="result")
    rounding: Rounding = rule(Rounding, Rounding.TOWARD_ZERO)  # of the quotient by rms


def spec(x: Any, weight: Any, p: Params) -> Any:
    v = x + p.offset
    rms = functions.isqrt((v**2).sum(axis=-1, keepdims=True) // x.shape[-1] + 1)
    return rounding.saturate(rounding.divide(v * weight, rms, p.rounding) >> p.shift, p.dtype)


@portable
def row(i: Int, x: Any, out: Any, p: Any) -> None:
    q, y = x.x[i], out.y[i]
    n = q.shape[0]
    squares = np.int64(0)
    for j in range(n):
        v = np.int64(q[j]) + p.offset
        squares += v * v  # |v| <= 255 and n <= 2**13: below 2**30, as the kernel's int32 needs
    rms = isqrt(squares // n + 1)
    for j in range(n):
        v = (np.int64(q[j]) + p.offset) * np.int64(x.weight[j])  # at most 255 * 2**23: an int32
        y[j] = saturate(divide(v, rms, p.rounding) >> p.shift, p.dtype)


def examples() -> dict[str, Any]:
    x = np.array(
        [[-128, 127, -128, 127, 0, 1], [0, 0, 0, 0, 0, 0], [1, 2, 4, 8, 16, 32], [-3, -3, -3, -3, -4, -4]], np.int8
    )
    weight = np.array([2**23 - 1, -(2**23), 100, -100, 1, 7], np.int32)
    tie = np.array([[2, 1], [-2, 1], [1, -2], [-1, -2]], np.int8)
    made: dict[str, Any] = {
        f"the quotient is a tie, {r.name}": (
            (np.repeat(tie, 2, 1)[:, :3], np.array([1, 3, -3], np.int32)),
            Params(rounding=r),
        )
        for r in Rounding
    }
    halves = np.array([[1, 3, -1, -3]], np.int8)  # rms is 2: quotients of 1/2 and 3/2
    for r in Rounding:
        made[f"quotients of 1/2 and 3/2, {r.name}"] = ((halves, np.ones(4, np.int32)), Params(rounding=r))
    made["extreme, zero, ordinary: results saturate"] = ((x, weight), Params())
    made["shifted: the floor of negatives"] = ((x, weight), Params(shift=17))
    made["both offsets' ends: +127"] = ((x, weight), Params(offset=127, shift=17))
    made["both offsets' ends: -127"] = ((x, weight), Params(offset=-127, shift=17))
    return made


OP = register(
    Op(
        name="layernorm.rmsnorm_deeploy",
        version=1,
        cites="pulp-platform/Deeploy TargetLibraries/Generic/src/iRMSNorm_s8.c iRMSnorm_s8_s8",
        inputs=(Port("x", "m n", int8), Port("weight", "n", int24)),
        outputs=(Port("y", "m n", lambda p: p.dtype),),
        params=Params,
        spec=spec,
        program=Rowwise(row),
        sizes={"n": Size(1, LONGEST)},
        examples=examples,
    )
)

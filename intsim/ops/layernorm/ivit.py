"""Integer-only layer normalization with a fixed number of Newton steps: I-ViT, Li and Gu 2023, section 3.4.

    d = x - round(sum x / n);   v = sum d**2;   std = 2**16, then ``steps`` times (std + v // std) >> 1
    out = (d * ((2**31 - 1) // std) >> 1) + bias          (bias is beta / gamma on the grid of out)

real = out * gamma * sqrt(n) / 2**30. There is no eps: a constant row gives the bias.

Differs from ``ibert``: no calibrated shift, 2**31 - 1, and a root that ten steps need not reach. They
halve 2**16 at best, so std is at least 64 (v = 1 gives 64, v = 1000 gives 68, not 31); it is above the
root for nearly every v below 2**15 or above 2**46. From the authors' TVM deployment: that one halves by
truncating division.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from intsim.compiling import Int, portable
from intsim.numerics import IntType, Rounding, int8, int16, int24, int32, unlimited
from intsim.op import Op, Oracle, Port, Rowwise, Size
from intsim.ops.layernorm import LONGEST, centred
from intsim.params import Params as Base, int_type, integer, rule
from intsim.registry import register
from intsim.scalar.rounding import divide, saturate
from intsim.spec import rounding

START = 2**16


@dataclass(frozen=True, slots=True, eq=False)
class Params(Base):
    steps: int = integer(0, 16, default=10)  # a 17th could leave std = 0
    x: IntType = int_type(int16, int8, int24, role="operand")
    dtype: IntType = int_type(int32, unlimited, role="result")
    mean_rounding: Rounding = rule(Rounding, Rounding.TIES_TO_EVEN)


def spec(x: Any, bias: Any, p: Params) -> Any:
    d = x - rounding.divide(x.sum(axis=-1, keepdims=True), x.shape[-1], p.mean_rounding)
    v = (d**2).sum(axis=-1, keepdims=True)
    std = v * 0 + START
    for _ in range(p.steps):
        std = (std + v // std) // 2
    return rounding.saturate(d * ((2**31 - 1) // std) // 2 + bias, p.dtype)


@portable
def newton_root(v: Int, steps: Int) -> Int:
    root = np.int64(65536)
    for _ in range(steps):
        root = (root + v // root) >> 1
    return root


@portable
def row(i: Int, x: Any, out: Any, p: Any) -> None:
    q, y = x.x[i], out.y[i]
    n = q.shape[0]
    total = np.int64(0)
    for j in range(n):
        total += np.int64(q[j])
    mean = divide(total, n, p.mean_rounding)
    v = np.int64(0)
    for j in range(n):
        d = np.int64(q[j]) - mean
        v += d * d  # |d| < 2**24 and n <= 2**13: below 2**61
    factor = 2147483647 // newton_root(v, p.steps)
    for j in range(n):
        y[j] = saturate((((np.int64(q[j]) - mean) * factor) >> 1) + np.int64(x.bias[j]), p.dtype)


def examples() -> dict[str, Any]:
    x = np.array(
        [[1, 2, 4, 8, 16, 32], [7, 7, 7, 7, 7, 7], [-32768, 32767, -32768, 32767, 0, 0], [0, 0, 0, 0, 0, 1]], np.int16
    )
    tie = np.array([[0, 1], [-1, 0], [1, 2], [-3, 0]], np.int16)
    bias = np.array([0, 1, -(2**30), 2**31 - 1, -(2**31), 5], np.int32)
    slow = np.array([[0, 45], [0, 100], [300, -300], [2**23 - 1, -(2**23)]], np.int32)
    made: dict[str, Any] = {f"the mean is a tie, {r.name}": ((tie,), Params(mean_rounding=r)) for r in Rounding}
    made["ordinary, constant, extreme, one spike"] = ((x,), Params())
    made["a bias that saturates"] = ((x, bias), Params())
    made["ten steps do not reach the root of v = 1013, 5000; nor of the largest"] = ((slow,), Params(x=int24))
    made["no step: std is 2**16"] = ((x,), Params(steps=0))
    made["sixteen steps reach a root of 1"] = ((x,), Params(steps=16))
    small = np.array([[0, -1, 1], [-1, 1, 1]], np.int16)  # v = 2 and 3
    made["a root of 1, on both sides of zero"] = ((small,), Params(steps=16))
    return made


OP = register(
    Op(
        name="layernorm.ivit",
        version=1,
        cites="Li and Gu 2023 (arXiv 2207.01405), section 3.4; zkkli/I-ViT "
        "models/quantization_utils/quant_modules.py IntLayerNorm",
        inputs=(Port("x", "m n", lambda p: p.x), Port("bias", "n", int32, fill=0)),
        outputs=(Port("y", "m n", lambda p: p.dtype),),
        params=Params,
        spec=spec,
        program=Rowwise(row),
        sizes={"n": Size(1, LONGEST)},
        examples=examples,
        oracle=Oracle(
            params=lambda scale: Params(dtype=unlimited),
            scales=(1.0, 1.0),
            real=lambda x, bias, p: (
                np.divide(
                    centred(x),
                    np.sqrt((centred(x) ** 2).sum(axis=-1, keepdims=True)),
                    out=np.zeros(x.shape),
                    where=np.ptp(x, axis=-1, keepdims=True) > 0,
                )
                + bias / 2.0**30
            ),
            value=lambda y, p: y / 2.0**30,
            # std is never below the root (it falls towards it), so the result shrinks, on small rows to nothing:
            bound=lambda p: 1.0,
        ),
    )
)

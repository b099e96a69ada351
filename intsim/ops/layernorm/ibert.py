"""Integer-only layer normalization with an integer square root: I-BERT, Kim et al. 2021, section 3.6.

    y = x - round(sum x / n);   std = isqrt(sum (y >> k)**2) << k, at least 1
    out = floor(y * floor(2**31 / std) / 2) + bias          (bias is beta / gamma on the grid of out)

real = out * gamma * sqrt(n) / 2**30. There is no eps: a constant row gives the bias.

Differs from the paper, which finds the root by Newton's iteration (the published module takes a
float root and floors it; an exact root equals both). From ``l1``: the L2 norm.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from intsim.compiling import Int, portable
from intsim.numerics import IntType, Rounding, int8, int16, int24, int32, unlimited
from intsim.op import Op, Oracle, Port, Rowwise, Size, Tuned
from intsim.ops.layernorm import LONGEST, WORTH_TUNING, centred
from intsim.params import Params as Base, int_type, integer, rule
from intsim.registry import register
from intsim.scalar.functions import isqrt
from intsim.scalar.rounding import divide, saturate
from intsim.spec import functions, rounding


@dataclass(frozen=True, slots=True, eq=False)
class Params(Base):
    k: int = integer(0, 16, default=0)  # the published code calibrates it so that the sum fits 32 bits
    x: IntType = int_type(int16, int8, int24, role="operand")
    dtype: IntType = int_type(int32, unlimited, role="result")
    mean_rounding: Rounding = rule(Rounding, Rounding.TIES_TO_EVEN)


def spec(x: Any, bias: Any, p: Params) -> Any:
    n = x.shape[-1]
    y = x - rounding.divide(x.sum(axis=-1, keepdims=True), n, p.mean_rounding)
    squares = ((y >> p.k) ** 2).sum(axis=-1, keepdims=True)
    std = np.maximum(functions.isqrt(squares) << p.k, 1)
    return rounding.saturate((y * ((1 << 31) // std) >> 1) + bias, p.dtype)


@portable
def deviation(squares: Int, p: Any) -> Int:
    """std, from the sum of squares."""
    return max(isqrt(squares) << p.k, 1)


@portable
def normalised(d: Int, factor: Int, bias: Int, p: Any) -> Int:
    """A column's result; d: what it is above the mean."""
    return saturate(((d * factor) >> 1) + bias, p.dtype)


@portable
def row(i: Int, x: Any, out: Any, p: Any) -> None:
    q, y = x.x[i], out.y[i]
    n = q.shape[0]
    total = np.int64(0)
    for j in range(n):
        total += np.int64(q[j])
    mean = divide(total, n, p.mean_rounding)
    squares = np.int64(0)
    for j in range(n):
        d = (np.int64(q[j]) - mean) >> p.k
        squares += d * d  # |d| < 2**24 and n <= 2**13: below 2**61
    factor = 2**31 // deviation(squares, p)
    for j in range(n):
        y[j] = normalised(np.int64(q[j]) - mean, factor, np.int64(x.bias[j]), p)


def examples() -> dict[str, Any]:
    x = np.array(
        [[1, 2, 4, 8, 16, 32], [7, 7, 7, 7, 7, 7], [-32768, 32767, -32768, 32767, 0, 0], [0, 0, 0, 0, 0, 1]], np.int16
    )
    tie = np.array([[0, 1], [-1, 0], [1, 2], [-3, 0]], np.int16)
    bias = np.array([0, 1, -(2**30), 2**31 - 1, -(2**31), 5], np.int32)
    made: dict[str, Any] = {f"the mean is a tie, {r.name}": ((tie,), Params(mean_rounding=r)) for r in Rounding}
    made["ordinary, constant, extreme, one spike"] = ((x,), Params())
    made["a bias that saturates"] = ((x, bias), Params())
    made["k = 4"] = ((x,), Params(k=4))
    return made


def _serves(p: Params, size: Mapping[str, int]) -> bool:
    return p.k == 0 and p.dtype == int32 and size["m"] * size["n"] > WORTH_TUNING


OP = register(
    Op(
        name="layernorm.ibert",
        version=1,
        cites="Kim et al. 2021 (arXiv 2101.01321), section 3.6; kssteven418/I-BERT quant_modules.py IntLayerNorm",
        inputs=(Port("x", "m n", lambda p: p.x), Port("bias", "n", int32, fill=0)),
        outputs=(Port("y", "m n", lambda p: p.dtype),),
        params=Params,
        spec=spec,
        program=Rowwise(row),
        sizes={"n": Size(1, LONGEST)},
        examples=examples,
        tuned=(
            Tuned("cpu", "intsim.ops.layernorm._cpu_ibert:layernorm", _serves),
            Tuned(
                "cuda",
                "intsim.ops.layernorm._cuda_ibert:layernorm",
                lambda p, size: p.dtype == int32 and size["n"] % 4 == 0 and size["n"] <= 1024,
            ),
        ),
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
            # Half a step in the mean, and the root's floor, on rows whose norm may be as small as 1:
            bound=lambda p: 1.0,
        ),
    )
)

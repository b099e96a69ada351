"""Dynamic quantization from integers: each row (a token) gets the scale that its largest element needs.

    top = max(1, max|x|)
    q   = round(x * qmax / top)          so that x ~ q * top / qmax

``top`` is the row's scale in units of ``1 / qmax`` of the grid of x, an integer:
``requantize.row_column`` multiplies by it.

Differs from ``dynamic_symmetric``: no float, and a division per element that is exact in integers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from intsim.compiling import Int, portable
from intsim.numerics import IntType, Rounding, int4, int8, int16
from intsim.op import Op, Port, Rowwise, Size, Tuned
from intsim.params import Params as Base, int_type, rule
from intsim.registry import register
from intsim.scalar.rounding import divide
from intsim.spec import rounding


WORTH_TUNING = 1 << 14  # elements: below, the one kernel of the program, which serves every type, is as good


@dataclass(frozen=True, slots=True, eq=False)
class Params(Base):
    dtype: IntType = int_type(int8, int4, role="operand")  # nothing to saturate: |q| <= qmax by construction
    rounding: Rounding = rule(Rounding, Rounding.TIES_TO_EVEN)


def spec(x: Any, p: Params) -> Any:
    top = np.maximum(abs(x).max(axis=-1, keepdims=True), 1)
    return rounding.divide(x * p.dtype.qmax, top, p.rounding), top[:, 0]


@portable
def quantized(x: Int, top: Int, p: Any) -> Int:
    return divide(x * p.dtype.qmax, top, p.rounding)


@portable
def row(i: Int, x: Any, out: Any, p: Any) -> None:
    x, q = x.x[i], out.q[i]
    top = np.int64(1)
    for j in range(x.shape[0]):
        top = max(top, abs(np.int64(x[j])))
    for j in range(x.shape[0]):
        q[j] = quantized(np.int64(x[j]), top, p)
    out.top[i] = top


def examples() -> dict[str, Any]:
    x = np.array([[254, 1, -1, 3, -3], [0, 0, 0, 0, 0], [32767, -32767, 16384, 129, -129], [5, 3, 1, 0, -2]], np.int16)
    return {f"ties, zero, extremes, small; {r.name}": ((x,), Params(rounding=r)) for r in Rounding}


OP = register(
    Op(
        name="quantize.dynamic_token",
        version=1,
        cites="Yao et al. 2022 (ZeroQuant, arXiv 2206.01861), token-wise quantization, in integers",
        inputs=(Port("x", "m n", int16, low=-(2**15) + 1),),
        outputs=(Port("q", "m n", lambda p: p.dtype), Port("top", "m", int16)),
        params=Params,
        spec=spec,
        program=Rowwise(row),
        sizes={"n": Size(1)},
        examples=examples,
        tuned=(
            Tuned(
                "cpu",
                "intsim.ops.quantize._cpu_dynamic_token:dynamic_token",
                lambda p, size: p.rounding == Rounding.TIES_TO_EVEN and size["m"] * size["n"] > WORTH_TUNING,
            ),
        ),
    )
)

"""The smallest and the largest partial sum of every element of an integer matrix product, k ascending.

    P[t] = bias[j] + sum_{k < t} (a[i, k] - a_zero_point) (b[j, k] - b_zero_point[j])        t = 0 ... k
    least[i, j] = min_t P[t];   most[i, j] = max_t P[t]

What a narrow accumulator does is decided by these two: where qmin <= least and most <= qmax, it neither wraps nor
saturates on the way, whatever its rule. ``matmul.integer`` gives the sums themselves.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from intsim.compiling import Int, compiles, portable
from intsim.numerics import IntType, int8, int16, int32, uint8, unlimited
from intsim.op import Op, Port, Rowwise, Size, Tuned
from intsim.ops.matmul import MOST_TERMS, centred, term
from intsim.params import Params as Base, int_type, integer
from intsim.registry import register


@dataclass(frozen=True, slots=True, eq=False)
class Params(Base):
    a_zero_point: int = integer(-(2**15), 2**15 - 1, inside="a", default=0)
    b_zero_point: Any = integer(-(2**15), 2**15 - 1, per="n", inside="b", default=0)
    a: IntType = int_type(int8, uint8, int16, role="operand")
    b: IntType = int_type(int8, uint8, int16, role="operand")


def spec(a: Any, b: Any, bias: Any, p: Params) -> Any:
    a, b = centred(a, b, p)
    acc = 0 * (a @ b.T) + bias
    least = most = acc
    for k in range(a.shape[-1]):
        acc = acc + a[:, k, None] * b[:, k]
        least, most = np.minimum(least, acc), np.maximum(most, acc)
    return least, most


@portable
def row(i: Int, x: Any, out: Any, p: Any) -> None:
    for j in range(x.b.shape[0]):
        acc = np.int64(x.bias[j])
        least, most = acc, acc
        for k in range(x.b.shape[1]):
            acc += term(np.int64(x.a[i, k]), np.int64(x.b[j, k]), j, p)
            least, most = min(least, acc), max(most, acc)
        out.least[i, j], out.most[i, j] = least, most


def examples() -> dict[str, Any]:
    a = np.array([[127, 127, 127, 127], [-128, 5, -128, 127], [1, 0, -1, 0]], np.int8)
    b = np.array([[127, 127, -128, -128], [-128, 127, 127, 1], [0, 0, 0, 0]], np.int8)
    bias = np.array([2**31 - 1, -(2**31), 7], np.int32)
    return {
        "up and down again": ((a, b), Params()),
        "a bias is where a sum starts": ((a, b, bias), Params()),
        "zero points, odd length": ((a[:, :3].view(np.uint8), b[:, :3], bias), Params(128, [3, 0, -7], a=uint8)),
    }


def _serves(p: Params, size: Mapping[str, int]) -> bool:
    """Operands of 8 bits, and sums of which nothing leaves 32 but by the bias."""
    return (
        max(p.a.bits, p.b.bits) == 8
        and size["k"] < 2**14  # terms below 2**16: a sum below 2**30
        and size["m"] * size["n"] * size["k"] > 2**20
        and compiles()
    )


OP = register(
    Op(
        name="matmul.prefix_extremes",
        version=1,
        cites="intsim; partial sums as in Colbert et al. 2023 (A2Q, arXiv 2308.13504), section 3",
        inputs=(
            Port("a", "m k", lambda p: p.a),
            Port("b", "n k", lambda p: p.b),
            Port("bias", "n", int32, fill=0),
        ),
        outputs=(Port("least", "m n", unlimited), Port("most", "m n", unlimited)),
        params=Params,
        spec=spec,
        program=Rowwise(row),
        sizes={"k": Size(1, MOST_TERMS)},
        examples=examples,
        tuned=(Tuned("cpu", "intsim.ops.matmul._cpu_prefixes:matmul", _serves, keeps=True),),
    )
)

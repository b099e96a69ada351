"""Integer matrix product that wraps, with a count of the results that did.

    exact[i, j]   = bias[j] + sum_k (a[i, k] - a_zero_point) (b[j, k] - b_zero_point[j])
    acc[i, j]     = exact[i, j] modulo 2**bits
    wrapped[i]    = how many of exact[i, :] the accumulator's type does not hold

Differs from ``integer`` with WRAP: the count, which costs one more pass over the results. (There, ``flags`` tell
which results wrapped, by a second product.)
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from intsim.compiling import Int, portable
from intsim.numerics import IntType, int8, int16, int32, uint8
from intsim.op import Op, Port, Rowwise, Size, Tuned
from intsim.ops.matmul import ACCUMULATORS, MOST_TERMS, centred, term
from intsim.params import Params as Base, int_type, integer
from intsim.registry import register
from intsim.scalar.rounding import wrap
from intsim.spec import rounding


@dataclass(frozen=True, slots=True, eq=False)
class Params(Base):
    a_zero_point: int = integer(-(2**15), 2**15 - 1, inside="a", default=0)
    b_zero_point: Any = integer(-(2**15), 2**15 - 1, per="n", inside="b", default=0)
    a: IntType = int_type(int8, uint8, int16, role="operand")
    b: IntType = int_type(int8, uint8, int16, role="operand")
    acc: IntType = int_type(*ACCUMULATORS, role="accumulator")


def spec(a: Any, b: Any, bias: Any, p: Params) -> Any:
    a, b = centred(a, b, p)
    exact = a @ b.T + bias
    acc = rounding.wrap(exact, p.acc)
    return acc, (acc != exact).sum(axis=-1)


@portable
def row(i: Int, x: Any, out: Any, p: Any) -> None:
    wrapped = np.int64(0)
    for j in range(x.b.shape[0]):
        exact = np.int64(x.bias[j])
        for k in range(x.b.shape[1]):
            exact += term(np.int64(x.a[i, k]), np.int64(x.b[j, k]), j, p)
        acc = wrap(exact, p.acc)
        wrapped += 1 if acc != exact else 0
        out.acc[i, j] = acc
    out.wrapped[i] = wrapped


def examples() -> dict[str, Any]:
    a = np.array([[127, 127, 127], [-128, -128, -128], [1, 0, -1]], np.int8)
    b = np.array([[127, 127, 8], [-128, 127, 127], [127, 127, 5], [5, -3, 9]], np.int8)
    bias = np.array([2**15 - 1, -(2**15), 0, 1], np.int32)
    return {
        "16 bits, at both ends": ((a, b), Params(acc=IntType(16))),
        "a bias that fills them": ((a, b, bias), Params(acc=IntType(16))),
        "zero points, 17 bits": ((a.view(np.uint8), b, bias), Params(128, [3, 0, -7, 1], a=uint8, acc=IntType(17))),
        "32 bits: only the bias can": ((a, b, bias * -(2**16)), Params()),
    }


def _serves(p: Params, size: Mapping[str, int]) -> bool:
    """Operands of 8 bits, and sums of which nothing leaves 32 but by the bias."""
    return (
        max(p.a.bits, p.b.bits) == 8
        and p.acc.bits <= 32
        and size["k"] < 2**14  # terms below 2**16: a sum below 2**30
        and size["m"] * size["n"] * size["k"] > 2**14
    )


OP = register(
    Op(
        name="matmul.counted",
        version=1,
        cites="intsim; wrapping as in A2Q, Colbert et al. 2023 (arXiv 2308.13504), section 2",
        inputs=(
            Port("a", "m k", lambda p: p.a),
            Port("b", "n k", lambda p: p.b),
            Port("bias", "n", int32, fill=0),
        ),
        outputs=(Port("acc", "m n", lambda p: p.acc), Port("wrapped", "m", int32)),
        params=Params,
        spec=spec,
        program=Rowwise(row),
        sizes={"k": Size(1, MOST_TERMS)},
        examples=examples,
        tuned=(Tuned("cpu", "intsim.ops.matmul._cpu_counted:matmul", _serves, keeps=True),),
    )
)

"""Requantize by a dyadic number in float64, ties to even: HAWQ-V3, I-BERT, I-ViT.

    q = saturate(rint(f64(acc) * f64(multiplier) / 2**shift) + zero_point)

The float64 product rounds where it needs more than 53 bits; both roundings are ties to even.

Differs from ``single_rounding`` with TIES_TO_EVEN: only by that first rounding, above 2**53.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from intsim.compiling import Int, portable
from intsim.numerics import IntType, int32
from intsim.op import Elementwise, Op, Port, Tuned
from intsim.ops.requantize import RESULTS, MultiplierParams, multiplier_oracle, streams
from intsim.params import int_type, integer
from intsim.registry import register
from intsim.scalar.ieee import dyadic_product
from intsim.scalar.rounding import saturate
from intsim.spec import ieee, rounding


@dataclass(frozen=True, slots=True, eq=False)
class Params(MultiplierParams):
    multiplier: Any = integer(0, 2**31 - 1, per="n")
    shift: Any = integer(0, 62, per="n")
    zero_point: Any = integer(-(2**31), 2**31 - 1, per="n", default=0)
    dtype: IntType = int_type(*RESULTS, role="result")


def spec(acc: Any, p: Params) -> Any:
    return rounding.saturate(ieee.dyadic_product(acc, p.multiplier, p.shift) + p.zero_point, p.dtype)


@portable
def element(i: Int, j: Int, x: Any, p: Any) -> Int:
    return saturate(dyadic_product(np.int64(x.acc[i, j]), p.multiplier[j], p.shift[j]) + p.zero_point[j], p.dtype)


def examples() -> dict[str, Any]:
    acc = np.array([[-(2**31), -25, -24, -8, -7, 0, 7, 8, 24, 25, 2**31 - 1]], np.int32)
    return {
        "ties go to even": ((acc,), Params(2**30, 34)),
        "a product of more than 53 bits": ((acc,), Params(2**31 - 1, 31, dtype=int32)),
    }


OP = register(
    Op(
        name="requantize.dyadic",
        version=1,
        cites="Yao et al. 2021 (HAWQ-V3, arXiv 2011.10680); Zhen-Dong/HAWQ fixedpoint_fn; kssteven418/I-BERT",
        inputs=(Port("acc", "m n", int32),),
        outputs=(Port("q", "m n", lambda p: p.dtype),),
        params=Params,
        spec=spec,
        program=Elementwise(element),
        examples=examples,
        tuned=(Tuned("cpu", "intsim.ops.requantize._cpu_columns:dyadic", streams, keeps=True),),
        oracle=multiplier_oracle(Params, lambda p: 0.5 + 2.0**-20),  # the first rounding is below 2**-53 of 2**31
    )
)

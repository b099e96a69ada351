"""Requantize as gemmlowp and TFLite: a rounded doubling high product, then a rounded shift.

    high = saturate32(positive(wrap32(acc << left) * multiplier / 2**31))
    q    = saturate(away(high / 2**right) + zero_point)        right - left = shift - 31

Used by tflite-micro, CMSIS-NN (default build), LiteRT's integer kernels, TOSA's DOUBLE_ROUND.

Differs from ``single_rounding``: two roundings by two rules (ties to positive, then ties away), and
a left shift that wraps before the product. From ``two_half_ups``: the second rule is ties away.
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
from intsim.scalar.fixed_point import multiply_by_quantized
from intsim.scalar.rounding import saturate
from intsim.spec import fixed_point, rounding


@dataclass(frozen=True, slots=True, eq=False)
class Params(MultiplierParams):
    multiplier: Any = integer(0, 2**31 - 1, per="n")
    shift: Any = integer(0, 62, per="n")  # below 31 the rest is a left shift before the product
    zero_point: Any = integer(-(2**31), 2**31 - 1, per="n", default=0)
    dtype: IntType = int_type(*RESULTS, role="result")


def spec(acc: Any, p: Params) -> Any:
    return rounding.saturate(fixed_point.multiply_by_quantized(acc, p.multiplier, p.shift) + p.zero_point, p.dtype)


@portable
def element(i: Int, j: Int, x: Any, p: Any) -> Int:
    whole = multiply_by_quantized(np.int64(x.acc[i, j]), p.multiplier[j], p.shift[j])
    return saturate(whole + p.zero_point[j], p.dtype)


def examples() -> dict[str, Any]:
    acc = np.array([[-505, -504, -24, -8, -1, 0, 1, 8, 24, 504, 505, 2**31 - 1, -(2**31)]], np.int32)
    return {
        "ties of the shift go away from zero": ((acc,), Params(2**30, 34)),
        "a value that single rounding gives otherwise": (
            (np.array([[-43987, 43987]], np.int32),),
            Params(1518500249, 39, dtype=int32),
        ),
        "a left shift wraps": ((acc,), Params(2**30, 28, dtype=int32)),
    }


OP = register(
    Op(
        name="requantize.double_rounding",
        version=1,
        cites="google/gemmlowp fixedpoint/fixedpoint.h; google-ai-edge/LiteRT tflite/kernels/internal/common.cc",
        inputs=(Port("acc", "m n", int32),),
        outputs=(Port("q", "m n", lambda p: p.dtype),),
        params=Params,
        spec=spec,
        program=Elementwise(element),
        examples=examples,
        tuned=(
            Tuned(
                "cpu",
                "intsim.ops.requantize._cpu_columns:double_rounding",
                lambda p, size: streams(p, size) and bool((p.shift >= 31).all()),
                keeps=True,
            ),
        ),
        oracle=multiplier_oracle(Params, lambda p: 1.0),  # half a unit a rounding
    )
)

"""Requantize with two roundings, both with ties to positive.

    high = positive(wrap32(acc << left) * multiplier / 2**31)
    q    = saturate(positive(high / 2**right) + zero_point)        right - left = shift - 31

Used by LiteRT's optimised FULLY_CONNECTED (ruy on AVX2 and AVX-512) and its optimised int8 requantize (the
rounding high multiply and rounding shift of NEON). It is not round-to-nearest: acc = -505 times
1/16 (-31.5625) gives -31.

Differs from ``double_rounding``: the second rounding has ties to positive instead of ties away.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from intsim.compiling import Int, portable
from intsim.numerics import IntType, Rounding, int32
from intsim.op import Elementwise, Op, Port, Tuned
from intsim.ops.requantize import RESULTS, MultiplierParams, multiplier_oracle, streams
from intsim.params import int_type, integer
from intsim.registry import register
from intsim.scalar.fixed_point import wrap32
from intsim.scalar.rounding import saturate, shift_right
from intsim.spec import rounding


@dataclass(frozen=True, slots=True, eq=False)
class Params(MultiplierParams):
    multiplier: Any = integer(0, 2**31 - 1, per="n")
    shift: Any = integer(0, 62, per="n")  # below 31 the rest is a left shift before the product
    zero_point: Any = integer(-(2**31), 2**31 - 1, per="n", default=0)
    dtype: IntType = int_type(*RESULTS, role="result")


def spec(acc: Any, p: Params) -> Any:
    left, right = np.maximum(31 - p.shift, 0), np.maximum(p.shift - 31, 0)
    high = rounding.shift_right(rounding.wrap(acc << left, int32) * p.multiplier, 31, Rounding.TIES_TO_POSITIVE)
    return rounding.saturate(rounding.shift_right(high, right, Rounding.TIES_TO_POSITIVE) + p.zero_point, p.dtype)


@portable
def element(i: Int, j: Int, x: Any, p: Any) -> Int:
    acc, shift = np.int64(x.acc[i, j]), p.shift[j]
    if shift < 31:
        acc, shift = wrap32(acc << (31 - shift)), np.int64(31)
    high = shift_right(acc * p.multiplier[j], 31, Rounding.TIES_TO_POSITIVE)
    return saturate(shift_right(high, shift - 31, Rounding.TIES_TO_POSITIVE) + p.zero_point[j], p.dtype)


def examples() -> dict[str, Any]:
    acc = np.array([[-505, -504, -24, -8, -1, 0, 1, 8, 24, 504, 505, 2**31 - 1, -(2**31)]], np.int32)
    return {
        "the value that is not rounded to nearest: -505/16": ((acc,), Params(2**30, 34)),
        "a left shift by one": ((acc,), Params(2**30, 30, dtype=int32)),
        "a left shift wraps": ((acc,), Params(2**30, 28, dtype=int32)),
    }


OP = register(
    Op(
        name="requantize.two_half_ups",
        version=1,
        cites="google/ruy ruy/kernel_avx512.cc; google-ai-edge/LiteRT tflite/kernels/internal/optimized",
        inputs=(Port("acc", "m n", int32),),
        outputs=(Port("q", "m n", lambda p: p.dtype),),
        params=Params,
        spec=spec,
        program=Elementwise(element),
        examples=examples,
        tuned=(
            Tuned(
                "cpu",
                "intsim.ops.requantize._cpu_columns:two_half_ups",
                lambda p, size: streams(p, size) and bool((p.shift >= 32).all()),
                keeps=True,
            ),
        ),
        oracle=multiplier_oracle(Params, lambda p: 1.0),  # half a unit a rounding
    )
)

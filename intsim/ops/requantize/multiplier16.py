"""Requantize a 48-bit accumulator with a multiplier cut to 16 bits.

    r = (multiplier + 2**15) >> 16, at most 2**15 - 1
    q = saturate(wrap32(positive(acc * r / 2**(shift - 16))) + zero_point)

Used for int64 accumulators of int16 activations: LiteRT and tflite-micro BATCH_MATMUL, tflite-micro
and CMSIS-NN FULLY_CONNECTED. They ask that the scaled value fits an int32, and cast it to one: where it
does not, its low 32 bits are taken.

Differs from ``single_rounding``: 15 significant bits of the multiplier instead of 31, so that a
48-bit accumulator times it still fits 64 bits.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from intsim.compiling import Int, portable
from intsim.numerics import IntType, Rounding, int32, int48
from intsim.op import Elementwise, Op, Oracle, Port
from intsim.ops.requantize import RESULTS, MultiplierParams
from intsim.params import int_type, integer
from intsim.registry import register
from intsim.scalar.fixed_point import wrap32
from intsim.scalar.rounding import saturate, shift_right
from intsim.spec import rounding


@dataclass(frozen=True, slots=True, eq=False)
class Params(MultiplierParams):
    multiplier: Any = integer(0, 2**31 - 1, per="n")
    shift: Any = integer(16, 62, per="n")
    zero_point: Any = integer(-(2**31), 2**31 - 1, per="n", default=0)
    dtype: IntType = int_type(*RESULTS, role="result")


def spec(acc: Any, p: Params) -> Any:
    reduced = np.minimum((p.multiplier + (1 << 15)) >> 16, (1 << 15) - 1)
    scaled = rounding.shift_right(acc * reduced, p.shift - 16, Rounding.TIES_TO_POSITIVE)
    return rounding.saturate(rounding.wrap(scaled, int32) + p.zero_point, p.dtype)


@portable
def element(i: Int, j: Int, x: Any, p: Any) -> Int:
    reduced = min((p.multiplier[j] + 32768) >> 16, 32767)
    # |acc| <= 2**47 and reduced < 2**15: the product fits 62 bits.
    whole = shift_right(np.int64(x.acc[i, j]) * reduced, p.shift[j] - 16, Rounding.TIES_TO_POSITIVE)
    return saturate(wrap32(whole) + p.zero_point[j], p.dtype)


def examples() -> dict[str, Any]:
    acc = np.array([[-(2**47), -(2**40), -24, -8, 0, 8, 24, 2**40, 2**47 - 1]], np.int64)
    return {
        "ties; the ends wrap": ((acc,), Params(2**30, 34)),
        "beside the ends of int32": (
            (np.array([[2**31 - 1, 2**31, -(2**31), -(2**31) - 1]], np.int64),),
            Params(2**30, 30),
        ),
        "the multiplier's own ties: 5.5, 6.5, and beside one": (
            (np.array([[1000, 1000, 1000, 1000]], np.int64),),
            Params([(5 << 16) + 2**15, (6 << 16) + 2**15, (5 << 16) + 2**15 - 1, (5 << 16) + 2**14], 16, dtype=int32),
        ),
        "the multiplier rounds up to 2**15 and is held at 2**15 - 1": ((acc,), Params(2**31 - 1, 46, dtype=int32)),
    }


OP = register(
    Op(
        name="requantize.multiplier16",
        version=1,
        cites="google-ai-edge/LiteRT tflite/kernels/internal/common.cc; ARM-software/CMSIS-NN arm_nn_requantize_s64",
        inputs=(Port("acc", "m n", int48),),
        outputs=(Port("q", "m n", lambda p: p.dtype),),
        params=Params,
        spec=spec,
        program=Elementwise(element),
        examples=examples,
        oracle=Oracle(
            params=lambda scale: Params.from_scale(scale, dtype=int32),
            scales=(1e-8, 1e-6),  # larger ones saturate a 48-bit accumulator nearly everywhere
            real=lambda acc, p: np.clip(acc * (p.multiplier[0] / 2.0 ** p.shift[0]), -(2.0**31), 2.0**31 - 1),
            value=lambda q, p: q,
            bound=lambda p: 0.5 + 2.0**47 * 2.0**15 / 2.0 ** p.shift[0],  # a cut of up to 2**15 in the multiplier
        ),
    )
)

"""Requantize with a multiplier of 8 fraction bits: XNNPACK's conversion of int8 to int8.

    q = saturate(positive(acc * multiplier / 2**8) + zero_point)

multiplier is 2**8 times the real scale, rounded to an integer, ties to even; acc is the input less
its zero point. XNNPACK takes scales from 2**-8 up to 2**7.

Differs from ``single_rounding`` with 8 bits of shift: the multiplier is not normalised to 31 bits, so
that a scale of 0.769 counts as 197 / 256.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from intsim.compiling import Int, portable
from intsim.numerics import IntType, Rounding, int32
from intsim.op import Elementwise, Op, Oracle, Port
from intsim.ops.requantize import RESULTS
from intsim.params import Params as Base, int_type, integer
from intsim.registry import register
from intsim.scalar.rounding import saturate, shift_right
from intsim.spec import rounding

FRACTION_BITS = 8


@dataclass(frozen=True, slots=True, eq=False)
class Params(Base):
    multiplier: Any = integer(1, 2**15, per="n")
    zero_point: Any = integer(-(2**31), 2**31 - 1, per="n", default=0)
    dtype: IntType = int_type(*RESULTS, role="result")

    @classmethod
    def from_scale(cls, scale: Any, **fields: Any) -> Params:
        """The parameters for a float32 scale; in [2**-8, 2**7], one or one per n."""
        value = np.atleast_1d(np.asarray(scale, np.float32))
        if not ((value >= 2.0**-FRACTION_BITS) & (value <= 2.0**7)).all():
            raise ValueError(f"requantize.xnnpack_8bit: a scale is in [2**-8, 2**7], got {scale!r}")
        return cls(np.rint(value * np.float32(2**FRACTION_BITS)).astype(np.int64), **fields)

    @classmethod
    def from_scales(cls, x: float, result: float, /, **fields: Any) -> Params:
        """The parameters for the scales of the input and the result (float32, divided in float32)."""
        with np.errstate(all="ignore"):  # from_scale refuses what overflows
            return cls.from_scale(np.float32(x) / np.float32(result), **fields)


def spec(acc: Any, p: Params) -> Any:
    whole = rounding.shift_right(acc * p.multiplier, FRACTION_BITS, Rounding.TIES_TO_POSITIVE)
    return rounding.saturate(whole + p.zero_point, p.dtype)


@portable
def element(i: Int, j: Int, x: Any, p: Any) -> Int:
    whole = shift_right(np.int64(x.acc[i, j]) * p.multiplier[j], 8, Rounding.TIES_TO_POSITIVE)  # below 2**47
    return saturate(whole + p.zero_point[j], p.dtype)


def examples() -> dict[str, Any]:
    acc = np.array([[-255, -129, -128, -3, -2, -1, 0, 1, 2, 3, 127, 255]], np.int32)
    ends = np.array([[-(2**31), 2**31 - 1]], np.int32)
    return {
        "ties at 1/4": ((acc,), Params.from_scale(0.25)),
        "a scale between two multipliers": ((acc,), Params.from_scales(0.1, 0.13, zero_point=7)),
        "the largest and the smallest scale": ((ends,), Params([1, 2**15], [-5, 5])),
        "a tie of the multiplier goes to even": ((acc,), Params.from_scale(2.5 / 256)),
    }


OP = register(
    Op(
        name="requantize.xnnpack_8bit",
        version=1,
        cites="google/XNNPACK src/qs8-vcvt, src/microparams-init.c (xnn_init_qs8_cvt_scalar_params)",
        inputs=(Port("acc", "m n", int32),),
        outputs=(Port("q", "m n", lambda p: p.dtype),),
        params=Params,
        spec=spec,
        program=Elementwise(element),
        examples=examples,
        oracle=Oracle(
            params=lambda scale: Params.from_scale(scale, dtype=int32),
            scales=(2.0**-8, 0.9),
            real=lambda acc, p: acc * (p.multiplier[0] / 2.0**FRACTION_BITS),
            value=lambda q, p: q,
            bound=lambda p: 0.5,
        ),
    )
)

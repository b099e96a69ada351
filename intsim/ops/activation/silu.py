"""SiLU (x times its logistic) in integers: the definition of this package, by gemmlowp's logistic.

    d = x - a_zero_point;   fixed = away(d * input_multiplier / 2**input_shift)          a Q4.27
    s = logistic(fixed) where |fixed| < 2**31, else 0 or 2**31 - 1                       a Q0.31
    y = away(d * s / 2**16)                                    steps of x, with 15 fraction bits
    q = saturate(round(y * multiplier / 2**shift) + zero_point)

input_multiplier / 2**input_shift takes one input step to Q4.27 (input scale times 2**27), which ends
at 16. multiplier / 2**shift stands for the input scale over that of the result, times 2**-15.
``|d| < 2**16`` and s < 2**31, so y is an int32, and all products stay below 2**62.

In steps of the result, and before it saturates, q is within
``1/2 + (2**-18 + scale * 2**-14) / out_scale`` of the real function: the last rounding; 16 * 2**-23 for
the logistic (measured: at most 152 units of 2**-31) and 16 exp(-16) for its ends; the 15 fraction bits
and the multipliers. The rules that do not round to the nearest have 1 for 1/2.

A table of an 8-bit input (``intsim.tabulate``, then ``activation.table``) gives the same bits: see
``gated.table``. Differs from x * ``logistic_gemmlowp`` by a logistic that is neither cut to 8 bits nor
taken as 0 or 1 from a radius (that lies between 7.5 and 15) on.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from intsim.compiling import Int, portable
from intsim.numerics import IntType, Rounding, int8, int16, uint8, unlimited
from intsim.op import Elementwise, Op, Oracle, Port
from intsim.params import Params as Base, int_type, integer, real, rule
from intsim.registry import register
from intsim.scalar.fixed_point import rounding_shift
from intsim.scalar.rounding import saturate, shift_right
from intsim.scalar.tflite import logistic
from intsim.spec import fixed_point, rounding, tflite

INTEGER_BITS = 4
FRACTION_BITS = 15
END = 2**31  # of Q4.27: 16


@dataclass(frozen=True, slots=True, eq=False)
class Params(Base):
    input_multiplier: int = integer(0, 2**31 - 1)
    input_shift: int = integer(0, 62)
    multiplier: int = integer(0, 2**31 - 1)
    shift: int = integer(0, 62)
    a_zero_point: int = integer(-(2**15), 2**15 - 1, inside="x", default=0)
    zero_point: int = integer(-(2**15), 2**15, default=0)
    x: IntType = int_type(int8, uint8, int16, role="operand")
    dtype: IntType = int_type(int8, uint8, int16, unlimited, role="result")
    rounding: Rounding = rule(Rounding, Rounding.TIES_TO_EVEN)
    scale: float = real()  # of the input; only the host reads it, like that of the result
    out_scale: float = real()

    @classmethod
    def from_scales(cls, scale: float, out_scale: float, /, **fields: Any) -> Params:
        """The parameters for inputs of one scale and a result of another.

        Raises ValueError where scale is outside [2**-27, 16), or scale / out_scale outside [2**-16, 2**45).
        """
        ratio = scale / out_scale if out_scale > 0 else math.nan
        if not (2.0**-27 <= scale < 16 and 2.0**-16 <= ratio < 2.0**45):
            raise ValueError(
                "activation.silu: scale is in [2**-27, 16) and scale / out_scale in [2**-16, 2**45); "
                f"got {scale=}, {out_scale=}"
            )
        given = tflite.quantize_multiplier(float(scale) * 2.0**27)
        multiplier, shift = tflite.quantize_multiplier(ratio * 2.0**-FRACTION_BITS)
        return cls(*given, multiplier, shift, scale=scale, out_scale=out_scale, **fields)


def spec(x: Any, p: Params) -> Any:
    d = x - p.a_zero_point
    fixed = fixed_point.rounding_shift(d * p.input_multiplier, p.input_shift)
    inside = abs(fixed) < END
    s = np.where(inside, tflite.logistic(np.where(inside, fixed, 0), INTEGER_BITS), np.where(fixed < 0, 0, END - 1))
    y = fixed_point.rounding_shift(d * s, 31 - FRACTION_BITS)
    return rounding.saturate(rounding.shift_right(y * p.multiplier, p.shift, p.rounding) + p.zero_point, p.dtype)


@portable
def element(i: Int, j: Int, x: Any, p: Any) -> Int:
    d = np.int64(x.x[i, j]) - p.a_zero_point
    fixed = rounding_shift(d * p.input_multiplier, p.input_shift)
    s = np.int64(2**31 - 1)
    if fixed <= -(2**31):
        s = np.int64(0)
    elif fixed < 2**31:
        s = logistic(fixed, 4)
    y = rounding_shift(d * s, 16)
    return saturate(shift_right(y * p.multiplier, p.shift, p.rounding) + p.zero_point, p.dtype)


def examples() -> dict[str, Any]:
    every = np.arange(-128, 128, dtype=np.int8).reshape(8, 32)
    wide = np.array([[-32768, -32767, -20000, -2617, -300, -1, 0, 1, 2, 300, 2617, 20000, 32766, 32767]], np.int16)
    made: dict[str, Any] = {
        # an input multiplier of 0: the logistic is 1/2, y is 2**14 d, and the result d / 2
        f"a logistic of 1/2, ties, {r.name}": ((every[3:5],), Params(0, 0, 2**30, 45, rounding=r))
        for r in Rounding
    }
    for scale, out in ((0.02, 0.02), (0.05, 0.03), (0.117, 0.117), (2.0**-4, 2.0**-5)):
        made[f"every int8, scale {scale} to {out}"] = ((every,), Params.from_scales(scale, out))
    made["zero points; unsigned"] = (
        (every.view(np.uint8),),
        Params.from_scales(0.04, 0.04, a_zero_point=128, zero_point=7, x=uint8, dtype=uint8),
    )
    made["16 is reached after one step"] = ((every[3:5],), Params.from_scales(15.5, 1.0, dtype=int16))
    made["16 exactly: the logistic's ends"] = ((every[3:5],), Params(2**30, 0, 2**30, 45, dtype=int16))
    made["16 exactly, and one unit less"] = ((every[3:5],), Params(2**31 - 1, 0, 2**30, 45, dtype=int16))
    made["int16"] = ((wide,), Params.from_scales(2.0**-11, 2.0**-11, x=int16, dtype=int16))
    made["int8 to int16"] = ((every[::3],), Params.from_scales(0.06, 0.06 / 256, dtype=int16))
    made["the farthest zero points"] = ((wide,), Params.from_scales(2.0**-12, 1e-5, a_zero_point=-32768, x=int16))
    made["the other ones"] = ((wide,), Params.from_scales(2.0**-12, 1e-5, a_zero_point=32767, x=int16, dtype=unlimited))
    for zero_point in (-32768, 0, 32767):
        made[f"16 exactly and beyond, every bit of y, zero point {zero_point}"] = (
            (np.array([[-32768, -32767, -1, 0, 1, 32767]], np.int16),),
            Params(2**16, 0, 1, 0, a_zero_point=zero_point, x=int16, dtype=unlimited),
        )
    return made


def _real(x: Any, p: Params) -> Any:
    v = p.scale * (x - p.a_zero_point)
    return v / (1 + np.exp(-np.clip(v, -700, 700))) / p.out_scale


OP = register(
    Op(
        name="activation.silu",
        version=1,
        cites="Hendrycks and Gimpel 2016 (arXiv 1606.08415), section 4; google/gemmlowp fixedpoint.h (logistic); "
        "the rounding rules are this package's",
        inputs=(Port("x", "m n", lambda p: p.x),),
        outputs=(Port("q", "m n", lambda p: p.dtype),),
        params=Params,
        spec=spec,
        program=Elementwise(element),
        examples=examples,
        oracle=Oracle(
            params=lambda scale: Params.from_scales(scale, scale / 4, x=int16, dtype=unlimited),
            scales=(1e-5, 15.0),
            real=_real,
            value=lambda q, p: q,
            bound=lambda p: 0.5 + (2.0**-18 + p.scale * 2.0**-14) / p.out_scale,
        ),
    )
)

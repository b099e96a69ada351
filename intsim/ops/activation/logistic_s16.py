"""The logistic function of a 16-bit input by a table of 256 entries: TFLite, tflite-micro, CMSIS-NN.

    v = x * multiplier / 2**shift, ties to positive;  u = |v| >> 9
    r = (table[u] << 9) + (|v| & 511) * (table[u + 1] - table[u]);  from u = 255 on: 32767 << 10
    y = (r + 512) >> 10;  q = saturate(y where v >= 0, 2**15 - y elsewhere), with scale 2**-15

multiplier / 2**shift takes one input step to 1 / (3 * 4096). The table is an input: the published
one is ``intsim.spec.tflite.sigmoid_table``.

Differs from ``tanh_s16``: steps of 512 instead of 256, and a result above 0; from
``logistic_gemmlowp``: straight lines between table entries instead of an exponential.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from intsim.compiling import Int, portable
from intsim.numerics import IntType, Rounding, int16, uint16, unlimited
from intsim.op import Elementwise, Op, Port
from intsim.params import Params as Base, int_type, integer
from intsim.registry import register
from intsim.scalar.rounding import saturate, shift_right
from intsim.spec import rounding
from intsim.spec.tflite import sigmoid_table

LARGEST_SCALE = 32767 / (3 * 4096)
POWERS_OF_TWO = (-12,)  # input scales 2**k whose multiplier is 3 << (12 + k), unshifted


@dataclass(frozen=True, slots=True, eq=False)
class Params(Base):
    multiplier: int = integer(0, 2**15 - 1)
    shift: int = integer(0, 31)
    dtype: IntType = int_type(int16, unlimited, role="result")

    @classmethod
    def from_scale(cls, scale: float, **fields: Any) -> Params:
        """The parameters for inputs ``real = scale * x``; scale: a positive float32 up to 8/3.

        A scale within 0.07 % of 2**-12 counts as that: the published kernel asks its logarithm.
        """
        scale = float(np.float32(scale))
        if not 0 < scale <= LARGEST_SCALE:
            raise ValueError(f"activation.logistic_s16: scale is positive and at most 8/3, got {scale}")
        exponent = math.log2(scale)
        if abs(exponent - round(exponent)) < 1e-3 and round(exponent) in POWERS_OF_TWO:
            return cls(3 << (12 + round(exponent)), 0, **fields)
        multiplier, shift = scale * 4096 * 3, 0
        while multiplier <= 32767 / 2 and shift <= 30:
            multiplier, shift = multiplier * 2, shift + 1
        return cls(int(multiplier), shift, **fields)


def spec(x: Any, table: Any, p: Params) -> Any:
    v = rounding.shift_right(x * p.multiplier, p.shift, Rounding.TIES_TO_POSITIVE)
    u = np.minimum(abs(v) >> 9, 254).astype(int)
    line = (table[u] << 9) + (abs(v) & 511) * (table[u + 1] - table[u])
    r = np.where(abs(v) >> 9 >= 255, int16.qmax << 10, line)
    y = rounding.shift_right(r, 10, Rounding.TIES_TO_POSITIVE)
    return rounding.saturate(np.where(v >= 0, y, (1 << 15) - y), p.dtype)


@portable
def element(i: Int, j: Int, x: Any, p: Any) -> Int:
    v = shift_right(np.int64(x.x[i, j]) * p.multiplier, p.shift, Rounding.TIES_TO_POSITIVE)  # |v| <= 2**30
    size = abs(v)
    u = size >> 9
    r = np.int64(32767 << 10)
    if u < 255:
        first = np.int64(x.table[u])
        r = (first << 9) + (size & 511) * (np.int64(x.table[u + 1]) - first)  # below 2**25
    if v >= 0:
        return saturate((r + 512) >> 10, p.dtype)
    return saturate((2**25 - r + 511) >> 10, p.dtype)


def examples() -> dict[str, Any]:
    x = np.array(
        [[-32768, -21760, -21759, -10000, -683, -171, -2, -1, 0, 1, 2, 171, 683, 21759, 21760, 32767]], np.int16
    )
    ramp = np.arange(-32768, 32768, 257, dtype=np.int16).reshape(16, 16)
    table = sigmoid_table()
    # 5 x: 1535 is one below a tie of the table of slope 1; 255 * 512 is 5 * 26112
    slope = np.arange(2**15, 2**15 + 256)
    slope[254:] += 100  # but for the last stretches
    beside = np.array([307, 26009, 26010, 26111, 26112, 26215], np.int16)
    return {
        "a scale of 2**-12": ((x, table), Params.from_scale(2.0**-12)),
        "beside a power of two": ((x, table), Params.from_scale(2.0**-12 * 1.0005)),
        "a ramp": ((ramp, table), Params.from_scale(1e-4)),
        "a fine ramp: ties of the last shift": ((ramp, table), Params.from_scale(3e-6)),
        "the largest scale": ((x, table), Params.from_scale(LARGEST_SCALE)),
        "the finest scale": ((x, table), Params(1, 31)),
        "ties of the first shift": ((x, table), Params(16384, 15)),
        "a table of slope 1: beside a tie, and the last stretch": (
            (np.stack([beside, -beside]), slope.astype(np.uint16)),
            Params(5, 0),
        ),
        "a table that reaches 1: saturates": ((x, np.full(256, 65535, np.uint16)), Params(3, 0)),
    }


OP = register(
    Op(
        name="activation.logistic_s16",
        version=1,
        cites="google-ai-edge/LiteRT tflite/kernels/internal/reference/integer_ops/logistic.h; "
        "tensorflow/tflite-micro tensorflow/lite/micro/kernels/logistic_common.cc",
        inputs=(Port("x", "m n", int16), Port("table", "256", uint16, low=2**15)),
        outputs=(Port("q", "m n", lambda p: p.dtype),),
        params=Params,
        spec=spec,
        program=Elementwise(element),
        examples=examples,
    )
)

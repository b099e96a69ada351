"""Mean of a row, with the division folded into a multiplier: TFLite MEAN.

    k  = min(floor(log2(n)), 32, 62 - multiplier_shift)
    q  = saturate(G2(sum_j (x[j] - a_zero_point), (multiplier << k) // n, multiplier_shift + k) + zero_point)

G2 is gemmlowp's double rounding (``requantize.double_rounding``); multiplier / 2**multiplier_shift
stands for the input's scale over the result's, before the division by n.

Differs from ``mean``, which divides exactly: here the multiplier is cut to fewer bits, so that a
mean of equal values may miss that value on a tie.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from intsim.compiling import Int, portable
from intsim.numerics import IntType, int8, int16, uint8, unlimited
from intsim.op import Op, Oracle, Port, Rowwise, Size
from intsim.params import Params as Base, int_type, integer
from intsim.registry import register
from intsim.scalar.fixed_point import multiply_by_quantized
from intsim.scalar.functions import bit_length
from intsim.scalar.rounding import saturate
from intsim.spec import fixed_point, rounding, tflite

LONGEST = 2**14 - 1  # a term is at most 2**16 in magnitude: the sum is an int32


@dataclass(frozen=True, slots=True, eq=False)
class Params(Base):
    multiplier: int = integer(0, 2**31 - 1)
    multiplier_shift: int = integer(0, 62)  # below 31 the rest is a left shift before the product, which wraps
    a_zero_point: int = integer(-(2**15), 2**15, default=0)
    zero_point: int = integer(-(2**15), 2**15, default=0)
    x: IntType = int_type(int8, uint8, int16, role="operand")
    dtype: IntType = int_type(int8, uint8, int16, unlimited, role="result")

    @classmethod
    def from_scales(cls, x: float, result: float, /, **fields: Any) -> Params:
        """The parameters for two real scales (float32, divided in float64); positive and finite."""
        scales = np.array([x, result], np.float32)
        if not (np.isfinite(scales) & (scales > 0)).all():
            raise ValueError(f"reduce.mean_tflite: scales are positive and finite, got {x}, {result}")
        return cls(*tflite.quantize_multiplier(float(scales[0]) / float(scales[1])), **fields)


def spec(x: Any, p: Params) -> Any:
    n = x.shape[-1]
    fold = min(n.bit_length() - 1, 32, 62 - p.multiplier_shift)
    total = (x - p.a_zero_point).sum(axis=-1)
    scaled = fixed_point.multiply_by_quantized(total, (p.multiplier << fold) // n, p.multiplier_shift + fold)
    return rounding.saturate(scaled + p.zero_point, p.dtype)


@portable
def row(i: Int, x: Any, out: Any, p: Any) -> None:
    n = x.x.shape[1]
    total = np.int64(0)
    for j in range(n):
        total += np.int64(x.x[i, j]) - p.a_zero_point
    fold = min(bit_length(n) - 1, 62 - p.multiplier_shift)  # n < 2**32: the bound of 32 never binds
    multiplier = (p.multiplier << fold) // n  # at most 2**31 * 2**13
    out.q[i] = saturate(multiply_by_quantized(total, multiplier, p.multiplier_shift + fold) + p.zero_point, p.dtype)


def examples() -> dict[str, Any]:
    x = np.array([[1, 2, 2], [-128, -128, -128], [127, 127, 127], [-1, -1, -2], [0, 0, 1]], np.int8)
    wide = np.array([[32767] * 5, [-32768] * 5, [1, 2, 3, 4, 5], [-1, -1, 0, 0, 1]], np.int16)
    one = np.arange(-128, 128, dtype=np.int8).reshape(-1, 1)
    return {
        "equal scales": ((x,), Params.from_scales(0.5, 0.5)),
        "one element at half the scale: ties": ((one,), Params.from_scales(0.5, 1.0, dtype=int16)),
        "two elements: ties": ((x[:, :2].copy(),), Params.from_scales(1.0, 1.0)),
        "zero points": ((x,), Params.from_scales(0.1, 0.03, a_zero_point=-5, zero_point=7)),
        "unsigned": ((x.view(np.uint8),), Params.from_scales(0.02, 0.02, a_zero_point=128, x=uint8, dtype=uint8)),
        "int16": ((wide,), Params.from_scales(1.0, 1.0, x=int16, dtype=int16)),
        "a long row: the fold is 9 bits": (
            (np.resize(np.arange(-128, 127, dtype=np.int8), (2, 600)),),
            Params.from_scales(1.0, 2.0**-6, dtype=int16),
        ),
        "a shift that leaves no room for the fold": ((x,), Params(2**31 - 1, 62)),
        "a left shift wraps": ((x,), Params(2**30, 8, dtype=int16)),
    }


OP = register(
    Op(
        name="reduce.mean_tflite",
        version=1,
        cites="google-ai-edge/LiteRT tflite/kernels/internal/reference/reduce.h (QuantizedMeanOrSum); "
        "tensorflow/tflite-micro tensorflow/lite/micro/kernels/reduce_common.cc",
        inputs=(Port("x", "m n", lambda p: p.x),),
        outputs=(Port("q", "m", lambda p: p.dtype),),
        params=Params,
        spec=spec,
        program=Rowwise(row),
        sizes={"n": Size(1, LONGEST)},
        examples=examples,
        oracle=Oracle(
            params=lambda scale: Params.from_scales(scale, 1.0, dtype=unlimited),
            scales=(1e-3, 1.0),
            real=lambda x, p: x.mean(axis=-1) * (p.multiplier / 2.0**p.multiplier_shift),
            value=lambda q, p: q,
            bound=lambda p: 1.0 + 2.0**-6,  # two roundings; the multiplier keeps 29 bits or more
        ),
    )
)

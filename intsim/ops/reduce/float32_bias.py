"""Sum or mean of a row, rescaled in float32 with the zero points in a bias: XNNPACK MEAN and SUM, LiteRT SUM.

    q = saturate(round(f32(f32(f32(sum_j x[j]) * multiplier) + bias)) + zero_point)

multiplier and bias are float32, given by their bits; the bias holds what the input's zero point
adds, and XNNPACK's holds the result's zero point too, so that ties go to even after it. For a mean,
1 / n is in the multiplier.

Differs from ``mean_tflite`` and ``sum_tflite``, which subtract zero points exactly and rescale in
fixed point. Kernels compute the IEEE steps in integers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from intsim.compiling import Int, portable
from intsim.numerics import IntType, Rounding, int8, uint8, unlimited
from intsim.op import Op, Oracle, Port, Rowwise, Size
from intsim.params import Params as Base, int_type, integer, rule
from intsim.registry import register
from intsim.scalar.ieee import add_signed32, multiply32, round32, to_integer, unpack32
from intsim.scalar.rounding import saturate
from intsim.spec import ieee, rounding

LONGEST = 2**20  # a term is below 2**8 in magnitude: the sum is an int32
LARGEST = 0x4F80_0000  # 2**32


@dataclass(frozen=True, slots=True, eq=False)
class Params(Base):
    multiplier_bits: int = integer(0x0D80_0000, LARGEST)  # 2**-100 to 2**32
    bias_bits: int = integer(0, LARGEST, default=0)  # of its magnitude
    bias_sign: int = integer(-1, 1, default=1)  # 0 is 1
    zero_point: int = integer(-(2**15), 2**15, default=0)
    x: IntType = int_type(int8, uint8, role="operand")
    dtype: IntType = int_type(int8, uint8, unlimited, role="result")
    rounding: Rounding = rule(Rounding, Rounding.TIES_TO_EVEN, among=(Rounding.TIES_TO_EVEN, Rounding.TIES_TO_AWAY))

    @classmethod
    def of_xnnpack(
        cls,
        x: float,
        result: float,
        /,
        n: int,
        *,
        mean: bool,
        a_zero_point: int = 0,
        zero_point: int = 0,
        **fields: Any,
    ) -> Params:
        """XNNPACK's, for the scales of the input and the result and a row of n: MEAN, or SUM.

        multiplier = f32(f32(x / result) * f32(1 / n)) for a mean;
        bias = f32(zero_point - f32(f32(a_zero_point * n) * multiplier)).
        """
        multiplier = np.float32(x) / np.float32(result)
        if mean:
            multiplier = multiplier * (np.float32(1) / np.float32(n))
        bias = np.float32(zero_point) - np.float32(a_zero_point * n) * multiplier
        return cls._of(multiplier, bias, **fields)

    @classmethod
    def of_litert(
        cls, x: float, result: float, /, n: int, *, a_zero_point: int = 0, zero_point: int = 0, **fields: Any
    ) -> Params:
        """LiteRT's optimised SUM of a row of n: bias = f32(f32(-a_zero_point * f32(x / result)) * n)."""
        multiplier = np.float32(x) / np.float32(result)
        bias = np.float32(-a_zero_point) * multiplier * np.float32(n)
        return cls._of(multiplier, bias, zero_point=zero_point, rounding=Rounding.TIES_TO_AWAY, **fields)

    @classmethod
    def _of(cls, multiplier: Any, bias: Any, **fields: Any) -> Params:
        if not 2.0**-100 <= multiplier <= 2.0**32:
            raise ValueError(f"reduce.float32_bias: the multiplier is in [2**-100, 2**32], got {multiplier}")
        sign = -1 if bias < 0 else 1
        return cls(int(multiplier.view(np.int32)), int(abs(bias).view(np.int32)), sign, **fields)


def spec(x: Any, p: Params) -> Any:
    bias = ieee.from_bits32(p.bias_bits) * np.float32(-1 if p.bias_sign < 0 else 1)
    with np.errstate(under="ignore"):
        total = ieee.float32(x.sum(axis=-1)) * ieee.from_bits32(p.multiplier_bits) + bias
    return rounding.saturate(ieee.to_integer(total, p.rounding) + p.zero_point, p.dtype)


@portable
def row(i: Int, x: Any, out: Any, p: Any) -> None:
    total = np.int64(0)
    for j in range(x.x.shape[1]):
        total += np.int64(x.x[i, j])
    am, ae = round32(abs(total), 0)
    bm, be = unpack32(p.multiplier_bits)
    m, e = multiply32(am, ae, bm, be)
    cm, ce = unpack32(p.bias_bits)
    m, e = add_signed32(-m if total < 0 else m, e, -cm if p.bias_sign < 0 else cm, ce)
    out.q[i] = saturate(to_integer(m, e, p.rounding) + p.zero_point, p.dtype)


def examples() -> dict[str, Any]:
    x = np.array([[1, 2, 2], [-128, -128, -128], [127, 127, 127], [-1, -1, -2], [0, 0, 1], [2, 2, 2]], np.int8)
    one = np.arange(-128, 128, dtype=np.int8).reshape(-1, 1)
    long = np.resize(np.arange(-128, 127, dtype=np.int8), (2, 600))
    return {
        "a mean; the zero points make a bias": (
            (x,),
            Params.of_xnnpack(0.1, 0.03, 3, mean=True, a_zero_point=-5, zero_point=7),
        ),
        "ties to even after the odd zero point": ((one,), Params.of_xnnpack(0.25, 1.0, 1, mean=False, zero_point=-11)),
        "ties away before it": ((one,), Params.of_litert(0.25, 1.0, 1, a_zero_point=5, zero_point=-11)),
        "a sum": ((x,), Params.of_xnnpack(0.1, 0.3, 3, mean=False, a_zero_point=3)),
        "a long row": ((long,), Params.of_xnnpack(1.0, 2.0**-3, 600, mean=True, a_zero_point=-100, dtype=unlimited)),
        "the bias cancels the sum": ((x,), Params.of_litert(1.0, 3.0, 3, a_zero_point=2, dtype=unlimited)),
        "the bias is far above the product": ((x,), Params(0x0D80_0000, 0x3F00_0000, -1)),
        "the product is far above the bias": ((x,), Params(LARGEST, 0x0000_0001, -1, dtype=unlimited)),
        "unsigned": (
            (x.view(np.uint8),),
            Params.of_xnnpack(0.02, 0.02, 3, mean=True, a_zero_point=128, zero_point=9, x=uint8, dtype=uint8),
        ),
    }


def _real(x: Any, p: Params) -> Any:
    return x.sum(axis=-1) * float(ieee.from_bits32(p.multiplier_bits))


OP = register(
    Op(
        name="reduce.float32_bias",
        version=1,
        cites="google/XNNPACK src/qs8-rsum, src/subgraph/static-reduce.c; "
        "google-ai-edge/LiteRT tflite/kernels/internal/optimized/reduce.h (QuantizedMeanOrSum)",
        inputs=(Port("x", "m n", lambda p: p.x),),
        outputs=(Port("q", "m", lambda p: p.dtype),),
        params=Params,
        spec=spec,
        program=Rowwise(row),
        sizes={"n": Size(1, LONGEST)},
        examples=examples,
        oracle=Oracle(
            params=lambda scale: Params.of_xnnpack(scale, 1.0, 1, mean=False, dtype=unlimited),
            scales=(1e-3, 1.0),
            real=_real,
            value=lambda q, p: q,
            bound=lambda p: 0.5 + 2.0**-3,  # three roundings to 24 bits of what is below 2**20 or so
        ),
    )
)

"""Requantize through float32, ties to even: ONNX Runtime, XNNPACK, PyTorch's quantized linear.

    q = saturate(rint(f32(f32(acc) * multiplier)) + zero_point)

multiplier is one float32, given by its bits. f32(acc) rounds an accumulator above 2**24.

Differs from ``single_rounding`` with TIES_TO_EVEN: 24 bits of accumulator, multiplier and product.
Kernels compute the IEEE steps in integers (scalar/ieee.py).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from intsim.compiling import Int, portable
from intsim.numerics import IntType, Rounding, int32
from intsim.op import Elementwise, Op, Oracle, Port, Tuned
from intsim.ops.requantize import RESULTS, streams
from intsim.params import Params as Base, int_type, integer
from intsim.registry import register
from intsim.scalar.ieee import multiply32, round32, to_integer, unpack32
from intsim.scalar.rounding import saturate
from intsim.spec import ieee, rounding


@dataclass(frozen=True, slots=True, eq=False)
class Params(Base):
    multiplier_bits: Any = integer(0x0080_0000, 0x7F7F_FFFF, per="n")  # positive, normal, finite
    zero_point: Any = integer(-(2**31), 2**31 - 1, per="n", default=0)
    dtype: IntType = int_type(*RESULTS, role="result")

    @classmethod
    def from_scale(cls, scale: Any, **fields: Any) -> Params:
        """The parameters for a float32 multiplier; scale: positive normal floats, one or one per n."""
        value = np.atleast_1d(np.asarray(scale, np.float32))
        if not (np.isfinite(value) & (value >= np.finfo(np.float32).tiny)).all():
            raise ValueError(f"a float32 multiplier is positive, normal and finite, got {scale!r}")
        return cls(value.view(np.int32), **fields)

    @classmethod
    def from_scales(cls, a: Any, b: Any, result: Any, /, **fields: Any) -> Params:
        """The multiplier f32(f32(a * b) / result) of QLinearMatMul and XNNPACK."""
        a, b, result = (np.asarray(s, np.float32) for s in (a, b, result))
        with np.errstate(all="ignore"):  # from_scale refuses what overflows
            return cls.from_scale(a * b / result, **fields)


def spec(acc: Any, p: Params) -> Any:
    with np.errstate(over="ignore"):  # an infinite product saturates
        product = ieee.float32(acc) * ieee.from_bits32(p.multiplier_bits)
    return rounding.saturate(ieee.to_integer(product, Rounding.TIES_TO_EVEN) + p.zero_point, p.dtype)


@portable
def element(i: Int, j: Int, x: Any, p: Any) -> Int:
    acc = np.int64(x.acc[i, j])
    am, ae = round32(abs(acc), 0)
    bm, be = unpack32(p.multiplier_bits[j])
    m, e = multiply32(am, ae, bm, be)
    whole = to_integer(-m if acc < 0 else m, e, Rounding.TIES_TO_EVEN)
    return saturate(whole + p.zero_point[j], p.dtype)


def examples() -> dict[str, Any]:
    ties = np.array([[-25, -24, -23, -9, -8, -7, -1, 0, 1, 7, 8, 9, 23, 24, 25, 2**31 - 1, -(2**31)]], np.int32)
    large = np.array([[2**24 + 1, 2**24 + 3, -(2**24) - 1, 2**30 + 2**6, 2**30 + 2**6 + 1]], np.int32)
    return {
        "ties at 1/16, odd zero point": ((ties,), Params.from_scale(1 / 16, zero_point=-5)),
        "accumulators that float32 rounds": ((large,), Params.from_scale(1.0, dtype=int32)),
        "an infinite product saturates": ((ties,), Params.from_scale(3e38)),
        "per channel": ((ties[:, 3:6],), Params.from_scale([0.1, 0.3, 1e-7])),
    }


def _serves(p: Params, size: Mapping[str, int]) -> bool:
    """Multipliers below 2**90: no product is infinite."""
    return bool((p.multiplier_bits < (127 + 90) << 23).all()) and streams(p, size)


OP = register(
    Op(
        name="requantize.float32_ties_even",
        version=1,
        cites="microsoft/onnxruntime mlas qgemm and quantize; google/XNNPACK fp32 requantization",
        inputs=(Port("acc", "m n", int32),),
        outputs=(Port("q", "m n", lambda p: p.dtype),),
        params=Params,
        spec=spec,
        program=Elementwise(element),
        examples=examples,
        tuned=(Tuned("cpu", "intsim.ops.requantize._cpu_columns:float32_ties_even", _serves, keeps=True),),
        oracle=Oracle(
            params=lambda scale: Params.from_scale(scale, dtype=int32),
            scales=(1e-6, 0.9),
            real=lambda acc, p: acc * float(ieee.from_bits32(p.multiplier_bits)[0]),
            value=lambda q, p: q,
            # two float32 roundings of values up to 2**31 * multiplier, and half a unit
            bound=lambda p: 0.5 + 2.0**31 * float(ieee.from_bits32(p.multiplier_bits)[0]) * 2.0**-22,
        ),
    )
)

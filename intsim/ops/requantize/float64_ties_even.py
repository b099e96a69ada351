"""Requantize through float64, ties to even: the ONNX reference evaluator's QLinearMatMul.

    q = saturate(rint(f64(f64(acc) * multiplier) + zero_point))        zero_point_added = FIRST
    q = saturate(rint(f64(f64(acc) * multiplier)) + zero_point)        zero_point_added = LAST

multiplier is one float64, given by its bits; the evaluator's is a float32, f32(f32(a * b) / result).
With FIRST the sum with the zero point is rounded to float64 too, and an odd zero point moves a tie to
the other side.

Differs from ``float32_ties_even``: 53 bits, and where the zero point comes in. From
``float64_ties_away``: the tie rule. Kernels compute the IEEE steps in integers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from intsim.compiling import Int, portable
from intsim.numerics import IntType, Order, Rounding, int32
from intsim.op import Elementwise, Op, Oracle, Port
from intsim.ops.requantize import RESULTS
from intsim.params import Params as Base, int_type, integer, rule
from intsim.registry import register
from intsim.scalar.ieee import add_signed64, times_float64, to_integer
from intsim.scalar.rounding import saturate
from intsim.spec import ieee, rounding


@dataclass(frozen=True, slots=True, eq=False)
class Params(Base):
    multiplier_bits: Any = integer(0x3CA0_0000_0000_0000, 0x434F_FFFF_FFFF_FFFF, per="n")  # 2**-53 to 2**54
    zero_point: Any = integer(-(2**31), 2**31 - 1, per="n", default=0)
    dtype: IntType = int_type(*RESULTS, role="result")
    zero_point_added: Order = rule(Order, Order.FIRST)

    @classmethod
    def from_scale(cls, scale: Any, **fields: Any) -> Params:
        """The parameters for a float64 multiplier; scale: floats in [2**-53, 2**54), one or one per n."""
        value = np.atleast_1d(np.asarray(scale, np.float64))
        if not (np.isfinite(value) & (value >= 2.0**-53) & (value < 2.0**54)).all():
            raise ValueError(f"a float64 multiplier is in [2**-53, 2**54), got {scale!r}")
        return cls(value.view(np.int64), **fields)

    @classmethod
    def from_scales(cls, a: Any, b: Any, result: Any, /, **fields: Any) -> Params:
        """The multiplier f32(f32(a * b) / result) of the reference evaluator, as a float64."""
        a, b, result = (np.asarray(s, np.float32) for s in (a, b, result))
        with np.errstate(all="ignore"):  # from_scale refuses what overflows
            return cls.from_scale(a * b / result, **fields)


def spec(acc: Any, p: Params) -> Any:
    product = acc.astype(np.float64) * ieee.from_bits64(p.multiplier_bits)
    first, last = (p.zero_point, 0) if p.zero_point_added == Order.FIRST else (0, p.zero_point)
    total = product + np.asarray(first).astype(np.float64)
    return rounding.saturate(ieee.to_integer(total, Rounding.TIES_TO_EVEN) + last, p.dtype)


@portable
def element(i: Int, j: Int, x: Any, p: Any) -> Int:
    acc = np.int64(x.acc[i, j])
    m, e = times_float64(abs(acc), p.multiplier_bits[j])
    m = -m if acc < 0 else m
    last = p.zero_point[j]
    if p.zero_point_added == Order.FIRST:
        m, e = add_signed64(m, e, last, 0)
        last = 0
    return saturate(to_integer(m, e, Rounding.TIES_TO_EVEN) + last, p.dtype)


def examples() -> dict[str, Any]:
    ties = np.array([[-25, -24, -23, -9, -8, -7, -1, 0, 1, 7, 8, 9, 23, 24, 25, 2**31 - 1, -(2**31)]], np.int32)
    made: dict[str, Any] = {
        f"ties at 1/16, odd zero point {order.name}": (
            (ties,),
            Params.from_scale(1 / 16, zero_point=-5, zero_point_added=order),
        )
        for order in Order
    }
    below = Params.from_scale(0.5 - 2.0**-54, zero_point=2**20 + 1, dtype=int32)
    return made | {
        "a product just below a tie: the sum rounds onto it": ((ties,), below),
        "a product of 84 bits, near a tie": ((ties,), Params.from_scale(0.5 + 2.0**-53, dtype=int32)),
        "a sum that cancels": ((ties,), Params.from_scale(2.0**20, zero_point=-(2**20), dtype=int32)),
        "per channel": ((ties[:, 3:6],), Params.from_scale([0.1, 0.3, 1e-7])),
    }


OP = register(
    Op(
        name="requantize.float64_ties_even",
        version=1,
        cites="onnx/onnx onnx/reference/ops/op_qlinear_matmul.py",
        inputs=(Port("acc", "m n", int32),),
        outputs=(Port("q", "m n", lambda p: p.dtype),),
        params=Params,
        spec=spec,
        program=Elementwise(element),
        examples=examples,
        oracle=Oracle(
            params=lambda scale: Params.from_scale(scale, dtype=int32),
            scales=(1e-6, 0.9),
            real=lambda acc, p: acc * float(ieee.from_bits64(p.multiplier_bits)[0]),
            value=lambda q, p: q,
            bound=lambda p: 0.5 + 2.0**-20,
        ),
    )
)

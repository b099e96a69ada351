"""Requantize through float64, ties away from zero: LiteRT's reference FULLY_CONNECTED.

    q = saturate(round(f64(acc) * multiplier) + zero_point)        round: C's, ties away

multiplier is one float64, given by its bits.

Differs from ``float32_ties_even``: 53 bits and the other tie rule. From ``single_rounding`` with
TIES_TO_AWAY: the product rounds to 53 bits first. Kernels compute the IEEE steps in integers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from intsim.compiling import Int, portable
from intsim.numerics import IntType, Rounding, int32
from intsim.op import Elementwise, Op, Oracle, Port, Tuned
from intsim.ops.requantize import RESULTS, streams
from intsim.params import Params as Base, int_type, integer
from intsim.registry import register
from intsim.scalar.ieee import times_float64, to_integer
from intsim.scalar.rounding import saturate
from intsim.spec import ieee, rounding


@dataclass(frozen=True, slots=True, eq=False)
class Params(Base):
    multiplier_bits: Any = integer(0x3CA0_0000_0000_0000, 0x434F_FFFF_FFFF_FFFF, per="n")  # 2**-53 to 2**54
    zero_point: Any = integer(-(2**31), 2**31 - 1, per="n", default=0)
    dtype: IntType = int_type(*RESULTS, role="result")

    @classmethod
    def from_scale(cls, scale: Any, **fields: Any) -> Params:
        """The parameters for a float64 multiplier; scale: floats in [2**-53, 2**54), one or one per n."""
        value = np.atleast_1d(np.asarray(scale, np.float64))
        if not (np.isfinite(value) & (value >= 2.0**-53) & (value < 2.0**54)).all():
            raise ValueError(f"a float64 multiplier is in [2**-53, 2**54), got {scale!r}")
        return cls(value.view(np.int64), **fields)

    @classmethod
    def from_scales(cls, a: Any, b: Any, result: Any, /, **fields: Any) -> Params:
        """The multiplier a * b / result of float32 scales, two operations of float64: LiteRT's reference kernel."""
        x, y, out = (np.asarray(s, np.float32).astype(np.float64) for s in (a, b, result))
        with np.errstate(all="ignore"):  # from_scale refuses what is out of range
            return cls.from_scale(x * y / out, **fields)


def spec(acc: Any, p: Params) -> Any:
    product = acc.astype(np.float64) * ieee.from_bits64(p.multiplier_bits)
    return rounding.saturate(ieee.to_integer(product, Rounding.TIES_TO_AWAY) + p.zero_point, p.dtype)


@portable
def element(i: Int, j: Int, x: Any, p: Any) -> Int:
    acc = np.int64(x.acc[i, j])
    m, e = times_float64(abs(acc), p.multiplier_bits[j])
    whole = to_integer(-m if acc < 0 else m, e, Rounding.TIES_TO_AWAY)
    return saturate(whole + p.zero_point[j], p.dtype)


def examples() -> dict[str, Any]:
    ties = np.array([[-25, -24, -23, -9, -8, -7, -1, 0, 1, 7, 8, 9, 23, 24, 25, 2**31 - 1, -(2**31)]], np.int32)
    return {
        "ties at 1/16, odd zero point": ((ties,), Params.from_scale(1 / 16, zero_point=-5)),
        "a product of 84 bits, near a tie": ((ties,), Params.from_scale(0.5 + 2.0**-53, dtype=int32)),
        "per channel": ((ties[:, 3:6],), Params.from_scale([0.1, 0.3, 1e-7])),
    }


OP = register(
    Op(
        name="requantize.float64_ties_away",
        version=1,
        cites="google-ai-edge/LiteRT tflite/kernels/internal/reference/fully_connected.h",
        inputs=(Port("acc", "m n", int32),),
        outputs=(Port("q", "m n", lambda p: p.dtype),),
        params=Params,
        spec=spec,
        program=Elementwise(element),
        examples=examples,
        tuned=(Tuned("cpu", "intsim.ops.requantize._cpu_columns:float64_ties_away", streams, keeps=True),),
        oracle=Oracle(
            params=lambda scale: Params.from_scale(scale, dtype=int32),
            scales=(1e-6, 0.9),
            real=lambda acc, p: acc * float(ieee.from_bits64(p.multiplier_bits)[0]),
            value=lambda q, p: q,
            bound=lambda p: 0.5 + 2.0**-20,
        ),
    )
)

"""Requantize by one product, one sum and one shift, all in int32: Deeploy's RequantShift, after quantlib.

    v = (acc + offset) * multiplier + bias                every step wraps to int32
    q = saturate(wrap32(v / 2**shift) + zero_point)       half of 2**shift is added before a shift that rounds

multiplier and bias are those of a folded batch normalization: small integers, so that v fits 32 bits,
where ``single_rounding`` has 31 significant bits and a 64-bit product. TIES_TO_POSITIVE adds
2**(shift - 1), which may wrap too; TOWARD_NEGATIVE is the kernel with ``rounding`` off.

Differs from ``single_rounding``: a bias before the shift, and 32 bits throughout. The C code leaves
overflow undefined; processors and -fwrapv wrap.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from intsim.compiling import Int, portable
from intsim.numerics import IntType, Rounding, int32
from intsim.op import Elementwise, Op, Port
from intsim.ops.requantize import RESULTS
from intsim.params import Params as Base, int_type, integer, rule
from intsim.registry import register
from intsim.scalar.fixed_point import wrap32
from intsim.scalar.rounding import saturate
from intsim.spec import rounding


@dataclass(frozen=True, slots=True, eq=False)
class Params(Base):
    multiplier: Any = integer(-(2**31), 2**31 - 1, per="n")
    bias: Any = integer(-(2**31), 2**31 - 1, per="n", default=0)
    shift: int = integer(0, 31, default=0)
    offset: int = integer(-(2**31), 2**31 - 1, default=0)
    zero_point: int = integer(-(2**31), 2**31 - 1, default=0)
    dtype: IntType = int_type(*RESULTS, role="result")
    rounding: Rounding = rule(
        Rounding, Rounding.TIES_TO_POSITIVE, among=(Rounding.TOWARD_NEGATIVE, Rounding.TIES_TO_POSITIVE)
    )


def spec(acc: Any, p: Params) -> Any:
    v = rounding.wrap(rounding.wrap(acc + p.offset, int32) * p.multiplier + p.bias, int32)
    if p.rounding == Rounding.TIES_TO_POSITIVE:
        v = rounding.wrap(v + 2**p.shift // 2, int32)
    return rounding.saturate(rounding.wrap(v // 2**p.shift + p.zero_point, int32), p.dtype)


@portable
def element(i: Int, j: Int, x: Any, p: Any) -> Int:
    # An int32 times an int32 needs 63 bits, and the bias does not make it 64.
    v = wrap32(wrap32(np.int64(x.acc[i, j]) + p.offset) * p.multiplier[j] + p.bias[j])
    if p.rounding == Rounding.TIES_TO_POSITIVE and p.shift > 0:
        v = wrap32(v + (1 << (p.shift - 1)))
    return saturate(wrap32((v >> p.shift) + p.zero_point), p.dtype)


def examples() -> dict[str, Any]:
    ties = np.array([[-25, -24, -23, -9, -8, -7, -1, 0, 1, 7, 8, 9, 23, 24, 25]], np.int32)
    ends = np.array([[-(2**31), -(2**31) + 1, -1, 0, 1, 2**31 - 2, 2**31 - 1]], np.int32)
    made: dict[str, Any] = {
        f"ties at 1/16, {r.name}": ((ties,), Params(1, 0, 4, rounding=r))
        for r in (Rounding.TOWARD_NEGATIVE, Rounding.TIES_TO_POSITIVE)
    }
    made["ties at 1/2"] = ((ties,), Params(1, 0, 1))
    made["a bias before the rounding, odd zero point"] = ((ties,), Params(3, 5, 4, zero_point=-7))
    made["an offset"] = ((ties,), Params(-2, 1, 3, offset=128))
    made["per channel, no shift"] = ((np.tile(ties[:, 4:7], (2, 1)),), Params([1, -1, 2**31 - 1], [0, 7, -9]))
    made["every step wraps"] = ((ends,), Params(3, 2**31 - 1, 2, offset=1, dtype=int32))
    made["the half wraps"] = ((ends,), Params(1, 0, 31, dtype=int32))
    made["the zero point wraps"] = ((ends,), Params(1, 0, 0, zero_point=2**31 - 1, dtype=int32))
    made["saturates"] = ((ends,), Params(1, 0, 20))
    return made


OP = register(
    Op(
        name="requantize.multiply_add_shift",
        version=1,
        cites="pulp-platform/Deeploy TargetLibraries/Generic/src/RequantShift_s8.c; "
        "pulp-platform/quantlib algorithms/pact/pact_ops.py RequantShift",
        inputs=(Port("acc", "m n", int32),),
        outputs=(Port("q", "m n", lambda p: p.dtype),),
        params=Params,
        spec=spec,
        program=Elementwise(element),
        examples=examples,
    )
)

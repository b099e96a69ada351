"""Requantize with one product and one rounding.

    q = saturate(round(acc * multiplier / 2**shift) + zero_point)

The rounding rule is a parameter: TIES_TO_POSITIVE is TFLite's single-rounding build, CMSIS-NN with
CMSIS_NN_USE_SINGLE_ROUNDING, ruy's portable code and TOSA's SINGLE_ROUND.

Differs from ``double_rounding``: gemmlowp rounds twice, by two rules. From ``multiplier16``: all 31
bits of the multiplier count. From ``float32_ties_even``: no float on the way.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from intsim.compiling import Int, portable
from intsim.numerics import IntType, Order, Rounding, int8, int32, uint8
from intsim.op import Elementwise, Op, Port, Tuned
from intsim.ops.requantize import RESULTS, TIES, MultiplierParams, multiplier_oracle, streams
from intsim.params import Limit, int_type, integer, rule
from intsim.registry import register
from intsim.scalar.rounding import saturate, shift_right
from intsim.spec import rounding


@dataclass(frozen=True, slots=True, eq=False)
class Params(MultiplierParams):
    multiplier: Any = integer(-(2**31) + 1, 2**31 - 1, per="n")
    shift: Any = integer(0, 62, per="n")  # always to the right
    zero_point: Any = integer(-(2**31), 2**31 - 1, per="n", default=0)
    dtype: IntType = int_type(*RESULTS, role="result")
    rounding: Rounding = rule(Rounding, Rounding.TIES_TO_EVEN)
    zero_point_added: Order = rule(Order, Order.LAST)  # FIRST: before the rounding
    limits: ClassVar = (
        Limit(
            "|multiplier| <= 2**30, |zero_point| <= 2**15 and shift <= 46 where zero_point_added is FIRST",
            lambda p: (
                p.zero_point_added == Order.LAST
                or bool(
                    (abs(p.multiplier) <= 2**30).all() and (abs(p.zero_point) <= 2**15).all() and (p.shift <= 46).all()
                )
            ),
        ),
    )


def spec(acc: Any, p: Params) -> Any:
    product = acc * p.multiplier
    if p.zero_point_added == Order.FIRST:
        whole = rounding.shift_right(product + (p.zero_point << p.shift), p.shift, p.rounding)
    else:
        whole = rounding.shift_right(product, p.shift, p.rounding) + p.zero_point
    return rounding.saturate(whole, p.dtype)


@portable
def element(i: Int, j: Int, x: Any, p: Any) -> Int:
    # |acc| <= 2**31 and |multiplier| < 2**31, so the product needs 63 bits (C1).
    product, shift, zero_point = np.int64(x.acc[i, j]) * p.multiplier[j], p.shift[j], p.zero_point[j]
    if p.zero_point_added == Order.FIRST:
        return saturate(shift_right(product + (zero_point << shift), shift, p.rounding), p.dtype)
    return saturate(shift_right(product, shift, p.rounding) + zero_point, p.dtype)


def examples() -> dict[str, Any]:
    ties = np.array([[-25, -24, -23, -9, -8, -7, -1, 0, 1, 7, 8, 9, 23, 24, 25, 2**31 - 1, -(2**31)]], np.int32)
    made: dict[str, Any] = {
        f"ties at 1/16, {rule.name}": ((ties,), Params(1, 4, dtype=int8, rounding=rule)) for rule in Rounding
    }
    odd = Params(1, 4, zero_point=-5, zero_point_added=Order.FIRST)
    made["the zero point before the rounding, odd"] = ((ties,), odd)
    made["the zero point after the rounding, odd"] = ((ties,), Params(1, 4, zero_point=-5))
    made["per channel, one of them negative"] = (
        (np.tile(ties[:, 3:12:4], (4, 1)) * np.array([[1], [3], [-7], [2**20]], np.int32),),
        Params([2**30, -(2**31) + 1, 3], [34, 33, 4], dtype=int8),
    )
    made["shift 0: nothing to round"] = ((ties,), Params(1, 0, dtype=int32))
    return made


def _serves(p: Params, size: Mapping[str, int]) -> bool:
    """The nearest by the common rules, right shifts of a 64-bit product to its high word and beyond."""
    common = p.rounding in TIES and p.zero_point_added == Order.LAST
    return common and bool((p.shift >= 32).all()) and streams(p, size)


def in_32_bits(p: Params) -> bool:
    """Whether the high word of the product decides, and everything fits 32 bits, on the way to 8 bits."""
    return bool(
        p.dtype in (int8, uint8)
        and p.rounding == Rounding.TIES_TO_POSITIVE
        and (p.shift >= 33).all()
        and (p.zero_point == p.zero_point[0]).all()
        and (abs(p.zero_point) < 2**29).all()
        and ((abs(2 * p.zero_point + 1) << np.maximum(p.shift - 33, 0)) < 2**30).all()
    )


def one_zero_point() -> tuple[tuple[Any, ...], Params]:
    """A call as frameworks make it: a multiplier a channel, one zero point, ties toward positive."""
    acc = np.array([[-(2**31), -50, -49], [49, 50, 2**31 - 1]], np.int32)
    p = Params([2**30, 2**31 - 1, 3 * 2**29], [36, 37, 38], -5, rounding=Rounding.TIES_TO_POSITIVE)
    assert in_32_bits(p)
    return (acc,), p


OP = register(
    Op(
        name="requantize.single_rounding",
        version=1,
        cites="Jacob et al. 2018 (arXiv 1712.05877), section 2.2; ARM-software/CMSIS-NN arm_nnsupportfunctions.h",
        inputs=(Port("acc", "m n", int32),),
        outputs=(Port("q", "m n", lambda p: p.dtype),),
        params=Params,
        spec=spec,
        program=Elementwise(element),
        examples=examples,
        oracle=multiplier_oracle(Params, lambda p: 0.5),
        tuned=(
            Tuned("cpu", "intsim.ops.requantize._cpu_columns:single_rounding", _serves, keeps=True),
            Tuned(
                "cuda",
                "intsim.ops.requantize._cuda_single_rounding:requantize",
                lambda p, size: in_32_bits(p),
                example=one_zero_point,
            ),
        ),
    )
)

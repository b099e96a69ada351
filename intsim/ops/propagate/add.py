"""A residual sum: a narrow tensor plus an accumulator, each row on the smaller of the two scales.

    scale' = min(s_x * 2**left_shift, s_y)
    z = round((x << left_shift) * scale' / (s_x * 2**left_shift)) + round(y * scale' / s_y)

Neither ratio is above 1: |x| < 2**(bits - 1), so its side stays below 2**23, |y| <= 3 * 2**29, and
|z| < 2**31. left_shift keeps the bits of x that the match would cut; the paper's literal reading is
left_shift = 0, with y rescaled first.

Differs from ``add.rescaled`` and ``add.matched``: the scales are inputs, a pair a row.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from intsim.compiling import Int, portable
from intsim.numerics import IntType, Rounding, int8_narrow, int16_narrow, int32
from intsim.op import Op, Port, Rowwise, Size
from intsim.ops.propagate import ROUNDINGS, MADE_SCALE, SUM, scale_ports
from intsim.params import Limit, Params as Base, int_type, integer, rule
from intsim.registry import register
from intsim.scalar import scale as program
from intsim.spec import scale


@dataclass(frozen=True, slots=True, eq=False)
class Params(Base):
    x: IntType = int_type(int16_narrow, int8_narrow, role="operand")
    left_shift: int = integer(0, 16, default=8)
    rounding: Rounding = rule(Rounding, Rounding.TIES_TO_AWAY, among=ROUNDINGS)

    limits = (Limit("x.bits + left_shift <= 24", lambda p: p.x.bits + p.left_shift <= 24),)


def spec(x: Any, x_mantissa: Any, x_exponent: Any, y: Any, y_mantissa: Any, y_exponent: Any, p: Params) -> Any:
    sides = (x_mantissa, x_exponent + p.left_shift), (y_mantissa, y_exponent)
    match = scale.smaller(*sides)
    by_x, by_y = (tuple(part.reshape(-1, 1) for part in scale.quotient(match, side)) for side in sides)
    return scale.apply(x << p.left_shift, by_x, p.rounding) + scale.apply(y, by_y, p.rounding), *match


@portable
def row(i: Int, x: Any, out: Any, p: Any) -> None:
    a, b, z = x.x[i], x.y[i], out.z[i]
    a_mantissa, a_exponent = np.int64(x.x_mantissa[i]), np.int64(x.x_exponent[i]) + p.left_shift
    b_mantissa, b_exponent = np.int64(x.y_mantissa[i]), np.int64(x.y_exponent[i])
    mantissa, exponent = b_mantissa, b_exponent
    if program.less(a_mantissa, a_exponent, b_mantissa, b_exponent):
        mantissa, exponent = a_mantissa, a_exponent
    by_a, by_a_exponent = program.quotient(mantissa, exponent, a_mantissa, a_exponent)
    by_b, by_b_exponent = program.quotient(mantissa, exponent, b_mantissa, b_exponent)
    for j in range(a.shape[0]):
        total = program.apply(np.int64(a[j]) << p.left_shift, by_a, by_a_exponent, p.rounding)
        z[j] = total + program.apply(np.int64(b[j]), by_b, by_b_exponent, p.rounding)
    out.mantissa[i] = mantissa
    out.exponent[i] = exponent


def examples() -> dict[str, Any]:
    x = np.array([[1, -1, 3, -3, 5], [-32767, 32767, 32767, -32767, 0], [1, -1, 3, -3, 32767]], np.int16)
    y = np.array([[6, -6, 9, -9, 1], [-SUM, SUM, -SUM, SUM, 0], [1, -1, 3, -3, SUM]], np.int32)
    narrow = np.array([[127, -127, 1, -1, 0], [1, -1, 3, -3, 5], [-127, 127, 64, -3, 1]], np.int8)
    equal = np.array([2**30, 2**31 - 1, 2**30], np.int32), np.array([-2048, 2047, -30], np.int16)
    finer = np.array([2**30, 2**31 - 1, 2**31 - 1], np.int32), np.array([-2047, 2047, 2047], np.int16)
    coarser = np.array([2**30, 2**30 + 1, 2**30], np.int32), np.array([-2048, -2048, -31], np.int16)
    made: dict[str, Any] = {}
    for r in ROUNDINGS:
        made[f"x is halved, {r.name}"] = ((x, *finer, y, *equal), Params(left_shift=0, rounding=r))
        made[f"y is halved, {r.name}"] = ((x, *equal, y, *coarser), Params(left_shift=0, rounding=r))
    made["y is the coarser, and x far finer"] = ((x, *equal, y, *coarser), Params())
    made["x is the coarser"] = ((x, *coarser, y, *finer), Params())
    made["int8, 16 bits kept"] = ((narrow, *equal, y, *coarser), Params(int8_narrow, 16))
    made["int8, none kept"] = ((narrow, *finer, y, *equal), Params(int8_narrow, 0))
    return made


OP = register(
    Op(
        name="propagate.add",
        version=1,
        cites="Lin et al. 2020 (arXiv 2009.08034), eq. (8), residual connections",
        inputs=(
            Port("x", "m n", lambda p: p.x),
            *scale_ports("m", "x"),
            Port("y", "m n", int32, low=-SUM, high=SUM),
            *scale_ports("m", "y"),
        ),
        outputs=(Port("z", "m n", int32), *MADE_SCALE),
        params=Params,
        spec=spec,
        program=Rowwise(row),
        sizes={"n": Size(1)},
        examples=examples,
    )
)

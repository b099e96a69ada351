"""The heads of a row on one scale: what attention gives per head becomes one row.

    scale = min of the row's s[h];   z[h] = round(z[h] * scale / s[h])

No ratio is above 1: nothing grows, and the head with the smallest scale stays as it is. The result
lies as (m, h, d) in order: read as (m, h * d) it is the input of the next layer.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from intsim.compiling import Int, portable
from intsim.numerics import Rounding, int32
from intsim.op import Op, Port, Rowwise, Size
from intsim.ops.propagate import ROUNDINGS, LARGEST, MADE_SCALE, scale_ports
from intsim.params import Params as Base, rule
from intsim.registry import register
from intsim.scalar import scale as program
from intsim.spec import scale


@dataclass(frozen=True, slots=True, eq=False)
class Params(Base):
    rounding: Rounding = rule(Rounding, Rounding.TIES_TO_AWAY, among=ROUNDINGS)


def spec(z: Any, mantissa: Any, exponent: Any, p: Params) -> Any:
    match = scale.smallest((mantissa, exponent), np.ones(mantissa.shape, bool))
    by = scale.quotient(match, (mantissa, exponent))
    made = scale.apply(z, (by[0][:, :, None], by[1][:, :, None]), p.rounding)
    return made, match[0][:, 0], match[1][:, 0]


@portable
def row(i: Int, x: Any, out: Any, p: Any) -> None:
    z, mantissa, exponent, made = x.z[i], x.mantissa[i], x.exponent[i], out.z[i]
    low, low_exponent = np.int64(mantissa[0]), np.int64(exponent[0])
    for h in range(1, z.shape[0]):
        if program.less(np.int64(mantissa[h]), np.int64(exponent[h]), low, low_exponent):
            low, low_exponent = np.int64(mantissa[h]), np.int64(exponent[h])
    for h in range(z.shape[0]):
        by, by_exponent = program.quotient(low, low_exponent, np.int64(mantissa[h]), np.int64(exponent[h]))
        for j in range(z.shape[1]):
            made[h, j] = program.apply(np.int64(z[h, j]), by, by_exponent, p.rounding)
    out.mantissa[i] = low
    out.exponent[i] = low_exponent


def examples() -> dict[str, Any]:
    z = np.array([[[1, -1, 3, -3], [5, 6, -7, 8]], [[LARGEST, -LARGEST, 3, -3], [LARGEST, -LARGEST, 0, 1]]], np.int32)
    mantissa = np.array([[2**30, 2**30], [2**31 - 1, 2**30]], np.int32)
    exponent = np.array([[-30, -31], [2047, 2047]], np.int16)
    made: dict[str, Any] = {f"halves, {r.name}": ((z, mantissa, exponent), Params(r)) for r in ROUNDINGS}
    made["far apart"] = ((z, mantissa, np.array([[-30, 30], [-2048, 2047]], np.int16)), Params())
    made["one head"] = ((z[:, :1], mantissa[:, :1], exponent[:, :1]), Params())
    return made


OP = register(
    Op(
        name="propagate.join",
        version=1,
        cites="Lin et al. 2020 (arXiv 2009.08034), eq. (8), over the heads",
        inputs=(Port("z", "m h d", int32, low=-LARGEST), *scale_ports("m h")),
        outputs=(Port("z", "m h d", int32), *MADE_SCALE),
        params=Params,
        spec=spec,
        program=Rowwise(row),
        sizes={"h": Size(1), "d": Size(1)},
        examples=examples,
    )
)

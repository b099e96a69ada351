"""The end of a linear layer: channels onto one scale, and the bias matched to it.

    z     = round(acc * ratio)                   a ratio a channel: s_weight / s_channel <= 1
    scale = s_x * s_weight                       s_weight is the smallest of the channels' scales
    scale'= min(scale, s_bias)
    z     = round(z * scale' / scale) + round(bias * scale' / s_bias)

No ratio is above 1, so nothing grows: |acc| <= 2**30 and |bias| < 2**29 give |z| < 2**31. The side
with the smaller scale stays as it is. Without a bias these are the logits of an output layer on one
scale a row, which can be compared.

Differs from the paper, which brings the product to int8 before the bias: here it stays int32.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from intsim.compiling import Int, portable
from intsim.numerics import IntType, Rounding, int32
from intsim.op import Op, Port, Rowwise, Size
from intsim.ops.propagate import ROUNDINGS, CONSTANT, EXPONENT, MADE_SCALE, ONE, constants, scale_ports
from intsim.params import Limit, Params as Base, integer, rule
from intsim.registry import register
from intsim.scalar import scale as program
from intsim.spec import scale

ACC = IntType(31)  # what 2**16 - 1 products of int8 stay inside


@dataclass(frozen=True, slots=True, eq=False)
class Params(Base):
    ratio_mantissa: Any = integer(2**30, 2**31 - 1, per="n", default=ONE[0])
    ratio_exponent: Any = integer(-200, -30, per="n", default=ONE[1])
    weight_mantissa: int = integer(2**30, 2**31 - 1, default=ONE[0])
    weight_exponent: int = integer(EXPONENT.qmin, EXPONENT.qmax, default=ONE[1])
    bias: Any = integer(-CONSTANT, CONSTANT, per="n", default=0)
    bias_mantissa: int = integer(2**30, 2**31 - 1, default=2**31 - 1)
    bias_exponent: int = integer(EXPONENT.qmin, EXPONENT.qmax, default=EXPONENT.qmax)
    rounding: Rounding = rule(Rounding, Rounding.TIES_TO_AWAY, among=ROUNDINGS)

    limits = (
        Limit(
            "ratio_mantissa * 2**ratio_exponent <= 1",
            lambda p: bool(np.all((p.ratio_exponent < -30) | (p.ratio_mantissa == 2**30))),
        ),
    )

    @classmethod
    def from_scales(cls, weight: Any, bias: Any = None, **fields: Any) -> Params:
        """The parameters for weights with these scales and a bias of real numbers.

        weight: (mantissa, exponent), arrays of a scale a channel or of one for all; bias: a float a
        channel, or None. Raises ValueError where a bias is not finite.
        """
        mantissa, exponent = (np.atleast_1d(np.asarray(part, np.int64)) for part in weight)
        least = tuple(part[0] for part in scale.smallest((mantissa, exponent), np.ones(mantissa.shape, bool)))
        ratio = scale.quotient((least[0] + 0 * mantissa, least[1] + 0 * exponent), (mantissa, exponent))
        far = ratio[1] < -200  # such a channel is 0 in either case
        made = constants(0.0 if bias is None else bias)
        return cls(ratio[0], np.where(far, -200, ratio[1]), int(least[0]), int(least[1]), *made, **fields)


def spec(acc: Any, mantissa: Any, exponent: Any, p: Params) -> Any:
    z = scale.apply(acc, (p.ratio_mantissa, p.ratio_exponent), p.rounding)
    weight = p.weight_mantissa + 0 * mantissa, p.weight_exponent + 0 * exponent
    own = scale.multiply((mantissa, exponent), weight)
    other = p.bias_mantissa + 0 * mantissa, p.bias_exponent + 0 * exponent
    match = scale.smaller(own, other)
    by, by_bias = (tuple(part.reshape(-1, 1) for part in scale.quotient(match, side)) for side in (own, other))
    return scale.apply(z, by, p.rounding) + scale.apply(p.bias, by_bias, p.rounding), *match


@portable
def row(i: Int, x: Any, out: Any, p: Any) -> None:
    acc, z = x.acc[i], out.z[i]
    own, own_exponent = program.multiply(
        np.int64(x.mantissa[i]), np.int64(x.exponent[i]), p.weight_mantissa, p.weight_exponent
    )
    match, match_exponent = own, own_exponent
    other = program.less(p.bias_mantissa, p.bias_exponent, own, own_exponent)
    if other:
        match, match_exponent = p.bias_mantissa, p.bias_exponent
    by, by_exponent = program.quotient(match, match_exponent, own, own_exponent)
    from_bias, from_bias_exponent = program.quotient(match, match_exponent, p.bias_mantissa, p.bias_exponent)
    for j in range(acc.shape[0]):
        value = program.apply(np.int64(acc[j]), p.ratio_mantissa[j], p.ratio_exponent[j], p.rounding)  # <= 2**30
        if other:  # else the ratio is 1
            value = program.apply(value, by, by_exponent, p.rounding)
        z[j] = value + program.apply(p.bias[j], from_bias, from_bias_exponent, p.rounding)
    out.mantissa[i] = match
    out.exponent[i] = match_exponent


def examples() -> dict[str, Any]:
    top, half, third = 2**30, (2**30, -31), (1431655765, -32)
    acc = np.array([[1, -1, 3, -3, 5], [-top, top - 1, -top, top - 1, 0], [6, -6, 1000, -1000, 7]], np.int32)
    # the bias is the coarser side; neither is; it is the finer one
    scales = np.array([2**31 - 1, 2**30, 2**30], np.int32), np.array([2047, -30, -2048], np.int16)
    ends = [CONSTANT, -CONSTANT, 5, -5, 1]
    made: dict[str, Any] = {}
    for r in ROUNDINGS:
        made[f"halves, {r.name}"] = ((acc, *scales), Params(*half, *ONE, 0, rounding=r))
        made[f"halves of the bias, {r.name}"] = ((0 * acc, *scales), Params(*ONE, *ONE, ends, 2**30, -29, rounding=r))
    channels = Params([2**30, half[0], third[0], 2**31 - 1, 2**30], [-30, -31, third[1], -31, -200], *ONE, ends, *ONE)
    made["a ratio a channel, the bias on the scale of one row"] = ((acc, *scales), channels)
    made["the largest sums"] = ((acc, *scales), Params(*ONE, *ONE, [-CONSTANT, CONSTANT, -CONSTANT, CONSTANT, 0], *ONE))
    real = Params.from_scales(([2**30, 3 * 2**29, 2**30, 2**31 - 1, 2**30], [-24] * 5), [0.5, -0.25, 1e-9, 7.0, 0.0])
    made["from real numbers"] = ((acc, np.full(3, 3 * 2**29, np.int32), np.array([-25, -20, -30], np.int16)), real)
    return made


OP = register(
    Op(
        name="propagate.bias",
        version=1,
        cites="Lin et al. 2020 (arXiv 2009.08034), eq. (8), and the bias of its linear layers",
        inputs=(Port("acc", "m n", ACC), *scale_ports("m")),
        outputs=(Port("z", "m n", int32), *MADE_SCALE),
        params=Params,
        spec=spec,
        program=Rowwise(row),
        sizes={"n": Size(1)},
        examples=examples,
    )
)

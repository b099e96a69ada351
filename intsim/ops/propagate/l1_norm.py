"""L1 layer normalization that gives a scale: centred values over their mean absolute value, times a gain, plus a bias.

    c = n x - sum x;   D = max(1, sum |c|);   scale = D / n          so that c / scale = c / mean |c|
    (c, scale) = rescaled to 16 bits
    y = c * weight;   scale = scale * s_weight
    y = y and the bias matched, as in ``propagate.bias``
    (q, scale) = y rescaled to dtype

The scale of x is not asked for: the quotient cancels it. Nothing is divided but scales. ROUNDED_MEAN
takes ``c = x - round(sum x / n)``, the mean on the grid of x.

|c| < 2**31 for n <= 2**15, D <= 2**46, |y| <= 2**22 before the bias, which stays below 2**29.

Differs from ``layernorm.l1``, which divides each element by the row's maximum and gives no scale
that the next op could take; from the paper, which multiplies and adds step by step in int8.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from intsim.compiling import Int, portable
from intsim.numerics import IntType, Rounding, int8, int16, int16_narrow
from intsim.op import Op, Port, Rowwise, Size, Tuned
from intsim.ops.propagate import (
    half_away_in_whole_registers,
    ROUNDINGS,
    CONSTANT,
    EXPONENT,
    MADE_SCALE,
    Centring,
    Policy,
    constants,
)
from intsim.ops.propagate._rescaling import ratio, ratio_of
from intsim.params import Params as Base, int_type, integer, rule
from intsim.registry import register
from intsim.scalar import scale as program
from intsim.spec import scale

LONGEST = 2**15
WIDE = 2**15 - 1  # of c before the gain


@dataclass(frozen=True, slots=True, eq=False)
class Params(Base):
    weight: Any = integer(-127, 127, per="n", default=127)
    weight_mantissa: int = integer(2**30, 2**31 - 1, default=127 << 24)  # 127 is a gain of 1
    weight_exponent: int = integer(EXPONENT.qmin, EXPONENT.qmax, default=-24)
    bias: Any = integer(-CONSTANT, CONSTANT, per="n", default=0)
    bias_mantissa: int = integer(2**30, 2**31 - 1, default=2**31 - 1)
    bias_exponent: int = integer(EXPONENT.qmin, EXPONENT.qmax, default=EXPONENT.qmax)
    dtype: IntType = int_type(int8, int16, role="operand")
    centring: Centring = rule(Centring, Centring.EXACT)
    policy: Policy = rule(Policy, Policy.WHEN_NEEDED)
    rounding: Rounding = rule(Rounding, Rounding.TIES_TO_AWAY, among=ROUNDINGS)

    @classmethod
    def from_real(cls, weight: Any, bias: Any, **fields: Any) -> Params:
        """The parameters for a real gain and a real bias, a float a channel each.

        Raises ValueError where one is not finite.
        """
        gain = np.atleast_1d(np.asarray(weight, np.float64))
        if not np.isfinite(gain).all():
            raise ValueError("propagate.l1_norm: a gain is finite; got an infinity or NaN")
        top = max(float(np.abs(gain).max()), 2.0**-100)
        mantissa, exponent = scale.of_real(127 / top)
        q = np.clip(np.rint(gain * (127 / top)), -127, 127).astype(np.int64)
        return cls(q, int(mantissa), int(exponent), *constants(bias), **fields)


def spec(x: Any, p: Params) -> Any:
    n = x.shape[-1]
    total = x.sum(axis=-1, keepdims=True)
    width = scale.of_integer(n + 0 * total)
    one = scale.of_integer(1 + 0 * total)
    if p.centring == Centring.EXACT:
        c = n * x - total
    else:
        c = x - scale.apply(total, scale.quotient(one, width), p.rounding)
    norm = np.maximum(abs(c).sum(axis=-1, keepdims=True), 1)
    s = scale.quotient(scale.of_integer(norm), width)
    c, s = _rescaled(c, s, WIDE, p)
    own = scale.multiply(s, (p.weight_mantissa + 0 * s[0], p.weight_exponent + 0 * s[1]))
    other = p.bias_mantissa + 0 * s[0], p.bias_exponent + 0 * s[1]
    match = scale.smaller(own, other)
    y = scale.apply(c * p.weight, scale.quotient(match, own), p.rounding)
    y = y + scale.apply(p.bias, scale.quotient(match, other), p.rounding)
    q, s = _rescaled(y, match, p.dtype.qmax, p)
    return q, s[0][:, 0], s[1][:, 0]


def _rescaled(x: Any, s: Any, qmax: int, p: Params) -> Any:
    by = ratio(np.maximum(abs(x).max(axis=-1, keepdims=True), 1), qmax, p.policy)
    return np.clip(scale.apply(x, by, p.rounding), -qmax, qmax), scale.multiply(s, by)


@portable
def _centred(x: Int, n: Int, total: Int, mean: Int, exact: Int) -> Int:
    return n * x - total if exact else x - mean


@portable
def _gained(c: Int, j: Int, wide: Int, wide_exponent: Int, by: Int, by_exponent: Int, p: Any) -> Int:
    c = min(max(program.apply(c, wide, wide_exponent, p.rounding), -WIDE), WIDE)
    return program.apply(c * p.weight[j], by, by_exponent, p.rounding)  # below 2**22


@portable
def row(i: Int, x: Any, out: Any, p: Any) -> None:
    source, q = x.x[i], out.q[i]
    n, rounding = source.shape[0], p.rounding
    total, norm, top = np.int64(0), np.int64(0), np.int64(1)
    for j in range(n):
        total += np.int64(source[j])
    width, width_exponent = program.of_integer(n)
    part, part_exponent = program.quotient(2**30, -30, width, width_exponent)
    exact = 1 if p.centring == Centring.EXACT else 0
    mean = program.apply(total, part, part_exponent, rounding)  # |total| <= 2**30
    for j in range(n):
        c = abs(_centred(np.int64(source[j]), n, total, mean, exact))  # below 2**31
        norm += c
        top = max(top, c)
    made, made_exponent = program.of_integer(max(norm, 1))
    made, made_exponent = program.quotient(made, made_exponent, width, width_exponent)
    wide, wide_exponent = ratio_of(top, WIDE, p.policy)
    made, made_exponent = program.multiply(made, made_exponent, wide, wide_exponent)
    made, made_exponent = program.multiply(made, made_exponent, p.weight_mantissa, p.weight_exponent)
    match, match_exponent = made, made_exponent
    if program.less(p.bias_mantissa, p.bias_exponent, made, made_exponent):
        match, match_exponent = p.bias_mantissa, p.bias_exponent
    by, by_exponent = program.quotient(match, match_exponent, made, made_exponent)
    add, add_exponent = program.quotient(match, match_exponent, p.bias_mantissa, p.bias_exponent)
    last = np.int64(1)
    for j in range(n):
        c = _centred(np.int64(source[j]), n, total, mean, exact)
        y = _gained(c, j, wide, wide_exponent, by, by_exponent, p)
        last = max(last, abs(y + program.apply(p.bias[j], add, add_exponent, rounding)))
    to, to_exponent = ratio_of(last, p.dtype.qmax, p.policy)
    for j in range(n):
        c = _centred(np.int64(source[j]), n, total, mean, exact)
        y = _gained(c, j, wide, wide_exponent, by, by_exponent, p)
        y += program.apply(p.bias[j], add, add_exponent, rounding)
        q[j] = min(max(program.apply(y, to, to_exponent, rounding), -p.dtype.qmax), p.dtype.qmax)
    made, made_exponent = program.multiply(match, match_exponent, to, to_exponent)
    out.mantissa[i] = made
    out.exponent[i] = made_exponent


def examples() -> dict[str, Any]:
    x = np.array(
        [
            [1, 2, 4, 8],
            [7, 7, 7, 7],
            [-32767, 32767, -32767, 32767],
            [0, 0, 0, 1],
            [-3, 0, 1, 4],
            [100, -300, 250, -47],
            [32767, -32767, 5, -5],
        ],
        np.int16,
    )
    weight, bias = [127, -127, 64, 1], [CONSTANT, -CONSTANT, 12345, 0]
    full = Params(weight, 127 << 24, -23, bias, 2**30, -3)
    made: dict[str, Any] = {f"gain and bias, {r.name}": ((x,), replace(full, rounding=r)) for r in ROUNDINGS}
    for r in ROUNDINGS:
        made[f"the mean is a tie, {r.name}"] = ((x[:, :2],), Params(centring=Centring.ROUNDED_MEAN, rounding=r))
    made |= {f"{policy.name}": ((x,), replace(full, policy=policy)) for policy in Policy}
    made["the mean on the grid of x"] = ((x,), replace(full, centring=Centring.ROUNDED_MEAN))
    made["int16, the bias far finer"] = ((x,), replace(full, dtype=int16, bias_exponent=2047))
    made["the bias far coarser"] = ((x,), replace(full, bias_exponent=-2048))
    made["one column: all zeros"] = ((x[:, :1],), Params())
    made["from real numbers"] = ((x,), Params.from_real([0.5, -1.25, 2.0, 1e-3], [0.1, 0.0, -3.0, 0.7]))
    return made


OP = register(
    Op(
        name="propagate.l1_norm",
        version=1,
        cites="Lin et al. 2020 (arXiv 2009.08034), eq. (13)",
        inputs=(Port("x", "m n", int16_narrow),),
        outputs=(Port("q", "m n", lambda p: p.dtype), *MADE_SCALE),
        params=Params,
        spec=spec,
        program=Rowwise(row),
        sizes={"n": Size(1, LONGEST)},
        examples=examples,
        tuned=(Tuned("cpu", "intsim.ops.propagate._cpu_rows:l1_norm", half_away_in_whole_registers),),
    )
)

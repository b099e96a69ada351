"""Rescaling: an int32 row with a scale becomes a narrow row with a scale.

    x = max(x, 0)  (RELU);   top = max(1, max |x|)
    ratio = 1 where top <= qmax, else qmax / top
    q = round(x * ratio);   scale' = scale * ratio

ALWAYS takes qmax / top for small rows too; POWERS_OF_TWO takes the largest 2**-k with
``top * 2**-k <= qmax``. The ratio is an integer scale, and the same one is applied to x and to the scale.
``|q| <= qmax``: the lowest value of a signed type is never made (rounding to nearest never reaches
it; where TOWARD_NEGATIVE would, by one, q saturates).

Differs from ``quantize.dynamic_token``: no division per element, and the scale goes along.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from intsim.compiling import Int, portable
from intsim.numerics import IntType, Rounding, int8, int16, int32, uint8
from intsim.op import Op, Port, Rowwise, Size, Tuned
from intsim.ops.propagate import (
    half_away_in_whole_registers,
    ROUNDINGS,
    LARGEST,
    MADE_SCALE,
    Activation,
    Policy,
    scale_ports,
)
from intsim.ops.propagate._rescaling import ratio, ratio_of
from intsim.params import Limit, Params as Base, int_type, rule
from intsim.registry import register
from intsim.scalar import scale as program
from intsim.spec import scale


@dataclass(frozen=True, slots=True, eq=False)
class Params(Base):
    dtype: IntType = int_type(int8, int16, uint8, role="operand")
    policy: Policy = rule(Policy, Policy.WHEN_NEEDED)
    rounding: Rounding = rule(Rounding, Rounding.TIES_TO_AWAY, among=ROUNDINGS)
    activation: Activation = rule(Activation, Activation.NONE)

    limits = (
        Limit("dtype signed or activation = RELU", lambda p: bool(p.dtype.qmin < 0 or p.activation == Activation.RELU)),
    )


def spec(x: Any, mantissa: Any, exponent: Any, p: Params) -> Any:
    qmax = p.dtype.qmax
    if p.activation == Activation.RELU:
        x = np.maximum(x, 0)
    top = np.maximum(abs(x).max(axis=-1, keepdims=True), 1)
    by = ratio(top, qmax, p.policy)
    q = np.clip(scale.apply(x, by, p.rounding), -qmax, qmax)
    made = scale.multiply((mantissa, exponent), (by[0][:, 0], by[1][:, 0]))
    return q, *made


@portable
def row(i: Int, x: Any, out: Any, p: Any) -> None:
    source, q = x.x[i], out.q[i]
    qmax, relu = p.dtype.qmax, p.activation == Activation.RELU
    top = np.int64(1)
    for j in range(source.shape[0]):
        value = np.int64(source[j])
        top = max(top, value if value > 0 or relu else -value)
    mantissa, exponent = ratio_of(top, qmax, p.policy)
    for j in range(source.shape[0]):
        value = np.int64(source[j])
        if relu and value < 0:
            value = np.int64(0)
        q[j] = min(max(program.apply(value, mantissa, exponent, p.rounding), -qmax), qmax)
    made, made_exponent = program.multiply(np.int64(x.mantissa[i]), np.int64(x.exponent[i]), mantissa, exponent)
    out.mantissa[i] = made
    out.exponent[i] = made_exponent


def examples() -> dict[str, Any]:
    low, high = -LARGEST, LARGEST
    x = np.array(
        [
            [254, 1, -1, 3, -3, 5],  # halves
            [high, low, 2**30, -(2**30), 1, 0],
            [0, 0, 0, 0, 0, 0],
            [127, -127, 128, -128, 3, 2],
            [5, -3, 1, 0, 2, -2],  # fits: stretched by ALWAYS alone
            [low, -129, 127, 32767, -32768, 65535],
            [1020, 2, -2, 6, -6, 65534],
            [65534, 1, -1, 3, -3, 5],  # halves for int16
        ],
        np.int32,
    )
    mantissa = np.array([2**30, 2**31 - 1, 2**30 + 1, 3 * 2**29, 2**30, 2**31 - 2, 2**30, 2**31 - 1], np.int32)
    exponent = np.array([-30, -2048, 2047, 0, -23, 5, -40, -30], np.int16)
    inputs = (x, mantissa, exponent)
    made: dict[str, Any] = {f"ties, ends, zeros, small; {r.name}": (inputs, Params(rounding=r)) for r in ROUNDINGS}
    made |= {f"{policy.name}": (inputs, Params(policy=policy)) for policy in Policy}
    made |= {f"int16, {policy.name}": (inputs, Params(int16, policy)) for policy in Policy}
    made["ReLU first: the largest negative no longer counts"] = (inputs, Params(activation=Activation.RELU))
    made["uint8"] = (inputs, Params(uint8, activation=Activation.RELU))
    return made


OP = register(
    Op(
        name="propagate.rescale",
        version=1,
        cites="Lin et al. 2020 (arXiv 2009.08034), eq. (10)",
        inputs=(Port("x", "m n", int32, low=-LARGEST), *scale_ports("m")),
        outputs=(Port("q", "m n", lambda p: p.dtype), *MADE_SCALE),
        params=Params,
        spec=spec,
        program=Rowwise(row),
        sizes={"n": Size(1)},
        examples=examples,
        tuned=(Tuned("cpu", "intsim.ops.propagate._cpu_rows:rescale", half_away_in_whole_registers),),
    )
)

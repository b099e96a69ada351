"""Dynamic quantization of float32, symmetric, one scale a row (a token).

    scale = f32(max|x| / qmax), or 1 where that is 0
    q     = saturate(round(f32(x / scale)))

Differs from ``dynamic_asymmetric``: no zero point. From ``dynamic_token``: float32 in and a float32
scale out. Kernels compute the IEEE steps in integers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from intsim.compiling import Int, portable
from intsim.numerics import IntType, Rounding, float32, int4, int8, int8_narrow, int16
from intsim.op import Op, Port, Rowwise, Size
from intsim.params import Params as Base, int_type, rule
from intsim.registry import register
from intsim.scalar.ieee import divide32, pack32, sign_of, to_integer, unpack32
from intsim.scalar.rounding import saturate
from intsim.spec import ieee, rounding


@dataclass(frozen=True, slots=True, eq=False)
class Params(Base):
    dtype: IntType = int_type(int8, int8_narrow, int16, int4, role="result")
    rounding: Rounding = rule(Rounding, Rounding.TIES_TO_EVEN)


def spec(x: Any, p: Params) -> Any:
    with np.errstate(under="ignore", over="ignore"):
        scale = np.max(np.abs(x), axis=-1, keepdims=True) / np.float32(p.dtype.qmax)
        scale = np.where(scale == 0, np.float32(1), scale)
        whole = ieee.to_integer(x / scale, p.rounding)
    return rounding.saturate(whole, p.dtype), scale[:, 0]


@portable
def row(i: Int, x: Any, out: Any, p: Any) -> None:
    x, q = x.x[i], out.q[i]
    top = np.int64(0)  # without their sign, the bits of floats are in the order of the floats
    for j in range(x.shape[0]):
        top = max(top, np.int64(x[j]) & (2**31 - 1))
    tm, te = unpack32(top)
    qm, qe = unpack32(pack32(p.dtype.qmax, 0))
    sm, se = divide32(tm, te, qm, qe)
    bits = pack32(sm, se)
    if bits == 0:
        bits = pack32(1, 0)
    sm, se = unpack32(bits)
    for j in range(x.shape[0]):
        am, ae = unpack32(np.int64(x[j]))
        m, e = divide32(am, ae, sm, se)
        q[j] = saturate(to_integer(sign_of(np.int64(x[j])) * m, e, p.rounding), p.dtype)
    out.scale[i] = bits


def examples() -> dict[str, Any]:
    x = np.array(
        [
            [0.5, -1.5, 2.5, 127, -127],
            [1, 2, 3, -4, 0.1],
            [0, 0, -0.0, 0, 0],
            [1e-45, 0, 0, 0, -1e-45],
            [3e38, -3e38, 1, 0, 2],
        ]
    )
    return {"ties; ordinary; zero; subnormal; huge": ((x.astype(np.float32),), Params())}


OP = register(
    Op(
        name="quantize.dynamic_symmetric",
        version=1,
        cites="Yao et al. 2022 (ZeroQuant, arXiv 2206.01861), token-wise quantization",
        inputs=(Port("x", "m n", float32, numbers="finite"),),
        outputs=(Port("q", "m n", lambda p: p.dtype), Port("scale", "m", float32)),
        params=Params,
        spec=spec,
        program=Rowwise(row),
        sizes={"n": Size(1)},
        examples=examples,
    )
)

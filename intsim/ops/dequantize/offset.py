"""Dequantize with a float offset for each row, in float32: the other half of ``quantize.deepspeed``.

    x = f32(f32(f32(q) * scale) + offset)         MULTIPLY
    x = f32(f32(f32(q) / scale) + offset)         DIVIDE: where the scale is stored as its inverse

Two roundings, and a zero is +0. A row is a group. DeepSpeed's PyTorch code computes this; its CUDA
kernels may contract the two steps into one (nvcc does by default) and then round to float16: neither
is stated here.

Differs from ``affine``: the offset is a real number, added last. Kernels compute the IEEE steps in integers.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum, unique
from typing import Any

import numpy as np

from intsim.compiling import Int, portable
from intsim.numerics import IntType, float32, int4, int8, int16, uint4, uint8
from intsim.op import Elementwise, Op, Port
from intsim.params import Params as Base, int_type, rule
from intsim.registry import register
from intsim.scalar.ieee import divide32, multiply32, pack32, sign_of, sum32, unpack32, with_sign
from intsim.spec import ieee


@unique
class Scaling(IntEnum):
    """How a scale is used."""

    MULTIPLY = 0
    DIVIDE = 1


@dataclass(frozen=True, slots=True, eq=False)
class Params(Base):
    q: IntType = int_type(int8, uint8, int4, uint4, int16, role="operand")
    scaling: Scaling = rule(Scaling, Scaling.MULTIPLY)


def spec(q: Any, scale: Any, offset: Any, p: Params) -> Any:
    x, s = ieee.float32(q), scale[:, None]
    with np.errstate(over="ignore", under="ignore"):
        return (x / s if p.scaling == Scaling.DIVIDE else x * s) + offset[:, None]


@portable
def element(i: Int, j: Int, x: Any, p: Any) -> Int:
    whole = np.int64(x.q[i, j])
    am, ae = unpack32(pack32(abs(whole), 0))
    bm, be = unpack32(np.int64(x.scale[i]))
    m, e = divide32(am, ae, bm, be) if p.scaling == Scaling.DIVIDE else multiply32(am, ae, bm, be)
    m, e = unpack32(pack32(m, e))
    bits = np.int64(x.offset[i])
    cm, ce = unpack32(bits & (2**31 - 1))
    total, e = sum32(-m if whole < 0 else m, e, sign_of(bits) * cm, ce)
    return with_sign(pack32(abs(total), e), total)


def examples() -> dict[str, Any]:
    q = np.array([[-128, -1, 0, 1, 127, 3]] * 5, np.int8)
    scale = np.array([0.1, 0.25, 3e38, 1e-45, 2.0**-20], np.float32)
    offset = np.array([-0.3, 0.75, -3e38, -0.0, 1e10], np.float32)
    made: dict[str, Any] = {}
    for scaling in Scaling:
        made[f"cancelling, huge, subnormal, lost; {scaling.name}"] = ((q, scale, offset), Params(scaling=scaling))
        made[f"no offset, {scaling.name}"] = ((q, scale), Params(scaling=scaling))
    made["17 codes"] = ((np.arange(17, dtype=np.int16)[None], scale[:1], offset[:1]), Params(int16))
    return made


OP = register(
    Op(
        name="dequantize.offset",
        version=1,
        cites="deepspeedai/DeepSpeed at edaa7221: deepspeed/compression/utils.py, "
        "deepspeed/inference/quantization/utils.py DeQuantizer",
        inputs=(
            Port("q", "m n", lambda p: p.q),
            Port("scale", "m", float32, numbers="positive"),
            Port("offset", "m", float32, fill=0, numbers="finite"),
        ),
        outputs=(Port("x", "m n", float32),),
        params=Params,
        spec=spec,
        program=Elementwise(element),
        examples=examples,
    )
)

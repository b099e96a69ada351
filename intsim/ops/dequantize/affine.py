"""Dequantize to float32 with given scales and zero points: ONNX DequantizeLinear.

    x = f32(f32(q - zero_point) * scale)

One scale for each group of ``group_size`` elements along a row, as in ``quantize.affine``. Kernels
compute the IEEE steps in integers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from intsim.compiling import Int, portable
from intsim.numerics import IntType, float32, int2, int4, int8, int16, int32, uint2, uint4, uint8, uint16
from intsim.op import Elementwise, Op, Port, Size
from intsim.params import Params as Base, int_type, integer
from intsim.registry import register
from intsim.scalar.ieee import multiply32, pack32, round32, unpack32, with_sign
from intsim.spec import ieee


@dataclass(frozen=True, slots=True, eq=False)
class Params(Base):
    group_size: int = integer(1, 2**31 - 1, default=2**31 - 1)
    q: IntType = int_type(int8, uint8, int16, uint16, int32, int4, uint4, int2, uint2, role="operand")


def spec(q: Any, scale: Any, zero_point: Any, p: Params) -> Any:
    group = np.arange(q.shape[-1]) // p.group_size
    with np.errstate(over="ignore", under="ignore"):
        return ieee.float32(q - zero_point[:, group]) * scale[:, group]


@portable
def element(i: Int, j: Int, x: Any, p: Any) -> Int:
    g = j // p.group_size
    whole = np.int64(x.q[i, j]) - np.int64(x.zero_point[i, g])
    am, ae = round32(abs(whole), 0)
    bm, be = unpack32(np.int64(x.scale[i, g]))
    m, e = multiply32(am, ae, bm, be)
    return with_sign(pack32(m, e), whole)


def examples() -> dict[str, Any]:
    q = np.array([[-128, -1, 0, 1, 127, 3]], np.int8)
    return {
        "one scale": ((q, np.array([[0.1]], np.float32), np.array([[-5]], np.int32)), Params()),
        "the farthest zero points": (
            (q[:, :2].repeat(2, 0), np.ones((2, 1), np.float32), np.array([[-65536], [65535]], np.int32)),
            Params(),
        ),
        "groups: subnormal, huge": ((q, np.array([[1e-44, 3e38]], np.float32)), Params(group_size=3)),
        "int32 beyond 24 bits": (
            (np.array([[2**24 + 1, 2**31 - 1, -(2**31)]], np.int32), np.array([[0.3]], np.float32)),
            Params(q=int32),
        ),
    }


OP = register(
    Op(
        name="dequantize.affine",
        version=1,
        cites="ONNX DequantizeLinear-25",
        inputs=(
            Port("q", "m n", lambda p: p.q),
            Port("scale", "m g", float32, numbers="positive"),
            Port("zero_point", "m g", IntType(17), fill=0),
        ),
        outputs=(Port("x", "m n", float32),),
        params=Params,
        spec=spec,
        program=Elementwise(element),
        sizes={
            "g": Size(
                derived=lambda p, size: -(-size["n"] // p.group_size), says="one scale a group_size elements of n"
            )
        },
        examples=examples,
    )
)

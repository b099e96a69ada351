"""Quantize float32 by way of an int32 that overflows: the ONNX reference evaluator, some of ONNX Runtime.

    whole = int32(rint(f32(x / scale))), or -2**31 where the quotient leaves int32, of either sign
    q     = saturate(wrap32(whole + zero_point))

So a large positive quotient gives the lowest value, or the highest where zero_point is negative: then
-2**31 + zero_point wraps. That is x86's conversion (other processors saturate). ONNX asks for
saturation of the quotient itself.

Differs from ``affine`` only where ``|x / scale| >= 2**31``, which an infinity always is. Kernels compute
the IEEE steps in integers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from intsim.compiling import Int, portable
from intsim.numerics import IntType, Rounding, float32, int2, int32, uint2
from intsim.op import Elementwise, Op, Port, Size
from intsim.ops.quantize import RESULTS
from intsim.params import Params as Base, int_type, integer
from intsim.registry import register
from intsim.scalar.fixed_point import wrap32
from intsim.scalar.ieee import divide32, sign_of, to_integer, unpack32
from intsim.scalar.rounding import saturate
from intsim.spec import ieee, rounding


@dataclass(frozen=True, slots=True, eq=False)
class Params(Base):
    group_size: int = integer(1, 2**31 - 1, default=2**31 - 1)
    dtype: IntType = int_type(*RESULTS, int2, uint2, role="result")


def spec(x: Any, scale: Any, zero_point: Any, p: Params) -> Any:
    group = np.arange(x.shape[-1]) // p.group_size
    with np.errstate(over="ignore", under="ignore"):  # an infinite quotient leaves int32
        whole = ieee.to_integer(x / scale[:, group], Rounding.TIES_TO_EVEN)
    held = np.where((whole >= int32.qmin) & (whole <= int32.qmax), whole, int32.qmin)
    return rounding.saturate(rounding.wrap(held + zero_point[:, group], int32), p.dtype)


@portable
def element(i: Int, j: Int, x: Any, p: Any) -> Int:
    g = j // p.group_size
    bits = np.int64(x.x[i, j])
    am, ae = unpack32(bits)
    bm, be = unpack32(np.int64(x.scale[i, g]))
    m, e = divide32(am, ae, bm, be)
    whole = to_integer(sign_of(bits) * m, e, Rounding.TIES_TO_EVEN)
    if abs(whole) >= 2**31:
        whole = -(2**31)
    return saturate(wrap32(whole + np.int64(x.zero_point[i, g])), p.dtype)


def examples() -> dict[str, Any]:
    ties = np.arange(-12, 13, dtype=np.float32)[None] * np.float32(0.25)
    one = np.ones((1, 1), np.float32)
    last = np.float32(2.0**31 - 128)
    edge = [np.inf, -np.inf, 3 * 2.0**30, -3 * 2.0**30, 2.0**31, -(2.0**31), last, -last, 1e-45, 0.0, -0.0, 3.0]
    wild = np.array([edge], np.float32)
    made: dict[str, Any] = {"ties with an odd zero point": ((ties, one / 2, np.array([[-5]], np.int32)), Params())}
    for zero_point in (-5, 0, 5):
        shown = (wild, one, np.array([[zero_point]], np.int32))
        made[f"beyond int32, zero point {zero_point}"] = (shown, Params())
    made["2 bits"] = ((ties, one), Params(dtype=int2))
    made["2 bits unsigned"] = ((ties, one, one.astype(np.int32)), Params(dtype=uint2))
    scales = np.array([[0.1, 0.7, 1e-30], [3.0, 1e30, 0.3]], np.float32)
    made["groups of three, two rows"] = ((np.stack([ties[0, :9] * 3, ties[0, 8:17] * 7]), scales), Params(group_size=3))
    return made


OP = register(
    Op(
        name="quantize.affine_through_int32",
        version=1,
        cites="onnx/onnx onnx/reference/ops/op_quantize_linear.py; microsoft/onnxruntime "
        "onnxruntime/core/util/qmath.h (2 bits; odd ends of 4 bits)",
        inputs=(
            Port("x", "m n", float32),
            Port("scale", "m g", float32, numbers="positive"),
            Port("zero_point", "m g", IntType(17), fill=0),
        ),
        outputs=(Port("q", "m n", lambda p: p.dtype),),
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

"""Quantize float32 with given scales and zero points: ONNX QuantizeLinear.

    q = saturate(round(f32(x / scale)) + zero_point)

A true division, one scale for each group of ``group_size`` elements along a row: one group a row is
per channel (rows are channels), one row and one group is per tensor.

Differs from PyTorch and XNNPACK, which multiply by f32(1 / scale) (``reciprocal``), and from
torch.quantize_per_tensor, which adds the zero point before the rounding. Kernels compute the IEEE
steps in integers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from intsim.compiling import Int, portable
from intsim.numerics import IntType, Rounding, float32, unlimited
from intsim.op import Elementwise, Op, Port, Size
from intsim.ops.quantize import RESULTS
from intsim.params import Params as Base, int_type, integer, rule
from intsim.registry import register
from intsim.scalar.ieee import divide32, sign_of, to_integer, unpack32
from intsim.scalar.rounding import saturate
from intsim.spec import ieee, rounding


@dataclass(frozen=True, slots=True, eq=False)
class Params(Base):
    group_size: int = integer(1, 2**31 - 1, default=2**31 - 1)
    dtype: IntType = int_type(*RESULTS, unlimited, role="result")
    rounding: Rounding = rule(Rounding, Rounding.TIES_TO_EVEN)


def spec(x: Any, scale: Any, zero_point: Any, p: Params) -> Any:
    group = np.arange(x.shape[-1]) // p.group_size
    with np.errstate(over="ignore", under="ignore"):  # an infinite quotient saturates
        whole = ieee.to_integer(x / scale[:, group], p.rounding)
    return rounding.saturate(whole + zero_point[:, group], p.dtype)


@portable
def element(i: Int, j: Int, x: Any, p: Any) -> Int:
    g = j // p.group_size
    bits = np.int64(x.x[i, j])
    am, ae = unpack32(bits)
    bm, be = unpack32(np.int64(x.scale[i, g]))
    m, e = divide32(am, ae, bm, be)
    return saturate(to_integer(sign_of(bits) * m, e, p.rounding) + np.int64(x.zero_point[i, g]), p.dtype)


def examples() -> dict[str, Any]:
    ties = np.arange(-12, 13, dtype=np.float32)[None] * np.float32(0.25)
    half, odd = np.array([[0.5]], np.float32), np.array([[-5]], np.int32)
    wild = np.array([[np.inf, -np.inf, 3e38, -3e38, 1e-45, -0.0, 0.0, 64.25, -64.25]], np.float32)
    made: dict[str, Any] = {f"ties, {r.name}": ((ties, half), Params(rounding=r)) for r in Rounding}
    made["ties with an odd zero point"] = ((ties, half, odd), Params())
    made["infinite, huge, subnormal, beyond the range"] = ((wild, half), Params())
    scales = np.array([[0.1, 0.7, 1e-30], [3.0, 1e30, 0.3]], np.float32)
    made["groups of three, two rows"] = ((np.stack([ties[0, :9] * 3, ties[0, 8:17] * 7]), scales), Params(group_size=3))
    return made


OP = register(
    Op(
        name="quantize.affine",
        version=1,
        cites="ONNX QuantizeLinear-21; microsoft/onnxruntime core/providers/cpu/quantization",
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

"""Quantized matrix product to a quantized result: ONNX QLinearMatMul as ONNX Runtime computes it.

    q = requantize(matmul(a, b))        matmul.integer, then requantize.float32_ties_even

The zero point comes after the rounding. Differs from the ONNX reference evaluator, which adds it
before and computes in float64.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from intsim.composites.linear import in_one_kernel
from intsim.numerics import Overflow, int8, int32, uint8
from intsim.op import Composition, Op, Port, Size
from intsim.ops.matmul import MOST_TERMS, integer as matmul
from intsim.ops.requantize import float32_ties_even as requantize
from intsim.params import Params as Base, stage
from intsim.registry import register


@dataclass(frozen=True, slots=True, eq=False)
class Params(Base):
    matmul: matmul.Params = stage(matmul.Params, acc=int32, overflow=Overflow.WRAP)
    requantize: requantize.Params = stage(requantize.Params)


def wire(run: Any, a: Any, b: Any, p: Params) -> Any:
    return run("requantize.float32_ties_even", run("matmul.integer", a, b, p=p.matmul), p=p.requantize)


def examples() -> dict[str, Any]:
    a = np.array([[8, 0], [24, 0], [40, 0], [-8, 1]], np.int8)
    b = np.array([[1, 0], [3, 7]], np.int8)
    sixteenth = requantize.Params.from_scale(1 / 16, zero_point=-5)
    unsigned = Params(
        matmul.Params(128, 3, a=uint8, b=uint8),
        requantize.Params.from_scales(0.021, [0.013, 0.4], 0.21, zero_point=127, dtype=uint8),
    )
    return {
        "ties, odd zero point": ((a, b), Params(matmul.Params(a=int8, b=int8), sixteenth)),
        "unsigned, per channel": ((a.view(np.uint8), b.view(np.uint8)), unsigned),
    }


OP = register(
    Op(
        name="linear.qlinear_matmul",
        version=1,
        cites="ONNX QLinearMatMul-21; microsoft/onnxruntime core/providers/cpu/quantization/quantize_linear_matmul.cc",
        inputs=(
            Port("a", "m k", lambda p: p.matmul.a, packing=True),
            Port("b", "n k", lambda p: p.matmul.b, packing=True),
        ),
        outputs=(Port("q", "m n", lambda p: p.requantize.dtype),),
        params=Params,
        spec=wire,
        program=Composition(wire),
        sizes={"k": Size(1, MOST_TERMS)},
        examples=examples,
        tuned=(in_one_kernel("qlinear_matmul"),),
    )
)

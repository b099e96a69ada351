"""Linear layer with a requantization in float32: XNNPACK's, and ONNX Runtime's QGemm.

    q = requantize(matmul(a, b) + bias)        matmul.integer, then requantize.float32_ties_even

Differs from ``qlinear_matmul`` by the bias; from the other siblings in the requantization alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from intsim.composites.linear import LinearParams, in_one_kernel, linear
from intsim.numerics import Overflow, int32
from intsim.ops.matmul import integer as matmul
from intsim.ops.requantize import float32_ties_even as requantize
from intsim.params import stage
from intsim.registry import register


@dataclass(frozen=True, slots=True, eq=False)
class Params(LinearParams):
    matmul: matmul.Params = stage(matmul.Params, acc=int32, overflow=Overflow.WRAP)
    requantize: requantize.Params = stage(requantize.Params)


def wire(run: Any, a: Any, b: Any, bias: Any, p: Params) -> Any:
    return run("requantize.float32_ties_even", run("matmul.integer", a, b, bias, p=p.matmul), p=p.requantize)


OP = register(
    linear(
        "float32_ties_even",
        Params,
        wire,
        cites="google/XNNPACK src/qs8-gemm, src/qs8-requantization; "
        "microsoft/onnxruntime onnxruntime/contrib_ops/cpu/quantization/quant_gemm.cc",
        tuned=(in_one_kernel("float32_ties_even"),),
    )
)

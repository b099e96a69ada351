"""Linear layer with a requantization in float64, ties to even: the ONNX reference evaluator's QLinearMatMul.

    q = requantize(matmul(a, b) + bias)        matmul.integer, then requantize.float64_ties_even

The evaluator has no bias. Differs from the siblings in the requantization alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from intsim.composites.linear import LinearParams, in_one_kernel, linear
from intsim.numerics import Overflow, int32
from intsim.ops.matmul import integer as matmul
from intsim.ops.requantize import float64_ties_even as requantize
from intsim.params import stage
from intsim.registry import register


@dataclass(frozen=True, slots=True, eq=False)
class Params(LinearParams):
    matmul: matmul.Params = stage(matmul.Params, acc=int32, overflow=Overflow.WRAP)
    requantize: requantize.Params = stage(requantize.Params)


def wire(run: Any, a: Any, b: Any, bias: Any, p: Params) -> Any:
    return run("requantize.float64_ties_even", run("matmul.integer", a, b, bias, p=p.matmul), p=p.requantize)


OP = register(
    linear(
        "float64_ties_even",
        Params,
        wire,
        cites="onnx/onnx onnx/reference/ops/op_qlinear_matmul.py",
        tuned=(in_one_kernel("float64_ties_even"),),
    )
)

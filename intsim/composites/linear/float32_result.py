"""Linear layer from integers to float32: ONNX Runtime MatMulIntegerToFloat, and QGemm without a result scale.

    x = dequantize(matmul(a, b) + bias) + real_bias        matmul.integer, then dequantize.product

QGemm has the integer bias, MatMulIntegerToFloat the real one. Differs from its siblings: the result is
float32.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from intsim.composites.linear import in_one_kernel
from intsim.numerics import Overflow, float32, int8, int32, uint8
from intsim.op import Composition, Op, Port, Size
from intsim.ops.dequantize import product as dequantize
from intsim.ops.matmul import MOST_TERMS, integer as matmul
from intsim.params import Params as Base, stage
from intsim.registry import register


@dataclass(frozen=True, slots=True, eq=False)
class Params(Base):
    matmul: matmul.Params = stage(matmul.Params, acc=int32, overflow=Overflow.WRAP)
    dequantize: dequantize.Params = stage(dequantize.Params)


def wire(run: Any, a: Any, b: Any, a_scale: Any, b_scale: Any, bias: Any, real_bias: Any, p: Params) -> Any:
    acc = run("matmul.integer", a, b, bias, p=p.matmul)
    return run("dequantize.product", acc, a_scale, b_scale, real_bias, p=p.dequantize)


def examples() -> dict[str, Any]:
    a = np.array([[8, 0], [255, 255], [0, 1]], np.uint8)
    b = np.array([[1, 0], [3, 7], [-128, 127]], np.int8)
    rows, columns = np.array([0.1, 0.3, 7.0], np.float32), np.array([0.5, 0.013, 1e-3], np.float32)
    bias, real_bias = np.array([-(2**31), 2**24 + 1, 2**31 - 1], np.int32), np.array([0.25, -1e6, 0.3], np.float32)
    unsigned = matmul.Params(131, [3, 0, -7], a=uint8, b=int8)
    return {
        "no bias": ((a.view(np.int8), b, rows, columns), Params(matmul.Params(a=int8), dequantize.Params())),
        "zero points, both biases": ((a, b, rows, columns, bias, real_bias), Params(unsigned, dequantize.Params())),
    }


OP = register(
    Op(
        name="linear.float32_result",
        version=1,
        cites="microsoft/onnxruntime onnxruntime/contrib_ops/cpu/quantization/quant_gemm.cc",
        inputs=(
            Port("a", "m k", lambda p: p.matmul.a, packing=True),
            Port("b", "n k", lambda p: p.matmul.b, packing=True),
            Port("a_scale", "m", float32, numbers="positive"),
            Port("b_scale", "n", float32, numbers="positive"),
            Port("bias", "n", int32, fill=0),
            Port("real_bias", "n", float32, fill=0, numbers="finite"),
        ),
        outputs=(Port("x", "m n", float32),),
        params=Params,
        spec=wire,
        program=Composition(wire),
        sizes={"k": Size(1, MOST_TERMS)},
        examples=examples,
        tuned=(in_one_kernel("float32_result", lambda p: 32),),
    )
)

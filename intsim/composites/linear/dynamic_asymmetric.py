"""Linear layer whose float32 input is quantized at run time: ONNX Runtime DynamicQuantizeMatMul.

    q, scale, zero_point = quantize(x)        quantize.dynamic_asymmetric_unguarded, the whole tensor as one row
    y = dequantize(matmul(q, b))              matmul.row_zero_points, then dequantize.product

Differs from its siblings: the input is float32, with one scale and zero point taken from all of it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from intsim.numerics import float32, uint8
from intsim.op import Composition, Op, Port, Size
from intsim.ops.dequantize import product as dequantize
from intsim.ops.matmul import MOST_TERMS, row_zero_points as matmul
from intsim.ops.quantize import dynamic_asymmetric_unguarded as quantize
from intsim.params import Params as Base, stage
from intsim.registry import register


@dataclass(frozen=True, slots=True, eq=False)
class Params(Base):
    quantize: quantize.Params = stage(quantize.Params, dtype=uint8)
    matmul: matmul.Params = stage(matmul.Params, a=uint8)
    dequantize: dequantize.Params = stage(dequantize.Params)


def wire(run: Any, x: Any, b: Any, b_scale: Any, bias: Any, p: Params) -> Any:
    *lead, rows, columns = x.shape
    whole = x.reshape(*lead, 1, rows * columns) if rows else np.zeros((*lead, 1, 1), np.float32)
    q, scale, zero_point = run("quantize.dynamic_asymmetric_unguarded", whole, p=p.quantize)
    scale, zero_point = (np.repeat(one, rows, axis=-1) for one in (scale, zero_point))
    acc = run("matmul.row_zero_points", q[..., : rows * columns].reshape(x.shape), b, zero_point, p=p.matmul)
    return run("dequantize.product", acc, scale, b_scale, bias, p=p.dequantize)


def examples() -> dict[str, Any]:
    x = np.array([[-1, 0.5, 254], [1.5, -0.5, 0], [3.25, 2.5, 100]], np.float32)
    b = np.array([[1, 0, -5], [3, 7, 9], [-128, 127, 64]], np.int8)
    scales, bias = np.array([0.5, 0.013, 1e-3], np.float32), np.array([0.25, -1e6, 0.3], np.float32)
    plain = Params(quantize.Params(), matmul.Params(), dequantize.Params())
    return {
        "ties, one scale of 1": ((x, b, scales), plain),
        "zero points a column, a bias": (
            (x * np.float32(0.37), b.view(np.uint8), scales, bias),
            Params(quantize.Params(), matmul.Params([3, 0, 200], b=uint8), dequantize.Params()),
        ),
        "no range": ((x * 0, b, scales, bias), plain),
    }


OP = register(
    Op(
        name="linear.dynamic_asymmetric",
        version=1,
        cites="microsoft/onnxruntime onnxruntime/contrib_ops/cpu/quantization/dynamic_quantize_matmul.cc",
        inputs=(
            Port("x", "m k", float32, numbers="finite"),
            Port("b", "n k", lambda p: p.matmul.b),
            Port("b_scale", "n", float32, numbers="positive"),
            Port("bias", "n", float32, fill=0, numbers="finite"),
        ),
        outputs=(Port("y", "m n", float32),),
        params=Params,
        spec=wire,
        program=Composition(wire),
        sizes={"k": Size(1, MOST_TERMS)},
        examples=examples,
    )
)

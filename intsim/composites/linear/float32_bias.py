"""Linear layer with a real bias that is added while requantizing: PyTorch's quantized.linear on x86 (FBGEMM).

    q = requantize(matmul(a, b), bias)        matmul.integer, then requantize.float32_bias

Differs from ``float32_ties_even``, whose bias is an integer: rounding the bias first moves results by
one step.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from intsim.composites.linear import LinearParams, in_one_kernel
from intsim.numerics import Overflow, float32, int8, int32, uint8
from intsim.op import Composition, Op, Port, Size
from intsim.ops.matmul import MOST_TERMS, integer as matmul
from intsim.ops.requantize import float32_bias as requantize
from intsim.params import stage
from intsim.registry import register


@dataclass(frozen=True, slots=True, eq=False)
class Params(LinearParams):
    matmul: matmul.Params = stage(matmul.Params, acc=int32, overflow=Overflow.WRAP)
    requantize: requantize.Params = stage(requantize.Params)


def wire(run: Any, a: Any, b: Any, bias: Any, p: Params) -> Any:
    return run("requantize.float32_bias", run("matmul.integer", a, b, p=p.matmul), bias, p=p.requantize)


def examples() -> dict[str, Any]:
    a = np.array([[8, 0], [24, 0], [40, 0], [0, 255], [255, 0], [0, 0]], np.uint8)
    b = np.array([[1, 0], [3, 7], [-128, 127]], np.int8)
    bias = np.array([-0.5, 0.25, 3.0], np.float32)
    plain, moved = matmul.Params(a=uint8, b=int8), matmul.Params(57, [3, 0, -7], a=uint8, b=int8)
    odd: dict[str, Any] = {"zero_point": 101, "dtype": uint8}
    return {
        "ties at 1/16, odd zero point": ((a, b, None), Params.from_scales(0.5, 0.5, 4.0, plain, **odd)),
        "a bias beside ties": ((a, b, bias), Params.from_scales(0.5, 0.5, 4.0, plain, **odd)),
        "zero points of both operands": ((a, b, bias), Params.from_scales(0.021, 0.4, 3.1, moved, **odd)),
        "per channel": ((a, b, bias), Params.from_scales(0.021, [0.013, 0.4, 1e-4], 0.21, plain, **odd)),
    }


OP = register(
    Op(
        name="linear.float32_bias",
        version=1,
        cites="pytorch/pytorch aten/src/ATen/native/quantized/cpu/qlinear.cpp; pytorch/FBGEMM src/QuantUtilsAvx2.cc",
        inputs=(
            Port("a", "m k", lambda p: p.matmul.a, packing=True),
            Port("b", "n k", lambda p: p.matmul.b, packing=True),
            Port("bias", "n", float32, fill=0, numbers="finite"),
        ),
        outputs=(Port("q", "m n", lambda p: p.requantize.dtype),),
        params=Params,
        spec=wire,
        program=Composition(wire),
        sizes={"k": Size(1, MOST_TERMS)},
        examples=examples,
        tuned=(in_one_kernel("float32_bias"),),
    )
)

"""ReLU on a quantized tensor, with an upper clamp for ReLU6 and the like.

    q = min(max(x, zero_point), top)

Input and result share scale and zero point. Differs from a fused activation, which clamps after
the requantization: the same clamp, one step later.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from intsim.compiling import Int, portable
from intsim.numerics import IntType, int8, int16, int32, uint8
from intsim.op import Elementwise, Op, Oracle, Port
from intsim.params import Limit, Params as Base, int_type, integer
from intsim.registry import register


@dataclass(frozen=True, slots=True, eq=False)
class Params(Base):
    zero_point: int = integer(-(2**31), 2**31 - 1, inside="x", default=0)
    top: int = integer(-(2**31), 2**31 - 1, default=2**31 - 1)
    x: IntType = int_type(int8, uint8, int16, int32, role="operand")
    limits: ClassVar = (Limit("top >= zero_point", lambda p: p.top >= p.zero_point),)


def spec(x: Any, p: Params) -> Any:
    return np.minimum(np.maximum(x, p.zero_point), p.top)


@portable
def element(i: Int, j: Int, x: Any, p: Any) -> Int:
    return min(max(np.int64(x.x[i, j]), p.zero_point), p.top)


def examples() -> dict[str, Any]:
    x = np.array([[-128, -5, -4, 0, 1, 126, 127]], np.int8)
    return {"zero point": ((x,), Params(-5)), "ReLU6 with scale 6/100": ((x,), Params(0, 100))}


OP = register(
    Op(
        name="activation.relu",
        version=1,
        cites="google-ai-edge/LiteRT tflite/kernels/internal/reference (ReluX); ONNX Relu on quantized tensors",
        inputs=(Port("x", "m n", lambda p: p.x),),
        outputs=(Port("q", "m n", lambda p: p.x),),
        params=Params,
        spec=spec,
        program=Elementwise(element),
        examples=examples,
        oracle=Oracle(
            params=lambda scale: Params(),
            scales=(1.0, 1.0),
            real=lambda x, p: np.maximum(x, 0),
            value=lambda q, p: q,
            bound=lambda p: 0.0,
        ),
    )
)

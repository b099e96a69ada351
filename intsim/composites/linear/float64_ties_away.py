"""Linear layer with a requantization in float64: LiteRT's reference FULLY_CONNECTED.

    q = requantize(matmul(a, b) + bias)        matmul.integer, then requantize.float64_ties_away

Differs from its siblings in the requantization alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from intsim.composites.linear import LinearParams, in_one_kernel, linear
from intsim.numerics import Overflow, int32
from intsim.ops.matmul import integer as matmul
from intsim.ops.requantize import float64_ties_away as requantize
from intsim.params import stage
from intsim.registry import register


@dataclass(frozen=True, slots=True, eq=False)
class Params(LinearParams):
    matmul: matmul.Params = stage(matmul.Params, acc=int32, overflow=Overflow.WRAP)
    requantize: requantize.Params = stage(requantize.Params)


def wire(run: Any, a: Any, b: Any, bias: Any, p: Params) -> Any:
    return run("requantize.float64_ties_away", run("matmul.integer", a, b, bias, p=p.matmul), p=p.requantize)


OP = register(
    linear(
        "float64_ties_away",
        Params,
        wire,
        cites="google-ai-edge/LiteRT tflite/kernels/internal/reference/fully_connected.h",
        tuned=(in_one_kernel("float64_ties_away"),),
    )
)

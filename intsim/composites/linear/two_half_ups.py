"""Linear layer with two roundings, both with ties to positive: LiteRT's optimised FULLY_CONNECTED.

    q = requantize(matmul(a, b) + bias)        matmul.integer, then requantize.two_half_ups

Differs from its siblings in the requantization alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from intsim.composites.linear import LinearParams, in_one_kernel, linear
from intsim.numerics import Overflow, int32
from intsim.ops.matmul import integer as matmul
from intsim.ops.requantize import two_half_ups as requantize
from intsim.params import stage
from intsim.registry import register


@dataclass(frozen=True, slots=True, eq=False)
class Params(LinearParams):
    matmul: matmul.Params = stage(matmul.Params, acc=int32, overflow=Overflow.WRAP)
    requantize: requantize.Params = stage(requantize.Params)


def wire(run: Any, a: Any, b: Any, bias: Any, p: Params) -> Any:
    return run("requantize.two_half_ups", run("matmul.integer", a, b, bias, p=p.matmul), p=p.requantize)


OP = register(
    linear(
        "two_half_ups",
        Params,
        wire,
        cites="google-ai-edge/LiteRT tflite/kernels/internal/optimized/integer_ops/fully_connected.h; "
        "google/ruy ruy/kernel_avx512.cc",
        tuned=(in_one_kernel("two_half_ups"),),
    )
)

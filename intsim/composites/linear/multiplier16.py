"""Linear layer of int16 activations with a multiplier cut to 16 bits: FULLY_CONNECTED and BATCH_MATMUL s16.

    q = requantize(matmul(a, b) + bias)        matmul.integer, then requantize.multiplier16

Published kernels accumulate in int64, of which 48 bits may reach the product: here the accumulator has
48 and wraps, which 2**16 terms of 31 bits and an int32 bias cannot. tflite-micro, CMSIS-NN, and LiteRT's
BATCH_MATMUL.

Differs from its siblings in the requantization, and in the accumulator.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from intsim.composites.linear import LinearParams, linear
from intsim.numerics import Overflow, int48
from intsim.ops.matmul import integer as matmul
from intsim.ops.requantize import multiplier16 as requantize
from intsim.params import stage
from intsim.registry import register


@dataclass(frozen=True, slots=True, eq=False)
class Params(LinearParams):
    matmul: matmul.Params = stage(matmul.Params, acc=int48, overflow=Overflow.WRAP)
    requantize: requantize.Params = stage(requantize.Params)


def wire(run: Any, a: Any, b: Any, bias: Any, p: Params) -> Any:
    return run("requantize.multiplier16", run("matmul.integer", a, b, bias, p=p.matmul), p=p.requantize)


OP = register(
    linear(
        "multiplier16",
        Params,
        wire,
        cites="tensorflow/tflite-micro tensorflow/lite/kernels/internal/reference/integer_ops/fully_connected.h; "
        "ARM-software/CMSIS-NN Source/FullyConnectedFunctions/arm_fully_connected_s16.c",
        wide=True,
    )
)

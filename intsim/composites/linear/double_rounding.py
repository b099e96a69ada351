"""Linear layer with gemmlowp's requantization: what is called the TFLite formula.

    q = requantize(matmul(a, b) + bias)        matmul.integer, then requantize.double_rounding

FULLY_CONNECTED and BATCH_MATMUL of tflite-micro, the default build of CMSIS-NN, and LiteRT's
BATCH_MATMUL. LiteRT's FULLY_CONNECTED is not this: see ``float64_ties_away`` (reference kernel) and
``two_half_ups`` (optimised kernel).

Differs from its siblings in the requantization alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from intsim.composites.linear import LinearParams, in_one_kernel, linear
from intsim.numerics import Overflow, int32
from intsim.ops.matmul import integer as matmul
from intsim.ops.requantize import double_rounding as requantize
from intsim.params import stage
from intsim.registry import register


@dataclass(frozen=True, slots=True, eq=False)
class Params(LinearParams):
    matmul: matmul.Params = stage(matmul.Params, acc=int32, overflow=Overflow.WRAP)
    requantize: requantize.Params = stage(requantize.Params)


def wire(run: Any, a: Any, b: Any, bias: Any, p: Params) -> Any:
    return run("requantize.double_rounding", run("matmul.integer", a, b, bias, p=p.matmul), p=p.requantize)


OP = register(
    linear(
        "double_rounding",
        Params,
        wire,
        cites="Jacob et al. 2018 (arXiv 1712.05877), section 2.4; "
        "tensorflow/tflite-micro tensorflow/lite/kernels/internal/reference/integer_ops/fully_connected.h",
        tuned=(in_one_kernel("double_rounding"),),
    )
)

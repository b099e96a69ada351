"""Linear layer with one product and one rounding at the end.

    q = requantize(matmul(a, b) + bias)        matmul.integer, then requantize.single_rounding

With TIES_TO_POSITIVE: CMSIS-NN with CMSIS_NN_USE_SINGLE_ROUNDING and builds with TFLITE_SINGLE_ROUNDING.

Differs from its siblings in the requantization alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from intsim.composites.linear import LinearParams, in_one_kernel, linear
from intsim.numerics import Overflow, int32
from intsim.op import Tuned
from intsim.ops.matmul import integer as matmul
from intsim.ops.requantize import single_rounding as requantize
from intsim.params import stage
from intsim.registry import register


@dataclass(frozen=True, slots=True, eq=False)
class Params(LinearParams):
    matmul: matmul.Params = stage(matmul.Params, acc=int32, overflow=Overflow.WRAP)
    requantize: requantize.Params = stage(requantize.Params)


def wire(run: Any, a: Any, b: Any, bias: Any, p: Params) -> Any:
    return run("requantize.single_rounding", run("matmul.integer", a, b, bias, p=p.matmul), p=p.requantize)


def _in_one_kernel(p: Params, size: Mapping[str, int]) -> bool:
    """8-bit and 4-bit operands, no zero points of weights, 64 n columns, and a requantization in 32 bits."""
    return bool(
        size["n"] % 64 == 0
        and max(p.matmul.a.bits, p.matmul.b.bits) <= 8
        and not p.matmul.b_zero_point.any()
        and requantize.in_32_bits(p.requantize)
    )


def _as_frameworks_make_it() -> tuple[tuple[Any, ...], Params]:
    """Weights without zero points, a multiplier a channel, one zero point of the result."""
    (acc,), p = requantize.one_zero_point()
    a, b = np.array([[-128, 127], [5, -3]], np.int8), np.array([[-128, 127], [1, -1], [77, 3]], np.int8)
    return (a, b, acc[0]), Params(matmul.Params(7), p)


OP = register(
    linear(
        "single_rounding",
        Params,
        wire,
        cites="ARM-software/CMSIS-NN Source/FullyConnectedFunctions/arm_fully_connected_s8.c; "
        "Include/arm_nnsupportfunctions.h (arm_nn_requantize)",
        tuned=(
            Tuned(
                "cuda",
                "intsim.composites.linear._cuda_single_rounding:linear",
                _in_one_kernel,
                example=_as_frameworks_make_it,
            ),
            in_one_kernel("single_rounding"),
        ),
    )
)

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

from intsim.composites.linear import LinearParams, linear
from intsim.numerics import Overflow, Rounding, int8, int32, uint8
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
    """What the GPU's kernel does in 32-bit arithmetic: 8 bits, shifts that leave the low word behind, 64 n columns."""
    product, scaling = p.matmul, p.requantize
    constant = abs(2 * scaling.zero_point + 1) << np.minimum(np.maximum(scaling.shift - 33, 0), 29)
    return bool(
        size["n"] % 64 == 0
        and size["m"] * size["n"] * size["k"] > 2**14
        and max(product.a.bits, product.b.bits) <= 8
        and not product.b_zero_point.any()
        and scaling.dtype in (int8, uint8)
        and scaling.rounding == Rounding.TIES_TO_POSITIVE
        and (scaling.shift >= 33).all()
        and np.ptp(scaling.zero_point) == 0
        and (abs(scaling.zero_point) < 2**29).all()
        and (constant < 2**30).all()
    )


OP = register(
    linear(
        "single_rounding",
        Params,
        wire,
        cites="ARM-software/CMSIS-NN Source/FullyConnectedFunctions/arm_fully_connected_s8.c; "
        "Include/arm_nnsupportfunctions.h (arm_nn_requantize)",
        tuned=(Tuned("cuda", "intsim.composites.linear._cuda_single_rounding:linear", _in_one_kernel),),
    )
)

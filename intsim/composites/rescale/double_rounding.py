"""A quantized tensor at another scale and zero point, by two roundings.

    q = requantize(x - x_zero_point)        dequantize.centred, then requantize.double_rounding

TOSA's RESCALE with DOUBLE_ROUND; TFLite's QUANTIZE of a quantized tensor in tflite-micro and the reference
kernels. Differs from ``single_rounding``: two roundings by two rules.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from intsim.numerics import int32, uint8
from intsim.op import Composition, Op, Port
from intsim.ops.dequantize import centred
from intsim.ops.requantize import double_rounding as requantize
from intsim.params import Params as Base, stage
from intsim.registry import register


@dataclass(frozen=True, slots=True, eq=False)
class Params(Base):
    centred: centred.Params = stage(centred.Params)
    requantize: requantize.Params = stage(requantize.Params)


def wire(run: Any, x: Any, p: Params) -> Any:
    return run("requantize.double_rounding", run("dequantize.centred", x, p=p.centred), p=p.requantize)


def examples() -> dict[str, Any]:
    x = np.array([[-128, -127, -5, -1, 0, 1, 2, 3, 126, 127]], np.int8)
    half = requantize.Params(2**30, 31, zero_point=-3)
    wide = requantize.Params(2**30, 20, dtype=int32)
    columns = requantize.Params(2**30 + 12345 * np.arange(10), 30 + np.arange(10) % 4, zero_point=7)
    unsigned = requantize.Params(2**31 - 1, 31, zero_point=128, dtype=uint8)
    return {
        "half the scale: ties, an odd zero point": ((x,), Params(centred.Params(-5), half)),
        "a finer scale": ((x,), Params(centred.Params(127), wide)),
        "a scale a column": ((x,), Params(centred.Params(), columns)),
        "unsigned on both sides": ((x.view(np.uint8),), Params(centred.Params(128, uint8), unsigned)),
    }


OP = register(
    Op(
        name="rescale.double_rounding",
        version=1,
        cites="TOSA 1.0 RESCALE (DOUBLE_ROUND); google-ai-edge/LiteRT tflite/kernels/internal/reference/requantize.h",
        inputs=(Port("x", "m n", lambda p: p.centred.q),),
        outputs=(Port("q", "m n", lambda p: p.requantize.dtype),),
        params=Params,
        spec=wire,
        program=Composition(wire),
        examples=examples,
    )
)

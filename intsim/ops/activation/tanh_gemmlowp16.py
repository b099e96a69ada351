"""The hyperbolic tangent of a 16-bit input in 16-bit gemmlowp fixed point: LiteRT's optimised TANH s16.

    q = tanh(Q3.12(saturate16(x * 2**left_shift))), a Q0.15: the result has scale 2**-15

The input has scale 2**-12 with left_shift 0 and 2**-11 with left_shift 1, those at which LiteRT takes
this kernel.

Differs from ``tanh_s16``, which draws lines through a table: 41,116 and 20,576 of the 65,536 results
differ; from ``tanh_gemmlowp``: 16-bit products and constants instead of 32.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from intsim.compiling import Int, portable
from intsim.numerics import int16
from intsim.op import Elementwise, Op, Oracle, Port
from intsim.params import Params as Base, integer
from intsim.registry import register
from intsim.scalar.fixed_point16 import left16, tanh16
from intsim.spec import fixed_point16


@dataclass(frozen=True, slots=True, eq=False)
class Params(Base):
    left_shift: int = integer(0, 1, default=0)


def spec(x: Any, p: Params) -> Any:
    return fixed_point16.tanh(fixed_point16.saturating_left_shift(x, p.left_shift))


@portable
def element(i: Int, j: Int, x: Any, p: Any) -> Int:
    return tanh16(left16(np.int64(x.x[i, j]), p.left_shift))


def examples() -> dict[str, Any]:
    ends = np.array([[-32768, -32767, -16385, -1025, -1024, -1, 0, 1, 1024, 1025, 4096, 16384, 32767]], np.int16)
    ramp = np.arange(-32768, 32768, 129, dtype=np.int16)[:508].reshape(4, -1)
    return {
        "the ends, and quarters of the argument": ((ends,), Params()),
        "twice the scale: saturates": ((ends,), Params(left_shift=1)),
        "a ramp": ((ramp,), Params()),
    }


OP = register(
    Op(
        name="activation.tanh_gemmlowp16",
        version=1,
        cites="google-ai-edge/LiteRT tflite/kernels/internal/optimized/optimized_ops.h (Tanh of int16); "
        "google/gemmlowp fixedpoint/fixedpoint.h",
        inputs=(Port("x", "m n", int16),),
        outputs=(Port("q", "m n", int16),),
        params=Params,
        spec=spec,
        program=Elementwise(element),
        examples=examples,
        oracle=Oracle(
            params=lambda scale: Params(),
            scales=(1.0, 1.0),
            real=lambda x, p: np.tanh(x / 2.0**12),
            value=lambda q, p: q / 2.0**15,
            bound=lambda p: 14 * 2.0**-15,  # products of 15 bits; the worst of all 65,536 inputs misses by 11.8
        ),
    )
)

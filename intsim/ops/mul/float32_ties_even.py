"""Product of two quantized tensors through float32, ties to even: XNNPACK's quantized MUL.

    q = saturate(rint(f32(f32((a - a_zero_point) * (b - b_zero_point)) * multiplier)) + zero_point)

multiplier is one float32, given by its bits: the scales of a and b over that of the result.

Differs from ``rescaled``, which rounds twice in fixed point. Kernels compute the IEEE steps in integers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from intsim.compiling import Int, portable
from intsim.numerics import IntType, Rounding, int8, uint8, unlimited
from intsim.op import Elementwise, Op, Oracle, Port
from intsim.params import Params as Base, int_type, integer
from intsim.registry import register
from intsim.scalar.ieee import multiply32, round32, to_integer, unpack32
from intsim.scalar.rounding import saturate
from intsim.spec import ieee, rounding


@dataclass(frozen=True, slots=True, eq=False)
class Params(Base):
    multiplier_bits: int = integer(0x0080_0000, 0x7F7F_FFFF)  # positive, normal, finite
    a_zero_point: int = integer(-128, 255, default=0)
    b_zero_point: int = integer(-128, 255, default=0)
    zero_point: int = integer(-(2**15), 2**15, default=0)
    a: IntType = int_type(int8, uint8, role="operand")
    b: IntType = int_type(int8, uint8, role="operand")
    dtype: IntType = int_type(int8, uint8, unlimited, role="result")

    @classmethod
    def from_scales(cls, a: float, b: float, result: float, /, **fields: Any) -> Params:
        """The multiplier f32(f32(a * b) / result) for three real scales (float32).

        Raises ValueError where it is not positive, normal and finite.
        """
        with np.errstate(all="ignore"):  # what overflows is refused
            multiplier = np.float32(a) * np.float32(b) / np.float32(result)
        if not (np.isfinite(multiplier) and multiplier >= np.finfo(np.float32).tiny):
            raise ValueError(
                f"mul.float32_ties_even: a * b / result is a positive normal float32, got {a} {b} {result}"
            )
        return cls(int(multiplier.view(np.int32)), **fields)


def spec(a: Any, b: Any, p: Params) -> Any:
    with np.errstate(over="ignore", under="ignore"):  # an infinite product saturates
        product = ieee.float32((a - p.a_zero_point) * (b - p.b_zero_point)) * ieee.from_bits32(p.multiplier_bits)
    return rounding.saturate(ieee.to_integer(product, Rounding.TIES_TO_EVEN) + p.zero_point, p.dtype)


@portable
def element(i: Int, j: Int, x: Any, p: Any) -> Int:
    product = (np.int64(x.a[i, j]) - p.a_zero_point) * (np.int64(x.b[i, j]) - p.b_zero_point)  # below 2**18
    am, ae = round32(abs(product), 0)
    bm, be = unpack32(p.multiplier_bits)
    m, e = multiply32(am, ae, bm, be)
    whole = to_integer(-m if product < 0 else m, e, Rounding.TIES_TO_EVEN)
    return saturate(whole + p.zero_point, p.dtype)


def examples() -> dict[str, Any]:
    a = np.array([[-128, -128, -3, -1, 0, 1, 3, 5, 127, 127]], np.int8)
    b = np.array([[-128, 127, 1, 1, 0, 1, 1, -7, 127, -128]], np.int8)
    return {
        "powers of two: ties": ((a, b), Params.from_scales(0.5, 1.0, 1.0)),
        "ties, an odd zero point": ((a, b), Params.from_scales(0.5, 1.0, 1.0, zero_point=7)),
        "zero points": ((a, b), Params.from_scales(0.05, 0.03, 0.2, a_zero_point=-5, b_zero_point=3, zero_point=-7)),
        "an infinite product saturates": ((a, b), Params.from_scales(3e38, 1.0, 1.0)),
        "a product near a tie that float32 rounds onto it": ((a, b), Params(0x3EFF_FFFF, dtype=unlimited)),
        "unsigned": (
            (a.view(np.uint8), b.view(np.uint8)),
            Params.from_scales(0.01, 0.02, 0.03, a_zero_point=255, b_zero_point=128, a=uint8, b=uint8, dtype=uint8),
        ),
    }


OP = register(
    Op(
        name="mul.float32_ties_even",
        version=1,
        cites="google/XNNPACK src/qs8-vmul, src/microparams-init.c (xnn_init_qs8_mul_minmax_scalar_params)",
        inputs=(Port("a", "m n", lambda p: p.a), Port("b", "m n", lambda p: p.b)),
        outputs=(Port("q", "m n", lambda p: p.dtype),),
        params=Params,
        spec=spec,
        program=Elementwise(element),
        examples=examples,
        oracle=Oracle(
            params=lambda scale: Params.from_scales(scale, 0.7, 1.0, dtype=unlimited),
            scales=(1e-4, 1.0),
            real=lambda a, b, p: a * b * float(ieee.from_bits32(p.multiplier_bits)),
            value=lambda q, p: q,
            bound=lambda p: 0.5 + 2.0**18 * float(ieee.from_bits32(p.multiplier_bits)) * 2.0**-24,
        ),
    )
)

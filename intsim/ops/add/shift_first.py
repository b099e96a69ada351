"""Addition of two quantized 16-bit tensors, shifted before the product: LiteRT's optimised ADD of int16.

    a' = positive(shifted(a - a_zero_point, left_shift + 31 - a_shift) * a_multiplier / 2**31)          b' likewise
    q  = saturate(G2(wrap32(a' + b'), multiplier, shift) + zero_point)

shifted(x, k) is x * 2**k, cut downward where k is negative. G2 is gemmlowp's double rounding
(``requantize.double_rounding``). The parameters are those of ``rescaled``. The instructions are NEON's; the wheel for
x86 translates them. Elements after the last full block of 16 take ``rescaled`` in LiteRT.

Differs from ``rescaled``, which shifts by left_shift, multiplies, and rounds a second time: here a
term is rounded once, and a few results in 100,000 differ, by 1.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from intsim.compiling import Int, portable
from intsim.numerics import Rounding, int16, int32
from intsim.op import Elementwise, Op, Port
from intsim.ops.add.rescaled import Params
from intsim.registry import register
from intsim.scalar.fixed_point import scaled, wrap32
from intsim.scalar.rounding import saturate, shift_right
from intsim.spec import fixed_point, rounding


def _term(x: Any, multiplier: int, left: int) -> Any:
    shifted = rounding.wrap(x << left, int32) if left >= 0 else x >> -left
    return fixed_point.high_multiply(shifted, multiplier)


def spec(a: Any, b: Any, p: Params) -> Any:
    first = _term(a - p.a_zero_point, p.a_multiplier, p.left_shift + 31 - p.a_shift)
    second = _term(b - p.b_zero_point, p.b_multiplier, p.left_shift + 31 - p.b_shift)
    total = rounding.wrap(first + second, int32)
    return rounding.saturate(fixed_point.scaled(total, p.multiplier, p.shift, p.scaling) + p.zero_point, p.dtype)


@portable
def _scaled(x: Int, multiplier: Int, left: Int) -> Int:
    # |x| < 2**17 and left is at most 20: the shifted value may wrap as an int32 does.
    shifted = wrap32(x << left) if left >= 0 else x >> -left
    return shift_right(shifted * multiplier, 31, Rounding.TIES_TO_POSITIVE)  # below 2**31: a multiplier is


@portable
def element(i: Int, j: Int, x: Any, p: Any) -> Int:
    a = _scaled(np.int64(x.a[i, j]) - p.a_zero_point, p.a_multiplier, p.left_shift + 31 - p.a_shift)
    b = _scaled(np.int64(x.b[i, j]) - p.b_zero_point, p.b_multiplier, p.left_shift + 31 - p.b_shift)
    return saturate(scaled(wrap32(a + b), p.multiplier, p.shift, p.scaling) + p.zero_point, p.dtype)


def examples() -> dict[str, Any]:
    wide = np.array([[-32768, -1, 0, 1, 5, 32767, 32767, -3, 3, -5]], np.int16)
    back = wide[:, ::-1].copy()
    fields: dict[str, Any] = {"left_shift": 15, "a": int16, "b": int16, "dtype": int16}
    return {
        "powers of two: ties": ((wide, back), Params.from_scales(0.25, 0.5, 1.0, **fields)),
        "halves of odd terms: ties of each product": (
            (wide, np.zeros_like(wide)),
            Params(2**30, 46, 2**30, 46, 2**31 - 1, 31, **fields),
        ),
        "zero points": (
            (np.array([[-128, -1, 0, 127]], np.int8), np.array([[5, 127, -128, 3]], np.int8)),
            Params.from_scales(0.1, 0.07, 0.13, a_zero_point=-5, b_zero_point=3, zero_point=-7),
        ),
        "ordinary scales": ((wide, back), Params.from_scales(0.001, 0.002, 0.003, **fields)),
        "a scale so small that its term is cut first": ((wide, back), Params.from_scales(0.5, 0.7e-5, 0.6, **fields)),
        "a result that rescaled gives otherwise": (
            (np.array([[16745]], np.int16), np.array([[-24325]], np.int16)),
            Params(1304206425, 32, 2**30, 31, 1090395272, 45, **fields),
        ),
    }


OP = register(
    Op(
        name="add.shift_first",
        version=1,
        cites="google-ai-edge/LiteRT tflite/kernels/internal/optimized/integer_ops/add.h (AddElementwiseInt16)",
        inputs=(Port("a", "m n", lambda p: p.a), Port("b", "m n", lambda p: p.b)),
        outputs=(Port("q", "m n", lambda p: p.dtype),),
        params=Params,
        spec=spec,
        program=Elementwise(element),
        examples=examples,
    )
)

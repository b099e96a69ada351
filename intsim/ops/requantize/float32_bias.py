"""Requantize with a bias that stays a real number, through float32: PyTorch's quantized linear on x86.

    total = f32(f32(acc) + bias * inverse)                one rounding: a fused multiply-add
    q = saturate(rint(f32(total * multiplier)) + zero_point)

FBGEMM brings the bias to the grid of the accumulator while it requantizes. With one scale for the
weights it multiplies by inverse = f32(1 / f32(a * b)) in a fused multiply-add; with a scale a column
it divides, so there inverse is 1 and the bias is f32(bias / f32(a * b)).
multiplier is f32(f32(a * b) / result).

Differs from ``float32_ties_even``, whose bias is an integer in the accumulator. Kernels compute the
IEEE steps in integers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from intsim.compiling import Int, portable
from intsim.numerics import IntType, Rounding, float32, int32, uint8
from intsim.op import Elementwise, Op, Oracle, Port
from intsim.ops.requantize import RESULTS
from intsim.params import Params as Base, int_type, integer
from intsim.registry import register
from intsim.scalar.ieee import multiply32, pack32, round32, sign_of, sum32, to_integer, unpack32
from intsim.scalar.rounding import saturate
from intsim.spec import ieee, rounding

TINY, LARGEST, ONE = 0x0080_0000, 0x7F7F_FFFF, 0x3F80_0000  # bits of float32: the smallest normal, the largest, 1


@dataclass(frozen=True, slots=True, eq=False)
class Params(Base):
    multiplier_bits: Any = integer(TINY, LARGEST, per="n")
    inverse_bits: Any = integer(TINY, LARGEST, per="n", default=ONE)
    zero_point: Any = integer(-(2**31), 2**31 - 1, per="n", default=0)
    dtype: IntType = int_type(*RESULTS, role="result")

    @classmethod
    def from_scales(cls, a: Any, b: Any, result: Any, /, **fields: Any) -> Params:
        """The parameters of FBGEMM for three real scales (float32); that of ``b`` one, or one per n.

        One per n: the bias is ``f32(bias / f32(a * b))``. Raises ValueError where a derived number is not
        positive, normal and finite.
        """
        a, b, result = (np.atleast_1d(np.asarray(s, np.float32)) for s in (a, b, result))
        with np.errstate(all="ignore"):
            product = a * b
            inverse = np.float32(1) / product if product.size == 1 else np.ones(1, np.float32)
            multiplier = product / result
        for name, value in (("multiplier", multiplier), ("inverse", inverse)):
            if not (np.isfinite(value) & (value >= np.finfo(np.float32).tiny)).all():
                raise ValueError(f"the {name} is positive, normal and finite; these scales give {value!r}")
        return cls(multiplier.view(np.int32), inverse.view(np.int32), **fields)


def spec(acc: Any, bias: Any, p: Params) -> Any:
    with np.errstate(over="ignore", under="ignore"):  # an infinite product saturates
        total = ieee.fused_multiply_add32(bias, ieee.from_bits32(p.inverse_bits), ieee.float32(acc))
        product = total * ieee.from_bits32(p.multiplier_bits)
    return rounding.saturate(ieee.to_integer(product, Rounding.TIES_TO_EVEN) + p.zero_point, p.dtype)


@portable
def element(i: Int, j: Int, x: Any, p: Any) -> Int:
    acc, bias = np.int64(x.acc[i, j]), np.int64(x.bias[j])
    am, ae = round32(abs(acc), 0)
    bm, be = unpack32(bias)
    im, ie = unpack32(p.inverse_bits[j])
    m, e = sum32(sign_of(bias) * bm * im, be + ie, -am if acc < 0 else am, ae)
    tm, te = unpack32(pack32(abs(m), e))  # infinite where it is too large
    mm, me = unpack32(p.multiplier_bits[j])
    tm, te = multiply32(tm, te, mm, me)
    whole = to_integer(-tm if m < 0 else tm, te, Rounding.TIES_TO_EVEN)
    return saturate(whole + p.zero_point[j], p.dtype)


def examples() -> dict[str, Any]:
    ties = np.array([[-25, -24, -23, -9, -8, -7, -1, 0, 1, 7, 8, 9, 23, 24, 25, 2**31 - 1, -(2**31)]], np.int32)
    large = np.array([[2**24 + 1, 2**24 + 3, -(2**24) - 1, 2**30 + 2**6, 2**30 + 2**6 + 1]], np.int32)
    sixteenth = Params.from_scales(0.25, 0.25, 1.0, zero_point=-5)
    fractions = np.array([-0.5, 0.25, 1.5, -0.03125, 31.0, 2.0**-30, 0.0], np.float32)
    few = np.repeat(np.array([[-24], [-8], [0], [8], [24], [2**24 + 1]], np.int32), 7, axis=1)
    wild = np.array([3e38, -3e38, 1e-45, -1e-45, 2.0**31, -(2.0**32), 1.0], np.float32)
    # bias * inverse is beside 99.5 - acc: fused and in two steps the sums round to other float32 numbers
    tenth = Params.from_scales(0.1, 0.03, 0.1, dtype=int32)
    return {
        "ties at 1/16, odd zero point": ((ties, None), sixteenth),
        "a bias of fractions of a step": ((few, fractions), sixteenth),
        "the product with the inverse is not rounded": ((few, fractions * np.float32(0.3)), tenth),
        "a sum, a product without end": ((few, wild), Params.from_scales(2.0**-20, 2.0**-20, 2.0**-40, dtype=uint8)),
        "accumulators that float32 rounds": ((large, None), Params.from_scales(1.0, 1.0, 1.0, dtype=int32)),
        "per channel": ((few[:, :3], fractions[:3]), Params.from_scales(0.5, [0.1, 0.3, 1e-7], 0.7)),
    }


OP = register(
    Op(
        name="requantize.float32_bias",
        version=1,
        cites="pytorch/FBGEMM src/QuantUtilsAvx2.cc (requantizeOutputProcessingAvx2, a float bias); "
        "pytorch/pytorch aten/src/ATen/native/quantized/cpu/qlinear.cpp",
        inputs=(Port("acc", "m n", int32), Port("bias", "n", float32, fill=0, numbers="finite")),
        outputs=(Port("q", "m n", lambda p: p.dtype),),
        params=Params,
        spec=spec,
        program=Elementwise(element),
        examples=examples,
        oracle=Oracle(
            params=lambda scale: Params.from_scales(scale, 1.0, 1.0, dtype=int32),
            scales=(1e-6, 0.9),
            real=lambda acc, bias, p: (
                (acc + bias.astype(np.float64) * ieee.from_bits32(p.inverse_bits)[0])
                * float(ieee.from_bits32(p.multiplier_bits)[0])
            ).clip(-(2.0**31), 2.0**31 - 1),
            value=lambda q, p: q,
            # three float32 roundings of values that saturate at 2**31, and half a unit
            bound=lambda p: 0.5 + 2.0**31 * 2.0**-21,
        ),
    )
)

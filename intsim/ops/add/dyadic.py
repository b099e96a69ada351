"""Addition of a residual, each side requantized by a dyadic number in float64: I-BERT, I-ViT.

    q = saturate(rint(f64(a) * f64(a_multiplier) / 2**a_shift) + rint(f64(b) * f64(b_multiplier) / 2**b_shift))

Both are rounded to integers before the sum, ties to even, as ``requantize.dyadic`` rounds; multiplier
and shift stand for a scale of the side over the scale of the result, one or one a column.

Differs from ``rescaled``: float64 products, ties to even, and two roundings in place of four.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from intsim.compiling import Int, portable
from intsim.numerics import IntType, int8, int16, int32, unlimited
from intsim.op import Elementwise, Op, Oracle, Port
from intsim.params import Params as Base, int_type, integer
from intsim.registry import register
from intsim.scalar.ieee import dyadic_product
from intsim.scalar.rounding import saturate
from intsim.spec import ieee, rounding
from intsim.spec.tflite import quantize_multiplier


@dataclass(frozen=True, slots=True, eq=False)
class Params(Base):
    a_multiplier: Any = integer(0, 2**31 - 1, per="n")
    a_shift: Any = integer(1, 62, per="n")
    b_multiplier: Any = integer(0, 2**31 - 1, per="n")
    b_shift: Any = integer(1, 62, per="n")
    dtype: IntType = int_type(int8, int16, int32, unlimited, role="result")

    @classmethod
    def from_scales(cls, a: Any, b: Any, result: float, /, **fields: Any) -> Params:
        """The parameters for real scales: a, b one or one per n, result a float32; positive and finite.

        The quotients are float64's of the scales, as the published modules take them. Raises ValueError.
        """
        parts = []
        for side in (a, b):
            quotients = np.atleast_1d(np.asarray(side, np.float64)) / np.float64(np.float32(result))
            parts += list(np.array([quantize_multiplier(float(one)) for one in quotients]).T)
        return cls(*parts, **fields)


def spec(a: Any, b: Any, p: Params) -> Any:
    sides = ieee.dyadic_product(a, p.a_multiplier, p.a_shift) + ieee.dyadic_product(b, p.b_multiplier, p.b_shift)
    return rounding.saturate(sides, p.dtype)


@portable
def element(i: Int, j: Int, x: Any, p: Any) -> Int:
    a = dyadic_product(np.int64(x.a[i, j]), p.a_multiplier[j], p.a_shift[j])
    b = dyadic_product(np.int64(x.b[i, j]), p.b_multiplier[j], p.b_shift[j])
    return saturate(a + b, p.dtype)  # each at most 2**61


def examples() -> dict[str, Any]:
    a = np.array([[-(2**31), -25, -24, -8, -7, 0, 7, 8, 24, 25, 2**31 - 1]], np.int32)
    b = a[:, ::-1].copy()
    return {
        "ties go to even, each side on its own": ((a, b), Params(2**30, 34, 2**30, 34)),
        "two halves that are no whole": ((a, a), Params(2**30, 34, 2**30, 34)),
        "products of more than 53 bits": ((a, a), Params(2**31 - 1, 31, 2**31 - 1, 33, dtype=unlimited)),
        "an accumulator and an int8 residual": ((a, b % 128), Params.from_scales(0.0003, 0.03, 0.05)),
        "the least shifts: the largest sum": ((a, a), Params(2**31 - 1, 1, 2**31 - 1, 1, dtype=unlimited)),
        "a multiplier a column": ((a, b), Params(2**30 + np.arange(11), 34, 2**30, 40 + np.arange(11), dtype=int32)),
    }


OP = register(
    Op(
        name="add.dyadic",
        version=1,
        cites="Kim et al. 2021 (arXiv 2101.01321); "
        "zkkli/I-ViT models/quantization_utils/quant_utils.py fixedpoint_mul; "
        "kssteven418/I-BERT fairseq/quantization/utils/quant_utils.py fixedpoint_mul",
        inputs=(Port("a", "m n", int32), Port("b", "m n", int32)),
        outputs=(Port("q", "m n", lambda p: p.dtype),),
        params=Params,
        spec=spec,
        program=Elementwise(element),
        examples=examples,
        oracle=Oracle(
            params=lambda scale: Params.from_scales(scale, 0.7 * scale, 1.0, dtype=unlimited),
            scales=(1e-6, 0.9),
            real=lambda a, b, p: (
                a * (p.a_multiplier[0] / 2.0 ** p.a_shift[0]) + b * (p.b_multiplier[0] / 2.0 ** p.b_shift[0])
            ),
            value=lambda q, p: q,
            bound=lambda p: 1.0 + 2.0**-19,  # two halves; the roundings of the products are below 2**-53 of 2**31
        ),
    )
)

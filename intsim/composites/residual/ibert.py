"""Residual, I-BERT's layer normalization, and a scale a token: from one product's result to the next one's operand.

    h = a + b;   y = int16(layernorm(h, bias));   q, top = int8 of y, each row by its largest element

y is the residual of the next block, ``q`` and ``top`` what ``quantize.dynamic_token`` makes of it. The
requantization is a multiplication by the layer's weights, one a column; its largest result fits 16 bits (C5), so
that nothing saturates in it and every row has a negative of every value.

Differs from what lies between the products of the published module in the scale: a token's, not a layer's.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from intsim.numerics import Order, int16, int24, int32
from intsim.op import Composition, Op, Port, Size, Tuned
from intsim.ops.add import matched as add
from intsim.ops.layernorm import LONGEST, ibert as layernorm
from intsim.ops.quantize import dynamic_token as quantize
from intsim.ops.requantize import single_rounding as requantize
from intsim.params import Limit, Params as Base, stage
from intsim.registry import register


@dataclass(frozen=True, slots=True, eq=False)
class Params(Base):
    add: add.Params = stage(add.Params, a=int16, b=int16, dtype=int24, a_zero_point=0, b_zero_point=0, zero_point=0)
    layernorm: layernorm.Params = stage(layernorm.Params, x=int24, dtype=int32)
    requantize: requantize.Params = stage(requantize.Params, dtype=int16, zero_point=0, zero_point_added=Order.LAST)
    quantize: quantize.Params = stage(quantize.Params)

    limits = (
        Limit(
            "|requantize.multiplier| <= 2**(requantize.shift - 17)",
            lambda p: _halves(p.requantize),
        ),
    )

    @classmethod
    def from_scale(cls, scale: Any, k: int = 0, **fields: Any) -> Params:
        """The parameters for ``y ~ normalised * scale``; scale: floats up to 2**-17, one or one per n.

        k: of the normalization; fields: of the last quantization.
        """
        return cls(
            add.Params(a=int16, b=int16, dtype=int24),
            layernorm.Params(k, int24),
            requantize.Params.from_scale(scale, dtype=int16),
            quantize.Params(**fields),
        )


def _halves(p: requantize.Params) -> bool:
    """Whether 2**31 becomes 2**14 or less."""
    multiplier, shift = np.broadcast_arrays(p.multiplier, p.shift)
    return all(abs(int(m)) << 17 <= 1 << int(s) for m, s in zip(multiplier, shift, strict=True))


def wire(run: Any, a: Any, b: Any, bias: Any, p: Params) -> Any:
    normalised = run("layernorm.ibert", run("add.matched", a, b, p=p.add), bias, p=p.layernorm)
    y = run("requantize.single_rounding", normalised, p=p.requantize)
    return y, *run("quantize.dynamic_token", y, p=p.quantize)


def examples() -> dict[str, Any]:
    a = np.array([[1, 2, 4, 8, 16, 32], [7, 7, 7, 7, 7, 7], [-32768, 32767, -32768, 32767, 0, 0]], np.int16)
    b = np.array([[0, -1, 5, 0, 1, 9], [-7, -7, -7, -7, -7, -7], [-32768, 32767, 32767, -32768, 1, 0]], np.int16)
    bias = np.array([0, 1, -(2**30), 2**31 - 1, -(2**31), 5], np.int32)
    scales = np.array([1, 0.5, 0.3, 0.01, 1, 0.9]) * 2.0**-17
    return {
        "ordinary, constant, extreme": ((a, b), Params.from_scale(2.0**-17)),
        "a bias; a scale a column": ((a, b, bias), Params.from_scale(scales)),
        "k = 2": ((a, b), Params.from_scale(2.0**-18, 2)),
    }


def _fits_a_warp(p: Params, size: Mapping[str, int]) -> bool:
    """Rows that lie in shared memory, one a warp."""
    return size["n"] <= 2048


OP = register(
    Op(
        name="residual.ibert",
        version=1,
        cites="Kim et al. 2021 (arXiv 2101.01321), section 3.6; Yao et al. 2022 (ZeroQuant, arXiv 2206.01861)",
        inputs=(Port("a", "m n", int16), Port("b", "m n", int16), Port("bias", "n", int32, fill=0)),
        outputs=(
            Port("y", "m n", int16),
            Port("q", "m n", lambda p: p.quantize.dtype),
            Port("top", "m", int16),
        ),
        params=Params,
        spec=wire,
        program=Composition(wire),
        sizes={"n": Size(1, LONGEST)},
        examples=examples,
        tuned=(Tuned("cuda", "intsim.composites.residual._cuda_ibert:residual", _fits_a_warp, capability=(8, 0)),),
    )
)

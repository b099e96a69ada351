"""Integer-only GELU with a quadratic for erf: I-BERT, Kim et al. 2021, Algorithm 1 and the module.

    L   = sign(q) * ((min(|q|, -b) + b)**2 + c) >> 14        erf, a negative scale
    out = q * (L + one)

b, c and one are negative integers: the constants -1.769, 1 / -0.2888 and 1 over the scale of L, on
the grid of q / sqrt(2). The scale of the result is negative too (``out_scale``).

Differs from the paper by the shift by 14 and sqrt(2) = 1.4142, both as in the published module.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from intsim.compiling import Int, portable
from intsim.numerics import IntType, int8, int16, int32, unlimited
from intsim.op import Elementwise, Op, Oracle, Port, Tuned
from intsim.ops.activation import real_gelu
from intsim.ops.activation.table import WORTH_TUNING
from intsim.params import Params as Base, int_type, integer, real
from intsim.registry import register
from intsim.scalar.rounding import saturate
from intsim.spec import rounding

A, B, C, SQRT2 = -0.2888, -1.769, 1 / -0.2888, 1.4142
ERF_SHIFT = 14


@dataclass(frozen=True, slots=True, eq=False)
class Params(Base):
    b: int = integer(-(2**20), 0)
    c: int = integer(-(2**42), 0)
    one: int = integer(-(2**30), 0)
    x: IntType = int_type(int16, int8, role="operand")
    dtype: IntType = int_type(int32, unlimited, role="result")
    scale: float = real()  # of the input; only the host reads it

    @classmethod
    def from_scale(cls, scale: float, **fields: Any) -> Params:
        """The parameters for inputs ``real = scale * q``; scale: a float in [2e-5, 1]."""
        if not 2e-5 <= scale <= 1:
            raise ValueError(f"activation.gelu_ibert: scale is in [2e-5, 1], got {scale}")
        erf = scale / SQRT2
        one = math.floor(1 / (erf**2 * A * 2**ERF_SHIFT))
        return cls(math.floor(B / erf), math.floor(C / erf**2), one, scale=scale, **fields)

    @property
    def out_scale(self) -> float:
        """The scale of the result: negative."""
        return self.scale * (self.scale / SQRT2) ** 2 * A * 2.0**ERF_SHIFT / 2


def spec(x: Any, p: Params) -> Any:
    sign = np.where(x > 0, 1, np.where(x < 0, -1, 0))
    erf = sign * ((np.minimum(abs(x), -p.b) + p.b) ** 2 + p.c) >> ERF_SHIFT
    return rounding.saturate(x * (erf + p.one), p.dtype)


@portable
def element(i: Int, j: Int, x: Any, p: Any) -> Int:
    q = np.int64(x.x[i, j])
    inside = min(abs(q), -p.b) + p.b  # |inside| <= 2**20
    erf = inside * inside + p.c
    erf = -erf if q < 0 else (erf if q > 0 else 0)
    # |erf + one| < 2**31 and |q| <= 2**15: below 2**46
    return saturate(q * ((erf >> ERF_SHIFT) + p.one), p.dtype)


def examples() -> dict[str, Any]:
    x = np.array([[-32768, -3000, -1000, -1, 0, 1, 2, 1000, 3000, 32767]], np.int16)
    return {
        "scale 2**-10": ((x,), Params.from_scale(2.0**-10)),
        "scale 2**-4": ((x,), Params.from_scale(2.0**-4)),
        "a fine scale: the result saturates": ((x,), Params.from_scale(3e-5)),
    }


def in_32_bits(p: Params) -> bool:
    """Whether the square and the product stay below 2**31."""
    erf = p.b * p.b + abs(p.c)
    return erf < 2**31 and (erf >> ERF_SHIFT) + 1 + abs(p.one) < 2**16 and p.dtype == int32


def _serves(p: Params, size: Mapping[str, int]) -> bool:
    return in_32_bits(p) and size["m"] * size["n"] > WORTH_TUNING


OP = register(
    Op(
        name="activation.gelu_ibert",
        version=1,
        cites="Kim et al. 2021 (arXiv 2101.01321), Algorithm 1; kssteven418/I-BERT quant_modules.py IntGELU",
        inputs=(Port("x", "m n", lambda p: p.x),),
        outputs=(Port("y", "m n", lambda p: p.dtype),),
        params=Params,
        spec=spec,
        program=Elementwise(element),
        examples=examples,
        tuned=(Tuned("cpu", "intsim.ops.activation._cpu_gelu_ibert:gelu", _serves),),
        oracle=Oracle(
            params=lambda scale: Params.from_scale(scale, dtype=unlimited),
            scales=(2.0**-12, 2.0**-3),
            real=lambda x, p: real_gelu(x * p.scale),
            value=lambda y, p: y * p.out_scale,
            # The paper's erf is within 0.02 on |x| <= 4, where it counts; its grid is out_scale / scale
            bound=lambda p: 0.03 + 32768 * p.scale * abs(p.out_scale / p.scale) * 2 + 2 * p.scale,
        ),
    )
)

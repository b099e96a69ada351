"""GELU by shifts, tied to the maximum of the row: ShiftGELU of I-ViT, Li and Gu 2023, as published.

    exp(d): d = max(d + (d >> 1) - (d >> 4), -precision * unit);  k = floor(-d / unit);  r = d + k * unit
            exp = (r + 2 * unit << (precision - k)) >> 1
    top = max x of the row;   e = exp(x - top);   total = min(e + exp(-top), 2**31 - 1)
    y = x * (e * ((2**31 - 1) // total) >> (31 - out_bits))

unit is 1 / (1.702 scale), rounded up. out_bits is one less than the module's output_bit: 7 there by
default. real = y * scale / 2**out_bits.

The sigmoid 1 / (1 + exp(-x)) is expanded by exp(-top), so an element's result depends on its
neighbours: where top is so large that exp(x - top) and exp(-top) both stand at their floor, unit, the
sigmoid of a negative x is 1/2. And the factor is (2**31 - 1) // total, of few bits where the scale is
fine: at precision 23 and a unit of 128 or more it can be 1.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from intsim.compiling import Int, portable
from intsim.numerics import IntType, int8, int16, int32
from intsim.op import Op, Oracle, Port, Rowwise, Size
from intsim.ops.activation import real_gelu
from intsim.params import Limit, Params as Base, int_type, integer, real
from intsim.registry import register

MOST = 2**31 - 1


@dataclass(frozen=True, slots=True, eq=False)
class Params(Base):
    unit: int = integer(1, 2**20)
    precision: int = integer(1, 24, default=23)  # bits of the exponential below 1
    out_bits: int = integer(2, 16, default=7)  # of the sigmoid
    x: IntType = int_type(int8, int16, role="operand")
    scale: float = real()  # of the input; only the oracle reads it
    limits: ClassVar = (Limit("unit * 2**precision < 2**31", lambda p: p.unit << p.precision <= MOST),)

    @classmethod
    def from_scale(cls, scale: float, **fields: Any) -> Params:
        """The parameters for inputs ``real = scale * x``; scale: a float in [0.0024, 1]."""
        if not 0.0024 <= scale <= 1:
            raise ValueError(f"activation.shiftgelu_ivit: scale is in [0.0024, 1], got {scale}")
        return cls(-math.floor(-1 / (scale * 1.702)), scale=scale, **fields)


def _exp(d: Any, p: Params) -> Any:
    d = np.maximum(d + d // 2 - d // 16, -p.precision * p.unit)
    k, r = d // -p.unit, -(-d % p.unit)
    # beyond 32 places everything is above the cap on the total: 2**33 stands for 2**(precision - k)
    return (r + 2 * p.unit) * 2 ** np.minimum(p.precision - k, 33) // 2


def spec(x: Any, p: Params) -> Any:
    top = x.max(axis=-1, keepdims=True)
    e = _exp(x - top, p)
    total = np.minimum(e + _exp(-top, p), MOST)
    return x * (e * (MOST // total) >> (31 - p.out_bits))


@portable
def shifted_exp(d: Int, p: Any) -> Int:
    d = max(d + (d >> 1) - (d >> 4), -p.precision * p.unit)
    k = -d // p.unit  # below 0 where d is positive: the maximum of the row is negative
    # r + 2 * unit is in [2, 2**21], so 32 places already reach the cap and 53 bits are enough
    return ((d + k * p.unit + 2 * p.unit) << min(p.precision - k, 32)) >> 1


@portable
def row(i: Int, x: Any, out: Any, p: Any) -> None:
    q, y = x.x[i], out.y[i]
    top = np.int64(q[0])
    for j in range(1, q.shape[0]):
        top = max(top, np.int64(q[j]))
    rest = shifted_exp(-top, p)
    for j in range(q.shape[0]):
        v = np.int64(q[j])
        e = shifted_exp(v - top, p)
        factor = 2147483647 // min(e + rest, 2147483647)
        # e <= total, so the sigmoid is below 2**16 and the product fits 32 bits
        y[j] = v * ((e * factor) >> (31 - p.out_bits))


def examples() -> dict[str, Any]:
    x = np.array([[-128, -20, -1, 0, 1, 20, 127], [-128, -127, -100, -64, -3, -2, -1], [0, 0, 0, 0, 0, 0, 0]], np.int8)
    wide = np.array([[-32768, -1, 0, 1, 32767], [-32768, -32768, -32767, -32768, -32768]], np.int16)
    return {
        "a positive, a negative and a zero maximum": ((x,), Params.from_scale(0.03)),
        "one maximum ties all: the sigmoid of -128 is 1/2": ((x,), Params.from_scale(0.3)),
        "the finest scale: the total is capped": ((x,), Params.from_scale(0.0024, out_bits=16)),
        "int16, both ends": ((wide,), Params.from_scale(0.01, x=int16)),
        "a unit of 1, a short exponential": ((x,), Params(1, precision=1)),
    }


OP = register(
    Op(
        name="activation.shiftgelu_ivit",
        version=1,
        cites="Li and Gu 2023 (arXiv 2207.01405), Algorithm 2; zkkli/I-ViT "
        "models/quantization_utils/quant_modules.py IntGELU",
        inputs=(Port("x", "m n", lambda p: p.x),),
        outputs=(Port("y", "m n", int32),),
        params=Params,
        spec=spec,
        program=Rowwise(row),
        sizes={"n": Size(1)},
        examples=examples,
        oracle=Oracle(
            params=lambda scale: Params.from_scale(scale, precision=16, out_bits=12),
            scales=(0.003, 0.025),  # 255 * 0.025 * 1.702 * 1.44 < 16: no exponential of int8 reaches its floor
            real=lambda x, p: real_gelu(x * p.scale),
            value=lambda y, p: y * p.scale / 2.0**p.out_bits,
            # sigmoid(1.702 x) for Phi is within 0.021; the line for the power adds 0.03 to the sigmoid,
            # times |x| <= 128 * scale
            bound=lambda p: 0.021 + 128 * p.scale * (0.03 + p.scale),
        ),
    )
)

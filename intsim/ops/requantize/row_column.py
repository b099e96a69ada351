"""Requantize where rows and columns have scales of their own: per-token activations, per-channel weights.

    q = saturate(round(acc * row[i] * column[j] / 2**shift) + bias[j])

``row`` comes from a dynamic quantization (``quantize.dynamic_token`` gives it), ``column`` from the
weights or, between two activations, from the other one. bias is on the grid of the result, since
the grid of ``acc`` differs from row to row.

Differs from ``single_rounding``: the multiplier is a product of two 15-bit integers, exact, and an
input. (SmoothQuant, vLLM and other per-token systems do this step in floating point.)
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from intsim.compiling import Int, portable
from intsim.numerics import IntType, Rounding, int16, int32
from intsim.op import Elementwise, Op, Port, Tuned
from intsim.ops.requantize import RESULTS, TIES, WORTH_TUNING
from intsim.params import Params as Base, int_type, integer, rule
from intsim.registry import register
from intsim.scalar.rounding import saturate, shift_right
from intsim.spec import rounding


@dataclass(frozen=True, slots=True, eq=False)
class Params(Base):
    shift: int = integer(0, 62)
    dtype: IntType = int_type(*RESULTS, role="result")
    rounding: Rounding = rule(Rounding, Rounding.TIES_TO_EVEN)


def spec(acc: Any, row: Any, column: Any, bias: Any, p: Params) -> Any:
    product = acc * row.reshape(-1, 1) * column
    return rounding.saturate(rounding.shift_right(product, p.shift, p.rounding) + bias, p.dtype)


@portable
def element(i: Int, j: Int, x: Any, p: Any) -> Int:
    # |acc| <= 2**31, |row| <= 2**15, |column| <= 2**15: the product fits 62 bits.
    product = np.int64(x.acc[i, j]) * np.int64(x.row[i]) * np.int64(x.column[j])
    return saturate(shift_right(product, p.shift, p.rounding) + np.int64(x.bias[j]), p.dtype)


def examples() -> dict[str, Any]:
    acc = np.array([[-24, -8, 8, 24], [-(2**31), 2**31 - 1, -1, 1]], np.int32)
    row, column = np.array([1, 2**15 - 1], np.int16), np.array([1, 3, -(2**15), 2**15 - 1], np.int16)
    bias = np.array([0, -7, 2**31 - 1, -(2**31)], np.int32)
    made: dict[str, Any] = {
        f"ties, {r.name}": ((acc, row, column), Params(4, dtype=int32, rounding=r)) for r in Rounding
    }
    made["ties on both sides of even"] = ((acc[:1], row[:1], np.ones(4, np.int16)), Params(4))
    made["extremes and a bias"] = ((acc, row, column, bias), Params(30, dtype=int16))
    return made


def _serves(p: Params, size: Mapping[str, int]) -> bool:
    """The nearest by the common rules; to 16 bits, or where the high word of the product decides."""
    from_the_word = p.shift >= 32 and p.dtype.bits <= 32
    large = size["m"] * size["n"] >= WORTH_TUNING and size["n"] >= 32
    return large and p.rounding in TIES and (from_the_word or (p.shift >= 1 and p.dtype.bits <= 16))


OP = register(
    Op(
        name="requantize.row_column",
        version=1,
        cites="intsim; the scale layout of Xiao et al. 2023 (SmoothQuant, arXiv 2211.10438), in integers",
        inputs=(
            Port("acc", "m n", int32),
            Port("row", "m", int16),
            Port("column", "n", int16),
            Port("bias", "n", int32, fill=0),
        ),
        outputs=(Port("q", "m n", lambda p: p.dtype),),
        params=Params,
        spec=spec,
        program=Elementwise(element),
        examples=examples,
        tuned=(Tuned("cpu", "intsim.ops.requantize._cpu_row_column:row_column", _serves),),
    )
)

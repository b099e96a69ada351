"""Integer matrix product whose left operand was quantized at run time, with a zero point a row.

    acc[i, j] = sum_k (a[i, k] - a_zero_point[i]) (b[j, k] - b_zero_point[j])        modulo 2**32

Differs from ``integer``: ``a_zero_point`` is data, an input. ONNX Runtime's DynamicQuantizeMatMul gives
all rows the same.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from intsim.compiling import Int, portable
from intsim.numerics import IntType, int8, int32, uint8
from intsim.op import Contraction, Op, Port, Size, Tuned
from intsim.ops.matmul import MOST_TERMS
from intsim.params import Params as Base, int_type, integer
from intsim.registry import register
from intsim.scalar.fixed_point import wrap32
from intsim.spec import rounding


@dataclass(frozen=True, slots=True, eq=False)
class Params(Base):
    b_zero_point: Any = integer(-128, 255, per="n", inside="b", default=0)
    a: IntType = int_type(uint8, int8, role="operand")
    b: IntType = int_type(int8, uint8, role="operand")


def spec(a: Any, b: Any, a_zero_point: Any, p: Params) -> Any:
    return rounding.wrap((a - a_zero_point[:, None]) @ (b - p.b_zero_point.reshape(-1, 1)).T, int32)


@portable
def start(i: Int, j: Int, x: Any, p: Any) -> Int:
    return np.int64(0)


@portable
def step(acc: Int, i: Int, j: Int, k: Int, x: Any, p: Any) -> Int:
    # differences of 9 bits and 2**20 terms: below 2**36
    return acc + (np.int64(x.a[i, k]) - np.int64(x.a_zero_point[i])) * (np.int64(x.b[j, k]) - p.b_zero_point[j])


@portable
def finish(acc: Int, i: Int, j: Int, x: Any, p: Any) -> Int:
    return wrap32(acc)


def examples() -> dict[str, Any]:
    a = np.array([[0, 255, 3], [255, 255, 255], [0, 0, 0]], np.uint8)
    b = np.array([[-128, 127, 5], [127, 127, 127]], np.int8)
    zero_points = np.array([131, 0, 255], np.uint8)
    return {
        "three zero points": ((a, b, zero_points), Params()),
        "and those of b": ((a, b, zero_points), Params([-7, 127])),
        "uint8 weights": ((a, b.view(np.uint8), zero_points), Params(200, b=uint8)),
        "int8 rows": ((a.view(np.int8), b, zero_points.view(np.int8)), Params(a=int8)),
    }


OP = register(
    Op(
        name="matmul.row_zero_points",
        version=1,
        cites="microsoft/onnxruntime onnxruntime/contrib_ops/cpu/quantization/dynamic_quantize_matmul.cc",
        inputs=(
            Port("a", "m k", lambda p: p.a),
            Port("b", "n k", lambda p: p.b),
            Port("a_zero_point", "m", lambda p: p.a),
        ),
        outputs=(Port("acc", "m n", int32),),
        params=Params,
        spec=spec,
        program=Contraction("k", start, step, finish),
        sizes={"k": Size(1, MOST_TERMS)},
        examples=examples,
        tuned=(
            Tuned(
                "cpu",
                "intsim.ops.matmul._cpu_integer:row_zero_points",
                lambda p, size: size["m"] * size["n"] * size["k"] > 2**14,
                keeps=True,
            ),
        ),
    )
)

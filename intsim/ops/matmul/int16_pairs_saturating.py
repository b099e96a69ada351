"""Product of uint8 and int8 whose pairs of terms saturate at int16: ONNX Runtime on x86 without VNNI.

    pair[l]   = saturate16(a[i, 2 l] b[j, 2 l] + a[i, 2 l + 1] b[j, 2 l + 1])        the last may be alone
    acc[i, j] = wrap32(sum_l pair[l] - sum_k (a_zero_point b[j, k] + b_zero_point[j] a[i, k])
                       + k a_zero_point b_zero_point[j])

The instruction VPMADDUBSW multiplies bytes and adds pairs in saturating int16; the zero points come in
afterwards. With weights of 7 bits no pair saturates.

Differs from ``integer``, which is what the operator is documented to compute, where a pair saturates.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from intsim.compiling import Int, portable
from intsim.numerics import int8, int16, int32, uint8
from intsim.op import Contraction, Op, Port, Size
from intsim.ops.matmul import MOST_TERMS
from intsim.params import Params as Base, integer
from intsim.registry import register
from intsim.scalar.fixed_point import wrap32
from intsim.spec import rounding


@dataclass(frozen=True, slots=True, eq=False)
class Params(Base):
    a_zero_point: int = integer(0, 255, default=0)
    b_zero_point: Any = integer(-128, 127, per="n", default=0)


def spec(a: Any, b: Any, p: Params) -> Any:
    terms = b.shape[-1] // 2 * 2
    total = 0 * (a @ b.T)
    for k in range(0, b.shape[-1], 2):
        pair = a[:, k, None] * b[:, k]
        if k < terms:
            pair = pair + a[:, k + 1, None] * b[:, k + 1]
        total = total + rounding.saturate(pair, int16)
    zero_points = p.b_zero_point.reshape(1, -1)
    sums = a.sum(axis=-1)[:, None]
    correction = p.a_zero_point * b.sum(axis=-1)[None] + zero_points * sums
    return rounding.wrap(total - correction + b.shape[-1] * p.a_zero_point * zero_points, int32)


@portable
def start(i: Int, j: Int, x: Any, p: Any) -> Int:
    return np.int64(0)


@portable
def step(acc: Int, i: Int, j: Int, k: Int, x: Any, p: Any) -> Int:
    a, b = np.int64(x.a[i, k]), np.int64(x.b[j, k])
    if k & 1 == 0:
        pair = a * b
        if k + 1 < x.a.shape[1]:
            pair += np.int64(x.a[i, k + 1]) * np.int64(x.b[j, k + 1])
        acc += min(max(pair, -(2**15)), 2**15 - 1)
    return acc - p.a_zero_point * b - p.b_zero_point[j] * (a - p.a_zero_point)


@portable
def finish(acc: Int, i: Int, j: Int, x: Any, p: Any) -> Int:
    return wrap32(acc)


def examples() -> dict[str, Any]:
    ends = np.repeat(np.array([[0], [255], [129]], np.uint8), 5, axis=1)
    weights = np.repeat(np.array([[-128], [127], [64]], np.int8), 5, axis=1)
    mixed = np.array([[255, 255, 255, 0, 1], [255, 1, 129, 128, 255]], np.uint8)
    signs = np.array([[127, -128, 127, 127, 127], [127, 127, 127, 127, -128]], np.int8)
    return {
        "pairs that saturate at both ends, the last term alone": ((ends, weights), Params()),
        "32767 and 32768: 129 * 127 + 128 * 128": ((mixed, signs), Params(3, [-7, 5])),
        "one term": ((ends[:, :1], weights[:, :1]), Params(255, -128)),
    }


OP = register(
    Op(
        name="matmul.int16_pairs_saturating",
        version=1,
        cites="microsoft/onnxruntime onnxruntime/core/mlas/lib/x86_64/QgemmU8S8KernelAvx2.S (VPMADDUBSW)",
        inputs=(Port("a", "m k", uint8), Port("b", "n k", int8)),
        outputs=(Port("acc", "m n", int32),),
        params=Params,
        spec=spec,
        program=Contraction("k", start, step, finish),
        sizes={"k": Size(1, MOST_TERMS)},
        examples=examples,
    )
)

"""Integer matrix product with zero points on both sides, a bias and a stated accumulator.

    acc[i, j] = bias[j] + sum_k (a[i, k] - a_zero_point) (b[j, k] - b_zero_point[j])

One variant for s8s8, u8s8, u8u8, w4a8 and s4: the operand types are parameters, and 4-bit operands
lie two a byte. With WRAP the sum is taken modulo 2**bits and its order does not matter; with
SATURATE the accumulator saturates after every term, k ascending, and it does.

ONNX MatMulInteger, torch._int_mm, tflite-micro and TOSA are int32 with WRAP; none saturates.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from intsim.compiling import Int, compiles, portable
from intsim.numerics import IntType, Nibbles, Order, Overflow, int4, int8, int16, int32, uint4, uint8
from intsim.op import Contraction, Op, Port, Size, Tuned
from intsim.ops.matmul import ACCUMULATORS, MOST_TERMS, centred, term
from intsim.params import Params as Base, int_type, integer, rule
from intsim.registry import register
from intsim.scalar.packing import load
from intsim.scalar.rounding import fit
from intsim.spec import packing, rounding


@dataclass(frozen=True, slots=True, eq=False)
class Params(Base):
    a_zero_point: int = integer(-(2**15), 2**15 - 1, inside="a", default=0)
    b_zero_point: Any = integer(-(2**15), 2**15 - 1, per="n", inside="b", default=0)
    a: IntType = int_type(int8, uint8, int16, int4, uint4, role="operand")
    b: IntType = int_type(int8, uint8, int16, int4, uint4, role="operand")
    nibbles: Nibbles = rule(Nibbles, Nibbles.LOW_FIRST)
    acc: IntType = int_type(*ACCUMULATORS, role="accumulator")
    overflow: Overflow = rule(Overflow, Overflow.WRAP)
    bias_added: Order = rule(Order, Order.FIRST)


def spec(a: Any, b: Any, bias: Any, p: Params) -> Any:
    if p.a.bits == 4:
        a = packing.unpack(a, p.a, p.nibbles)
    if p.b.bits == 4:
        b = packing.unpack(b, p.b, p.nibbles)
    terms = min(a.shape[-1], b.shape[-1])  # a packed operand may hold one element more
    a, b = centred(a[:, :terms], b[:, :terms], p)
    if p.overflow == Overflow.WRAP:
        return rounding.wrap(a @ b.T + bias, p.acc)
    first, last = (bias, 0) if p.bias_added == Order.FIRST else (0, bias)
    acc = rounding.saturate(first + 0 * (a @ b.T), p.acc)
    for k in range(terms):
        acc = rounding.saturate(acc + a[:, k, None] * b[:, k], p.acc)
    return rounding.saturate(acc + last, p.acc)


@portable
def start(i: Int, j: Int, x: Any, p: Any) -> Int:
    return fit(np.int64(x.bias[j]), p.acc, p.overflow) if p.bias_added == Order.FIRST else np.int64(0)


@portable
def step(acc: Int, i: Int, j: Int, k: Int, x: Any, p: Any) -> Int:
    a, b = load(x.a, i, k, p.a, p.nibbles), load(x.b, j, k, p.b, p.nibbles)
    return fit(acc + term(a, b, j, p), p.acc, p.overflow)


@portable
def finish(acc: Int, i: Int, j: Int, x: Any, p: Any) -> Int:
    return fit(acc + np.int64(x.bias[j]), p.acc, p.overflow) if p.bias_added == Order.LAST else acc


def examples() -> dict[str, Any]:
    low, high = np.full((1, 5), -128, np.int8), np.full((1, 5), 127, np.int8)
    alternating = np.array([[127, 127, -128, -128, 127, 1, -1]], np.int8)
    ramp = np.arange(-6, 6, dtype=np.int8).reshape(2, 6)
    nibbles = np.array([[0x21, 0x43, 0xF5], [0x8F, 0x70, 0x19]], np.uint8)
    bias = np.array([7, -9], np.int32)
    acc16: dict[str, Any] = {"acc": IntType(16), "overflow": Overflow.SATURATE}
    made: dict[str, Any] = {
        "extremes": ((np.vstack([low, high]), np.vstack([low, high])), Params()),
        "the order matters: saturates on the way": (
            (np.full((1, 7), 127, np.int8), alternating, np.array([2000], np.int32)),
            Params(**acc16),
        ),
        "bias last": (
            (np.full((1, 7), 127, np.int8), alternating, np.array([2000], np.int32)),
            Params(**acc16, bias_added=Order.LAST),
        ),
        "wraps at 16 bits": ((high, high), Params(acc=IntType(16))),
        "zero points on both sides, odd": ((ramp, ramp, bias), Params(3, [-5, 7])),
    }
    for order in Nibbles:
        made[f"w4a8, {order.name}, odd length"] = ((ramp[:, :5], nibbles, bias), Params(b=int4, nibbles=order))
    made["w4a8 unsigned with a zero point"] = ((ramp, nibbles), Params(b=uint4, b_zero_point=8))
    made["u8s8"] = ((ramp.view(np.uint8), ramp), Params(128, a=uint8))
    made["u8u8"] = ((ramp.view(np.uint8), ramp.view(np.uint8)), Params(128, 3, a=uint8, b=uint8))
    made["s4s4"] = ((nibbles, nibbles), Params(a=int4, b=int4))
    return made


def _bytes(p: Params, size: Mapping[str, int]) -> bool:
    """What GPUs multiply as bytes, modulo 2**32."""
    return p.overflow == Overflow.WRAP and p.acc == int32 and max(p.a.bits, p.b.bits) <= 8


def _large(size: Mapping[str, int]) -> bool:
    return size["m"] * size["n"] * size["k"] > 2**14


OP = register(
    Op(
        name="matmul.integer",
        version=1,
        cites="Jacob et al. 2018 (arXiv 1712.05877), eq. (7); ONNX MatMulInteger-10",
        inputs=(
            Port("a", "m k", lambda p: p.a, packing=True),
            Port("b", "n k", lambda p: p.b, packing=True),
            Port("bias", "n", int32, fill=0),
        ),
        outputs=(Port("acc", "m n", lambda p: p.acc),),
        params=Params,
        spec=spec,
        program=Contraction("k", start, step, finish),
        sizes={"k": Size(1, MOST_TERMS)},
        examples=examples,
        tuned=(
            Tuned(
                "cpu",
                "intsim.ops.matmul._cpu_integer:matmul",
                lambda p, size: p.overflow == Overflow.WRAP and _large(size),
                keeps=True,
            ),
            Tuned(
                "cpu",
                "intsim.ops.matmul._cpu_saturating:matmul",
                lambda p, size: (
                    p.overflow == Overflow.SATURATE
                    and max(p.a.bits, p.b.bits) <= 8
                    and p.acc.bits < 32
                    and size["m"] * size["n"] * size["k"] > 2**20
                    and compiles()
                ),
                keeps=True,
            ),
            Tuned(
                "cpu",
                "intsim.ops.matmul._cpu_blas:stacked",
                lambda p, size: p.overflow == Overflow.WRAP and min(p.a.bits, p.b.bits) > 4,
                leading=True,
            ),
            Tuned("cuda", "intsim.ops.matmul._cuda_gemm:best", _bytes),
            Tuned(
                "cuda",
                "intsim.ops.matmul._cuda_saturating:matmul",
                lambda p, size: p.overflow == Overflow.SATURATE and max(p.a.bits, p.b.bits) <= 8 and p.acc.bits < 32,
            ),
            Tuned("cuda", "intsim.ops.matmul._cuda_tile:matmul", lambda p, size: True),
            Tuned("cuda", "intsim.ops.matmul._cuda_gemm:by_vector", lambda p, size: _bytes(p, size) and size["m"] == 1),
            Tuned("cuda", "intsim.ops.matmul._cuda_gemm:by_mma", _bytes),
            Tuned("cuda", "intsim.ops.matmul._cuda_gemm:by_wgmma", _bytes, capability=(9, 0)),
        ),
    )
)

"""Softmax in gemmlowp fixed point: TFLite's reference kernel, tflite-micro, CMSIS-NN.

    d = q - max q;  where d >= diff_min:  e = exp(Q5.26(d)) in Q0.31,  total = sum away(e / 2**12) in Q12.19
    probability = saturate(away(1/total * e / 2**(31 + over - bits)) + qmin)

multiplier / 2**shift takes one input step to Q5.26 (input scale times beta times 2**26). Elements
below ``diff_min`` count as 0. The result has scale 2**-bits and zero point qmin.

A total of 2**28 or more, that of 512 largest elements, makes the last shift of an 8-bit result one by
32 or more, which C leaves undefined: compiled kernels may then give anything. Here it gives qmin.

Differs from ``ibert``: a 31-bit exponential by squared-interval products, Newton's reciprocal
instead of a division, and signed results start at qmin.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from intsim.compiling import Int, portable
from intsim.numerics import IntType, int8, int16, int32, uint8
from intsim.op import Op, Oracle, Port, Rowwise, Size, Tuned
from intsim.ops.softmax import WORTH_TUNING, Steps, real_softmax
from intsim.params import Params as Base, int_type, integer, real
from intsim.registry import register
from intsim.scalar.fixed_point import (
    exp_of_negative,
    high_multiply,
    multiply_by_quantized,
    one_over_one_plus,
    rounding_shift,
)
from intsim.scalar.functions import bit_length
from intsim.scalar.rounding import saturate
from intsim.spec import fixed_point, functions, rounding
from intsim.spec.tflite import quantize_multiplier

MOST = 2**12 - 1  # every term is at most 2**19, so the int32 total holds this many


@dataclass(frozen=True, slots=True, eq=False)
class Params(Base):
    multiplier: int = integer(2**30, 2**31 - 1)
    shift: int = integer(0, 31)
    q: IntType = int_type(int8, uint8, role="operand")
    dtype: IntType = int_type(int8, uint8, int16, role="result")
    scale: float = real()  # only the oracle reads it: input scale times beta

    @property
    def diff_min(self) -> int:
        """The lowest difference that counts: -floor(31 * 2**26 / 2**(31 - shift))."""
        return -((31 << 26) >> (31 - self.shift))

    @classmethod
    def from_scale(cls, scale: float, beta: float = 1.0, **fields: Any) -> Params:
        """The parameters for inputs ``real = scale * q``; scale, beta: positive floats (float32 in TFLite)."""
        real_multiplier = min(float(np.float32(beta)) * float(np.float32(scale)) * 2.0**26, 2.0**31 - 1)
        if not (math.isfinite(scale) and math.isfinite(beta) and real_multiplier >= 1):
            raise ValueError(f"softmax.gemmlowp: scale * beta is at least 2**-26, got {scale} * {beta}")
        return cls(*quantize_multiplier(real_multiplier), scale=scale * beta, **fields)


def spec(q: Any, stop: Any, p: Params) -> Any:
    seen = np.arange(q.shape[-1]) < stop.reshape(-1, 1)
    d = q - np.where(seen, q, p.q.qmin).max(axis=-1, keepdims=True)
    counts = seen & (d >= p.diff_min)
    e = fixed_point.exp_of_negative(
        fixed_point.multiply_by_quantized(np.where(counts, d, 0), p.multiplier, p.shift), integer_bits=5
    )
    total = np.where(counts, fixed_point.rounding_shift(e, 12), 0).sum(axis=-1, keepdims=True)
    headroom = 32 - functions.bit_length(total)
    reciprocal = fixed_point.one_over_one_plus((total << headroom) - (1 << 31))
    over = 12 - headroom + 31 - p.dtype.bits
    result = fixed_point.rounding_shift(fixed_point.high_multiply(reciprocal, e), over) + p.dtype.qmin
    return np.where(counts, rounding.saturate(result, p.dtype), p.dtype.qmin)


@portable
def exponential(d: Int, p: Any) -> Int:
    """exp of a difference that counts, in Q0.31."""
    return exp_of_negative(multiply_by_quantized(d, p.multiplier, p.shift), 5)


@portable
def term(q: Int, top: Int, p: Any) -> Int:
    d = q - top
    return exponential(d, p) if d >= -((31 << 26) >> (31 - p.shift)) else np.int64(0)


@portable
def added(e: Int, p: Any) -> Int:
    return rounding_shift(e, 12)


@portable
def settled(total: Int, seen: Int, p: Any) -> tuple[Int, Int]:
    """The reciprocal of the total, and the last shift."""
    # The largest element adds 2**19 and MOST of them stay below 2**31: headroom is 1 to 12.
    headroom = 32 - bit_length(total)
    return one_over_one_plus((total << headroom) - 2**31), 12 - headroom + 31 - p.dtype.bits


@portable
def share(e: Int, of: tuple[Int, Int], p: Any) -> Int:
    """qmin where e is 0: so a difference that does not count gets what it should."""
    return saturate(rounding_shift(high_multiply(of[0], e), of[1]) + p.dtype.qmin, p.dtype)


STEPS = Steps(term, added, settled, share)


@portable
def row(i: Int, x: Any, out: Any, p: Any) -> None:
    q, stop, y = x.q[i], np.int64(x.stop[i]), out.probability[i]
    top = np.int64(q[0])
    for j in range(1, stop):
        top = max(top, np.int64(q[j]))
    total = np.int64(0)
    for j in range(stop):
        total += added(term(np.int64(q[j]), top, p), p)
    of = settled(total, stop, p)
    for j in range(stop):
        y[j] = share(term(np.int64(q[j]), top, p), of, p)
    for j in range(stop, q.shape[0]):
        y[j] = p.dtype.qmin


def examples() -> dict[str, Any]:
    q = np.array([[-128, 127, 126, 0, 100], [5, 5, 5, 5, 5], [-128, -128, 127, -100, -1]], np.int8)
    stop = np.array([1, 3, 5], np.int32)
    equal, ends = np.zeros((16, 16), np.int8), np.arange(1, 17, dtype=np.int32)
    ramp = np.tile(np.arange(-128, 128, 4, dtype=np.int8), (6, 1))
    return {
        "totals from 1 to 16, to 16 bits: every stretch of the reciprocal": (
            (equal, ends),
            Params.from_scale(0.1, dtype=int16),
        ),
        **{
            f"a ramp at scale {scale}, to 16 bits: every factor of the exponential": (
                (ramp, np.arange(1, 65, 12, dtype=np.int32)[:6]),
                Params.from_scale(scale, dtype=int16),
            )
            for scale in (0.003, 0.013, 0.06, 0.2)
        },
        "two columns at every distance, to 16 bits": (
            (np.stack([np.zeros(64, np.int8), -np.arange(64, dtype=np.int8)], axis=1),),
            Params.from_scale(0.05, dtype=int16),
        ),
        "ordinary scale": ((q,), Params.from_scale(0.1)),
        "a scale at which most elements fall below diff_min": ((q,), Params.from_scale(3.0)),
        "the multiplier is capped": ((q,), Params.from_scale(100.0)),
        "masked, int16": ((q, stop), Params.from_scale(0.02, dtype=int16)),
        "unsigned": ((q.view(np.uint8),), Params.from_scale(0.05, q=uint8, dtype=uint8)),
    }


OP = register(
    Op(
        name="softmax.gemmlowp",
        version=1,
        cites="google-ai-edge/LiteRT tflite/kernels/internal/reference/softmax.h; google/gemmlowp fixedpoint.h",
        inputs=(Port("q", "m n", lambda p: p.q), Port("stop", "m", int32, fill="n", upto="n")),
        outputs=(Port("probability", "m n", lambda p: p.dtype),),
        params=Params,
        spec=spec,
        program=Rowwise(row),
        sizes={"n": Size(1, MOST)},
        examples=examples,
        tuned=(
            Tuned(
                "cpu", "intsim.ops.softmax._cpu_gemmlowp:softmax", lambda p, size: size["m"] * size["n"] > WORTH_TUNING
            ),
        ),
        oracle=Oracle(
            params=lambda scale: Params.from_scale(scale, dtype=int16),
            scales=(2e-3, 1.0),
            real=lambda q, stop, p: real_softmax(q * p.scale, stop),
            value=lambda out, p: (out - p.dtype.qmin) / 2.0**p.dtype.bits,
            # half a step of the result, what falls below diff_min, and the roundings of the total
            bound=lambda p: 2.0**-p.dtype.bits * 2 + 2.0**-12,
        ),
    )
)

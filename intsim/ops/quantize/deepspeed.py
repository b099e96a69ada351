"""The quantizers of DeepSpeed, one group a row, in float32: six definitions as choices of four rules.

    range  = f32(2 max|x|) where offset is NONE, else f32(max x - min x); plus 1e-5 by ``epsilon``
    DIVIDE      scale = f32(range / steps);   u = f32((x - offset) / scale)
    INVERT      scale = f32(range / steps);   u = f32((x - offset) * f32(1 / scale))
    MULTIPLY    inverse = f32(steps / range), 1 where the range is 0;   u = f32((x - offset) * inverse)
                scale = f32(1 / inverse)
    RECIPROCAL  scale = f32(f32(1 / range) * steps), an inverse: dequantize by dividing
                u = f32((x - offset) * scale)
    q = saturate(round(u))

steps is 2**bits or, for ``weight_only``, 2**bits - 1. offset is 0, min x (LEAST), f32(f32(max x + min x)
/ 2) (MIDDLE) or f32(round(f32(min x / scale)) * scale) (SNAPPED: ties to even, so 0.0 stays exact), and
x - offset rounds to float32 too. To clamp before the rounding, as ``weight_only`` does, gives the same
codes. ``Params`` has a constructor for each definition; -2**(bits - 1) is used by all signed ones.

Known defects, kept: the codes of a group whose scale is 0 are NaN / NaN in ``compression_*`` (range 0, no
epsilon), here q = 0 and the scale 0 tells it; ``fake_asymmetric`` does not clamp, so 4 bits give 17 codes
(0 to 16), and rounds ties away where ``fake_symmetric`` rounds them to even; in ``weight_only`` a range of 0
gives an infinite scale (q = 0 here). Any other 0/0, 0 * inf or inf / inf counts as 0. A zero offset is +0.
Not a part of q, and not stated: the float32 ``fake_quantize_kernel`` rounds q / scale to an integer once more.

Codes of 4 bits are packed with the even element in the high half of a byte (``Nibbles.HIGH_FIRST``).

The CUDA kernels are built with --use_fast_math: nvcc 13.0 makes div.approx.ftz of their float32 divisions,
so a scale can differ in its last bits (3 units, measured) from what the sources say, which is stated here.
``runtime_symmetric`` and ``compression_*`` are PyTorch, and so is ``weight_only`` on float32 tensors (in
float16 each step rounds to float16: not stated here).

Differs from ``dynamic_symmetric`` and ``dynamic_asymmetric``: steps of 2**bits (the largest positive
element saturates), offsets that are floats. Kernels compute the IEEE steps in integers.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum, unique
from typing import Any

import numpy as np

from intsim.compiling import Int, portable
from intsim.numerics import IntType, Rounding, float32, int4, int8, uint4, uint8, unlimited
from intsim.op import Op, Port, Rowwise, Size
from intsim.params import Limit, Params as Base, int_type, integer, rule
from intsim.registry import register
from intsim.scalar.ieee import (
    divide32,
    divide64,
    multiply32,
    normal64,
    pack32,
    round32,
    sum32,
    sum64,
    to_integer,
    unpack32,
    with_sign,
)
from intsim.scalar.rounding import saturate, shift_right
from intsim.spec import ieee, rounding

EPSILON = 1e-5
SIGNED, UNSIGNED = {4: int4, 8: int8}, {4: uint4, 8: uint8}


@unique
class Step(IntEnum):
    """How the scale follows from the range, and how it is used."""

    DIVIDE = 0
    INVERT = 1
    MULTIPLY = 2
    RECIPROCAL = 3


@unique
class Offset(IntEnum):
    """What is subtracted first."""

    NONE = 0
    SNAPPED = 1
    MIDDLE = 2
    LEAST = 3


@unique
class Epsilon(IntEnum):
    """What is added to the range, and in which type: the division that follows is in that type too."""

    NONE = 0
    FLOAT32 = 1
    FLOAT64 = 2


def _type(types: dict[int, IntType], bits: int) -> IntType:
    if bits not in types:
        raise ValueError(f"quantize.deepspeed: bits is 4 or 8, as in DeepSpeed; got {bits}")
    return types[bits]


@dataclass(frozen=True, slots=True, eq=False)
class Params(Base):
    steps: int = integer(1, 2**16, default=2**8)
    step: Step = rule(Step, Step.DIVIDE)
    offset: Offset = rule(Offset, Offset.NONE)
    epsilon: Epsilon = rule(Epsilon, Epsilon.NONE)
    dtype: IntType = int_type(int8, uint8, int4, uint4, unlimited, role="result")
    rounding: Rounding = rule(Rounding, Rounding.TIES_TO_EVEN)

    limits = (
        Limit(
            "epsilon is not FLOAT64 where step is RECIPROCAL",
            lambda p: p.epsilon != Epsilon.FLOAT64 or p.step != Step.RECIPROCAL,
        ),
    )

    @classmethod
    def compression_symmetric(cls, bits: int = 8) -> Params:
        """deepspeed/compression/utils.py SymQuantizer; bits: 4 or 8, as in all of these."""
        return cls(2**bits, Step.DIVIDE, dtype=_type(SIGNED, bits))

    @classmethod
    def compression_asymmetric(cls, bits: int = 8) -> Params:
        """deepspeed/compression/utils.py AsymQuantizer."""
        return cls(2**bits, Step.DIVIDE, Offset.SNAPPED, dtype=_type(UNSIGNED, bits))

    @classmethod
    def kernel_symmetric(cls, bits: int = 8) -> Params:
        """csrc/includes/quantization_utils.h Params<Type::Symmetric>, on float16 values held as float32."""
        return cls(2**bits, Step.MULTIPLY, dtype=_type(SIGNED, bits))

    @classmethod
    def kernel_asymmetric(cls, bits: int = 8) -> Params:
        """csrc/includes/quantization_utils.h Params<Type::Asymmetric>, on float16 values held as float32."""
        return cls(2**bits, Step.MULTIPLY, Offset.MIDDLE, dtype=_type(SIGNED, bits))

    @classmethod
    def fake_symmetric(cls, bits: int = 8) -> Params:
        """csrc/quantization/fake_quantizer.cu fake_quantize_kernel."""
        return cls(2**bits, Step.MULTIPLY, epsilon=Epsilon.FLOAT64, dtype=_type(SIGNED, bits))

    @classmethod
    def fake_asymmetric(cls, bits: int = 8) -> Params:
        """csrc/quantization/fake_quantizer.cu fake_quantize_kernel_asym, which does not clamp; |x| <= 10000."""
        return cls(2**bits, Step.INVERT, Offset.LEAST, Epsilon.FLOAT64, unlimited, Rounding.TIES_TO_AWAY)

    @classmethod
    def weight_only(cls, bits: int = 8) -> Params:
        """deepspeed/inference/quantization/utils.py Quantizer, on float32 tensors."""
        return cls(2**bits - 1, Step.RECIPROCAL, Offset.LEAST, dtype=_type(UNSIGNED, bits))

    @classmethod
    def runtime_symmetric(cls, bits: int = 8) -> Params:
        """deepspeed/runtime/weight_quantizer.py quantize_data."""
        return cls(2**bits, Step.RECIPROCAL, epsilon=Epsilon.FLOAT32, dtype=_type(SIGNED, bits))


def spec(x: Any, p: Params) -> Any:
    one = np.float32(1)
    with np.errstate(all="ignore"):
        low, high = x.min(axis=-1, keepdims=True), x.max(axis=-1, keepdims=True)
        span = np.float32(2) * abs(x).max(axis=-1, keepdims=True) if p.offset == Offset.NONE else high - low
        real = np.float64 if p.epsilon == Epsilon.FLOAT64 else np.float32
        span = span.astype(real) + (real(0) if p.epsilon == Epsilon.NONE else real(EPSILON))
        if p.step == Step.RECIPROCAL:
            scale = inverse = one / span * real(p.steps)
        elif p.step == Step.MULTIPLY:
            inverse = np.where(span == 0, real(1), real(p.steps) / span).astype(np.float32)
            scale = one / inverse
        else:
            scale = (span / real(p.steps)).astype(np.float32)
            inverse = one / scale
        offset = {
            Offset.NONE: low * 0,
            Offset.LEAST: low,
            Offset.MIDDLE: (high + low) / np.float32(2),
            Offset.SNAPPED: _number(np.rint(_number(low / scale)) * scale),
        }[p.offset] + np.float32(0)
        u = _number((x - offset) / scale if p.step == Step.DIVIDE else (x - offset) * inverse)
        return rounding.saturate(ieee.to_integer(u, p.rounding), p.dtype), scale[:, 0], offset[:, 0]


def _number(x: Any) -> Any:
    """x with 0 for what is not a number."""
    return np.where(np.isnan(x), np.float32(0), x)


@portable
def normal(m: Int, e: Int) -> tuple[Int, Int]:
    """The magnitude with 24 bits; infinite where it is too large."""
    return unpack32(pack32(m, e))


@portable
def quotient(am: Int, ae: Int, bm: Int, be: Int) -> tuple[Int, Int]:
    """A float32 quotient of magnitudes with 24 bits, also by 0 and of infinities; what is no number is 0."""
    if am == 0 or (ae > 3000 and be > 3000):
        return 0, 0
    if bm == 0:
        return 2**23, 3977
    m, e = divide32(am, ae, bm, be)
    return normal(m, e)


@portable
def product(am: Int, ae: Int, bm: Int, be: Int) -> tuple[Int, Int]:
    m, e = multiply32(am, ae, bm, be)
    return normal(m, e)


@portable
def over_steps(m: Int, e: Int, steps: Int, epsilon: Int, inverted: Int) -> tuple[Int, Int]:
    """range / steps, or steps / range, as a float32, with the epsilon of its type."""
    sm, se = normal(steps, 0)
    if epsilon == Epsilon.FLOAT64:
        m, e = normal64(m, e)
        m, e = sum64(m, e, 0x14F8B588E368F1, -69)
        m, e = normal64(m, e)
        sm, se = normal64(sm, se)
        if inverted:
            m, e = divide64(sm, se, m, e)
        else:
            m, e = divide64(m, e, sm, se)
        m, e = round32(m, e)
        return normal(m, e)
    return quotient(sm, se, m, e) if inverted else quotient(m, e, sm, se)


@portable
def number_of(key: Int) -> tuple[Int, Int]:
    m, e = unpack32(abs(key))
    return (-m if key < 0 else m), e


@portable
def signed_sum(am: Int, ae: Int, bm: Int, be: Int) -> tuple[Int, Int]:
    m, e = sum32(am, ae, bm, be)
    n, e = normal(abs(m), e)
    return (-n if m < 0 else n), e


@portable
def offset_of(lm: Int, le: Int, hm: Int, he: Int, m: Int, e: Int, offset: Int) -> tuple[Int, Int]:
    """The offset, with a sign, of a row from low to high whose scale is m * 2**e."""
    if offset == Offset.LEAST:
        return lm, le
    if offset == Offset.MIDDLE:
        om, oe = signed_sum(hm, he, lm, le)
        rm, re = round32(abs(om), oe - 1)
        rm, re = normal(rm, re)
        return (-rm if om < 0 else rm), re
    if offset == Offset.SNAPPED:
        om, oe = quotient(abs(lm), le, m, e)
        if oe < 0:
            om, oe = normal(shift_right(om, min(-oe, 62), Rounding.TIES_TO_EVEN), 0)
        om, oe = product(om, oe, m, e)
        return (-om if lm < 0 else om), oe
    return 0, 0


@portable
def row(i: Int, x: Any, out: Any, p: Any) -> None:
    x, q = x.x[i], out.q[i]
    low, high = np.int64(2**31), np.int64(-(2**31))  # bits of floats, as numbers in the order of the floats
    for j in range(x.shape[0]):
        bits = np.int64(x[j])
        key = bits if bits >= 0 else -(bits & (2**31 - 1))
        low, high = min(low, key), max(high, key)
    lm, le = number_of(low)
    hm, he = number_of(high)
    if p.offset == Offset.NONE:
        m, e = unpack32(max(abs(low), abs(high)))
        m, e = normal(m, e + 1)
    else:
        m, e = signed_sum(hm, he, -lm, le)
    if p.epsilon == Epsilon.FLOAT32:
        m, e = signed_sum(m, e, 0xA7C5AC, -40)
    if p.step == Step.RECIPROCAL:
        m, e = quotient(2**23, -23, m, e)
        sm, se = normal(p.steps, 0)
        im, ie = product(m, e, sm, se)
        m, e = im, ie
    elif p.step == Step.MULTIPLY:
        if m == 0 and p.epsilon == Epsilon.NONE:
            im, ie = np.int64(2**23), np.int64(-23)
        else:
            im, ie = over_steps(m, e, p.steps, p.epsilon, 1)
        m, e = quotient(2**23, -23, im, ie)
    else:
        m, e = over_steps(m, e, p.steps, p.epsilon, 0)
        im, ie = quotient(2**23, -23, m, e)
    om, oe = offset_of(lm, le, hm, he, m, e, p.offset)
    for j in range(x.shape[0]):
        bits = np.int64(x[j])
        um, ue = number_of(bits if bits >= 0 else -(bits & (2**31 - 1)))
        um, ue = signed_sum(um, ue, -om, oe)
        negative = um < 0
        if p.step == Step.DIVIDE:
            um, ue = quotient(abs(um), ue, m, e)
        else:
            um, ue = product(abs(um), ue, im, ie)
        q[j] = saturate(to_integer(-um if negative else um, ue, p.rounding), p.dtype)
    out.scale[i] = pack32(m, e)
    out.offset[i] = with_sign(pack32(abs(om), oe), om)


def examples() -> dict[str, Any]:
    ties = np.array([[-8, -7.5, -2.5, -1.5, -0.5, 0.5, 1.5, 2.5, 6.5, 7.5]], np.float32)
    rows = np.array(
        [
            [0.1, 0.2, 0.3, -0.7, 0.9, 1e-3, -0.33],
            [5, 5, 5, 5, 5, 5, 5],
            [0, -0.0, 0, 0, 0, 0, 0],
            [-1, -2, -3, -4, -0.5, -7, -1.1],
            [1e-45, 0, -1e-45, 1e-44, 0, 2e-45, 0],
            [3e38, -3e38, 1, 0, 1e38, -1e30, 9],
            [1e38, 1e38, 3e38, 2e38, 0, 5, 1e30],
            [1e-39, 2e-39, -3e-39, 1e-38, 5e-40, 0, 1e-40],
            [300, -1, 4e3, -2e3, 0.1, 17, -4e3],
        ],
        np.float32,
    )
    made: dict[str, Any] = {f"ties, {r.name}": ((ties,), Params(16, dtype=int4, rounding=r)) for r in Rounding}
    presets = {
        "compression_symmetric": Params.compression_symmetric,
        "compression_asymmetric": Params.compression_asymmetric,
        "kernel_symmetric": Params.kernel_symmetric,
        "kernel_asymmetric": Params.kernel_asymmetric,
        "fake_symmetric": Params.fake_symmetric,
        "fake_asymmetric": Params.fake_asymmetric,
        "weight_only": Params.weight_only,
        "runtime_symmetric": Params.runtime_symmetric,
    }
    for name, preset in presets.items():
        for bits in (4, 8):
            made[f"{name}, {bits} bits"] = ((rows,), preset(bits))
    halves = np.array([[-0.5, 14.5, 0], [-2.5, 12.5, 1], [-1.5, 13.5, 7], [0.5, 15.5, 4]], np.float32)
    made["offsets that are ties of the steps"] = ((halves,), Params(15, Step.DIVIDE, Offset.SNAPPED, dtype=uint8))
    for steps, last in ((95, 16553743), (403, 10786575)):  # with the epsilon: a tie of float32 after the division
        tie = (np.array([[0, last * 2.0**-69]], np.float32),)
        made[f"one unit of the epsilon decides, {steps} steps"] = (
            tie,
            Params(steps, Step.DIVIDE, Offset.LEAST, Epsilon.FLOAT64, uint8),
        )
    made["17 codes of 4 bits"] = ((np.arange(17, dtype=np.float32)[None] * 0.37,), Params.fake_asymmetric(4))
    for step in Step:
        for offset in Offset:
            made[f"{step.name}, {offset.name}, steps of 255"] = ((rows,), Params(255, step, offset, dtype=uint8))
    return made


OP = register(
    Op(
        name="quantize.deepspeed",
        version=1,
        cites="deepspeedai/DeepSpeed at edaa7221: deepspeed/compression/utils.py, csrc/includes/quantization_utils.h, "
        "csrc/quantization/fake_quantizer.cu, deepspeed/inference/quantization/utils.py, "
        "deepspeed/runtime/weight_quantizer.py",
        inputs=(Port("x", "m n", float32, numbers="finite"),),
        outputs=(Port("q", "m n", lambda p: p.dtype), Port("scale", "m", float32), Port("offset", "m", float32)),
        params=Params,
        spec=spec,
        program=Rowwise(row),
        sizes={"n": Size(1)},
        examples=examples,
    )
)

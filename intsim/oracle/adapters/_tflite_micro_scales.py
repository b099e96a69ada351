"""Real scales from which tflite-micro derives given multipliers and shifts.

A .tflite model holds float32 scales; the kernels divide and multiply them, and QuantizeMultiplier makes
31 bits and a shift of the result. Here the way back: of many pairs of float32 numbers whose quotient or
product is near the wanted one, a pair whose multiplier is the wanted one to the bit. Each function
raises Unsupported where there is none.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any

import numpy as np

from intsim.binding import Array
from intsim.oracle.adapter import Unsupported
from intsim.spec.tflite import product_scale, quantize_multiplier

SOME = 2**13  # scales that are tried: one in 2**7 serves
MANY = 2**18  # where two quotients must come out at once
INPUTS = (1.0, 0.5, 0.0123, 0.00714, 0.0391)  # scales of an input that are tried where each row has its own multiplier
NONE = "no float32 scales give this multiplier and shift"

Real = Callable[[Any, Any], Any]


@cache
def _candidates(count: int) -> Array:
    """Pseudorandom float32 numbers in [1, 2), of all 24 bits: evenly spaced ones can miss together."""
    drawn = np.frombuffer(hashlib.shake_256(b"scales").digest(4 * count), "<u4")
    made: Array = ((drawn >> 9) | 0x3F80_0000).astype(np.uint32).view(np.float32)
    return made


def _hits(real: Array, multiplier: int, shift: int) -> Any:
    return np.flatnonzero(np.floor(real * 2.0**shift + 0.5) == multiplier)


def _check(multiplier: int) -> None:
    if multiplier < 2**30:
        raise Unsupported("QuantizeMultiplier gives multipliers from 2**30 on, or 0 with shift 31")


def two(multiplier: int, shift: int, second: Real, real: Real) -> tuple[float, float]:
    """(x, y), float32, with ``quantize_multiplier(real(x, y)) == (multiplier, shift)``.

    second(wanted, x): the y (float64) for which real(x, y) is about wanted. real: the kernel's arithmetic
    on float64 arrays that hold float32 values.
    """
    wanted = multiplier / 2.0**shift
    if (multiplier, shift) == (0, 31):
        wanted = 2.0**-40
    else:
        _check(multiplier)
    x = _candidates(SOME).astype(np.float64)
    y = np.asarray(second(wanted, x), np.float32).astype(np.float64)
    for i in _hits(real(x, y), multiplier, shift) if multiplier else [0]:
        if quantize_multiplier(float(real(x[i], y[i]))) == (multiplier, shift):
            return float(x[i]), float(y[i])
    raise Unsupported(NONE)


def quotient(multiplier: int, shift: int) -> tuple[float, float]:
    """(x, y) with x / y in float64: QUANTIZE, MEAN, SUM, and what has one scale of weights."""
    y, x = two(multiplier, shift, lambda wanted, y: wanted * y, lambda y, x: x / y)
    return x, y


def product(multiplier: int, shift: int, unit: float) -> tuple[float, float]:
    """(x, y) with x * y / unit in float64: SOFTMAX's scale and beta."""
    return two(multiplier, shift, lambda wanted, x: wanted * unit / x, lambda x, y: x * y / unit)


def root(multiplier: int, shift: int) -> tuple[float, float]:
    """(x, y) with 1 / (sqrt(x) * y) in float64: RSQRT."""
    return two(multiplier, shift, lambda wanted, x: 1 / (wanted * np.sqrt(x)), lambda x, y: 1 / (np.sqrt(x) * y))


def rows(multiplier: Array, shift: Array) -> tuple[float, Any, float]:
    """(input, weights, result) of a product; weights one scale, or one a row where there are many multipliers."""
    if multiplier.size == 1:
        x, y = quotient(int(multiplier[0]), int(shift[0]))
        return x, 1.0, y
    wanted = list(zip(multiplier.tolist(), shift.tolist(), strict=True))
    real = np.where(multiplier > 0, multiplier / 2.0**shift, 2.0**-40)
    for x in INPUTS:
        for y in INPUTS:
            weights = (real * y / np.float64(np.float32(x))).astype(np.float32)
            derived = product_scale(x, weights, y)
            if [quantize_multiplier(float(r)) for r in derived] == wanted:
                return x, weights, y
    raise Unsupported("no float32 scales of the weights give all of these multipliers with one scale of the input")


def sides(p: Any, result: Real) -> tuple[float, float, float]:
    """The scales of a, b and the result of ADD, SUB and SQUARED_DIFFERENCE.

    result(twice, wanted): (scale, real): the result's scale (float32) for which the kernel's last
    multiplier is about wanted, and that multiplier.
    """
    pairs = ((p.a_multiplier, p.a_shift), (p.b_multiplier, p.b_shift))
    if (2**30, 31) not in pairs:
        raise Unsupported("the operand with the larger scale has the multiplier 1/2")
    small = pairs[0] if pairs[1] == (2**30, 31) else pairs[1]
    for multiplier in (small[0], p.multiplier):
        _check(multiplier)
    large = _candidates(2**10 if small == (2**30, 31) else MANY)
    twice = 2 * large.astype(np.float64)
    little = (small[0] / 2.0 ** small[1] * twice).astype(np.float32)
    part = little / twice
    kept = _hits(part, *small)
    made, real = result(twice[kept], p.multiplier / 2.0**p.shift)
    for i in _hits(real, p.multiplier, p.shift):
        scales = float(large[kept[i]]), float(little[kept[i]])
        parts = [quantize_multiplier(float(r)) for r in (part[kept[i]], real[i])]
        if parts == [small, (p.multiplier, p.shift)] and (scales[1] < scales[0] or small == (2**30, 31)):
            a, b = scales if pairs[0] == (2**30, 31) else scales[::-1]
            return a, b, float(made[i])
    raise Unsupported(NONE)


def added(left_shift: int) -> Real:
    """The last quotient of ADD and SUB, all in float64."""

    def result(twice: Array, wanted: float) -> tuple[Array, Array]:
        scale = (twice / (wanted * 2.0**left_shift)).astype(np.float32)
        return scale, twice / (2.0**left_shift * scale.astype(np.float64))

    return result


def squared(left_shift: int) -> Real:
    """SQUARED_DIFFERENCE's last quotient: a float32 product below a float64 square."""

    def result(twice: Array, wanted: float) -> tuple[Array, Array]:
        scale = (twice * twice / (wanted * 4.0**left_shift)).astype(np.float32)
        return scale, twice * twice / (np.float32(4.0**left_shift) * scale).astype(np.float64)

    return result


def curve(multiplier: int, shift: int) -> float:
    """The input's scale of LOGISTIC and TANH of int8: scale * 2**27 is the real multiplier."""
    _check(multiplier)
    if multiplier % 128:
        raise Unsupported("the multiplier is a float32 scale times 2**27: its lowest 7 bits are 0")
    return multiplier / 2.0 ** (shift + 27)


def curve16(multiplier: int, shift: int) -> Iterator[float]:
    """Scales that may give LOGISTIC's and TANH's 16-bit multiplier: the middle of its range, then a power of two."""
    for scale in ((multiplier + 0.5) / 2.0**shift, float(multiplier)):
        yield float(np.float32(scale / (3 * 4096)))

"""What TFLite's integer kernels add to gemmlowp's fixed point, on arrays: int64, or Python integers.

Sources: google/gemmlowp fixedpoint/fixedpoint.h (logistic, tanh); google-ai-edge/LiteRT
tflite/kernels/internal/{quantization_util.cc,common.h} (multipliers, inverse square root, lookup).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from intsim.constants import fixed
from intsim.numerics import Rounding, int32
from intsim.spec.fixed_point import (
    FORTY_EIGHT_SEVENTEENTHS,
    MINUS_32_SEVENTEENTHS,
    exp_of_negative,
    high_multiply,
    one_over_one_plus,
    rounding_shift,
    saturating_left_shift,
)
from intsim.spec.functions import bit_length
from intsim.spec.rounding import shift_right

HALF_SQRT_2 = fixed(1518500250, math.sqrt(0.5), fraction_bits=31)
THREE_HALVES = fixed(402653184, 1.5, fraction_bits=28)


def quantize_multiplier(real: float) -> tuple[int, int]:
    """(multiplier, shift) with ``real ~ multiplier / 2**shift``, as QuantizeMultiplier: on the host.

    real: positive and finite, below 2**31; below 2**-32 the multiplier is 0. Raises ValueError.
    """
    if not (math.isfinite(real) and real > 0):
        raise ValueError(f"a real multiplier is positive and finite, got {real!r}")
    fraction, exponent = math.frexp(real)
    multiplier = math.floor(fraction * 2**31 + 0.5)
    if multiplier == 2**31:
        multiplier, exponent = 2**30, exponent + 1
    if exponent > 31:
        raise ValueError(f"a real multiplier is below 2**31, got {real!r}")
    return (multiplier, 31 - exponent) if exponent >= -31 else (0, 31)


def product_scale(a: Any, b: Any, result: Any, *, single: bool = True) -> Any:
    """The real multiplier of a product, float64, as TFLite's kernels derive it from float32 scales: on the host.

    single: whether with one scale of b, a * b is a product of float32 (LiteRT, as the source says); in the
    wheel of tflite-micro (0.dev20261023) it is float64's. With a scale a row (an array of b) it always
    is, and so is the quotient. Raises ValueError where a scale is not positive and finite.
    Source: tensorflow/tflite-micro tensorflow/lite/kernels/kernel_util.cc (GetQuantizedConvolutionMultipler,
    PopulateConvolutionQuantizationParams).
    """
    x, y, out = (np.asarray(s, np.float32) for s in (a, b, result))
    if not all((np.isfinite(s) & (s > 0)).all() for s in (x, y, out)):
        raise ValueError(f"scales are positive and finite, got {a}, {b}, {result}")
    product = np.float64(x * y) if single and not y.ndim else x.astype(np.float64) * y.astype(np.float64)
    return product / np.float64(out)


def logistic(a: Any, integer_bits: int) -> Any:
    """1 / (1 + exp(-a)) in Q0.31 for an int32 ``a`` in Q(integer_bits).(31 - integer_bits)."""
    positive = one_over_one_plus(exp_of_negative(-abs(a), integer_bits))
    return np.where(a == 0, 1 << 30, np.where(a > 0, positive, int32.qmax - positive))


def tanh(a: Any, integer_bits: int) -> Any:
    """tanh(a) in Q0.31 for an int32 ``a`` in Q(integer_bits).(31 - integer_bits), by exp(-2 |a|).

    One integer bit more, read from the same bits, is the factor 2.
    """
    e = exp_of_negative(-abs(a), integer_bits + 1)
    half = (e + (1 << 31)) // 2  # (1 + e) / 2
    x = FORTY_EIGHT_SEVENTEENTHS + high_multiply(half, MINUS_32_SEVENTEENTHS)  # 2 / (1 + e) in Q2.29, by Newton
    for _ in range(3):
        x = x + saturating_left_shift(high_multiply(x, (1 << 29) - high_multiply(half, x)), 2)
    magnitude = saturating_left_shift(x - (1 << 29), 2)  # 2 / (1 + e) - 1
    return np.where(a == 0, 0, np.where(a > 0, magnitude, -magnitude))


def inverse_square_root(v: Any) -> tuple[Any, Any]:
    """(mantissa, shift) with ``1 / sqrt(v) ~ mantissa / 2**(31 + shift)``, for 0 <= v < 2**29; 0 counts as 1."""
    v = np.maximum(v, 1)
    pairs = (31 - bit_length(v)) // 2 - 1
    scaled = (v << (2 * pairs)) >> 1  # Q3.28, in [1/4, 1)
    half = rounding_shift(scaled, 1)
    x = v * 0 + (1 << 28)
    for _ in range(5):
        cube = saturating_left_shift(high_multiply(high_multiply(x, x), x), 6)
        x = saturating_left_shift(high_multiply(x, THREE_HALVES) - high_multiply(half, cube), 3)
    x = high_multiply(x, HALF_SQRT_2)
    shift = 11 - pairs
    mantissa = x << np.maximum(-shift, 0)
    return np.where(v <= 1, int32.qmax, mantissa), np.where(v <= 1, 0, np.maximum(shift, 0))


def lookup(value: Any, table: Any, index_bits: int) -> Any:
    """``table`` at an int16 ``value``: 2**index_bits stretches from entry to entry, straight lines along them."""
    rest = 16 - index_bits
    at = (value + (1 << 15) >> rest).astype(int)
    base = table[at]
    along = (value + (1 << 15)) % (1 << rest)
    return base + shift_right((table[at + 1] - base) * along, rest, Rounding.TIES_TO_POSITIVE)


# What float_table tabulates. Source: google-ai-edge/LiteRT tflite/kernels/activations.cc, internal/reference/gelu.h
CURVES: Mapping[str, Callable[[float], float]] = {
    "LOGISTIC": lambda x: float(np.float32(1) / (np.float32(1) + np.float32(math.exp(min(-x, 700))))),
    "TANH": math.tanh,
    "GELU": lambda x: 0.5 * x * math.erfc(-x * math.sqrt(0.5)),
    "GELU tanh": lambda x: 0.5 * x * (1 + math.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))),
}


def float_table(curve: str, scale: float, zero_point: int, result: float, result_zero_point: int) -> Any:
    """LiteRT's table of 256 int8 for an activation of int8, one of CURVES: an input of ``activation.table``.

        saturate(away(f32(f32(f(f32(scale * (q - zero_point)))) * f32(1 / result))) + result_zero_point), q from -128 up

    scale, result: of the input and the result, positive floats (float32); zero points: of int8. On the
    host: f is computed in float64 and rounded to float32 once, where LiteRT calls the C library;
    LOGISTIC is 1 / (1 + exp(-x)) with each step rounded, which ties at 1 / 2 show.
    """
    if not (math.isfinite(scale) and scale > 0 and math.isfinite(result) and result > 0):
        raise ValueError(f"float_table: scales are positive and finite, got {scale}, {result}")
    x = np.float32(scale) * (np.arange(-128, 128) - zero_point).astype(np.float32)
    with np.errstate(over="ignore", under="ignore"):
        y = np.array([CURVES[curve](float(one)) for one in x]).astype(np.float32) * (np.float32(1) / np.float32(result))
    whole = np.trunc(y.astype(np.float64) + np.copysign(0.5, y)) + result_zero_point
    return np.clip(whole, -128, 127).astype(np.int8)


def sigmoid_table() -> Any:
    """The table of the 16-bit LOGISTIC and TANH, uint16: 65536 / (1 + exp(-i / 24)), as published.

    It is data: 44 of the 256 entries are one more than the nearest integer, by no rule that is known.
    Source: google-ai-edge/LiteRT tflite/kernels/internal/common.cc (sigmoid_table_uint16).
    """
    return np.array(_SIGMOID_TABLE, np.uint16)


# fmt: off
_SIGMOID_TABLE = (
    32768, 33451, 34133, 34813, 35493, 36169, 36843, 37513, 38180, 38841, 39498, 40149, 40794, 41432, 42064, 42688,
    43304, 43912, 44511, 45102, 45683, 46255, 46817, 47369, 47911, 48443, 48964, 49475, 49975, 50464, 50942, 51409,
    51865, 52311, 52745, 53169, 53581, 53983, 54374, 54755, 55125, 55485, 55834, 56174, 56503, 56823, 57133, 57433,
    57724, 58007, 58280, 58544, 58800, 59048, 59288, 59519, 59743, 59959, 60168, 60370, 60565, 60753, 60935, 61110,
    61279, 61441, 61599, 61750, 61896, 62036, 62172, 62302, 62428, 62549, 62666, 62778, 62886, 62990, 63090, 63186,
    63279, 63368, 63454, 63536, 63615, 63691, 63765, 63835, 63903, 63968, 64030, 64090, 64148, 64204, 64257, 64308,
    64357, 64405, 64450, 64494, 64536, 64576, 64614, 64652, 64687, 64721, 64754, 64786, 64816, 64845, 64873, 64900,
    64926, 64950, 64974, 64997, 65019, 65039, 65060, 65079, 65097, 65115, 65132, 65149, 65164, 65179, 65194, 65208,
    65221, 65234, 65246, 65258, 65269, 65280, 65291, 65301, 65310, 65319, 65328, 65337, 65345, 65352, 65360, 65367,
    65374, 65381, 65387, 65393, 65399, 65404, 65410, 65415, 65420, 65425, 65429, 65433, 65438, 65442, 65445, 65449,
    65453, 65456, 65459, 65462, 65465, 65468, 65471, 65474, 65476, 65479, 65481, 65483, 65485, 65488, 65489, 65491,
    65493, 65495, 65497, 65498, 65500, 65501, 65503, 65504, 65505, 65507, 65508, 65509, 65510, 65511, 65512, 65513,
    65514, 65515, 65516, 65517, 65517, 65518, 65519, 65520, 65520, 65521, 65522, 65522, 65523, 65523, 65524, 65524,
    65525, 65525, 65526, 65526, 65526, 65527, 65527, 65528, 65528, 65528, 65529, 65529, 65529, 65529, 65530, 65530,
    65530, 65530, 65531, 65531, 65531, 65531, 65531, 65532, 65532, 65532, 65532, 65532, 65532, 65533, 65533, 65533,
    65533, 65533, 65533, 65533, 65533, 65534, 65534, 65534, 65534, 65534, 65534, 65534, 65534, 65534, 65534, 65535,
)
# fmt: on

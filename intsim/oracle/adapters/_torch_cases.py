"""Cases for PyTorch's quantized operators: what its users meet, and what tells its kernels from their neighbours."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from intsim.binding import Array
from intsim.composites.linear import float32_bias, float32_ties_even
from intsim.numerics import IntType, int8, uint8
from intsim.ops.dequantize import affine as to_real
from intsim.ops.matmul import integer as product
from intsim.ops.requantize import float32_ties_even as result
from intsim.oracle.cases import Case, make


def _bytes(text: str, *shape: int) -> Array:
    """Pseudorandom bytes, the same on every machine."""
    return np.frombuffer(hashlib.shake_256(text.encode()).digest(int(np.prod(shape))), np.uint8).reshape(shape)


def dequantize(types: Sequence[IntType], label: str) -> Iterator[Case]:
    op = to_real.OP
    for t in types:
        every = np.resize(np.arange(t.qmin, t.qmax + 1).astype(t.storage), (1, 20_001))
        for scale, z in ((0.1, 57), (0.3, t.qmin), (1e-42, 3), (1e-45, t.qmax), (3e36, 0)):
            arrays = (every, np.array([[scale]], np.float32), np.array([[z]], np.int32))
            why = "every value; products that round, underflow or overflow"
            yield make(op, f"{label}-{t}-{scale}", why, arrays, to_real.Params(q=t))
        rows = np.resize(every, (9, 1031))
        scales = (np.arange(1, 10, dtype=np.float32) / 70)[:, None]
        zero_points = (np.arange(9, dtype=np.int32) * 29 % (t.qmax + 1))[:, None]
        each = (rows, scales, zero_points)
        yield make(op, f"{label}-{t}-rows", "a scale and a zero point a row", each, to_real.Params(q=t))


def matmul() -> Iterator[Case]:
    op, p = product.OP, product.Params(a=int8, b=int8)
    rows, columns = _bytes("a", 257, 1031).view(np.int8), _bytes("b", 400, 1031).view(np.int8)
    yield make(op, "torch-long", "1031 terms: many vectors and a tail", (rows, columns), p)
    for k in (1, 2, 3, 4, 5, 15, 16, 17, 33):
        why = "shorter than a vector, as long, longer"
        yield make(op, f"torch-{k}-terms", why, (rows[:19, :k], columns[:17, :k]), p)
    ends = np.array([[-128], [127]], np.int8)
    long = np.repeat(ends, 1100, axis=1)
    yield make(op, "torch-extremes", "the largest products, all of one sign", (long, long), p)
    wraps = np.repeat(ends, 2**17 + 3, axis=1)
    yield make(op, "torch-wraps", "sums that leave int32 wrap", (wraps, wraps), p)


def _operands(text: str, rows: int, terms: int, columns: int) -> tuple[Array, Array]:
    # |b| <= 64: a pair of products stays inside 255 * 64 * 2 < 2**15, where FBGEMM adds pairs in saturating int16
    return _bytes(f"{text} a", rows, terms), _bytes(f"{text} b", columns, terms).view(np.int8) >> 1


def linear(op: Any, label: str) -> Iterator[Case]:
    """op: float32_bias (a bias in float32) or float32_ties_even (in integers)."""
    real = op is float32_bias
    every = np.arange(256, dtype=np.uint8)[:, None]
    few = np.array([[8], [24], [1], [63]], np.int8)
    middle = product.Params(128, 0, a=uint8, b=int8)
    for z in (0, 101, 128, 255):
        for slug, bias in (("plain", None), ("biased", np.array([-0.5, 4.25, 8.0, 23.75]) if real else [-5, 4, 8, 23])):
            given = None if bias is None else np.array(bias, np.float32 if real else np.int32)
            p = op.Params.from_scales(0.5, 0.5, 4.0, middle, zero_point=z, dtype=uint8)
            why = "exact ties of both signs; an odd zero point tells adding it before the rounding"
            yield make(op.OP, f"{label}-ties-{slug}-{z}", why, (every, few, given), p)
    rows, columns = _operands(label, 256, 131, 128)
    spread = 0.021 * 0.013 * 3.1e4 / 40  # results over the whole range, some beyond it
    for slug, scale, zero_points in (
        ("tensor", 0.013, 0),
        ("tensor-moved", 0.013, 5),
        ("channel", 0.013 * (1 + np.arange(128) / 128), 0),
        ("channel-moved", 0.013 * (1 + np.arange(128) / 128), _bytes("z", 128).view(np.int8) >> 2),
    ):
        operands = product.Params(57, zero_points, a=uint8, b=int8)
        p = op.Params.from_scales(0.021, scale, spread, operands, zero_point=101, dtype=uint8)
        whole = _bytes("bias", 128, 2).copy().view(np.int16)[:, 0].astype(np.int32) - 7
        bias = (whole / 64).astype(np.float32) if real else whole
        if real:
            multiplier = p.requantize.multiplier_bits.astype(np.int32).view(np.float32)
            # one scale: a real bias; one a column: what FBGEMM's division makes of one
            bias = bias * np.float32(0.021 * 0.013) if multiplier.size == 1 else bias * multiplier / multiplier
        yield make(op.OP, f"{label}-long-{slug}", "131 terms, ordinary scales, a bias", (rows, columns, bias), p)
    yield _cancelling() if real else _beyond_float32()


def _cancelling() -> Case:
    """Sums of a large accumulator and a large bias, beside ties by what a product rounded first has lost."""
    op = float32_bias.OP
    scale = np.float32(0.003)
    p = float32_bias.Params.from_scales(
        1.0, scale, float(16 * scale), product.Params(a=uint8, b=int8), zero_point=128, dtype=uint8
    )
    a, b = np.full((2, 128), 127, np.uint8), np.full((600, 128), 64, np.int8)
    a[1] = 126
    bias = ((8 * (2 * np.arange(600) - 599) - 127 * 64 * 128) * scale.astype(np.float64)).astype(np.float32)
    why = "accumulator and bias cancel: a product that is rounded before the sum lands on a tie"
    return make(op, "fbgemm-cancelling", why, (a, b, bias), p)


def _beyond_float32() -> Case:
    """Accumulators above 2**24 that float32 rounds onto ties."""
    op = float32_ties_even.OP
    a = np.full((40, 2200), 255, np.uint8)
    a[:, -1] = np.arange(40)
    b = np.full((1, 2200), 63, np.int8)
    b[0, -1] = 1
    whole = 2199 * 255 * 63
    sums = np.array([(2 * q + 1) * 2**19 for q in range(20, 40)])  # biases below 2**24: float32 holds them
    bias = (sums - whole - 20).astype(np.int32)
    b = np.repeat(b, bias.size, axis=0)
    requantize = result.Params.from_scale(2.0**-20, zero_point=5, dtype=uint8)
    p = float32_ties_even.Params(product.Params(a=uint8, b=int8), requantize)
    return make(op, "qnnpack-beyond-float32", "accumulators that float32 rounds onto ties", (a, b, bias), p)

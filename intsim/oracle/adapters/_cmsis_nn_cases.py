"""Cases for CMSIS-NN: whole domains where they have 8 or 16 bits, ties that tell its roundings apart, extremes."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np

from intsim.composites.linear import (
    double_rounding as linear_double,
    multiplier16 as linear_wide,
    single_rounding as linear_single,
)
from intsim.numerics import IntType, Rounding, Scaling, int4, int8, int16, int48
from intsim.ops.activation import logistic_s16, tanh_s16
from intsim.ops.add import rescaled as add_rescaled
from intsim.ops.matmul import integer as product
from intsim.ops.mul import rescaled as mul_rescaled
from intsim.ops.requantize import double_rounding, multiplier16, single_rounding
from intsim.ops.softmax import gemmlowp, tflite_s16
from intsim.oracle.adapters._drawn import PAIRS, drawn
from intsim.oracle.cases import Case, make
from intsim.spec import packing, tflite


def softmax(result: IntType) -> Iterator[Case]:
    for scale in (2.0**-20, 0.003, 2.0**-6, 0.05, 0.117, 1.0, 7.0, 40.0):
        p, why = gemmlowp.Params.from_scale(scale, dtype=result), f"scale {scale:g}"
        q = drawn(f"softmax {scale}", "int8", 120, 150)
        yield make(gemmlowp.OP, f"c-{result}-{scale:g}", f"all values, {why}", (q,), p)
        q = drawn(f"near {scale}", "int8", 40, 33) // 16
        yield make(gemmlowp.OP, f"c-{result}-near-{scale:g}", f"values near each other, {why}", (q,), p)
    p = gemmlowp.Params.from_scale(0.01, dtype=result)
    most = gemmlowp.MOST if result == int16 else 511  # beyond, see the adapter
    for value in (-128, 127):
        row = np.full((1, most), value, np.int8)
        yield make(gemmlowp.OP, f"c-{result}-equal-{value + 128}", "the largest total", (row,), p)
    long = drawn("long", "int8", 2, gemmlowp.MOST)
    p = gemmlowp.Params.from_scale(0.1, dtype=result)
    yield make(gemmlowp.OP, f"c-{result}-long", "the longest row", (long,), p)
    every = np.stack(PAIRS, axis=-1).reshape(-1, 2)
    yield make(gemmlowp.OP, f"c-{result}-pairs", "every row of two elements", (every,), p)


def softmax_s16(scaling: Scaling) -> Iterator[Case]:
    for name, precision in (("float32", np.float32), ("float64", np.float64)):
        tables = tflite_s16.tables(precision)
        for scale in (1e-5, 1e-4, 10 / 65535, 0.0013, 0.1):
            p = tflite_s16.Params.from_scale(scale, scaling=scaling)
            q = drawn(f"softmax {name} {scale}", "int16", 60, 150)
            why = f"tables of {name}, scale {scale:g}"
            yield make(tflite_s16.OP, f"c-{name}-{scale:g}", f"all values, {why}", (q, *tables), p)
            q = q >> 6
            yield make(tflite_s16.OP, f"c-{name}-near-{scale:g}", f"values near each other, {why}", (q, *tables), p)
        for shift in (32, 33, 35):
            p = tflite_s16.Params(2**30, shift, scaling=scaling)
            q = -np.arange(4096, dtype=np.int16).reshape(64, 64) % 97
            why = "differences that are ties of the first step"
            yield make(tflite_s16.OP, f"c-{name}-ties-{shift}", why, (q.astype(np.int16), *tables), p)


_SCALES = ((0.25, 0.5, 1.0), (0.1, 0.07, 0.13), (0.5, 0.5, 0.5), (3.0, 0.001, 0.9), (1e-4, 1e-4, 1e-4))


def add(t: IntType, scaling: Scaling) -> Iterator[Case]:
    op = add_rescaled.OP
    fixed: dict[str, Any] = {"a": t, "b": t, "dtype": t, "scaling": scaling}
    for i, (scales, odd) in enumerate(itertools.product(_SCALES, (False, True))):
        if t == int8:
            zeros: dict[str, Any] = {"a_zero_point": -5, "b_zero_point": 127, "zero_point": -7} if odd else {}
            p = add_rescaled.Params.from_scales(*scales, **zeros, **fixed)
            yield make(op, f"c-s8-{i}", f"every pair of int8, scales {scales}", tuple(PAIRS), p)
            continue
        p = add_rescaled.Params.from_scales(*scales, left_shift=15, **fixed)
        a, b = drawn(f"add a {i}", "int16", 50, 301), drawn(f"add b {i}", "int16", 50, 301)
        why = f"int16, scales {scales}"
        if odd:
            a, b, why = a >> 9, b >> 9, f"{why}, small: ties"
        yield make(op, f"c-s16-{i}", why, (a, b), p)
    ends = np.array(list(itertools.product((t.qmin, t.qmin + 1, -1, 0, 1, t.qmax), repeat=2)), t.storage).T[:, None]
    p = add_rescaled.Params.from_scales(1.0, 1.0, 1.0, left_shift=20 if t == int8 else 15, **fixed)
    yield make(op, f"c-s{t.bits}-ends", "the ends of the type, beside each other", tuple(ends), p)


def mul(t: IntType, scaling: Scaling) -> Iterator[Case]:
    op = mul_rescaled.OP
    fixed: dict[str, Any] = {"a": t, "b": t, "dtype": t, "scaling": scaling}
    scales = (*_SCALES, (0.25, 0.25, 1.0), (1.0, 2.0, 0.5))
    for i, (three, odd) in enumerate(itertools.product(scales, (False, True))):
        if t == int8:
            zeros: dict[str, Any] = {"a_zero_point": -128, "b_zero_point": 127, "zero_point": 3} if odd else {}
            p = mul_rescaled.Params.from_scales(*three, **zeros, **fixed)
            yield make(op, f"c-s8-{i}", f"every pair of int8, scales {three}", tuple(PAIRS), p)
            continue
        p = mul_rescaled.Params.from_scales(three[0] * 2.0**-12, three[1] * 2.0**-3, three[2], **fixed)
        a, b = drawn(f"mul a {i}", "int16", 50, 301), drawn(f"mul b {i}", "int16", 50, 301)
        why = f"int16, scales {three}"
        if odd:
            a, b, why = a >> 8, b >> 4, f"{why}, small: ties"
        yield make(op, f"c-s16-{i}", why, (a, b), p)


def _sixteen_bits(variant: Any) -> Iterator[Case]:
    every, table = np.arange(-(2**15), 2**15, dtype=np.int16).reshape(256, 256), tflite.sigmoid_table()
    for multiplier, shift in ((3, 0), (6, 0), (24, 0), (3 << 13, 0), (3, 1), (3, 2), (3, 7), (3, 15)):
        p = variant.Params(multiplier, shift)
        name = f"c-every-{multiplier}-{shift}"
        yield make(variant.OP, name, f"every int16, times {multiplier} / 2**{shift}", (every, table), p)


def logistic() -> Iterator[Case]:
    return _sixteen_bits(logistic_s16)


def tanh() -> Iterator[Case]:
    return _sixteen_bits(tanh_s16)


def _rounding(scaling: Scaling) -> tuple[Any, dict[str, Any]]:
    if scaling == Scaling.SINGLE_ROUNDING:
        return single_rounding, {"rounding": Rounding.TIES_TO_POSITIVE}
    return double_rounding, {}


def requantize(scaling: Scaling) -> Iterator[Case]:
    variant, fixed = _rounding(scaling)
    ties = np.arange(-5000, 5000, dtype=np.int32)[None]
    whole = drawn("requantize", "int32", 1, 20000)
    for shift in (31, 32, 33, 34, 36, 39):
        for zero_point in (0, -5, 127):
            p = variant.Params(2**30, shift, zero_point=zero_point, **fixed)
            near = ties >> max(36 - shift, 0)
            yield make(variant.OP, f"c-ties-{shift}-{zero_point % 256}", "ties, odd zero points", (near,), p)
    for i, multiplier in enumerate((2**30, 1518500249, 2**31 - 1, 1431655765)):
        for shift in (45, 50, 55, 62):
            p = variant.Params(multiplier, shift, zero_point=i - 2, **fixed)
            # results that lie in int8 and now and then beyond
            acc = whole >> max(0, 53 - shift)
            yield make(variant.OP, f"c-wide-{i}-{shift}", "accumulators of every size", (acc,), p)
        each = variant.Params(multiplier, 31 + np.arange(2, 32), zero_point=1, **fixed)
        acc = np.tile(np.array([[-(2**31)], [2**31 - 1], [-43987], [43987], [-1], [0], [1]]) // 4, (1, 30))
        yield make(variant.OP, f"c-channels-{i}", "a shift a channel", (acc.astype(np.int32),), each)
    left = variant.Params(2**30, [25, 28, 30, 20], **fixed)
    acc = np.array([[-1, 1, 77, -3], [2, -128, 0, 100], [9, 9, -9, 0]], np.int32)
    yield make(variant.OP, "c-left", "left shifts before the product", (acc,), left)


def requantize_s64() -> Iterator[Case]:
    whole = drawn("requantize 64", "int64", 1, 20000) >> 17  # the 47 bits that the multiplier leaves, and the sign
    for i, multiplier in enumerate((2**30, 1518500249, 2**31 - 1, 0x7FFF0000 - 1, 0x7FFEFFFF, 2**30 + 2**15)):
        for shift in (62, 57, 45):
            p = multiplier16.Params(multiplier, shift, dtype=int16)
            acc = whole >> max(0, 61 - shift)
            yield make(multiplier16.OP, f"c-wide-{i}-{shift}", "accumulators of every size", (acc,), p)
        p = multiplier16.Params(multiplier, 34, dtype=int16)
        ties = np.arange(-4000, 4000)[None]
        yield make(multiplier16.OP, f"c-ties-{i}", "small accumulators: ties", (ties,), p)


def _linear(scaling: Scaling) -> tuple[Any, dict[str, Any]]:
    return (linear_single if scaling == Scaling.SINGLE_ROUNDING else linear_double), _rounding(scaling)[1]


def _layers(
    name: str, scaling: Scaling, *, weights: IntType = int8, channel: bool = False, bias: bool = True
) -> Iterator[Case]:
    variant, fixed = _linear(scaling)
    zero = 0 if weights == int4 else 31

    def layer(slug: str, why: str, arrays: tuple[Any, ...], p: Any) -> Case:
        a, b, *rest = arrays
        b = packing.pack(b, p.matmul.nibbles) if weights == int4 else b
        return make(variant.OP, f"c-{name}-{slug}", why, (a, b, *rest), p)

    every = np.arange(-128, 128, dtype=np.int8)[:, None]
    for exponent, zero_point in itertools.product((2, 4, 5), (0, -5, 127)):
        w = np.arange(-8, 8, dtype=np.int8)[:, None]
        start = np.arange(16, dtype=np.int32) * 3 - 24 if bias else np.zeros(16, np.int32)
        scale = 2.0 ** -np.full(16, exponent) if channel else 2.0**-exponent
        p = variant.Params(
            product.Params(1, b=weights), variant.requantize.Params.from_scale(scale, zero_point=zero_point, **fixed)
        )
        yield layer(
            f"ties-{exponent}-{zero_point % 256}", "exact ties of both signs, odd zero points", (every, w, start), p
        )
    for m, k, n in ((7, 1, 5), (5, 2, 3), (31, 33, 37), (60, 64, 130), (40, 517, 151), (128, 96, 256), (128, 7, 256)):
        text = f"{name} {m} {k} {n}"
        a, w = drawn(text + "a", "int8", m, k), drawn(text + "b", "int8", n, k)
        w = w >> 4 if weights == int4 else w
        start = drawn(text + "c", "int32", n) >> 12 if bias else np.zeros(n, np.int32)
        near = 2.0 ** -(8 if weights == int8 else 4) / np.sqrt(k) / (1 if weights == int8 else 2)
        scale = near * 1.37 / (1 + np.arange(n) % 50) if channel else near * 0.77
        q = variant.requantize.Params.from_scale(scale, zero_point=9 - k % 7, **fixed)
        for odd in (False, True):
            zeros = product.Params(-77 if odd else 0, zero if odd else 0, b=weights)
            yield layer(
                f"{m}-{k}-{n}-{odd:d}",
                "ordinary scales; lengths beside the unrolled ones",
                (a, w, start),
                variant.Params(zeros, q),
            )
    # 2**17 products of 2**14 and more leave int32, and the sum wraps
    ends = np.array([[-128], [127]], np.int8)
    wide = 2**17 + 3 if weights == int8 else 2**21 // 2
    a, w = np.repeat(ends, wide, axis=1), np.repeat(ends if weights == int8 else ends >> 4, wide, axis=1)
    scale = np.full(2, 2.0**-26) if channel else 2.0**-26
    p = variant.Params(product.Params(b=weights), variant.requantize.Params.from_scale(scale, **fixed))
    start = np.array([2**31 - 1, -(2**31)], np.int32) if bias else np.zeros(2, np.int32)
    yield layer("wraps", "sums that leave int32 wrap", (a, w, start), p)


def fully_connected(scaling: Scaling) -> Iterator[Case]:
    return _layers("tensor", scaling)


def per_channel(scaling: Scaling) -> Iterator[Case]:
    return _layers("channel", scaling, channel=True)


def four_bits(scaling: Scaling) -> Iterator[Case]:
    return _layers("s4", scaling, weights=int4)


def batch_matmul(scaling: Scaling) -> Iterator[Case]:
    return _layers("product", scaling, bias=False)


def sixteen_bits(b: IntType) -> Iterator[Case]:
    variant: Any = linear_wide
    zeros, step = product.Params(a=int16, b=b, acc=int48), 2.0 ** (8 - b.bits)
    for m, k, n in ((7, 1, 5), (5, 2, 3), (31, 33, 37), (60, 64, 130), (40, 517, 151), (128, 96, 256), (128, 7, 256)):
        text = f"wide {m} {k} {n}"
        x, w = drawn(text + "a", "int16", m, k), drawn(text + "b", b.storage, n, k)
        bias = drawn(text + "c", "int32", n) if b == int8 else None
        for i, scale in enumerate((2.0**-8 / np.sqrt(k), 2.0**-9 / np.sqrt(k) * 1.37)):
            q = variant.requantize.Params.from_scale(scale * step, dtype=int16)
            slug = f"c-{b}-{m}-{k}-{n}-{i}"
            yield make(variant.OP, slug, "ordinary scales", (x, w, bias), variant.Params(zeros, q))
    every = np.arange(-(2**15), 2**15, dtype=np.int16)[:, None]
    q = variant.requantize.Params(2**30, 36, dtype=int16)
    w = np.array([[1], [-3]], b.storage)
    bias = np.array([7, -(2**20)], np.int32) if b == int8 else None
    why = "every int16: ties of both signs"
    yield make(variant.OP, f"c-{b}-ties", why, (every, w, bias), variant.Params(zeros, q))
    ends = np.repeat(np.array([[-(2**15)], [2**15 - 1]], np.int16), 2**15, axis=1)
    w = np.repeat(np.array([[b.qmin], [b.qmax]], b.storage), 2**15, axis=1)
    q = variant.requantize.Params.from_scale(2.0**-23 * step, dtype=int16)
    yield make(variant.OP, f"c-{b}-long", "long sums of the largest products", (ends, w), variant.Params(zeros, q))

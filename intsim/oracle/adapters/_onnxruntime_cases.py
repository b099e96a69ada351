"""Cases for ONNX Runtime: what its users meet, and what tells its arithmetic from a neighbour's."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from intsim.binding import Array
from intsim.composites.linear import qlinear_matmul
from intsim.numerics import IntType, int2, int4, int8, int16, int32, uint2, uint4, uint8, uint16
from intsim.ops.dequantize import affine as to_real
from intsim.ops.matmul import int16_pairs_saturating, integer as product
from intsim.ops.quantize import affine as to_integer, affine_through_int32, dynamic_asymmetric_unguarded
from intsim.ops.requantize import float32_ties_even as result
from intsim.oracle.cases import Case, make

SIGNS = tuple(itertools.product((int8, uint8), repeat=2))


def pseudorandom(text: str, *shape: int) -> Array:
    """Pseudorandom bytes, the same on every machine."""
    return np.frombuffer(hashlib.shake_256(text.encode()).digest(int(np.prod(shape))), np.uint8).reshape(shape)


def floats(text: str, *shape: int) -> Array:
    """Pseudorandom float32 in [-16, 16]."""
    bits: Array = pseudorandom(text, *shape, 4).copy().view(np.int32)[..., 0]
    return ((bits >> 7) / 2**20).astype(np.float32)


def letters(*types: IntType) -> str:
    return "".join(f"{'s' if t.signed else 'u'}{t.bits}" for t in types)


def matmul() -> Iterator[Case]:
    op = product.OP
    for a, b in SIGNS:
        yield _bulk(a, b)
        name = letters(a, b)
        odd: dict[str, Any] = {"a_zero_point": a.qmin + 131, "b_zero_point": b.qmin + 77, "a": a, "b": b}
        rows, columns = (
            pseudorandom(f"{name} a", 33, 1031).view(a.storage),
            pseudorandom(f"{name} b", 50, 1031).view(b.storage),
        )
        yield make(
            op, f"ort-{name}-long", "1031 terms: many vectors and a tail", (rows, columns), product.Params(**odd)
        )
        # |b| <= 64 for int8: a pair of products stays inside 255 * 64 * 2 < 2**15 on every processor
        yield make(op, f"ort-{name}-seven-bits", "weights of 7 bits", (rows, columns >> 1), product.Params(**odd))
        each = odd | {"b_zero_point": pseudorandom(f"{name} z", 50).view(b.storage)}
        yield make(op, f"ort-{name}-columns", "a zero point a column", (rows, columns >> 1), product.Params(**each))
        for k in (1, 2, 3, 4, 5, 15, 16, 17, 33):
            few = (rows[:3, :k], columns[:17, :k])
            yield make(
                op, f"ort-{name}-{k}-terms", "shorter than a vector, as long, longer", few, product.Params(**odd)
            )
        ends = np.array([[t.qmin, t.qmax] for t in (a, b)])
        long = [np.repeat(ends[i][:, None], 1100, axis=1).astype(t.storage) for i, t in enumerate((a, b))]
        plain = product.Params(a=a, b=b)
        yield make(op, f"ort-{name}-extremes", "the largest products, all of one sign", tuple(long), plain)
        far = product.Params(a.qmax, b.qmin, a, b)
        yield make(op, f"ort-{name}-far-zero-points", "differences of up to 255 on both sides", tuple(long), far)
        wraps = tuple(np.repeat(x[:, :1], 2**17 + 3, axis=1) for x in long)
        yield make(op, f"ort-{name}-wraps", "sums that leave int32 wrap", wraps, plain)


def _bulk(a: IntType, b: IntType) -> Case:
    name = letters(a, b)
    rows, columns = (
        pseudorandom(f"{name} A", 200, 64).view(a.storage),
        pseudorandom(f"{name} B", 200, 64).view(b.storage),
    )
    p = product.Params(a.qmin + 131, b.qmin + 77, a, b)
    why = "many rows and columns: whole tiles of every kernel, and weights of 7 bits"
    return make(product.OP, f"ort-{name}-bulk", why, (rows, columns >> 1), p)


def pairs() -> Iterator[Case]:
    """uint8 times int8 of the whole range, where pairs of terms saturate."""
    op = int16_pairs_saturating.OP
    for m, n, k in ((1, 50, 64), (2, 3, 5), (9, 50, 131), (200, 200, 64), (200, 300, 63), (64, 300, 1), (40, 1, 1031)):
        a, b = pseudorandom(f"pairs a {m} {k}", m, k), pseudorandom(f"pairs b {n} {k}", n, k).view(np.int8)
        for slug, p in (
            ("plain", int16_pairs_saturating.Params()),
            ("zero-points", int16_pairs_saturating.Params(131, pseudorandom(f"pairs z {n}", n).view(np.int8))),
        ):
            yield make(op, f"ort-{m}-{n}-{k}-{slug}", "pseudorandom, of the whole range", (a, b), p)
    ends = np.repeat(np.array([[0], [255], [129], [128]], np.uint8), 32, axis=1)
    weights = np.repeat(np.array([[-128], [127], [126], [64], [-127]], np.int8), 32, axis=1)
    p = int16_pairs_saturating.Params()
    yield make(op, "ort-ends", "each pair saturates, or comes within 255 of it", (ends, weights), p)


def qlinear(a: IntType, b: IntType, y: IntType) -> Iterator[Case]:
    op, name = qlinear_matmul.OP, letters(a, b, y)
    every = np.arange(a.qmin, a.qmax + 1).astype(a.storage)[:, None]
    weights = np.array([[8], [24], [1], [63]], b.storage)
    middle = product.Params(a.qmin + 128, 0, a, b)
    for zero_point in (y.qmin + 123, y.qmin + 128):
        p = qlinear_matmul.Params(middle, result.Params.from_scale(1 / 16, zero_point=zero_point, dtype=y))
        why = "exact ties of both signs; an odd zero point tells adding it before the rounding"
        yield make(op, f"ort-{name}-ties-{zero_point % 256}", why, (every, weights), p)
    scales = [1 / 16, 2.0**-126, 3e38, 0.013]
    p = qlinear_matmul.Params(middle, result.Params.from_scale(scales, zero_point=y.qmin + 3, dtype=y))
    yield make(op, f"ort-{name}-columns", "multipliers a column: tie, tiny, infinite product", (every, weights), p)
    rows, columns = (
        pseudorandom(f"{name} a", 33, 1031).view(a.storage),
        pseudorandom(f"{name} b", 50, 1031).view(b.storage) >> 1,
    )
    near = 2.0 ** -(14 + (not a.signed))  # results over the whole range, some beyond it
    one = (product.Params(a.qmin + 131, 7, a, b), near * 1.37)
    each = (
        product.Params(a.qmin + 131, pseudorandom(f"{name} z", 50).view(b.storage) >> 1, a, b),
        near * (1 + np.arange(50) / 50),
    )
    for slug, (m, scale) in {"tensor": one, "channel": each}.items():
        p = qlinear_matmul.Params(m, result.Params.from_scale(scale, zero_point=y.qmin + 77, dtype=y))
        yield make(op, f"ort-{name}-long-{slug}", "1031 terms, ordinary scales", (rows, columns), p)
    many = (pseudorandom(f"{name} A", 200, 64).view(a.storage), pseudorandom(f"{name} B", 200, 64).view(b.storage) >> 1)
    p = qlinear_matmul.Params(one[0], result.Params.from_scale(near * 5, zero_point=y.qmin + 77, dtype=y))
    yield make(op, f"ort-{name}-bulk", "many rows and columns: whole tiles of every kernel", many, p)
    # accumulators beside (2 q + 1) 2**19 > 2**24: float32 rounds them onto a tie, which goes to even
    sums = [(2 * q + 1) * 2**19 + e for q in (16, 17, 20, 21) for e in (-3, -2, -1, 0, 1, 2, 3)]
    large = _rows_with_sums(sums, a.qmax, 63, a)
    line = np.full((1, large.shape[1]), 63, b.storage)
    line[0, -2:] = 1
    million = result.Params.from_scale(2.0**-20, zero_point=y.qmin + 5, dtype=y)
    p = qlinear_matmul.Params(product.Params(a=a, b=b), million)
    yield make(op, f"ort-{name}-beyond-float32", "accumulators that float32 rounds onto ties", (large, line), p)


def _rows_with_sums(sums: Sequence[int], most: int, weight: int, t: IntType) -> Array:
    """Rows whose product with (weight, ..., weight, 1, 1) is one of ``sums``."""
    made = np.zeros((len(sums), max(sums) // (most * weight) + 3), t.storage)
    for row, whole in zip(made, sums, strict=True):
        full, rest = divmod(whole, most * weight)
        row[:full] = most
        row[full], row[-1] = divmod(rest, weight)
    return made


_ODD_ZERO_POINT = {int8: -5, uint8: 127, int16: -1001, uint16: 32767, int4: 3, uint4: 7}


def quantize() -> Iterator[Case]:
    op = to_integer.OP
    one = np.ones((1, 1), np.float32)
    ties = (np.arange(-1030, 1031, dtype=np.float32) / 4)[None]
    near = (np.arange(-2000, 2000).astype(np.float32) * np.float32(0.0125))[None]
    x = floats("quantize", 5, 37)
    wide = floats("quantize bulk", 1, 12_000)
    for t, odd in _ODD_ZERO_POINT.items():
        p, z = to_integer.Params(dtype=t), np.array([[odd]], np.int32)
        bulk = (wide, one * np.float32(40 / 2**t.bits), z)
        yield make(op, f"ort-{t}-bulk", "the whole range and beyond", bulk, p)
        ends = np.array([t.qmin - odd, t.qmax - odd]) + np.array([[-1], [-0.5], [0], [0.5], [1]])
        wild = [np.inf, -np.inf, 3e38, -3e38, 2.0**31, -(2.0**31), 2.0**32, 1e-45, -1e-45, -0.0, 0.0]
        if t.bits == 4:
            wild = [w for w in wild if abs(w) < 2.0**31]  # what the adapter serves
        edges = np.array([[*ends.reshape(-1), *wild]], np.float32)
        yield make(op, f"ort-{t}-ties", "exact ties, an odd zero point", (ties, one / 2, z), p)
        yield make(op, f"ort-{t}-edges", "the ends of the range, infinities, subnormals", (edges, one, z), p)
        fortieth = (near, one * np.float32(0.025), z)
        yield make(op, f"ort-{t}-division", "a product with 1 / scale gives others", fortieth, p)
        scale = np.array([[1e-45], [1e-39], [0.3], [1e30], [2e37]], np.float32)
        rows = (x[:, :13] * scale).astype(np.float32)
        zero_point = np.full((5, 1), odd, np.int32)
        yield make(op, f"ort-{t}-rows", "a scale a row, subnormal to huge", (rows, scale, zero_point), p)
        if t.bits > 4:
            huge = (x, np.full((5, 1), 1e-42, np.float32), zero_point)
            yield make(op, f"ort-{t}-infinite-quotients", "a subnormal scale; the quotient saturates", huge, p)
        for group in (1, 3, 16, 36):
            groups = -(-37 // group)
            scale = np.abs(floats(f"scale {group}", 5, groups)) + np.float32(0.01)
            zero_point = pseudorandom(f"zero point {group}", 5, groups).astype(np.int32) % min(t.qmax + 1, 256)
            why = "blocked along the row, the last block shorter"
            arrays = (x * 10, scale, zero_point)
            yield make(op, f"ort-{t}-blocks-of-{group}", why, arrays, to_integer.Params(group, dtype=t))


def quantize_scalar(types: Sequence[IntType]) -> Iterator[Case]:
    """Every block of one element: what 4 bits do so, and 2 bits always."""
    op = affine_through_int32.OP
    ties = np.resize((np.arange(-103, 104, dtype=np.float32) / 4), (23, 25))
    wild = np.array([[np.inf, -np.inf, 3e38, -3e38, 2.0**31, -(2.0**31), 2.0**31 - 128, 1e-45, -0.0, 0.0]], np.float32)
    for t in types:
        p = affine_through_int32.Params(1, dtype=t)
        for zero_point in (t.qmin, 0, 1, t.qmax):
            for slug, x, scale in (("ties", ties, 0.5), ("wild", wild, 1.0), ("bulk", floats("scalar", 150, 100), 1.7)):
                arrays = (x, np.full(x.shape, scale, np.float32), np.full(x.shape, zero_point, np.int32))
                why = "a block an element: the scalar code"
                yield make(op, f"ort-{t}-scalar-{slug}-{zero_point}", why, arrays, p)
        if t.bits == 2:
            for slug, group in (("tensor", 2**31 - 1), ("blocks-of-16", 16)):
                x = floats("2 bits", 1 if slug == "tensor" else 40, 61)
                steps = np.abs(floats(f"2 bits {slug}", x.shape[0], -(-61 // group))) / 4 + np.float32(0.1)
                ones = np.full(steps.shape, 1, np.int32)
                why = "one scale, and blocks"
                yield make(op, f"ort-{t}-{slug}", why, (x, steps, ones), affine_through_int32.Params(group, dtype=t))


def dequantize() -> Iterator[Case]:
    op = to_real.OP
    for t, odd in (_ODD_ZERO_POINT | {int2: -1, uint2: 3, int32: 0}).items():
        step = 2**t.bits // 5003 | 1  # odd, so that the low bits vary
        every = np.arange(t.qmin, t.qmax + 1, step).astype(t.storage)[None, :6000]
        z = np.array([[odd]], np.int32)
        for slug, size in (("tenth", 0.1), ("subnormal", 1e-42), ("smallest", 1e-45), ("huge", 3e36)):
            why = "values of the whole range; products that round, underflow or overflow"
            whole = (every, np.array([[size]], np.float32), z)
            yield make(op, f"ort-{t}-{slug}", why, whole, to_real.Params(q=t))
        if t.bits == 8:
            scales = np.abs(floats("dequantize bulk", 45, 1)) + np.float32(1e-3)
            whole = (np.repeat(every, 45, axis=0), scales, np.full((45, 1), odd, np.int32))
            yield make(op, f"ort-{t}-bulk", "all 256 values, 45 pseudorandom scales", whole, to_real.Params(q=t))
        q = np.resize(every, (5, 37))
        for group in (1, 3, 16, 36, 37):
            groups = -(-37 // group)
            scale = np.abs(floats(f"scale {group}", 5, groups)) + np.float32(0.01)
            why = "a scale a row" if group == 37 else "blocked along the row, the last block shorter"
            arrays = (q, scale, np.full(scale.shape, odd, np.int32))
            yield make(op, f"ort-{t}-blocks-of-{group}", why, arrays, to_real.Params(group, q=t))
    wide = np.array([[2**24 + 1, 2**24 + 3, -(2**24) - 1, 2**30 + 2**6, 2**30 + 2**6 + 1, 2**31 - 1, -(2**31)]])
    why = "float32 rounds the integer first, then the product"
    yield make(
        op,
        "ort-int32-beyond-24-bits",
        why,
        (wide.astype(np.int32), np.array([[0.3]], np.float32)),
        to_real.Params(q=int32),
    )


def dynamic() -> Iterator[Case]:
    op, p = dynamic_asymmetric_unguarded.OP, dynamic_asymmetric_unguarded.Params()
    for index, scale in enumerate((1.0, 3e-7, 1e30)):
        x = (floats(f"dynamic bulk {index}", 4, 10_000) * np.float32(scale)).astype(np.float32)
        x += np.array([[0], [7 * scale], [-15 * scale], [20 * scale]], np.float32)
        yield make(op, f"ort-bulk-{index}", "pseudorandom, the middle near 0 and far from it", (x,), p)
    tiny = np.resize(np.array([1e-45, -1e-45, 0, 2e-44, -0.0, -3e-44], np.float32), (3, 40)) * np.array([[1], [0], [1]])
    tiny[2] = np.abs(tiny[2])
    yield make(op, "ort-underflow", "ranges whose scale is 0, and none", (tiny.astype(np.float32),), p)
    halves = (np.arange(0, 511, dtype=np.float32) / 2)[None]
    yield make(op, "ort-ties", "the scale is 1, so that halves are ties", (halves,), p)
    lows = np.array([[0.5], [1.5], [2.5], [127.5], [254.5], [255]], np.float32)
    yield make(op, "ort-zero-point-ties", "the scale is 1; the zero point is a tie too", (halves - lows,), p)
    x = floats("dynamic", 4, 301)
    signs = np.stack([x[0], np.abs(x[1]), -np.abs(x[2]), x[3] * np.float32(1e-30)])
    yield make(op, "ort-signs", "both signs, one sign: the range is widened to 0", (signs,), p)
    # 1.8e-43 is 128 * 2**-149: the smallest range whose scale is not 0
    constant = np.repeat(
        np.array([[0], [-0.0], [3.7], [-3.7], [1.8e-43], [-1.8e-43], [-9e-44], [3e38]], np.float32), 9, axis=1
    )
    yield make(op, "ort-constant", "no range but to 0; the smallest scale, the largest", (constant,), p)
    wide = [[3e38, -3e38, 1, 0], [2e38, -1.4e38, 1, 3e37], [1e-43, -1e-43, 0, 1e-44], [1e-38, 0, 1e-45, 3e-39]]
    yield make(op, "ort-wide", "an infinite range, a subnormal one", (np.array(wide, np.float32),), p)

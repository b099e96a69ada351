"""Cases for ONNX Runtime's own operators: every pair of 8-bit values at scales that make ties, and bulk."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from intsim.binding import Array
from intsim.composites.linear import dynamic_asymmetric, float32_result, float32_ties_even as linear
from intsim.numerics import IntType
from intsim.ops.activation import leaky_relu_float32, logistic_float32_rational
from intsim.ops.add import float32_fused
from intsim.ops.dequantize import product as dequantize
from intsim.ops.matmul import integer as product, row_zero_points
from intsim.ops.mul import float32_zero_point_first
from intsim.ops.quantize import dynamic_asymmetric_unguarded
from intsim.ops.requantize import float32_ties_even as result
from intsim.ops.softmax import float32_levels
from intsim.oracle.adapters._onnxruntime_cases import floats, letters, pseudorandom
from intsim.oracle.cases import Case, make


def _every(t: IntType) -> Array:
    return np.arange(t.qmin, t.qmax + 1).astype(t.storage)


def _pairs(t: IntType) -> tuple[Array, Array]:
    """Every pair of values, (256, 256)."""
    every = _every(t)
    return np.repeat(every[:, None], 256, axis=1), np.repeat(every[None], 256, axis=0)


def add(t: IntType) -> Iterator[Case]:
    op, (a, b) = float32_fused.OP, _pairs(t)
    fields: dict[str, Any] = {"a": t, "b": t, "dtype": t}
    odd = fields | {"a_zero_point": t.qmin + 131, "b_zero_point": t.qmin + 77, "zero_point": t.qmin + 123}
    sixths = (0.7 / 6, 3.5 / 6, 0.7)
    every = {
        "quarters": ((0.25, 0.5, 1.0), fields | {"zero_point": t.qmin + 127}, "exact ties, an odd zero point"),
        "sixths": (sixths, odd, "sums that round onto a tie: they tell the order, and what is fused"),
        "tenths": ((0.3, 0.7, 0.35), odd, "ratios near 6/7 and 2: the zero points' part rounds"),
        "far": ((900.0, 1e-3, 1.0), odd, "one operand drowns the other"),
    }
    for slug, (scales, more, why) in every.items():
        yield make(op, f"ort-{t}-{slug}", why, (a, b), float32_fused.Params.from_scales(*scales, **more))
    for index in range(8):  # multiples of 1/24 and 1/16: many sums beside ties, at pseudorandom zero points
        n = pseudorandom(f"add {t} {index}", 6).astype(int)
        result = 0.05 + float(n[0]) / 300
        scales = (result * (1 + n[1] % 32) / 24, result * (1 + n[2] % 32) / 16, result)
        zero_points = {
            f: int(z) + t.qmin for f, z in zip(("a_zero_point", "b_zero_point", "zero_point"), n[3:], strict=True)
        }
        p = float32_fused.Params.from_scales(*scales, **fields, **zero_points)
        yield make(op, f"ort-{t}-beside-ties-{index}", "sums that the last bit of a float32 decides", (a, b), p)
    for count in (2, 3, 4, 5, 31, 33, 63):
        few = (a[:1, :count], b[:1, -count:])
        p = float32_fused.Params.from_scales(*sixths, **odd)
        yield make(op, f"ort-{t}-{count}-elements", "shorter than a vector, longer", few, p)


def mul(t: IntType) -> Iterator[Case]:
    op, (a, b) = float32_zero_point_first.OP, _pairs(t)
    fields: dict[str, Any] = {"a": t, "b": t, "dtype": t}
    odd = fields | {"a_zero_point": t.qmin + 131, "b_zero_point": t.qmin + 77, "zero_point": t.qmin + 123}
    even = fields | {"a_zero_point": t.qmin + 128, "b_zero_point": t.qmin + 128}
    every = {
        "ties-odd": ((0.0625, 0.125, 1.0), even | {"zero_point": t.qmin + 127}, "exact ties, an odd zero point"),
        "ties-even": ((0.0625, 0.125, 1.0), even | {"zero_point": t.qmin + 128}, "exact ties, an even zero point"),
        "near-ties": ((0.3, 0.37, 0.37 * 0.3 * 100), odd, "products near ties: a fused sum differs"),
        "wide": ((0.05, 0.05, 0.1), odd, "results over the whole range and beyond"),
    }
    for slug, (scales, more, why) in every.items():
        p = float32_zero_point_first.Params.from_scales(*scales, **more)
        yield make(op, f"ort-{t}-{slug}", why, (a, b), p)
    for count in (2, 3, 15, 17, 33):
        few = (a[:1, :count], b[:1, -count:])
        p = float32_zero_point_first.Params.from_scales(0.3, 0.4, 0.7, **odd)
        yield make(op, f"ort-{t}-{count}-elements", "shorter than a vector, longer", few, p)


def _activation(op: Any, params: Any, t: IntType, usual: float, **more: Any) -> Iterator[Case]:
    # 220 pairs of scales, each on all 256 values: that is the whole table that the runtime fills
    every = _every(t)[None]
    inputs, results = np.abs(floats(f"{op.name} {t}", 2, 220)) + np.float32(0.01)
    for index, (x, y) in enumerate(zip(inputs, results, strict=True)):
        z = pseudorandom(f"{op.name} {t} {index}", 2).astype(int) + t.qmin
        fields = {"x": t, "dtype": t, "x_zero_point": int(z[0]), "zero_point": int(z[1])} | more
        p = params.from_scales(float(x) / 16, float(y) * usual, **fields)
        yield make(op, f"ort-{t}-table-{index}", "all 256 values, two pseudorandom scales", (every,), p)


def leaky_relu(t: IntType) -> Iterator[Case]:
    op, params = leaky_relu_float32.OP, leaky_relu_float32.Params
    for slug, alpha in (("quarter", 0.25), ("hundredth", 0.01), ("above-1", 1.7)):
        bits = int(np.float32(alpha).view(np.int32))
        p = params.from_scales(0.5, 1.0, alpha_bits=bits, x=t, dtype=t, x_zero_point=t.qmin + 128, zero_point=3)
        yield make(op, f"ort-{t}-{slug}", "halves: ties on the right, and on the left", (_every(t)[None],), p)
    yield from _activation(op, params, t, 1 / 16)


def logistic(t: IntType) -> Iterator[Case]:
    op, params = logistic_float32_rational.OP, logistic_float32_rational.Params
    for slug, scale in (("usual", 1 / 16), ("fine", 2.0**-12), ("beyond-18", 0.5)):
        p = params.from_scales(scale, 1 / 256, x=t, dtype=t, x_zero_point=t.qmin + 128, zero_point=t.qmin)
        yield make(op, f"ort-{t}-{slug}", "all 256 values", (_every(t)[None],), p)
    for index in range(60):
        # below -11.8 a result is less than 256 steps of 2**-25, the last bit of a float32 below 1/2: all bits show
        fields = {"x": t, "dtype": t, "x_zero_point": t.qmax, "zero_point": t.qmin}
        p = params.from_scales(0.0470 + 0.0004 * index, 2.0**-25, **fields)
        yield make(op, f"ort-{t}-last-bits-{index}", "results so fine that an ulp shows", (_every(t)[None],), p)
    yield from _activation(op, params, t, 2.0**-10)


def softmax(t: IntType) -> Iterator[Case]:
    op = float32_levels.OP
    for columns, rows in ((1, 3), (2, 300), (7, 200), (64, 100), (197, 90), (1000, 20)):
        for index, x in enumerate((0.003, 0.1, 0.7, 2.5)):
            for scale, zero_point in ((1 / 256, t.qmin), (0.0039, t.qmin + 3), (1 / 1000, t.qmin + 77)):
                p = float32_levels.Params.from_scales(x, scale, q=t, dtype=t, zero_point=zero_point)
                q = pseudorandom(f"softmax {t} {columns} {index}", rows, columns).view(t.storage)
                arrays = (q, float32_levels.table(x, columns))
                slug = f"ort-{t}-{columns}-columns-{x}-{p.levels}"
                yield make(op, slug, "pseudorandom rows: from nearly equal to one alone", arrays, p)
    for columns in range(2, 62, 4):  # equal columns: levels / columns is a tie, and the rounding of the total tells
        for levels in (columns // 2, columns // 2 * 3, columns // 2 * 5, columns // 2 * 7):
            p = float32_levels.Params(levels, t.qmin, t, t, float(np.float32(0.02)))
            q = np.zeros((2, columns), t.storage)
            why = "equal columns: exact ties, but for the rounding of the total"
            yield make(op, f"ort-{t}-equal-{columns}-{levels}", why, (q, float32_levels.table(0.02, columns)), p)
            p = float32_levels.Params(levels, t.qmin, t, t, float(np.float32(1e-7)))
            q = pseudorandom(f"softmax {t} {columns} {levels}", 40, columns).view(t.storage)
            why = "exponentials some ulps apart: ties that the order of the sum decides"
            yield make(op, f"ort-{t}-ulps-{columns}-{levels}", why, (q, float32_levels.table(1e-7, columns)), p)


def gemm(a: IntType, b: IntType, y: IntType) -> Iterator[Case]:
    op, name = linear.OP, letters(a, b, y)
    every = _every(a)[:, None]
    weights = np.array([[8], [24], [1], [63]], b.storage)
    bias = np.array([-40, 24, 7, 2**24 + 1], np.int32)
    middle = product.Params(a.qmin + 128, 0, a, b)
    for zero_point in (y.qmin + 123, y.qmin + 128):
        p = linear.Params(middle, result.Params.from_scale(1 / 16, zero_point=zero_point, dtype=y))
        why = "exact ties of both signs, moved by a bias"
        yield make(op, f"ort-{name}-gemm-ties-{zero_point % 256}", why, (every, weights, bias), p)
    rows, columns = (pseudorandom(f"gemm {name} {c}", 200, 131) for c in "ab")
    left, right = rows.view(a.storage), columns.view(b.storage) >> 1
    large = pseudorandom(f"gemm {name} bias", 200, 4).copy().view(np.int32)[:, 0] >> 14
    near = 2.0 ** -(13 + (not a.signed))
    for slug, scale, z in (
        ("tensor", near * 1.37, 7),
        ("columns", near * (1 + np.arange(200) / 50), pseudorandom(f"gemm {name} z", 200).view(b.storage) >> 1),
    ):
        requantize = result.Params.from_scale(scale, zero_point=y.qmin + 77, dtype=y)
        p = linear.Params(product.Params(a.qmin + 131, z, a, b), requantize)
        yield make(op, f"ort-{name}-gemm-{slug}", "a bias, ordinary scales", (left, right, large), p)


def real_result(a: IntType, b: IntType, real: bool) -> Iterator[Case]:
    op, name = float32_result.OP, letters(a, b)
    rows, columns = (pseudorandom(f"real {name} {c}", 200, 131) for c in "ab")
    left, right = rows.view(a.storage), columns.view(b.storage) >> 1
    large = pseudorandom(f"real {name} bias", 200, 4).copy().view(np.int32)[:, 0] >> 4
    biases = (None, floats(f"real {name}", 200)) if real else (large, None)
    zero_points = (pseudorandom(name, 200) >> 2).astype(b.storage)
    for slug, scale, z in (
        ("tensor", np.full(200, 0.013, np.float32), np.array([7], b.storage)),
        ("columns", np.abs(floats(f"real {name} scale", 200)) + np.float32(0.01), zero_points),
    ):
        p = float32_result.Params(product.Params(a.qmin + 131, z, a, b), dequantize.Params())
        a_scale = np.full(200, 0.021, np.float32)
        for k in (131, 130, 1):
            arrays = (left[:, :k], right[:, :k], a_scale, scale, *biases)
            why = "scales that round when they are multiplied; a bias that does when it is added"
            yield make(op, f"ort-{name}-{'real' if real else 'integer'}-bias-{slug}-{k}", why, arrays, p)
    tiny = np.full(200, 1e-22, np.float32)
    p = float32_result.Params(product.Params(a.qmin + 131, 7, a, b), dequantize.Params())
    arrays = (left, right, tiny, tiny, *biases)
    slug = f"ort-{name}-{'real' if real else 'integer'}-bias-subnormal"
    yield make(op, slug, "a subnormal product of the scales", arrays, p)


def dynamic(b: IntType) -> Iterator[Case]:
    op = dynamic_asymmetric.OP
    quantize = dynamic_asymmetric_unguarded.Params()
    columns = pseudorandom(f"dynamic {b}", 200, 77).view(b.storage) >> 1
    x, bias = floats(f"dynamic {b}", 200, 77), floats(f"dynamic bias {b}", 200)
    halves = np.resize(np.arange(0, 511, dtype=np.float32) / 2, (200, 77))
    per = (
        np.abs(floats("dynamic scale", 200)) + np.float32(0.01),
        pseudorandom("dynamic z", 200).astype(b.storage) >> 2,
    )
    one = (np.full(200, 0.013, np.float32), np.array([7], b.storage))
    for slug, values, (scale, z) in (
        ("tensor", x, one),
        ("positive", np.abs(x), one),
        ("ties", halves, one),
        ("columns", x * np.float32(1e-5), per),
        ("no-range", x * 0, one),
        ("underflow", x * np.float32(1e-45), one),
    ):
        p = dynamic_asymmetric.Params(quantize, row_zero_points.Params(z, b=b), dequantize.Params())
        why = "one scale for the tensor; the zero point is found at run time"
        yield make(op, f"ort-{b}-{slug}", why, (values.astype(np.float32), columns, scale, bias), p)

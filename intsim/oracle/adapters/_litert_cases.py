"""Cases for LiteRT: every 8-bit input, ties of powers of two, ends, and scales as models have them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from functools import cache
from typing import Any

import numpy as np

from intsim import registry
from intsim.binding import Array
from intsim.numerics import IntType, Rounding, int4, int8, int16, int32, uint8
from intsim.ops.activation import rsqrt_tflite, table as tabulated
from intsim.ops.matmul import integer as product
from intsim.ops.reduce import float32_bias, mean_tflite, sum_tflite
from intsim.ops.softmax import float32_table, gemmlowp, tflite_s16
from intsim.oracle.cases import Case, make
from intsim.spec import tflite

EVERY_INT8 = np.arange(-128, 128, dtype=np.int8).reshape(1, -1)
EVERY_INT16 = np.arange(-(2**15), 2**15).astype(np.int16).reshape(64, -1)
SQUARE = tuple(np.ascontiguousarray(a) for a in np.broadcast_arrays(EVERY_INT8, EVERY_INT8.T))

VECTOR = 32  # elements; the optimised kernels take full vectors, of 8 to 32, one way and the last elements another

exponentials = float32_table.table


def _values(text: str, t: IntType, *shape: int) -> Array:
    """Pseudorandom values of a type, the same on every machine; of int4 one an element."""
    bits = max(t.bits, 8)
    drawn = np.frombuffer(hashlib.shake_256(text.encode()).digest(int(np.prod(shape)) * bits // 8), f"<i{bits // 8}")
    return (drawn.reshape(shape) >> (bits - t.bits)).astype(f"int{bits}")


def _uniform(text: str, low: float, high: float, count: int) -> list[float]:
    """Pseudorandom float32 in [low, high)."""
    drawn = np.frombuffer(hashlib.shake_256(text.encode()).digest(count * 4), "<u4")
    return [float(np.float32(v)) for v in low + (high - low) * (drawn / 2.0**32)]


def _logarithmic(text: str, low: float, high: float, count: int) -> list[float]:
    """Pseudorandom float32 between two positive numbers, evenly in their logarithm."""
    return [float(np.float32(np.exp(v))) for v in _uniform(text, float(np.log(low)), float(np.log(high)), count)]


def _zero_point(index: int, factor: int = 37) -> int:
    return index * factor % 256 - 128


def _packed(w: Array, t: IntType) -> Array:
    if t != int4:
        return w
    even = np.pad(w, ((0, 0), (0, w.shape[1] % 2))).astype(np.uint8) & 15
    return (even[:, 0::2] | (even[:, 1::2] << 4)).astype(np.uint8)


def linear(name: str, a: IntType, b: IntType, *, batch: bool) -> Iterator[Case]:
    """FULLY_CONNECTED with biases and scales a row of weights, or BATCH_MATMUL with neither."""
    op: Any = registry.get(name)
    slug = f"litert-{'bmm' if batch else 'fc'}-{a}-{b}"
    narrow = a == int16 and name == "linear.float64_ties_away"  # the accumulators stay inside int32

    def case(what: str, why: str, x: Array, w: Array, bias: Any, scales: Any, zo: int, zx: int = 0) -> Case:
        zx, zo = (zx, zo) if a == int8 else (0, 0)
        if b == int4 and x.shape[1] % 2:  # XNNPACK takes an even number of terms
            x, w = (np.pad(v, ((0, 0), (0, 1))) for v in (x, w))
        p = op.params.from_scales(*scales, product.Params(zx, 0, a=a, b=b), zero_point=zo, dtype=a)
        return make(op, f"{slug}-{what}", why, (x, _packed(w, b), bias), p)

    column = EVERY_INT8.T.astype(a.storage)
    every = np.arange(max(b.qmin, -128), min(b.qmax, 127) + 1).astype("int8" if b == int4 else b.storage)[:, None]
    for e, zo in ((2, 0), (4, 3), (7, -11)):
        scales = (1.0, 1.0, 2.0**e)
        yield case(f"products-{e}", f"products beside ties of 2**-{e}, and beyond", column, every, None, scales, zo)
        if not batch:
            bias = np.arange(-192 << e, 192 << e, dtype=np.int32)
            two, w = np.array([[0], [1]], a.storage), np.resize(every, (len(bias), 1))
            why = f"every bias up to 192 * 2**{e}, one product more: ties"
            yield case(f"biases-{e}", why, two, w, bias, scales, zo)
    for seed in range(6):
        k, each = (24, 77, 3, 512, 1, 130)[seed], seed % 2 == 1 and not batch
        x, w = _values(f"{slug} x {seed}", a, 12, k), _values(f"{slug} w {seed}", b, 900 if k < 500 else 300, k)
        zx = int(x[0, 0])
        x = x >> 5 if narrow else x
        reach = int(np.abs((x - np.int64(zx if a == int8 else 0)) @ w.T.astype(np.int64)).max()) + 1
        line: Any = None
        if not batch:
            line = _values(f"{slug} b {seed}", int32, len(w)).astype(np.int64) * min(reach, 2**30) >> 31
            line, reach = line.astype(np.int32), 2 * reach
        (sw,) = _uniform(f"{slug} s {seed}", 0.7, 3, 1)
        sw *= 2.0 ** (a.bits - 1) / reach
        weights = np.float32(sw) * np.array(_uniform(f"{slug} c {seed}", 0.3, 1, len(w)), np.float32) if each else sw
        why = f"{k} terms, {'a scale a row' if each else 'one scale'}"
        yield case(f"ordinary-{seed}", why, x, w, line, (1.0, weights, 1.0), int(x[1, 0] & 127), zx)
    ends = [np.array([t.qmin, t.qmax]) >> (5 if narrow and t == int16 else 0) for t in (a, b)]
    long = [
        np.repeat(e[:, None], 1100, axis=1).astype(f"int{max(t.bits, 8)}") for e, t in zip(ends, (a, b), strict=True)
    ]
    far = (1.0, 1.0, 2.0 ** (17 if a == int8 else 23))
    yield case("extremes", "the largest products of all signs, 1100 of them", long[0], long[1], None, far, 3, 127)
    if not batch:
        end = 2**31 - 2**23
        line = np.tile([-end, -(2**30), -(2**24) - 1, -505, -1, 0, 1, 3, 504, 2**24 + 1, 2**29 + 7, end], 111)
        # the reference kernel casts to int32 before it saturates, and so does XNNPACK's of int4
        top = 0 if "float64" in name or b == int4 else 6
        weights = np.repeat([2.0**e * f for e in range(top - 37, top) for f in (1, 1 + 2.0**-17, 4 / 3)], 12)
        w = _values(f"{slug} corners", b, len(line), 1)
        why = "a multiplier a row, from 2**-37 or 2**-31 on; accumulators up to the ends of int32"
        rows = (1.0, weights.astype(np.float32), 1.0)
        yield case("corners", why, column[::64], w, line.astype(np.int32), rows, -5, 7)


_REACH = {"add": 2.5, "mul": 2.0**7, "mul.squared_difference": 2.0**9}


def binary(name: str, t: IntType) -> Iterator[Case]:
    """Every pair of int8; of int16 pairs of the whole range."""
    op: Any = registry.get(name)
    slug, operator = f"litert-{name.replace('.', '-')}-{t}", _REACH.get(name, _REACH[op.family])
    fields: dict[str, Any] = {"a": t, "b": t, "dtype": t}
    if name == "mul.squared_difference":
        fields["left_shift"] = 7
    elif name in ("add.rescaled", "add.shift_first"):
        fields["left_shift"] = 20 if t == int8 else 15
    if name == "mul.rescaled":
        fields["single"] = True
    pairs = SQUARE if t == int8 else tuple(_values(f"{slug} pairs", int16, 2, 128, 256))
    drawn, factors = _logarithmic(slug, 1e-3, 1, 24), _uniform(f"{slug} f", 0.3, 2, 12)
    for index in range(12):
        a, b, factor = drawn[2 * index], drawn[2 * index + 1], factors[index]
        if index % 3 == 0:  # powers of two: ties
            a, b, factor = 2.0 ** round(np.log2(a)), 2.0 ** round(np.log2(b)), 2.0 ** (index // 3 % 3 - 1)
        if index == 8:
            b = float(np.float32(a / 900))  # one scale far below the other
        elif index == 9 and t == int16:
            b = a / 2**18  # so far that its terms are cut before the product
        whole = {"mul.squared_difference": max(a, b) ** 2}.get(name, a * b if op.family == "mul" else max(a, b))
        reach = operator if index % 3 else 2.0 ** round(np.log2(operator))
        reach *= 2.0**8 if t == int16 and op.family == "mul" else 1
        named = dict(zip(("a_zero_point", "b_zero_point", "zero_point"), (37, 91, 53), strict=True))
        points = {key: _zero_point(index, factor) if t == int8 else 0 for key, factor in named.items()}
        try:
            p = op.params.from_scales(a, b, float(np.float32(whole * reach * factor)), **fields, **points)
        except ValueError:
            continue  # XNNPACK leaves such scales to another kernel
        yield make(op, f"{slug}-{index}", "every pair" if t == int8 else "pairs of the whole range", pairs, p)


def requantize(name: str, t: IntType) -> Iterator[Case]:
    op: Any = registry.get(name)
    slug = f"litert-requantize-{t}"
    inputs: dict[IntType, Array] = {int8: EVERY_INT8, int16: EVERY_INT16}
    acc = inputs.get(t, _values(slug, int32, 60, 120)).astype(np.int32)
    for result in (int8,) if t == int8 else (int8, int16):
        spread = 2.0 ** (t.bits - result.bits)
        ratios = [spread * r for r in (2.0**-4, 0.25, 0.5, 1.0, 2.0, 1 / 3, 4.0)]
        ratios += _logarithmic(f"{slug} {result}", spread / 30, spread * 30, 400 if t == int8 else 6)
        for index, ratio in enumerate(ratios):
            moved = acc + ((0, 3, -100)[index % 3] if t == int8 else 0)
            fields: dict[str, Any] = {"dtype": result, "zero_point": _zero_point(index) if result == int8 else 0}
            p = op.params.from_scale(1 / ratio, **fields)
            yield make(op, f"{slug}-{result}-{index}", f"every {t}" if t != int32 else "int32", (moved,), p)


def quantize(name: str, rounding: Rounding) -> Iterator[Case]:
    op: Any = registry.get(name)
    ties = (np.arange(-1024, 1024, dtype=np.float32) / 4)[None]
    x = _values("litert quantize", int32, 1, 12000).astype(np.float32) * np.float32(2.0**-24)
    near = (np.arange(-6000, 6000).astype(np.float32) * np.float32(0.0125))[None]
    half = np.array([[0.5]], np.float32)
    for t, zero_points in ((int8, (0, -5, 100)), (int16, (0,))):
        p = op.params(dtype=t, rounding=rounding)
        for z in zero_points:
            zero = np.array([[z]], np.int32)
            ends = np.array([t.qmin - z, t.qmax - z]) + np.array([[-1], [-0.5], [0], [0.5], [1]])
            wild = [2.0**30, -(2.0**30), 1e-45, -1e-45, 0.49999997, -0.49999997, -0.0, 0.0]
            edges = np.resize(np.array([*ends.reshape(-1), *wild], np.float32), (1, VECTOR))
            yield make(op, f"litert-{t}-ties-{z}", "exact ties of both signs", (ties, half, zero), p)
            yield make(op, f"litert-{t}-edges-{z}", "the ends of the range, subnormals", (edges, half * 2, zero), p)
            fortieth = (near, half / 20, zero)
            yield make(op, f"litert-{t}-reciprocal-{z}", "a product with 1 / scale, or a quotient", fortieth, p)
            for index, scale in enumerate(_logarithmic(f"litert quantize {t} {z}", 0.2 / t.qmax, 300 / t.qmax, 4)):
                arrays = (x, np.array([[scale]], np.float32), zero)
                yield make(op, f"litert-{t}-ordinary-{z}-{index}", "quotients over the range and beyond", arrays, p)


def dequantize(name: str, t: IntType) -> Iterator[Case]:
    op: Any = registry.get(name)
    every = EVERY_INT8 if t == int8 else EVERY_INT16.reshape(1, -1)
    scales = [0.1, 1e-37, 3e20, 0.013, 0.25, *_logarithmic(f"litert dequantize {t}", 1e-4, 10, 400 if t == int8 else 2)]
    for index, scale in enumerate(scales):
        z = _zero_point(index) if t == int8 else 0
        if name == "dequantize.affine":
            arrays: tuple[Any, ...] = (every, np.array([[scale]], np.float32), np.array([[z]], np.int32))
            p = op.params(q=t)
        else:
            arrays, p = (every,), op.params.from_scale(scale, zero_point=z, q=t)
        yield make(op, f"litert-{t}-{index}", f"every {t} at scale {scale:.3g}", arrays, p)


# -- rows --------------------------------------------------------------------------------------------


@cache
def softmax_scales() -> list[tuple[float, float]]:
    """(scale, beta), those of the variant's examples among them."""
    drawn = [*_logarithmic("litert softmax", 1e-4, 4, 40), *(2.0 ** np.arange(-8, 2)).tolist()]
    betas = ((1.0, 1.0, 0.5, 1.75)[i % 4] for i in range(len(drawn)))
    return [*((scale, 1.0) for scale in (0.05, 0.011, 2.0, 0.3, 0.1, 0.0713)), *zip(drawn, betas, strict=True)]


def softmax(name: str) -> Iterator[Case]:
    for seed, (scale, beta) in enumerate(softmax_scales()):
        n = (77, 1, 2, 300, 5)[seed % 5]
        q = _values(f"litert softmax {seed}", int8, 64, n).copy()
        q[16:48] = np.clip(q[16:48] // 4 + q[0, 0], -128, 127)  # near one value
        q[48:63] = np.where(np.arange(n) == seed % n, 127, q[48:63] >> 1)  # the largest leads
        q[63] = q[63, 0]
        why = f"scale {scale:.3g}, beta {beta}"
        if name == "softmax.gemmlowp":
            yield make(gemmlowp.OP, f"litert-{seed}", why, (q,), gemmlowp.Params.from_scale(scale, beta))
        else:
            yield make(float32_table.OP, f"litert-{seed}", why, (q, exponentials(scale, beta)), float32_table.Params())


def softmax16() -> Iterator[Case]:
    op, tables = tflite_s16.OP, tflite_s16.tables(np.float64)
    quarter = float(np.float32(2.5 / 65535))
    for seed, scale in enumerate([*_logarithmic("litert softmax16", 1e-6, 0.05, 48), quarter]):
        n, spread = (1, 2, 7, 64, 77, 300)[seed % 6], (9, 5, 2, 0)[seed % 4]
        q = (_values(f"litert softmax16 {seed}", int16, 60, n) >> spread).astype(np.int16)
        q[:2], q[2:4, 0] = q[0, 0], 2**15 - 1
        p = tflite_s16.Params.from_scale(scale, (1.0, 1.0, 0.5, 1.75, 0.3)[seed % 5], single=True)
        yield make(op, f"litert-{seed}", f"scale {scale:.3g}", (q, *tables), p)


def reduce(name: str, operator: str, profile: str) -> Iterator[Case]:
    slug = f"litert-{operator.lower()}"
    drawn, ratios = _logarithmic(slug, 1e-3, 1, 44), _uniform(f"{slug} r", 0.2, 2, 44)
    for index in range(44):
        n = (1, 2, 3, 7, 8, 64, 77, 384, 6, 1024, 1000)[index % 11]
        ratio, most = ratios[index], n**0.5 if operator == "SUM" else 1.0
        if index % 3 == 0:
            ratio, most = 2.0 ** (index % 5 - 2), 2.0 ** round(np.log2(most))
        m = 3600 if n < 100 else 240
        x = _values(f"{slug} x {index}", int8, m, n).copy()
        x[: m // 4] = np.where(x[: m // 4] < 0, ~x[: m // 4], x[: m // 4])  # of one sign
        x[m // 4 : m // 2] //= 8
        points = {"a_zero_point": _zero_point(index) // (1 + index % 4), "zero_point": _zero_point(index, 53)}
        # so that the adapter finds the scales again, that of the result is 1
        scale = float(np.float32(1 / (ratio * most)))
        p: Any
        if name == "reduce.float32_bias":
            if profile == "xnnpack":
                p = float32_bias.Params.of_xnnpack(scale, 1.0, n, mean=operator == "MEAN", **points)
            else:
                p = float32_bias.Params.of_litert(scale, 1.0, n, **points)
        elif operator == "MEAN":
            p = mean_tflite.Params.from_scales(drawn[index], float(np.float32(drawn[index] * ratio)), **points)
        else:
            # as unsigned bytes the terms are positive, and so is what a zero point in the middle leaves
            x = x.view(np.uint8)
            points = {"a_zero_point": 127 - index % 7, "zero_point": index % 128}
            p = sum_tflite.Params.from_scales(scale, 1.0, x=uint8, dtype=uint8, **points)
        yield make(registry.get(name), f"{slug}-{index}", f"rows of {n}", (x,), p)


# -- activations -------------------------------------------------------------------------------------


def rsqrt() -> Iterator[Case]:
    drawn, ratios = _logarithmic("litert rsqrt", 1e-4, 3, 600), _uniform("litert rsqrt r", 0.2, 2, 600)
    for seed in range(600):
        scale, result = drawn[seed], ratios[seed] / drawn[seed] ** 0.5 / 2.0 ** (seed % 9)
        if seed % 5 == 0:
            scale, result = 4.0 ** (seed // 5 % 7 - 5), 2.0 ** round(np.log2(result))
        zero_point = -128 if seed % 2 else _zero_point(seed) // 2
        points = {"a_zero_point": zero_point, "zero_point": _zero_point(seed, 53)}
        p = rsqrt_tflite.Params.from_scales(scale, result, single=True, **points)
        x = np.arange(zero_point, 128, dtype=np.int8).reshape(1, -1)  # below its zero point the kernel refuses
        yield make(rsqrt_tflite.OP, f"litert-{seed}", "every int8 from the zero point on", (x,), p)


@cache
def curves(curve: str) -> list[tuple[float, int, float, int]]:
    """(scale, zero point) of the input, then of the result: those of LOGISTIC and TANH are fixed."""
    scales = [*_logarithmic(f"litert {curve}", 1e-4, 4, 386), *(2.0 ** np.arange(-10, 4)).tolist()]
    fixed = {"LOGISTIC": (2.0**-8, -128), "TANH": (2.0**-7, 0)}.get(curve)
    ratios = _uniform(f"litert {curve} r", 0.3, 2, len(scales))
    made = []
    for index, scale in enumerate(scales):
        result = fixed or (float(np.float32(scale * ratios[index])), _zero_point(index, 53))
        made.append((scale, _zero_point(index), *result))
    return made


def table(curve: str) -> Iterator[Case]:
    for index, one in enumerate(curves(curve)):
        arrays = (EVERY_INT8, tflite.float_table(curve, *one))
        slug = f"litert-{curve.lower().replace(' ', '-')}-{index}"
        yield make(tabulated.OP, slug, f"every int8 at scale {one[0]:.3g}", arrays, tabulated.Params())


def curve16(operator: str) -> Iterator[Case]:
    """Powers of two that the kernel singles out, scales that its logarithm takes for them, and any others."""
    op: Any = registry.get(f"activation.{operator.lower()}_s16")
    beside = [2.0**-12 * 1.0003, 2.0**-12 * 0.9995, 2.0**-11 * 1.0005, 2.0**-12 * 1.0008]
    others = _logarithmic(f"litert {operator} 16", 1e-6, 0.05, 6)
    for index, scale in enumerate((2.0**-13, 2.0**-12, 2.0**-11, 2.0**-10, *beside, 1e-9, 2.6, *others)):
        p = op.params.from_scale(float(np.float32(scale)))
        why = f"every int16 at scale {scale:.4g}"
        yield make(op, f"litert-{index}", why, (EVERY_INT16, tflite.sigmoid_table()), p)


def curve_gemmlowp16(operator: str, shifts: Sequence[int]) -> Iterator[Case]:
    op: Any = registry.get(f"activation.{operator.lower()}_gemmlowp16")
    for shift in shifts:
        yield make(op, f"litert-every-{shift}", "every int16", (EVERY_INT16,), op.params(shift))
        yield make(op, f"litert-back-{shift}", "the same backward", (EVERY_INT16[::-1, ::-1].copy(),), op.params(shift))

"""Cases for tflite-micro: every 8-bit input, ties, ends, and scales as models have them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from intsim import registry
from intsim.binding import Array
from intsim.composites.layernorm import tflite_decomposed
from intsim.numerics import IntType, Rounding, int4, int8, int16, int32, uint8
from intsim.ops.activation import rsqrt_tflite
from intsim.ops.dequantize import affine as to_real
from intsim.ops.matmul import integer as product
from intsim.ops.quantize import affine as to_integer
from intsim.ops.requantize import double_rounding
from intsim.ops.softmax import gemmlowp, tflite_s16
from intsim.oracle.cases import Case, make
from intsim.spec import tflite

EVERY_INT8 = np.arange(-128, 128, dtype=np.int8).reshape(1, -1)
EVERY_INT16 = np.arange(-(2**15), 2**15).astype(np.int16).reshape(64, -1)


def _values(text: str, t: IntType, *shape: int) -> Array:
    """Pseudorandom values of a type, the same on every machine; of int4 one an element."""
    bits = 8 if t.bits == 4 else t.bits
    drawn = np.frombuffer(hashlib.shake_256(text.encode()).digest(int(np.prod(shape)) * bits // 8), f"<i{bits // 8}")
    drawn = drawn.reshape(shape)
    return (drawn >> 4 if t.bits == 4 else drawn).astype(_storage(t))


def _storage(t: IntType) -> str:
    return "int8" if t.bits == 4 else t.storage


def _uniform(text: str, low: float, high: float, count: int) -> Array:
    """Pseudorandom float64 in [low, high)."""
    drawn = np.frombuffer(hashlib.shake_256(text.encode()).digest(count * 4), "<u4")
    return low + (high - low) * (drawn / 2.0**32)


def _logarithmic(text: str, low: float, high: float, count: int) -> list[float]:
    """Pseudorandom float32 between two positive numbers, evenly in their logarithm."""
    return [_float32(v) for v in np.exp(_uniform(text, np.log(low), np.log(high), count))]


def _float32(value: float) -> float:
    return float(np.float32(value))


# -- FULLY_CONNECTED and BATCH_MATMUL ---------------------------------------------------------------


def _packed(w: Array, t: IntType) -> Array:
    if t != int4:
        return w
    even = np.pad(w, ((0, 0), (0, w.shape[1] % 2))).astype(np.uint8) & 15
    return (even[:, 0::2] | (even[:, 1::2] << 4)).astype(np.uint8)


@dataclass(frozen=True)
class Linear:
    """Cases of one kind of product. A call gives them.

    channels: also a scale a row of weights. narrow: int16 activations with the int32 accumulator.
    bias: whether there is one.
    """

    a: IntType
    b: IntType
    slug: str
    channels: bool = False
    narrow: bool = False
    bias: bool = True

    def __call__(self) -> Iterator[Case]:
        column = EVERY_INT8.T.astype(self.a.storage)
        every = np.arange(self.b.qmin, self.b.qmax + 1, 2**8 if self.b == int16 else 1).astype(_storage(self.b))[
            :, None
        ]
        for e, zero_points in ((2, (0, 0, 0)), (4, (-5, 3, 7)), (7, (7, -8, -11))):
            one = (1.0, 1.0, 2.0**e)
            why = f"products beside ties of 2**-{e}, and far beyond the result"
            yield self._case(f"products-{e}", why, (column, every), one, zero_points)
            if self.bias:
                line = np.arange(-192 << e, 192 << e, dtype=np.int32)
                x = np.array([[0], [1]]) + (zero_points[0] if self.a == int8 else 0)
                arrays = (x.astype(self.a.storage), np.resize(every, (len(line), 1)), line)
                yield self._case(f"biases-{e}", f"every bias up to 192 * 2**{e}: ties", arrays, one, zero_points)
        for seed in range(6):
            yield self._ordinary(seed)
        ends = np.array([[t.qmin, t.qmax] for t in (self.a, self.b)]) >> (4 if self.narrow else 0)
        long = tuple(np.repeat(ends[i][:, None], 1100, 1).astype(_storage(t)) for i, t in enumerate((self.a, self.b)))
        far = (1.0, 1.0, 2.0 ** (17 if self.a == int8 else 23))
        yield self._case(
            "extremes", "the largest products of all signs, 1100 of them", long, far, (127, self.b.qmax, 3)
        )
        if self.channels:
            yield self._corners(column[::64])

    def _case(
        self, what: str, why: str, arrays: tuple[Any, ...], scales: Any, zero_points: tuple[int, int, int]
    ) -> Case:
        wide = self.a == int16 and not self.narrow
        op = registry.get("linear.multiplier16" if wide else "linear.double_rounding")
        x, w, *rest = arrays
        za, zb, zo = zero_points if self.a == int8 else (0, 0, 0)
        operands = product.Params(za, zb, a=self.a, b=self.b)
        p = op.params.from_scales(*scales, operands, single=False, zero_point=zo, dtype=self.a)  # type: ignore[attr-defined]  # LinearParams
        return make(op, f"tflm-{self.slug}-{self.a}-{self.b}-{what}", why, (x, _packed(w, self.b), *rest), p)

    def _ordinary(self, seed: int) -> Case:
        """Random operands and biases, and scales for which results fill the type, or leave it now and then."""
        name = f"{self.slug} {self.a} {self.b} {seed}"
        k = (24, 77, 3, 512, 1, 130)[seed]
        n = 1500 if k < 500 else 300
        x, w = _values(f"{name} x", self.a, 12, k), _values(f"{name} w", self.b, n, k)
        if self.narrow:
            x = x >> 4  # 512 products of 19 bits stay inside int32
        reach = int(np.abs(x.astype(np.int64) @ w.T.astype(np.int64)).max()) + 1
        arrays: tuple[Any, ...] = (x, w)
        if self.bias:
            line = _values(f"{name} b", int32, n).astype(np.int64) * min(reach, 2**30) >> 31
            arrays, reach = (x, w, line.astype(np.int32)), 2 * reach
        sx, sw = _uniform(f"{name} s", 0.001, 0.05, 2)
        fill = reach * float(_uniform(f"{name} f", 0.7, 3, 1)[0]) / 2.0 ** (self.a.bits - 1)
        zero_points = (int(x[0, 0]), int(w[0, 0]), int(w[1, 0]))
        if not (self.channels and seed % 2):
            return self._case(
                f"ordinary-{seed}", f"{k} terms, one scale", arrays, (sx, sw, sx * sw * fill), zero_points
            )
        each = _uniform(f"{name} c", 0.1, 1, n)
        sx = (0.0123, 0.00714, 0.0391)[seed // 2]
        scales = (sx, (each / (fill * sx * each.max())).astype(np.float32), 1.0)
        zero_points = (zero_points[0], 0, zero_points[2])
        return self._case(f"ordinary-{seed}", f"{k} terms, a scale a row", arrays, scales, zero_points)

    def _corners(self, column: Array) -> Case:
        """Multipliers beside powers of two; one product is below 2**15, and no sum leaves int32."""
        end = 2**31 - 2**16
        line = np.tile([-end, -(2**30), -(2**24) - 1, -505, -1, 0, 1, 3, 504, 2**24 + 1, 2**29 + 7, end], 111)
        weights = np.repeat([2.0**e * f for e in range(-31, 6) for f in (1, 1 + 2.0**-17, 4 / 3)], 12)
        arrays = (column, _values(f"{self.slug} corners", self.b, len(line), 1), line.astype(np.int32))
        why = "a multiplier a row, from 2**-31 to 2**5; accumulators up to the ends of int32"
        return self._case("corners", why, arrays, (1.0, weights.astype(np.float32), 1.0), (7, 0, -5))


# -- QUANTIZE and DEQUANTIZE --------------------------------------------------------------------------


def requantize(t: IntType, results: Sequence[IntType]) -> Iterator[Case]:
    op, name = double_rounding.OP, f"tflm-requantize-{t}"
    if t == int32:
        near = _values(name, int32, 60, 120)
        inputs = [near >> s for s in (0, 8, 15)]
    else:
        inputs = [EVERY_INT8.astype(np.int32) if t == int8 else EVERY_INT16.astype(np.int32)]
    for result in results:
        spread = 2.0 ** (t.bits - result.bits)
        ratios = [spread * r for r in (2.0**-4, 0.25, 0.5, 1.0, 2.0, 1 / 3)]
        ratios += _logarithmic(f"{name} {result}", spread / 30, spread * 30, 110 if t == int8 else 3)
        for index, ratio in enumerate(ratios):
            for number, acc in enumerate(inputs):
                moved = acc + (0 if t == int32 else (0, 3, -100)[index % 3])
                zero_point = 0 if result in (int16, int32) else index * 37 % 256 - (128 if result == int8 else 0)
                p = double_rounding.Params.from_scale(
                    1 / ratio / (2.0**-8 if t == int32 and number else 1), zero_point=zero_point, dtype=result
                )
                why = f"every {t}" if t != int32 else "values of the whole range"
                yield make(op, f"{name}-{result}-{index}-{number}", f"{why} to {result}", (moved.astype(np.int32),), p)


def quantize() -> Iterator[Case]:
    op = to_integer.OP
    ties = (np.arange(-1030, 1031, dtype=np.float32) / 4)[None]
    x = _values("tflm quantize", int32, 1, 12000).astype(np.float32) * np.float32(2.0**-24)
    half = np.array([[0.5]], np.float32)
    for t, zero_points in ((int8, (0, -5, 100)), (int16, (0, -1001, 77))):
        p = to_integer.Params(dtype=t, rounding=Rounding.TIES_TO_AWAY)
        for z in zero_points:
            zero = np.array([[z]], np.int32)
            ends = np.array([t.qmin - z, t.qmax - z]) + np.array([[-1], [-0.5], [0], [0.5], [1]])
            wild = [2.0**30, -(2.0**30), 1e-45, -1e-45, 0.49999997, -0.49999997, -0.0, 0.0]
            edges = np.array([[*ends.reshape(-1), *wild]], np.float32)
            yield make(op, f"tflm-{t}-ties-{z}", "exact ties go away from zero", (ties, half, zero), p)
            yield make(op, f"tflm-{t}-edges-{z}", "the ends of the range, subnormals", (edges, half * 2, zero), p)
            for index, scale in enumerate(_logarithmic(f"tflm quantize {t} {z}", 0.2 / t.qmax, 300 / t.qmax, 3)):
                arrays = (x, np.array([[scale]], np.float32), zero)
                yield make(op, f"tflm-{t}-ordinary-{z}-{index}", "quotients over the range and beyond", arrays, p)


def dequantize() -> Iterator[Case]:
    op = to_real.OP
    for t in (int8, uint8, int16):
        every = {int8: EVERY_INT8, uint8: EVERY_INT8.view(np.uint8), int16: EVERY_INT16.reshape(1, -1)}[t]
        for index, scale in enumerate((0.1, 1e-42, 1e-45, 3e36, 0.013)):
            z = (0, t.qmin, t.qmax, -5, 7)[index]
            arrays = (every, np.array([[scale]], np.float32), np.array([[z]], np.int32))
            yield make(
                op,
                f"tflm-{t}-{index}",
                f"every {t}; products that round, underflow or overflow",
                arrays,
                to_real.Params(q=t),
            )


# -- SOFTMAX ------------------------------------------------------------------------------------------


def softmax(result: IntType) -> Iterator[Case]:
    op = gemmlowp.OP
    scales = _logarithmic("tflm softmax", 1e-5, 40, 36)
    scales += [*(2.0 ** np.arange(-10, 6)).tolist(), 1e-7, 31.9, 32.0, 100.0]
    for seed, scale in enumerate(scales):
        n = (77, 1, 2, 77, 300)[seed % 5]
        any_ = _values(f"tflm softmax {seed}", int8, 36, n).copy()
        any_[16:32] = np.clip(any_[16:32] // 8 + any_[0, 0], -128, 127)  # near one value
        any_[32:] = np.where(np.arange(n) == seed % n, 127, any_[32:] >> 1)  # the largest leads
        any_[35] = any_[35, 0]
        beta = (1.0, 1.0, 0.5, 1.75)[seed % 4]
        p = gemmlowp.Params.from_scale(_float32(scale), beta, dtype=result)
        yield make(op, f"tflm-{result}-{seed}", f"scale {scale:.3g}, beta {beta}", (any_,), p)
    most = gemmlowp.MOST if result == int16 else 511
    p, why = gemmlowp.Params.from_scale(0.1, dtype=result), "equal elements, the most that the kernel takes"
    yield make(op, f"tflm-{result}-longest", why, (np.full((1, most), 5, np.int8),), p)


def softmax16() -> Iterator[Case]:
    op, tables = tflite_s16.OP, tflite_s16.tables()
    for seed, scale in enumerate([*_logarithmic("tflm softmax16", 1e-6, 0.05, 48), _float32(2.5 / 65535)]):
        n, spread = (1, 2, 7, 64, 77, 300)[seed % 6], (9, 5, 2, 0)[seed % 4]
        q = _values(f"tflm softmax16 {seed}", int16, 60, n) >> spread
        q[:2], q[2:4, 0] = q[0, 0], 2**15 - 1
        p = tflite_s16.Params.from_scale(scale, (1.0, 1.0, 0.5, 1.75, 0.3)[seed % 5])
        yield make(op, f"tflm-{seed}", f"scale {scale:.3g}", (q, *tables), p)
    steps = np.zeros((6000, 2), np.int16)
    steps[:, 1] = -np.arange(6000)
    p = tflite_s16.Params.from_scale(_float32(2.5 / 65535))
    yield make(op, "tflm-quarters", "a quarter of the table's step: ties of the second rounding", (steps, *tables), p)


# -- element by element -------------------------------------------------------------------------------

_REACH = {"ADD": 2.5, "SUB": 2.5, "MUL": 2.0**7, "SQUARED_DIFFERENCE": 2.0**9}
_OPS = {
    "ADD": "add.rescaled",
    "SUB": "add.rescaled_difference",
    "MUL": "mul.rescaled",
    "SQUARED_DIFFERENCE": "mul.squared_difference",
}


def rescaled(operator: str, t: IntType) -> Iterator[Case]:
    """Every pair of int8; of int16 random pairs."""
    op = registry.get(_OPS[operator])
    name = f"tflm-{operator.lower()}-{t}"
    fields: dict[str, Any] = {"a": t, "b": t, "dtype": t}
    if operator != "MUL":
        narrow, wide = (20, 15) if operator in ("ADD", "SUB") else (7, 0)
        fields["left_shift"] = narrow if t == int8 else wide
    pairs = tuple(np.ascontiguousarray(a) for a in np.broadcast_arrays(EVERY_INT8, EVERY_INT8.T))
    if t == int16:
        pairs = tuple(_values(f"{name} pairs", int16, 2, 128, 256))
    drawn = _logarithmic(name, 1e-3, 1, 24)
    factors = _uniform(f"{name} f", 0.3, 2, 12)
    for index in range(10):
        a, b, factor = drawn[2 * index], drawn[2 * index + 1], float(factors[index])
        if index % 3 == 0:  # powers of two: ties
            a, b, factor = 2.0 ** round(np.log2(a)), 2.0 ** round(np.log2(b)), 2.0 ** (index // 3 % 3 - 1)
            reach = 2.0 ** round(np.log2(_REACH[operator]))
        else:
            reach = _REACH[operator]
        if index == 8:
            b = _float32(a * 1e-6)  # one scale far below the other
        whole = {"MUL": a * b, "SQUARED_DIFFERENCE": max(a, b) ** 2}.get(operator, max(a, b))
        if t == int16 and operator in ("MUL", "SQUARED_DIFFERENCE"):
            reach *= 2.0**8
        zero_points = (
            (index * 37 % 256 - 128, index * 91 % 256 - 128, index * 53 % 256 - 128) if t == int8 else (0, 0, 0)
        )
        named = dict(zip(("a_zero_point", "b_zero_point", "zero_point"), zero_points, strict=True))
        p = op.params.from_scales(a, b, _float32(whole * reach * factor), **fields, **named)  # type: ignore[attr-defined]  # all four have it
        yield make(op, f"{name}-{index}", "every pair" if t == int8 else "pairs of the whole range", pairs, p)


# -- rows ---------------------------------------------------------------------------------------------


def reduce(operator: str, t: IntType) -> Iterator[Case]:
    op = registry.get(f"reduce.{operator.lower()}_tflite")
    name = f"tflm-{operator.lower()}-{t}"
    drawn, ratios = _logarithmic(name, 1e-3, 1, 44), _uniform(f"{name} r", 0.2, 2, 44)
    for index in range(44):
        n = (1, 2, 3, 7, 8, 64, 77, 384, 6, 1024, 1000)[index % 11]
        m = 3600 if n < 100 else 240
        most = n**0.5 if operator == "SUM" else 1.0
        ratio = float(ratios[index])
        if index % 3 == 0:
            ratio, most = 2.0 ** (index % 5 - 2), 2.0 ** round(np.log2(most))
        x = _values(f"{name} x {index}", t, m, n).copy()
        x[: m // 4] = np.where(x[: m // 4] < 0, ~x[: m // 4], x[: m // 4])  # of one sign
        x[m // 4 : m // 3] = (x[m // 4 : m // 3] >> 1) + (t.qmax >> 1)  # near an end
        zero_points = (index * 37 % 256 - 128, index * 53 % 256 - 128) if t == int8 else (0, 0)
        fields = {"a_zero_point": zero_points[0], "zero_point": zero_points[1], "x": t, "dtype": t}
        p = op.params.from_scales(drawn[index], _float32(drawn[index] * ratio * most), **fields)  # type: ignore[attr-defined]  # both have it
        yield make(op, f"{name}-{index}", f"rows of {n}", (x,), p)


def rsqrt() -> Iterator[Case]:
    op = rsqrt_tflite.OP
    drawn, ratios = _logarithmic("tflm rsqrt", 1e-4, 3, 460), _uniform("tflm rsqrt r", 0.2, 2, 460)
    for seed in range(460):
        scale, result = drawn[seed], float(ratios[seed]) / drawn[seed] ** 0.5 / 2.0 ** (seed % 9)
        if seed % 5 == 0:
            scale, result = 4.0 ** (seed // 5 % 7 - 5), 2.0 ** round(np.log2(result))
        zero_point = -128 if seed % 4 else seed * 37 % 248 - 128
        p = rsqrt_tflite.Params.from_scales(scale, result, a_zero_point=zero_point, zero_point=seed * 53 % 256 - 128)
        x = np.arange(zero_point, 128, dtype=np.int8).reshape(1, -1)  # below its zero point the kernel refuses
        yield make(op, f"tflm-{seed}", "every int8 from the zero point on", (x,), p)


def layernorm() -> Iterator[Case]:
    op = tflite_decomposed.OP
    for index, n in enumerate((64, 1, 7, 128, 384, 2, 33, 256)):
        m = max(17000 // n, 60)
        x = _values(f"tflm layernorm {index}", int8, m, n) >> (np.arange(m)[:, None] % 5).astype(
            np.int8
        )  # narrow rows and wide ones
        gamma, beta = _values(f"tflm gamma {index}", int8, n), _values(f"tflm beta {index}", int8, n)
        scale = _logarithmic(f"tflm layernorm scale {index}", 0.005, 0.2, 1)[0]
        tensors = tflite_decomposed.calibrated(scale, index * 37 % 60 - 30, 80.0, epsilon=10.0 ** (-index % 5 - 1))
        if index % 3 == 0:  # powers of two: ties
            tensors = {name: (2.0 ** round(np.log2(s)), z) for name, (s, z) in tensors.items()}
        p = tflite_decomposed.Params.from_quantization(tensors)
        yield make(op, f"tflm-layernorm-{index}", f"rows of {n} at scale {scale:.3g}", (x, gamma, beta), p)


# -- LOGISTIC and TANH --------------------------------------------------------------------------------


def curve(function: str) -> Iterator[Case]:
    op = registry.get(f"activation.{function}_gemmlowp")
    scales = [*_logarithmic(f"tflm {function}", 1e-4, 15, 390), *(2.0 ** np.arange(-10, 4)).tolist(), _float32(1e-7)]
    for index, scale in enumerate(scales):
        p = op.params.from_scale(scale, a_zero_point=index * 37 % 256 - 128)  # type: ignore[attr-defined]  # both have it
        yield make(op, f"tflm-{function}-{index}", f"every int8 at scale {scale:.3g}", (EVERY_INT8,), p)


def curve16(function: str) -> Iterator[Case]:
    """Powers of two that the kernel singles out, scales that its logarithm takes for them, and any others."""
    op, table = registry.get(f"activation.{function}_s16"), tflite.sigmoid_table()
    beside = [2.0**-12 * 1.0003, 2.0**-12 * 0.9995, 2.0**-11 * 1.0005, 2.0**-12 * 1.0008]
    others = _logarithmic(f"tflm {function} 16", 1e-6, 0.05, 5)
    for index, scale in enumerate((2.0**-13, 2.0**-12, 2.0**-11, *beside, 1e-9, 2.6, *others)):
        p = op.params.from_scale(_float32(scale))  # type: ignore[attr-defined]  # both have it
        yield make(op, f"tflm-{function}-{index}", f"every int16 at scale {scale:.4g}", (EVERY_INT16, table), p)

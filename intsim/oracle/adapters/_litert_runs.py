"""How a case becomes a model for LiteRT: scales that give its parameters, one operator, its tensors.

A run takes the case, the profile, and the interpreter; it raises Unsupported where no model says the case.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from fractions import Fraction
from functools import cache
from typing import Any

import numpy as np

from intsim.binding import Array
from intsim.numerics import Overflow, int4, int8, int16, int32, uint8
from intsim.ops.activation import rsqrt_tflite
from intsim.ops.add import xnnpack as add_xnnpack
from intsim.ops.mul import rescaled as mul_rescaled
from intsim.ops.softmax import tflite_s16
from intsim.oracle.adapter import Unsupported
from intsim.oracle.adapters import _litert_cases as own, _tflite_micro_scales as scales, _tflite_model as models
from intsim.oracle.cases import Case
from intsim.spec import ieee, packing, tflite

XNNPACK = "xnnpack"
Run = models.Run


def _single(name: str, values: Any) -> int:
    values = np.atleast_1d(values)
    if (values != values[0]).any():
        raise Unsupported(f"the operator has one {name} for its tensor")
    return int(values[0])


def _inside_int8(*zero_points: int) -> None:
    if any(not -128 <= z <= 127 for z in zero_points):
        raise Unsupported(f"a zero point is a value of int8, got {zero_points}")


def _check_vectors(x: Array) -> None:
    if x.size % own.VECTOR:
        raise Unsupported("elements after the last full vector take the reference formula: multiples of 32 are judged")


# -- FULLY_CONNECTED and BATCH_MATMUL ----------------------------------------------------------------


def _weights(r: Any, n: int) -> tuple[float, Any, float]:
    """Scales (of the input, the weights, the result) that give the multipliers of a requantization."""
    many = max(np.size(getattr(r, f)) for f in ("multiplier", "shift", "multiplier_bits") if hasattr(r, f)) > 1
    if hasattr(r, "multiplier"):
        exact = r.multiplier / 2.0**r.shift
        if not many and exact[0] != np.float32(exact[0]):
            x, y = scales.quotient(int(r.multiplier[0]), int(r.shift[0]))
            return 1.0, x, y
        derived = [tflite.quantize_multiplier(float(e)) for e in exact if e]
        if derived != list(zip(*np.broadcast_arrays(r.multiplier, r.shift), strict=True)):
            raise Unsupported("QuantizeMultiplier gives multipliers from 2**30 on")
    elif r.multiplier_bits.max() < 2**31:
        exact = ieee.from_bits32(r.multiplier_bits).astype(np.float64)
        if exact.max() >= 256:
            raise Unsupported("XNNPACK takes multipliers below 2**8")
    else:
        exact = ieee.from_bits64(r.multiplier_bits)
        if not many and exact[0] != np.float32(exact[0]):
            return 1.0, *_quotient_of_floats(float(exact[0]))
    if (exact != exact.astype(np.float32)).any() or not ((exact > 1e-30) & (exact < 1e30)).all():
        raise Unsupported("a multiplier a row is taken where it is a float32 scale, of an ordinary size")
    return 1.0, np.broadcast_to(exact, n).astype(np.float32) if many else float(exact[0]), 1.0


def _quotient_of_floats(value: float) -> tuple[float, float]:
    """(x, y), float32, with x / y == value in float64."""
    fraction, exponent = np.frexp(value)
    near = Fraction(float(fraction)).limit_denominator(2**24 - 1)
    x, y = float(near.numerator) * 2.0 ** int(exponent), float(near.denominator)
    if x / y != value:
        raise Unsupported("no quotient of two float32 scales is this multiplier")
    return x, y


def linear(case: Case, profile: str, run: Run) -> Array:
    p, r = case.params.matmul, case.params.requantize
    batch = case.serves.startswith("BATCH_MATMUL")
    wide = p.a == int16
    if p.overflow != Overflow.WRAP or p.a not in (int8, int16) or r.dtype != p.a:
        raise Unsupported(f"no kernel for {p.a} times {p.b} to {r.dtype}")
    if p.b not in ((p.a,) if batch else (int8,) if wide else (int8, int4)):
        raise Unsupported(f"no kernel for {p.a} times {p.b}")
    zo, zb = _single("zero point of the result", r.zero_point), _single("zero point of b", p.b_zero_point)
    _inside_int8(zo, zb, p.a_zero_point)
    if (wide and (zo or zb or p.a_zero_point)) or (zb and (not batch or profile == XNNPACK)):
        raise Unsupported("int16 tensors and weights have no zero point, nor has b in XNNPACK")
    if case.op.name == "linear.float64_ties_away" and p.b != int4:
        _check_reach(case, wide)
    if case.op.name == "linear.multiplier16" and r.shift.min() < 24:
        raise Unsupported("a real multiplier of the 64-bit requantization is below 2**8")
    sx, sw, so = _weights(r, len(case.b))
    if batch:
        if case.bias.any() or np.ndim(sw):
            raise Unsupported("BATCH_MATMUL has no bias, and one multiplier")
        named: dict[str, Any] = {"scales": (sx, sw, so), "zero_points": (p.a_zero_point, zb, zo)}
        return models.batch_matmul(case.a, case.b.T, **named, run=run)
    narrow = p.b == int4
    if narrow and profile == XNNPACK and case.a.shape[1] % 2:
        raise Unsupported("an odd number of terms of int4 goes to the optimised kernel: linear.two_half_ups")
    b = packing.unpack(case.b.astype(np.int64), int4, p.nibbles)[:, : case.a.shape[1]].astype(np.int8)
    return models.fully_connected(
        case.a,
        b if narrow else case.b,
        case.bias.astype(np.int64 if wide else np.int32),
        scales=(sx, sw, so),
        zero_points=(p.a_zero_point, 0, zo),
        result=r.dtype.storage,
        weights="int4" if narrow else "",
        run=run,
    )


def _check_reach(case: Case, wide: bool) -> None:
    """Raises Unsupported where the reference FULLY_CONNECTED leaves int32: in a wide sum, or before it saturates."""
    p, r = case.params.matmul, case.params.requantize
    exact = (case.a.astype(np.int64) - p.a_zero_point) @ case.b.astype(np.int64).T + case.bias
    if wide and np.abs(exact).max(initial=0) >= 2**31:
        raise Unsupported("LiteRT accumulates in int64, and here the accumulator leaves int32")
    if (np.abs(exact * ieee.from_bits64(r.multiplier_bits)) >= 2.0**31).any():
        raise Unsupported("LiteRT casts the product to int32 before it saturates: undefined from 2**31 on")


# -- element by element ------------------------------------------------------------------------------


def binary(case: Case, profile: str, run: Run) -> Array:
    p, name = case.params, case.op.name
    operator = {"add": "ADD", "mul": "MUL"}[case.op.family]
    if name == "mul.squared_difference":
        operator = "SQUARED_DIFFERENCE"
    if not p.a == p.b == p.dtype or p.dtype not in (int8, int16):
        raise Unsupported(f"{operator} has int8 or int16 throughout, not {p.a}, {p.b}, {p.dtype}")
    zero_points = (p.a_zero_point, p.b_zero_point, p.zero_point)
    _inside_int8(*zero_points)
    if p.dtype == int16 and any(zero_points):
        raise Unsupported("int16 tensors have no zero point")
    if name == "add.xnnpack":
        made = p.a_multiplier / 2.0**p.shift, p.b_multiplier / 2.0**p.shift, 1.0
        if min(made[:2]) < add_xnnpack.SMALLEST or _other(add_xnnpack.Params, made, p):
            raise Unsupported("no scales give these multipliers: the larger has 21 bits")
    elif name in ("add.rescaled", "add.shift_first"):
        if name == "add.shift_first":
            _check_vectors(case.a)
        made = scales.sides(p, scales.added(p.left_shift))
    elif name == "mul.squared_difference":
        made = scales.sides(p, scales.squared(p.left_shift))
    elif name == "mul.rescaled":
        made = p.multiplier / 2.0**p.shift, 1.0, 1.0
        if p.multiplier < 2**30 or _other(mul_rescaled.Params, made, p, single=True):
            raise Unsupported("the real multiplier is a float32 quotient: its lowest 7 bits are 0")
    else:
        made = float(ieee.from_bits32(p.multiplier_bits)), 1.0, 1.0
        if not 2.0**-16 <= made[0] < 2.0**8:
            raise Unsupported("XNNPACK's MUL takes multipliers from 2**-16 to 2**8")
    return models.binary(operator, case.a, case.b, scales=made, zero_points=zero_points, run=run)


def _other(params: Any, made: tuple[float, ...], p: Any, **fields: Any) -> bool:
    """Whether these scales give other multipliers than those of ``p``."""
    names = ("a_zero_point", "b_zero_point", "zero_point", "a", "b", "dtype")
    return bool(params.from_scales(*made, **fields, **{n: getattr(p, n) for n in names}) != p)


# -- conversions -------------------------------------------------------------------------------------


def requantize(case: Case, profile: str, run: Run) -> Array:
    p = case.params
    t = {"QUANTIZE s8": int8, "QUANTIZE s16": int16}.get(case.serves, int32)
    low, high = int(case.acc.min()), int(case.acc.max())
    zero_point = min(max(3, t.qmin - low), t.qmax - high) if t == int8 else 0  # 3 where it may be
    if low + zero_point < t.qmin or high + zero_point > t.qmax:
        raise Unsupported(f"the accumulators do not fit {t}, whatever its zero point")
    zo = _single("zero point", p.zero_point)
    _inside_int8(zo, zero_point)
    if p.dtype == int16 and zo:
        raise Unsupported("int16 tensors have no zero point")
    multiplier = _single("multiplier", p.multiplier)
    if case.op.name == "requantize.xnnpack_8bit":
        x, y = multiplier / 2.0**8, 1.0
    else:
        x, y = scales.quotient(multiplier, _single("shift", p.shift))
    operand = (case.acc.astype(np.int64) + zero_point).astype(t.storage)
    return models.conversion("QUANTIZE", operand, p.dtype.storage, operand=(x, zero_point), made=(y, zo), run=run)


def quantize(case: Case, profile: str, run: Run) -> Array:
    if case.scale.size > 1:
        raise Unsupported("QUANTIZE has one scale for its tensor")
    scale, zero_point = float(case.scale[0, 0]), int(case.zero_point[0, 0])
    _inside_int8(zero_point)
    with np.errstate(over="ignore", under="ignore"):
        if (np.abs(case.x / case.scale) >= 2.0**31 - 2.0**17).any():
            raise Unsupported("LiteRT casts the quotient to int32 before it saturates: undefined from 2**31 on")
    if case.op.name == "quantize.reciprocal" and (profile != XNNPACK or case.params.dtype != int8):
        _check_vectors(case.x)
    made = (scale, zero_point)
    return models.conversion("QUANTIZE", case.x, case.params.dtype.storage, operand=(None, 0), made=made, run=run)


def dequantize(case: Case, profile: str, run: Run) -> Array:
    if case.op.name == "dequantize.affine":
        if case.scale.size > 1:
            raise Unsupported("DEQUANTIZE has one scale for its tensor")
        operand = float(case.scale[0, 0]), int(case.zero_point[0, 0])
    else:
        operand = float(ieee.from_bits32(case.params.scale_bits)), case.params.zero_point
        _check_vectors(case.q)
    _inside_int8(operand[1])
    if case.params.q == int16 and operand[1]:
        raise Unsupported("int16 tensors have no zero point")
    return models.conversion("DEQUANTIZE", case.q, "float32", operand=operand, made=(None, 0), run=run)


# -- rows --------------------------------------------------------------------------------------------


@cache
def _exponentials() -> Mapping[bytes, tuple[float, float]]:
    return {own.exponentials(*one).tobytes(): one for one in own.softmax_scales()}


def softmax(case: Case, profile: str, run: Run) -> Array:
    p = case.params
    if (case.stop != case.q.shape[1]).any():
        raise Unsupported("SOFTMAX has no mask")
    if case.op.name == "softmax.tflite_s16":
        if not all(map(np.array_equal, (case.exp_table, case.inverse_table), tflite_s16.tables(np.float64))):
            raise Unsupported("SOFTMAX of int16 has the tables that float64 gives")
        product = np.float32(p.multiplier / 2.0**p.shift * (10.0 / 65535.0))
        near = [float(product), *(float(np.nextafter(product, np.float32(e))) for e in (0, 1e9))]
        for scale in near:
            if tflite_s16.Params.from_scale(scale, single=True) == p:
                return models.softmax(case.q, scale=scale, beta=1.0, result="int16", run=run)
        raise Unsupported("no float32 scale gives this multiplier")
    if case.op.name == "softmax.float32_table":
        found = _exponentials().get(case.table.tobytes())
        if found is None:
            raise Unsupported("a table of exponentials that none of the adapter's scales gives")
        return models.softmax(case.q, scale=found[0], beta=found[1], result="int8", run=run)
    if p.multiplier <= 1 << p.shift:
        raise Unsupported("LiteRT takes scale * beta above 2**-26")
    capped = (p.multiplier, p.shift) == (2**31 - 1, 0)
    scale, beta = (64.0, 1.0) if capped else scales.product(p.multiplier, p.shift, 2.0**-26)
    return models.softmax(case.q, scale=scale, beta=beta, result="int8", run=run)


def reduce(case: Case, profile: str, run: Run) -> Array:
    p, n = case.params, case.x.shape[1]
    mean = case.serves.startswith("MEAN")
    if case.op.name == "reduce.float32_bias":
        ratio, zero_points = _biased(p, n, mean, profile)
        made = ratio, 1.0
    else:
        made, zero_points = scales.quotient(p.multiplier, p.multiplier_shift), (p.a_zero_point, p.zero_point)
    _inside_int8(*zero_points)
    if not mean and made[0] == made[1] and zero_points[0] == zero_points[1]:
        raise Unsupported("SUM with equal scales and zero points is another kernel")
    unsigned = p.x == uint8  # what the reference SUM makes of int8
    named: dict[str, Any] = {"scales": made, "zero_points": zero_points}
    got = models.reduction("MEAN" if mean else "SUM", case.x.view(np.int8), **named, run=run)
    return got.view(np.uint8) if unsigned else got


def _biased(p: Any, n: int, mean: bool, profile: str) -> tuple[float, tuple[int, int]]:
    """The input's scale (that of the result being 1) and both zero points."""
    multiplier = ieee.from_bits32(p.multiplier_bits)
    start = np.float32(multiplier * np.float32(n)) if mean else multiplier
    near = [start, *(np.nextafter(start, np.float32(e), dtype=np.float32) for e in (0, np.inf))]
    every = np.arange(-128, 128)
    for ratio in near if mean else near[:1]:
        with np.errstate(over="ignore"):
            rows = ratio * (np.float32(1) / np.float32(n)) if mean else ratio
            inputs = (every * n).astype(np.float32) * multiplier
            biases = every.astype(np.float32)[:, None] - inputs  # (zero point of the result, of the input)
            if profile != XNNPACK:
                biases = np.broadcast_to((-every).astype(np.float32) * multiplier * np.float32(n), (256, 256))
        bias = ieee.from_bits32(p.bias_bits) * np.float32(-1 if p.bias_sign < 0 else 1)
        found = np.argwhere(biases == bias)
        if rows != multiplier or not len(found):
            continue
        out, into = (int(every[i]) for i in found[0])
        if profile == XNNPACK and p.zero_point == 0:
            return float(ratio), (into, out)
        if profile != XNNPACK:
            return float(ratio), (into, p.zero_point)
    raise Unsupported("no scales and zero points give this multiplier and bias")


# -- activations -------------------------------------------------------------------------------------


@cache
def _tables(curve: str) -> Mapping[bytes, tuple[float, int, float, int]]:
    return {tflite.float_table(curve, *one).tobytes(): one for one in own.curves(curve)}


def table(case: Case, profile: str, run: Run) -> Array:
    operator, _, form = case.serves.replace(" s8", "").partition(", ")
    curve = "GELU tanh" if form else operator
    found = _tables(curve).get(case.table.tobytes()) if curve in tflite.CURVES else None
    if found is None:
        raise Unsupported("a table that none of the adapter's scales gives")
    scale, zero_point, *result = found
    options = ("GeluOptions", {"Approximate": bool(form)}) if operator == "GELU" else None
    made = (float(result[0]), int(result[1]))
    return models.activation(
        operator, case.x, scale=scale, zero_point=zero_point, result=made, options=options, run=run
    )


def rsqrt(case: Case, profile: str, run: Run) -> Array:
    p = case.params
    if case.x.min() < p.a_zero_point:
        raise Unsupported("RSQRT refuses values below the zero point")
    _inside_int8(p.zero_point, p.a_zero_point)
    root = np.float32(2.0 ** (p.shift - rsqrt_tflite.FRACTION_BITS) / max(p.multiplier, 1))
    fields = {name: getattr(p, name) for name in ("a_zero_point", "zero_point", "x", "dtype")}
    for result in (root, *(np.nextafter(root, np.float32(e)) for e in (0, 1e30))):
        if 1e-30 < result < 1e30 and rsqrt_tflite.Params.from_scales(1.0, float(result), single=True, **fields) == p:
            made = (float(result), p.zero_point)
            return models.activation("RSQRT", case.x, scale=1.0, zero_point=p.a_zero_point, result=made, run=run)
    raise Unsupported("no float32 scale of the result gives this multiplier")


def curve16(case: Case, profile: str, run: Run) -> Array:
    p = case.params
    operator = "LOGISTIC" if "logistic" in case.op.name else "TANH"
    if not np.array_equal(case.table, tflite.sigmoid_table()) or getattr(p, "dtype", int16) != int16:
        raise Unsupported(f"{operator} of int16 has the published table, and gives int16")
    if p.shift == 0 and p.multiplier in (3, 6)[: 1 if operator == "LOGISTIC" else 2] and profile != "builtin_ref":
        raise Unsupported(f"at this power of two the optimised kernel is another: {operator.lower()}_gemmlowp16")
    for x in scales.curve16(p.multiplier, p.shift):
        if 0 < x <= 8 / 3 and type(p).from_scale(x) == p:
            return models.activation(operator, case.x, scale=x, zero_point=0, result=(2.0**-15, 0), run=run)
    raise Unsupported("no float32 scale of the input gives this multiplier and shift")


def curve_gemmlowp16(case: Case, profile: str, run: Run) -> Array:
    operator = "LOGISTIC" if "logistic" in case.op.name else "TANH"
    shift = case.params.left_shift
    if profile == "builtin_ref" or (shift and operator == "LOGISTIC"):
        raise Unsupported("the optimised kernels alone compute this, LOGISTIC with a scale of 2**-12")
    return models.activation(operator, case.x, scale=2.0 ** (shift - 12), zero_point=0, result=(2.0**-15, 0), run=run)


RUNS: Mapping[str, Callable[[Case, str, Run], Array]] = {
    **dict.fromkeys(
        (
            "linear.float64_ties_away",
            "linear.two_half_ups",
            "linear.float32_ties_even",
            "linear.double_rounding",
            "linear.multiplier16",
        ),
        linear,
    ),
    **dict.fromkeys(
        (
            "add.rescaled",
            "add.shift_first",
            "add.xnnpack",
            "mul.rescaled",
            "mul.float32_ties_even",
            "mul.squared_difference",
        ),
        binary,
    ),
    **dict.fromkeys(("requantize.double_rounding", "requantize.two_half_ups", "requantize.xnnpack_8bit"), requantize),
    **dict.fromkeys(("quantize.affine", "quantize.reciprocal"), quantize),
    **dict.fromkeys(("dequantize.affine", "dequantize.scaled_zero_point"), dequantize),
    **dict.fromkeys(("softmax.gemmlowp", "softmax.float32_table", "softmax.tflite_s16"), softmax),
    **dict.fromkeys(("reduce.mean_tflite", "reduce.sum_tflite", "reduce.float32_bias"), reduce),
    "activation.table": table,
    "activation.rsqrt_tflite": rsqrt,
    **dict.fromkeys(("activation.logistic_s16", "activation.tanh_s16"), curve16),
    **dict.fromkeys(("activation.logistic_gemmlowp16", "activation.tanh_gemmlowp16"), curve_gemmlowp16),
}

"""tflite-micro's reference kernels as a backend under test: one operator a model, in its Python interpreter.

A case states multipliers and shifts; a model holds float32 scales. ``_tflite_micro_scales`` finds scales
from which the kernel derives exactly what the case states, and what has none is unsupported.

Source: tensorflow/tflite-micro tensorflow/lite/micro/kernels, tensorflow/lite/kernels/internal/reference.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import metadata
from types import SimpleNamespace
from typing import Any

import numpy as np

from intsim import registry
from intsim.binding import Array
from intsim.numerics import IntType, Overflow, Rounding, int4, int8, int16, int32, int48, uint8
from intsim.oracle.adapter import Capability, System, Unsupported
from intsim.oracle.adapters import _tflite_micro_scales as scales, _tflite_model as models
from intsim.oracle.adapters._tflite_micro_capabilities import capabilities
from intsim.oracle.cases import Case, make
from intsim.ops.softmax import tflite_s16
from intsim.spec import packing
from intsim.spec.tflite import sigmoid_table

SYSTEM = System(
    title="TensorFlow Lite Micro",
    runs="wheel",
    needs="pip install 'intsim[tflite-micro]'",
    source="tensorflow/tflite-micro tensorflow/lite/micro/kernels, tensorflow/lite/kernels/internal/reference",
    left={
        "GELU": "there is no such kernel",
        "LayerNorm": "there is no such kernel; its decomposition is layernorm.tflite_decomposed",
        "FULLY_CONNECTED s16 with biases beyond int32": "matmul.integer takes an int32 bias",
        "SOFTMAX s8 of rows whose exponentials sum to 512 or more": "the interpreter ends the process: gemmlowp "
        "asserts that a shift is at most 31, and the last one is 32 to 34 there",
        "LOG_SOFTMAX, EXP, LOG, DIV, ELU, SQRT": "float32 only, or no variant",
    },
)
ARENA = 1 << 23  # bytes; the largest model here needs a third


@cache
def _packages() -> SimpleNamespace:
    try:
        import flatbuffers
        import tflite
        from tflite_micro.python.tflite_micro import runtime
    except ImportError as missing:
        raise ValueError(
            f"the tflite_micro backend needs the package {missing.name}: pip install 'intsim[tflite-micro]'"
        ) from missing
    return SimpleNamespace(runtime=runtime, flatbuffers=flatbuffers, tflite=tflite)


def interpret(flatbuffer: bytes, *arrays: Array) -> Array:
    """The output of a model in tflite-micro's interpreter; Unsupported where it refuses the model."""
    try:
        interpreter = _packages().runtime.Interpreter.from_bytes(flatbuffer, arena_size=ARENA)
        for i, a in enumerate(arrays):
            interpreter.set_input(np.ascontiguousarray(a), i)
        interpreter.invoke()
    except RuntimeError as refused:
        raise Unsupported(f"tflite-micro refuses the model: {refused}") from None
    return np.asarray(interpreter.get_output(0)).copy()


@dataclass
class Backend:
    """The adapter. How a case is run follows from ``Case.serves`` where one variant is two operators."""

    name: str = "tflite_micro"

    def capabilities(self) -> Sequence[Capability]:
        return capabilities()

    def versions(self) -> Mapping[str, str]:
        _packages()
        return {name: metadata.version(name) for name in ("tflite_micro", "tflite", "flatbuffers")}

    def run(self, case: Case) -> Any:
        runs = _RUNS.get(case.op.name)
        if runs is None:
            raise Unsupported(f"no tflite-micro kernel computes {case.op.name}")
        return runs(case)


def _one(name: str, values: Array) -> int:
    if values.size > 1 and (values != values[0]).any():
        raise Unsupported(f"the operator has one {name} for its tensor")
    return int(values[0])


def _fits(t: IntType, zero_point: int, what: str) -> None:
    if not t.qmin <= zero_point <= t.qmax or (t.bits == 16 and zero_point):
        raise Unsupported(f"the zero point of {what} is a value of its type, and 0 for int16; got {zero_point}")


def _linear_of(case: Case) -> Array:
    p, r = case.params.matmul, case.params.requantize
    wide = case.op.name == "linear.multiplier16"
    batch = case.serves.startswith("BATCH_MATMUL")
    if (p.acc, p.overflow) != (int48 if wide else int32, Overflow.WRAP):
        raise Unsupported(f"the accumulator is int32, or int64 for int16 activations, and wraps; not {p.acc}")
    if p.a not in (int8, int16) or r.dtype != p.a or p.b not in ((p.a,) if batch else (int8, int4)):
        raise Unsupported(f"no kernel for {p.a} times {p.b} to {r.dtype}")
    zo, zb = _one("zero point of the result", r.zero_point), _one("zero point of the weights", p.b_zero_point)
    for t, z, what in ((p.a, p.a_zero_point, "a"), (p.b, zb, "b"), (r.dtype, zo, "the result")):
        _fits(t, z, what)
    if wide and r.shift.min() < 24:
        raise Unsupported("a real multiplier of the 64-bit requantization is below 2**8")
    n = case.bias.size
    many = r.multiplier.size > 1 or r.shift.size > 1
    multiplier, shift = (np.broadcast_to(v, n) for v in (r.multiplier, r.shift)) if many else (r.multiplier, r.shift)
    sx, sw, so = scales.rows(multiplier, shift)
    zero_points = (p.a_zero_point, zb, zo)
    if batch:
        if case.bias.any() or np.ndim(sw):
            raise Unsupported("BATCH_MATMUL has no bias, and one multiplier")
        return models.batch_matmul(case.a, case.b.T, scales=(sx, sw, so), zero_points=zero_points, run=interpret)
    if np.ndim(sw) and (zb or p.b == int4):
        raise Unsupported("weights with a scale a row are int8 and have no zero point")
    terms = case.a.shape[1]
    b = packing.unpack(case.b.astype(np.int64), int4, p.nibbles)[:, :terms].astype(np.int8) if p.b == int4 else case.b
    bias = case.bias.astype(np.int64 if wide else np.int32)
    return models.fully_connected(
        case.a,
        b,
        bias,
        scales=(sx, sw, so),
        zero_points=zero_points,
        result=r.dtype.storage,
        weights="int4" if p.b == int4 else "",
        run=interpret,
    )


def _requantize(case: Case) -> Array:
    p = case.params
    t = {"QUANTIZE s8": int8, "QUANTIZE s16": int16}.get(case.serves, int32)
    kernels = {int8: (int8, uint8, int16, int32), int16: (int8, int16, int32), int32: (int8, int16)}
    if p.dtype not in kernels[t]:
        raise Unsupported(f"QUANTIZE has no kernel for {t} to {p.dtype}")
    low, high = int(case.acc.min()), int(case.acc.max())
    zero_point = 0 if t == int32 else min(max(3, t.qmin - low), t.qmax - high)  # 3 where it may be
    if low + zero_point < t.qmin or high + zero_point > t.qmax:
        raise Unsupported(f"the accumulators do not fit {t}, whatever its zero point")
    x, y = scales.quotient(_one("multiplier", p.multiplier), _one("shift", p.shift))
    operand = (case.acc.astype(np.int64) + zero_point).astype(t.storage)
    made = (y, _one("zero point", p.zero_point))
    return models.conversion("QUANTIZE", operand, p.dtype.storage, operand=(x, zero_point), made=made, run=interpret)


def _quantize(case: Case) -> Array:
    t = case.params.dtype
    if case.params.rounding != Rounding.TIES_TO_AWAY or t not in (int8, int16):
        raise Unsupported(f"QUANTIZE of float32 rounds ties away, to int8 or int16; not to {t}")
    if case.scale.size > 1:
        raise Unsupported("QUANTIZE has one scale for its tensor")
    with np.errstate(over="ignore", under="ignore"):
        if (np.abs(case.x / case.scale) >= 2.0**31 - 2.0**17).any():
            raise Unsupported("tflite-micro casts the quotient to int32 before it saturates: undefined from 2**31 on")
    made = float(case.scale[0, 0]), int(case.zero_point[0, 0])
    return models.conversion("QUANTIZE", case.x, t.storage, operand=(None, 0), made=made, run=interpret)


def _dequantize(case: Case) -> Array:
    if case.scale.size > 1 or case.params.q not in (int8, uint8, int16):
        raise Unsupported("DEQUANTIZE has one scale for its tensor, of int8, uint8 or int16")
    operand = float(case.scale[0, 0]), int(case.zero_point[0, 0])
    return models.conversion("DEQUANTIZE", case.q, "float32", operand=operand, made=(None, 0), run=interpret)


def _softmax(case: Case) -> Array:
    p = case.params
    if (case.stop != case.q.shape[1]).any():
        raise Unsupported("SOFTMAX has no mask")
    if case.op.name == "softmax.tflite_s16":
        exact = tflite_s16.tables()
        if p.dtype != int16 or not all(map(np.array_equal, (case.exp_table, case.inverse_table), exact)):
            raise Unsupported("SOFTMAX of int16 has the tables that float32 gives")
        scale, beta = scales.product(p.multiplier, p.shift, 10.0 / 65535.0)
        return models.softmax(case.q, scale=scale, beta=beta, result="int16", run=interpret)
    if p.q != int8 or p.dtype not in (int8, int16):
        raise Unsupported(f"SOFTMAX has no kernel for {p.q} to {p.dtype}")
    step = p.multiplier / 2.0 ** (p.shift + 26)
    away = case.q.astype(np.float64) - case.q.max(axis=1, keepdims=True)
    if p.dtype == int8 and (np.exp(away * step).sum(axis=1) > 511).any():
        raise Unsupported("tflite-micro ends the process where exponentials of a row sum to 512: a shift beyond 31")
    if p.multiplier <= 1 << p.shift:
        raise Unsupported("tflite-micro ends the process where scale * beta is not above 2**-26")
    if (p.multiplier, p.shift) == (2**31 - 1, 0):
        scale, beta = 64.0, 1.0  # the cap
    else:
        scale, beta = scales.product(p.multiplier, p.shift, 2.0**-26)
    return models.softmax(case.q, scale=scale, beta=beta, result=p.dtype.storage, run=interpret)


_SIDES = {
    "add.rescaled": ("ADD", scales.added, 20, 15),
    "add.rescaled_difference": ("SUB", scales.added, 20, 15),
    "mul.squared_difference": ("SQUARED_DIFFERENCE", scales.squared, 7, 0),
    "mul.rescaled": ("MUL", None, 0, 0),
}


def _binary(case: Case) -> Array:
    p = case.params
    operator, last, narrow, wide = _SIDES[case.op.name]
    if not p.a == p.b == p.dtype or p.dtype not in (int8, int16):
        raise Unsupported(f"{operator} has int8 or int16 throughout, not {p.a}, {p.b}, {p.dtype}")
    zero_points = (p.a_zero_point, p.b_zero_point, p.zero_point)
    for z in zero_points:
        _fits(p.dtype, z, "each tensor")
    if last is None:
        x, y = scales.quotient(p.multiplier, p.shift)
        return models.binary(operator, case.a, case.b, scales=(x, 1.0, y), zero_points=zero_points, run=interpret)
    if p.left_shift != (narrow if p.dtype == int8 else wide):
        raise Unsupported(f"{operator} shifts {p.dtype} operands left by {narrow if p.dtype == int8 else wide}")
    made = scales.sides(p, last(p.left_shift))
    return models.binary(operator, case.a, case.b, scales=made, zero_points=zero_points, run=interpret)


def _reduce(case: Case) -> Array:
    p = case.params
    if p.x != p.dtype or p.dtype not in (int8, int16):
        raise Unsupported(f"the operator has int8 or int16 throughout, not {p.x} and {p.dtype}")
    operator = "MEAN" if case.op.name == "reduce.mean_tflite" else "SUM"
    made = scales.quotient(p.multiplier, p.multiplier_shift)
    return models.reduction(operator, case.x, scales=made, zero_points=(p.a_zero_point, p.zero_point), run=interpret)


def _rsqrt(case: Case) -> Array:
    p = case.params
    if (p.x, p.dtype) != (int8, int8):
        raise Unsupported(f"RSQRT has int8 throughout, not {p.x} and {p.dtype}")
    if case.x.min() < p.a_zero_point:
        raise Unsupported("RSQRT refuses values below the zero point")
    _fits(int8, p.zero_point, "the result")
    if p.shift < 20:
        raise Unsupported("the real multiplier of RSQRT times 2**-20 has a shift of at least 20")
    x, y = scales.root(p.multiplier, p.shift - 20)
    made = (y, p.zero_point)
    return models.activation("RSQRT", case.x, scale=x, zero_point=p.a_zero_point, result=made, run=interpret)


_CURVES = {
    "activation.logistic_gemmlowp": ("LOGISTIC", 2.0**-8, -128),
    "activation.tanh_gemmlowp": ("TANH", 2.0**-7, 0),
    "activation.logistic_s16": ("LOGISTIC", 2.0**-15, 0),
    "activation.tanh_s16": ("TANH", 2.0**-15, 0),
}


def _curve(case: Case) -> Array:
    p = case.params
    operator, scale, zero = _CURVES[case.op.name]
    result = (scale, zero)
    if case.op.name.endswith("_s16"):
        if not np.array_equal(case.table, sigmoid_table()) or getattr(p, "dtype", int16) != int16:
            raise Unsupported(f"{operator} of int16 has the published table, and gives int16")
        for x in scales.curve16(p.multiplier, p.shift):
            if 0 < x <= 8 / 3 and type(p).from_scale(x) == p:
                return models.activation(operator, case.x, scale=x, zero_point=0, result=result, run=interpret)
        raise Unsupported("no float32 scale of the input gives this multiplier and shift")
    if (p.x, p.dtype, p.zero_point) != (int8, int8, zero):
        raise Unsupported(f"{operator} has int8 throughout, and the zero point {zero}")
    x = scales.curve(p.multiplier, p.shift)
    return models.activation(operator, case.x, scale=x, zero_point=p.a_zero_point, result=result, run=interpret)


def _layernorm(case: Case) -> Array:
    """The nine operators one after the other, each in a model of its own."""

    def run(name: str, *arrays: Array, p: Any) -> Array:
        return _RUNS[name](make(registry.get(name), "stage", "", arrays, p))

    made: Array = case.op.spec(run, *case.inputs, case.params)
    return made


_RUNS: dict[str, Callable[[Case], Array]] = {
    "linear.double_rounding": _linear_of,
    "linear.multiplier16": _linear_of,
    "requantize.double_rounding": _requantize,
    "quantize.affine": _quantize,
    "dequantize.affine": _dequantize,
    "softmax.gemmlowp": _softmax,
    "softmax.tflite_s16": _softmax,
    **dict.fromkeys(_SIDES, _binary),
    "reduce.mean_tflite": _reduce,
    "reduce.sum_tflite": _reduce,
    "activation.rsqrt_tflite": _rsqrt,
    **dict.fromkeys(_CURVES, _curve),
    "layernorm.tflite_decomposed": _layernorm,
}

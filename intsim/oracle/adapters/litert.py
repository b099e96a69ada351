"""LiteRT's kernels as a backend under test: one operator a model, in the Python interpreter, one thread.

The wheel holds three sets of kernels, which differ in bits; each is a profile. A case states
multipliers; a model holds float32 scales: ``_litert_runs`` finds the scales that give them.

Source: google-ai-edge/LiteRT tflite/kernels; google/XNNPACK src.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from importlib import metadata
from types import SimpleNamespace
from typing import Any

import numpy as np

from intsim.binding import Array
from intsim.numerics import IntType, Nibbles, Rounding, Scaling, int4, int8, int16, int32, uint8
from intsim.ops.quantize.reciprocal import ZeroPoint
from intsim.oracle.adapter import Capability, System, Unsupported
from intsim.oracle.adapters import _litert_cases as own
from intsim.oracle.adapters._litert_runs import RUNS
from intsim.oracle.cases import Case
from intsim.spec import tflite

REFERENCE, OPTIMIZED, XNNPACK = "builtin_ref", "optimized", "xnnpack"
SYSTEM = System(
    title="LiteRT",
    runs="wheel",
    needs="pip install 'intsim[litert]'",
    source="google-ai-edge/LiteRT tflite/kernels; google/XNNPACK src",
    profiles={
        REFERENCE: "the reference kernels (OpResolverType.BUILTIN_REF)",
        OPTIMIZED: "the optimised kernels without a delegate (BUILTIN_WITHOUT_DEFAULT_DELEGATES)",
        XNNPACK: "the default of the wheel (AUTO): XNNPACK where it takes the operator, the optimised kernel elsewhere",
    },
    left={
        "FULLY_CONNECTED s16 with accumulators beyond int32": "LiteRT accumulates in int64 and converts to float64; "
        "requantize.float64_ties_away takes an int32",
        "SUB s8 of xnnpack": "one rounding as in add.xnnpack, the second term subtracted: no variant; 8192 of 65536 "
        "pairs at scales 0.25, 0.5 and 1 differ from the formula of the other profiles",
        "SUM s16": "372 of 3000 rows of 7 differ from reduce.sum_tflite in the optimised kernel, all in the reference "
        "one; not derived",
        "SUM s8 with equal scales and zero points": "adds int8 modulo 2**8: no rescaling, another kernel",
    },
)
SUM_READS_UNSIGNED = (
    "the reference SUM reads int8 as uint8 and saturates to uint8: of 2000 rows of 7 random values at scales 0.25 and "
    "1, 1786 differ from the documented sum, none from that of the bytes"
)
TWO_HALF_UPS = (
    "two roundings, both with ties to positive, are not the documented rounding: -505 / 16 = -31.56 becomes -31 "
    "(with AVX2 and AVX-512 alike)"
)
EIGHT_BITS = (
    "the multiplier has 8 fraction bits: at scales 0.02 and 0.9, 21 of the 256 inputs give another integer than the "
    "nearest"
)

TWICE: dict[str, Any] = {"scaling": (Scaling.DOUBLE_ROUNDING,)}  # how the wheel is built


@cache
def _packages() -> SimpleNamespace:
    try:
        import ai_edge_litert.interpreter as litert
        import flatbuffers
        import tflite
    except ImportError as missing:
        raise ValueError(
            f"the litert backend needs the package {missing.name}: pip install 'intsim[litert]'"
        ) from missing
    return SimpleNamespace(litert=litert, flatbuffers=flatbuffers, schema=tflite)


def interpret(profile: str, flatbuffer: bytes, *arrays: Array) -> Array:
    """The output of a model in LiteRT's interpreter; Unsupported where it refuses the model."""
    litert = _packages().litert
    resolver = {
        REFERENCE: litert.OpResolverType.BUILTIN_REF,
        OPTIMIZED: litert.OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
        XNNPACK: litert.OpResolverType.AUTO,
    }[profile]
    try:
        interpreter = litert.Interpreter(
            model_content=flatbuffer, experimental_op_resolver_type=resolver, num_threads=1
        )
        interpreter.allocate_tensors()
        for tensor, a in zip(interpreter.get_input_details(), arrays, strict=True):
            interpreter.set_tensor(tensor["index"], np.ascontiguousarray(a))
        interpreter.invoke()
    except (RuntimeError, ValueError) as refused:
        raise Unsupported(f"LiteRT refuses the model: {str(refused).splitlines()[0]}") from None
    made: Array = interpreter.get_tensor(interpreter.get_output_details()[0]["index"])
    return made


def _name(t: IntType) -> str:
    return f"{'s' if t.signed else 'u'}{t.bits}"


def _one(t: IntType) -> dict[str, Any]:
    return {"x": (t,), "dtype": (t,)}


def _linear(operator: str, op: str, a: IntType, b: IntType, **fields: Any) -> Capability:
    zero = np.array([0])
    points = tuple(np.array([z]) for z in range(-128, 128)) if a == int8 else (zero,)
    any_b = operator == "BATCH_MATMUL" and a == int8 and op == "linear.double_rounding"
    only = {
        "matmul.a": (a,),
        "matmul.b": (b,),
        "matmul.nibbles": (Nibbles.LOW_FIRST,),
        "matmul.a_zero_point": tuple(range(-128, 128)) if a == int8 else (0,),
        "matmul.b_zero_point": points if any_b else (zero,),
        "requantize.zero_point": points,
        "requantize.dtype": (a,),
    }
    kinds = _name(a) if a == b else f"{_name(a)} x {_name(b)}"
    directed = partial(own.linear, op, a, b, batch=operator == "BATCH_MATMUL")
    return Capability(op, only, 0 if "float64" in op else 12, 24, directed, f"{operator} {kinds}", **fields)


def _linears(profile: str) -> list[Capability]:
    op = {
        REFERENCE: "linear.float64_ties_away",
        OPTIMIZED: "linear.two_half_ups",
        XNNPACK: "linear.float32_ties_even",
    }[profile]
    defect = {"defect": TWO_HALF_UPS} if profile == OPTIMIZED else {}
    batch = "linear.float32_ties_even" if profile == XNNPACK else "linear.double_rounding"
    return [
        _linear("FULLY_CONNECTED", op, int8, int8, **defect),
        _linear("FULLY_CONNECTED", op, int8, int4, **defect),
        _linear("FULLY_CONNECTED", "linear.float64_ties_away", int16, int8),
        _linear("BATCH_MATMUL", batch, int8, int8),
        _linear("BATCH_MATMUL", "linear.multiplier16", int16, int16),
    ]


def _elementwise(profile: str) -> list[Capability]:
    made = []
    for t in (int8, int16):
        fast = profile == XNNPACK and t == int8
        held: dict[str, Any] = {"a": (t,), "b": (t,), "dtype": (t,)}
        left = {} if fast else {"left_shift": (20 if t == int8 else 15,)}
        name = "add.xnnpack" if fast else "add.rescaled"
        if t == int16 and profile != REFERENCE:
            name = "add.shift_first"
        rescaled = {} if fast else TWICE
        made.append(Capability(name, held | left | rescaled, 0, 24, partial(own.binary, name, t), f"ADD {_name(t)}"))
        name = "mul.float32_ties_even" if fast else "mul.rescaled"
        made.append(Capability(name, held | rescaled, 0, 24, partial(own.binary, name, t), f"MUL {_name(t)}"))
        if profile != XNNPACK or t == int16:
            name, left = "add.rescaled_difference", {"left_shift": (20 if t == int8 else 15,)}
            made.append(Capability(name, held | left | TWICE, 0, 24, partial(own.binary, name, t), f"SUB {_name(t)}"))
    name = "mul.squared_difference"
    held = {"a": (int8,), "b": (int8,), "dtype": (int8,), "left_shift": (7,)}
    made.append(Capability(name, held, 0, 24, partial(own.binary, name, int8), "SQUARED_DIFFERENCE s8"))
    return made


def _conversions(profile: str) -> list[Capability]:
    one: dict[str, Any] = {"group_size": (2**31 - 1,), "m": (1,)}
    points = {"zero_point": tuple(np.array([z]) for z in range(-128, 128))}
    eight, defect = {
        REFERENCE: ("requantize.double_rounding", ""),
        OPTIMIZED: ("requantize.two_half_ups", TWO_HALF_UPS),
        XNNPACK: ("requantize.xnnpack_8bit", EIGHT_BITS),
    }[profile]
    made = [
        Capability(
            eight, points | {"dtype": (int8,)}, 0, 24, partial(own.requantize, eight, int8), "QUANTIZE s8", defect
        )
    ]
    wide = "requantize.double_rounding"
    for t, results in ((int16, (int8, int16)), (int32, (int8, int16))):
        directed = partial(own.requantize, wide, t)
        made.append(Capability(wide, points | {"dtype": results}, 12, 24, directed, f"QUANTIZE {_name(t)}"))
    quantize, rounding = "quantize.affine", Rounding.TIES_TO_AWAY
    if profile != REFERENCE:
        quantize, rounding = "quantize.reciprocal", Rounding.TIES_TO_EVEN
    held = one | {"rounding": (rounding,), "dtype": (int8, int16)}
    if profile != REFERENCE:
        held["zero_point_added"] = (ZeroPoint.LAST,)
    made.append(Capability(quantize, held, 24, 40, partial(own.quantize, quantize, rounding), "QUANTIZE float32"))
    for t in (int8, int16):
        products = profile == OPTIMIZED and t == int8
        name = "dequantize.scaled_zero_point" if products else "dequantize.affine"
        held = {"q": (t,)} | ({} if products else one)
        made.append(Capability(name, held, 24, 40, partial(own.dequantize, name, t), f"DEQUANTIZE {_name(t)}"))
    return made


def _rows(profile: str) -> list[Capability]:
    name = "softmax.gemmlowp" if profile == REFERENCE else "softmax.float32_table"
    made = []
    for t, serves in ((int8, "SOFTMAX s8"), (int16, "SOFTMAX s8 to s16")):
        rate: dict[str, Any] = {"q": (int8,), "dtype": (t,)}
        made.append(Capability(name, rate, 0, 24, partial(own.softmax, name, t), serves))
    held = {"dtype": (int16,), "index_bits": (9,)} | TWICE
    made.append(Capability("softmax.tflite_s16", held, 0, 24, own.softmax16, "SOFTMAX s16"))
    name = "reduce.float32_bias" if profile == XNNPACK else "reduce.mean_tflite"
    held = _one(int8) | ({"rounding": (Rounding.TIES_TO_EVEN,)} if profile == XNNPACK else {})
    made.append(Capability(name, held, 0, 24, partial(own.reduce, name, "MEAN", profile), "MEAN s8"))
    directed = partial(own.reduce, "reduce.mean_tflite", "MEAN", profile, int16)
    made.append(Capability("reduce.mean_tflite", _one(int16), 0, 24, directed, "MEAN s16"))
    name, defect, held = "reduce.float32_bias", "", _one(int8) | {"rounding": (Rounding.TIES_TO_EVEN,)}
    if profile == OPTIMIZED:
        held["rounding"] = (Rounding.TIES_TO_AWAY,)
    elif profile == REFERENCE:
        name, defect, held = "reduce.sum_tflite", SUM_READS_UNSIGNED, _one(uint8)
    made.append(Capability(name, held, 0, 24, partial(own.reduce, name, "SUM", profile), "SUM s8", defect))
    return made


def _curves(profile: str) -> list[Capability]:
    made = [Capability("activation.rsqrt_tflite", _one(int8), 0, 24, own.rsqrt, "RSQRT s8")]
    for curve in tflite.CURVES:
        operator, _, form = curve.partition(" ")
        serves = f"{operator} s8{', tanh form' if form else ''}"
        made.append(Capability("activation.table", _one(int8), 0, 24, partial(own.table, curve), serves))
    for operator in ("LOGISTIC", "TANH"):
        name = f"activation.{operator.lower()}_s16"
        made.append(Capability(name, {}, 0, 24, partial(own.curve16, operator), f"{operator} s16"))
        if profile != REFERENCE:
            shifts = (0,) if operator == "LOGISTIC" else (0, 1)
            directed = partial(own.curve_gemmlowp16, operator, shifts)
            name, serves = f"activation.{operator.lower()}_gemmlowp16", f"{operator} s16 at scales of 2**-12"
            serves += " and 2**-11" if operator == "TANH" else ""
            made.append(Capability(name, {"left_shift": shifts}, 12, 40, directed, serves))
    return made


@dataclass
class Backend:
    """The adapter. How a case is run follows from ``Case.serves`` where one variant is two operators."""

    profile: str = REFERENCE
    name: str = "litert"

    def capabilities(self) -> Sequence[Capability]:
        made = [*_linears(self.profile), *_elementwise(self.profile), *_conversions(self.profile)]
        return [*made, *_rows(self.profile), *_curves(self.profile)]

    def versions(self) -> Mapping[str, str]:
        _packages()
        return {name: metadata.version(name) for name in ("ai-edge-litert", "tflite", "flatbuffers")}

    def run(self, case: Case) -> Any:
        runs = RUNS.get(case.op.name)
        if runs is None:
            raise Unsupported(f"no LiteRT kernel computes {case.op.name}")
        if getattr(case.params, "scaling", None) == Scaling.SINGLE_ROUNDING:
            raise Unsupported("the wheel is built with double rounding")
        return runs(case, self.profile, partial(interpret, self.profile))

"""ONNX Runtime's CPU kernels as a backend under test: one node a model, no graph optimisation, one thread.

    matmul.integer                MatMulInteger
    linear.qlinear_matmul         QLinearMatMul
    quantize.affine               QuantizeLinear         per tensor, per row, blocked
    dequantize.affine             DequantizeLinear       likewise
    quantize.dynamic_asymmetric   DynamicQuantizeLinear  row by row: ONNX takes a tensor as one row

Weights are constants of the model, as in an exported one, so that the runtime packs them.
Source: microsoft/onnxruntime onnxruntime/core/providers/cpu/quantization, onnxruntime/core/mlas/lib.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, partial
from types import SimpleNamespace
from typing import Any

import numpy as np

from intsim.binding import Array
from intsim.numerics import IntType, Overflow, Rounding, int4, int8, int16, int32, uint4, uint8, uint16
from intsim.oracle.adapter import Capability, System, Unsupported
from intsim.oracle.adapters import _onnxruntime_cases as own
from intsim.oracle.cases import Case

SYSTEM = System(
    title="ONNX Runtime",
    runs="wheel",
    needs="pip install 'intsim[onnxruntime]'",
    source="microsoft/onnxruntime onnxruntime/core/providers/cpu/quantization, onnxruntime/core/mlas/lib",
)
OPSET = 21  # the first with blocked scales, 4 and 16 bits; MatMulInteger is from 10, DynamicQuantizeLinear from 11
IR_VERSION = 10  # the first that may name opset 21
# (a, b, result) of the QLinearMatMul kernels; for the others the runtime says NOT_IMPLEMENTED.
QLINEAR = ((int8, int8, int8), (uint8, int8, uint8), (uint8, uint8, uint8))
QUANTIZED = (int8, uint8, int16, uint16, int4, uint4)


@cache
def _packages() -> SimpleNamespace:
    try:
        import onnx
        import onnxruntime
    except ImportError as missing:
        raise ValueError(
            f"the onnxruntime backend needs the package {missing.name}: pip install 'intsim[onnxruntime]'"
        ) from missing
    return SimpleNamespace(onnx=onnx, runtime=onnxruntime)


@dataclass(frozen=True, slots=True)
class Operand:
    """An input of a node: its values, its ONNX type by name, and whether it is a constant of the model."""

    values: Array
    type: str
    constant: bool = False

    @classmethod
    def of(cls, values: Any, t: IntType | str, *, constant: bool = False) -> Operand:
        # A 4-bit operand is always a constant: NumPy has no such arrays to pass in.
        name = str(t).upper()
        return cls(np.asarray(values), name, constant or name.endswith("INT4"))


def model(kind: str, operands: Sequence[Operand | None], results: Sequence[str], **attributes: Any) -> Any:
    """The model with one ``kind`` node; an operand that is None is left out.

    Shapes are left open, so that one model serves all of a rank. A 4-bit result goes through a
    DequantizeLinear of scale 1 (exact) and comes as float32: NumPy has no such arrays to hand out.
    """
    onnx = _packages().onnx
    helper, types = onnx.helper, onnx.TensorProto
    names = ["" if o is None else f"x{i}" for i, o in enumerate(operands)]
    inputs, constants = [], []
    for name, o in zip(names, operands, strict=True):
        if o is None:
            continue
        element = getattr(types, o.type)
        if o.constant:
            constants.append(helper.make_tensor(name, element, o.values.shape, o.values.reshape(-1).tolist()))
        else:
            inputs.append(helper.make_tensor_value_info(name, element, [None] * o.values.ndim))
    made = [f"y{i}" for i in range(len(results))]
    nodes = [helper.make_node(kind, names, made, **attributes)]
    outputs = [helper.make_tensor_value_info(n, getattr(types, t), None) for n, t in zip(made, results, strict=True)]
    if results[0].endswith("INT4"):
        constants.append(helper.make_tensor("one", types.FLOAT, (), [1.0]))
        nodes.append(helper.make_node("DequantizeLinear", [made[0], "one"], ["whole"]))
        outputs = [helper.make_tensor_value_info("whole", types.FLOAT, None)]
    graph = helper.make_graph(nodes, kind, inputs, outputs, constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)


@dataclass
class Backend:
    """The adapter. constant_weights: whether ``b`` of a product is a constant of the model, or an input."""

    constant_weights: bool = True
    name: str = "onnxruntime"
    _sessions: dict[Any, Any] = field(default_factory=dict, repr=False)

    def capabilities(self) -> Sequence[Capability]:
        zero_points = {t: tuple(np.array([z]) for z in range(t.qmin, t.qmax + 1)) for t in (int8, uint8)}
        products = [
            Capability(
                "linear.qlinear_matmul",
                {"matmul.a": (a,), "matmul.b": (b,), "requantize.dtype": (y,), "requantize.zero_point": zero_points[y]},
                cases=20,
                longest=40,
                directed=partial(own.qlinear, a, b, y),
                serves="QLinearMatMul",
            )
            for a, b, y in QLINEAR
        ]
        eight = (int8, uint8)
        wrapping: dict[str, Any] = {"acc": (int32,), "overflow": (Overflow.WRAP,)}
        even: dict[str, Any] = {"rounding": (Rounding.TIES_TO_EVEN,)}
        return [
            Capability("matmul.integer", wrapping | {"a": eight, "b": eight}, 60, 40, own.matmul, "MatMulInteger"),
            *products,
            Capability("quantize.affine", even | {"dtype": QUANTIZED}, 80, 40, own.quantize, "QuantizeLinear"),
            Capability("dequantize.affine", {"q": (*QUANTIZED, int32)}, 80, 40, own.dequantize, "DequantizeLinear"),
            Capability(
                "quantize.dynamic_asymmetric", even | {"dtype": (uint8,)}, 40, 40, own.dynamic, "DynamicQuantizeLinear"
            ),
        ]

    def versions(self) -> Mapping[str, str]:
        packages = _packages()
        return {"onnxruntime": packages.runtime.__version__, "onnx": packages.onnx.__version__}

    def run(self, case: Case) -> Any:
        served: dict[str, Callable[[Case], Any]] = {
            "matmul.integer": self._matmul,
            "linear.qlinear_matmul": self._qlinear,
            "quantize.affine": self._quantize,
            "dequantize.affine": self._dequantize,
            "quantize.dynamic_asymmetric": self._dynamic,
        }
        if case.op.name not in served:
            raise Unsupported(f"no ONNX node computes {case.op.name}")
        return served[case.op.name](case)

    def node(self, kind: str, operands: Sequence[Operand | None], *results: str, **attributes: Any) -> list[Array]:
        """The results of one node; a subclass may take them from another runtime of ONNX models."""
        shapes = tuple(o and (o.type, o.values.ndim, o.constant) for o in operands)
        key = (kind, shapes, results, tuple(attributes.items()))
        fixed = any(o is not None and o.constant for o in operands)  # a constant makes a model of its own
        session = None if fixed else self._sessions.get(key)
        if session is None:
            session = _session(model(kind, operands, results, **attributes))
            if not fixed:
                self._sessions[key] = session
        feeds = {f"x{i}": o.values for i, o in enumerate(operands) if o is not None and not o.constant}
        made: list[Array] = session.run(None, feeds)
        return made

    def _matmul(self, case: Case) -> Array:
        p = case.params
        if case.bias.any():
            raise Unsupported("MatMulInteger has no bias")
        _check_product(p, case.a, case.b)
        zero_point = p.b_zero_point if p.b_zero_point.size > 1 else p.b_zero_point[0]
        operands = [
            Operand.of(case.a, p.a),
            Operand.of(case.b.T, p.b, constant=self.constant_weights),
            Operand.of(np.array(p.a_zero_point, p.a.storage), p.a),
            Operand.of(np.array(zero_point, p.b.storage), p.b, constant=self.constant_weights),
        ]
        return self.node("MatMulInteger", operands, "INT32")[0]

    def _qlinear(self, case: Case) -> Array:
        p, r = case.params.matmul, case.params.requantize
        if (p.a, p.b, r.dtype) not in QLINEAR:
            raise Unsupported(f"QLinearMatMul has no kernel for {p.a} times {p.b} to {r.dtype}")
        if (r.zero_point != r.zero_point[0]).any():
            raise Unsupported("QLinearMatMul has one zero point for the result")
        _check_fits(r.zero_point, r.dtype)
        _check_product(p, case.a, case.b)
        # f32(f32(1 * multiplier) / 1) is the multiplier itself, so that every float32 can be judged.
        multiplier = r.multiplier_bits.astype(np.int32).view(np.float32)
        one = Operand.of(np.float32(1), "FLOAT", constant=True)
        scale, zero_point = np.broadcast_arrays(multiplier, p.b_zero_point.astype(p.b.storage))
        if scale.size == 1:
            scale, zero_point = scale[0], zero_point[0]
        operands = [
            Operand.of(case.a, p.a),
            one,
            Operand.of(np.array(p.a_zero_point, p.a.storage), p.a, constant=True),
            Operand.of(case.b.T, p.b, constant=self.constant_weights),
            Operand.of(scale, "FLOAT", constant=True),
            Operand.of(zero_point, p.b, constant=True),
            one,
            Operand.of(np.array(r.zero_point[0], r.dtype.storage), r.dtype, constant=True),
        ]
        return self.node("QLinearMatMul", operands, str(r.dtype).upper())[0]

    def _quantize(self, case: Case) -> Array:
        t = case.params.dtype
        if case.params.rounding != Rounding.TIES_TO_EVEN:
            raise Unsupported("QuantizeLinear rounds ties to even")
        _check_fits(case.zero_point, t)
        scale, zero_point, attributes = _granularity(case)
        if t.bits == 4 and quotient_leaves_int32(case):
            # In 1.31.1 on x86 the scalar code of the 4-bit kernel (odd ends of a row, all of a short block)
            # gives the lowest value for +infinity; the vector code saturates, as the 8- and 16-bit kernels do.
            raise Unsupported(
                "ONNX Runtime casts a quotient to int32 before it saturates to 4 bits: undefined from 2**31 on"
            )
        operands = [
            Operand.of(case.x, "FLOAT"),
            Operand.of(scale, "FLOAT"),
            Operand.of(zero_point.astype(t.storage), t),
        ]
        return self.node("QuantizeLinear", operands, str(t).upper(), **attributes)[0].astype(t.storage)

    def _dequantize(self, case: Case) -> Array:
        t = case.params.q
        scale, zero_point, attributes = _granularity(case)
        if t == int32 and zero_point.any():
            raise Unsupported("DequantizeLinear of int32 has no zero point")
        _check_fits(zero_point, t)
        given = None if t == int32 else Operand.of(zero_point.astype(t.storage), t)
        operands = [Operand.of(case.q, t), Operand.of(scale, "FLOAT"), given]
        return self.node("DequantizeLinear", operands, "FLOAT", **attributes)[0]

    def _dynamic(self, case: Case) -> tuple[Array, ...]:
        p = case.params
        if p.dtype != uint8 or p.rounding != Rounding.TIES_TO_EVEN:
            raise Unsupported("DynamicQuantizeLinear gives uint8 and rounds ties to even")
        if _scale_underflows(case.x):
            # In 1.31.1 on x86 the scale is then 0, the zero point 255, and 0 / 0 becomes 0.
            raise Unsupported("ONNX Runtime divides by a scale of 0 where a range is not 0 but below 2**-142")
        results = ("UINT8", "FLOAT", "UINT8")
        rows = [self.node("DynamicQuantizeLinear", [Operand.of(x, "FLOAT")], *results) for x in case.x]
        q, scale, zero_point = (np.stack(part) for part in zip(*rows, strict=True))
        return q, scale, zero_point


def _session(made: Any) -> Any:
    runtime = _packages().runtime
    options = runtime.SessionOptions()
    options.graph_optimization_level = runtime.GraphOptimizationLevel.ORT_DISABLE_ALL  # else nodes are replaced
    options.intra_op_num_threads = 1
    options.log_severity_level = 4  # what fails is raised
    try:
        return runtime.InferenceSession(made.SerializeToString(), options, providers=["CPUExecutionProvider"])
    except runtime.capi.onnxruntime_pybind11_state.NotImplemented as missing:
        raise Unsupported(f"this release has no kernel: {str(missing).splitlines()[0]}") from None


def _check_fits(zero_point: Array, t: IntType) -> None:
    if zero_point.min() < t.qmin or zero_point.max() > t.qmax:
        raise Unsupported(f"an ONNX zero point is a value of the quantized type, {t}")


def quotient_leaves_int32(case: Case) -> bool:
    """Whether an element of a ``quantize.affine`` case is 2**31 steps or more away from 0."""
    group = np.arange(case.x.shape[1]) // case.params.group_size
    with np.errstate(over="ignore", under="ignore"):
        return bool((np.abs(case.x / case.scale[:, group]) >= 2.0**31).any())


def _scale_underflows(x: Array) -> bool:
    with np.errstate(over="ignore", under="ignore"):
        span = np.maximum(x.max(axis=1), 0) - np.minimum(x.min(axis=1), 0)
        return bool(((span > 0) & (span / np.float32(255) == 0)).any())


def _granularity(case: Case) -> tuple[Array, Array, dict[str, int]]:
    """The scale, the zero point and the attributes of Quantize- and DequantizeLinear."""
    scale, zero_point = case.scale, case.zero_point
    if scale.shape[1] > 1:
        return scale, zero_point, {"axis": 1, "block_size": case.params.group_size}
    if scale.shape[0] > 1:
        return scale[:, 0], zero_point[:, 0], {"axis": 0}
    return scale[0, 0], zero_point[0, 0], {}


def _check_product(p: Any, a: Array, b: Array) -> None:
    if (p.acc, p.overflow) != (int32, Overflow.WRAP):
        raise Unsupported(f"the accumulator is int32 and wraps, not {p.acc} with {p.overflow.name}")
    if {p.a, p.b} - {int8, uint8}:
        raise Unsupported(f"a product has operands of 8 bits, not {p.a} and {p.b}")
    if (p.a, p.b) == (uint8, int8) and pairs_saturate() and _pair_leaves_int16(a, b):
        raise Unsupported(
            "on this processor (x86 without VNNI) ONNX Runtime adds pairs of uint8-int8 products in saturating "
            "int16, and here a pair leaves int16; quantize weights to 7 bits, or use uint8 weights"
        )


@cache
def pairs_saturate() -> bool:
    """Whether this processor's uint8-int8 kernel adds pairs of products in saturating int16.

    x86 without VNNI multiplies bytes by VPMADDUBSW, which saturates a[2k] b[2k] + a[2k+1] b[2k+1] at
    32767, before zero points come in. With that rule for every pair a NumPy product equals ONNX
    Runtime 1.31.1 on AVX2 in every element; the other three sign combinations widen first.
    """
    a, b = np.full((2, 8), 255, np.uint8), np.full((8, 16), 127, np.int8)
    operands = [Operand.of(a, uint8), Operand.of(b, int8, constant=True)]
    got = _session(model("MatMulInteger", operands, ["INT32"])).run(None, {"x0": a})[0]
    return bool((got != 8 * 255 * 127).any())


def _pair_leaves_int16(a: Array, b: Array) -> bool:
    odd = a.shape[1] % 2
    a, b = (np.pad(x, ((0, 0), (0, odd))).astype(np.int32) for x in (a, b))
    for row in a:  # one row at a time: m n k products at once could be large
        products = row * b
        pairs = products[:, 0::2] + products[:, 1::2]
        if pairs.min() < -(2**15) or pairs.max() >= 2**15:
            return True
    return False

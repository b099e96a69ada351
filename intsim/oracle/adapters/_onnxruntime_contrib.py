"""ONNX Runtime's own operators, domain com.microsoft: each case as one node, and what is served of each.

Where an operator derives a ratio of scales, the scales given are the ratio and 1, so that it is exact.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np

from intsim.binding import Array
from intsim.numerics import int8, int32, uint8
from intsim.ops.quantize.dynamic_asymmetric_unguarded import ONE
from intsim.ops.softmax import float32_levels
from intsim.oracle.adapter import Capability, Unsupported
from intsim.oracle.adapters import _onnxruntime_contrib_cases as own
from intsim.oracle.adapters._onnx_nodes import MICROSOFT, Nodes, Operand, check_fits
from intsim.oracle.adapters._onnxruntime_session import check_pairs, check_weights
from intsim.oracle.cases import Case

TYPES = (int8, uint8)
GEMM = ((int8, int8, int8), (uint8, int8, uint8), (uint8, uint8, uint8))  # (a, b, result) of the QGemm kernels
INFINITE = (
    "The table leaves headroom for the sum of a row, not for the product with floor(1 / y_scale): in a row of one "
    "column that is infinite, its conversion to an integer gives 0 (uint8) or -2**31 (int8), and so the probability 1 "
    "becomes the zero point (uint8) or the lowest value. Also, 1 / y_scale is rounded down to a whole number."
)
TO_FLOAT = "QGemm to float32"


def capabilities() -> list[Capability]:
    """The rows: one operator, its types as capabilities of their own where they go together."""
    made = []
    for t in TYPES:
        three: dict[str, Any] = {"a": (t,), "b": (t,), "dtype": (t,)}
        two: dict[str, Any] = {"x": (t,), "dtype": (t,)}
        made += [
            Capability("add.float32_fused", three, 20, 40, partial(own.add, t), "QLinearAdd"),
            Capability("mul.float32_zero_point_first", three, 20, 40, partial(own.mul, t), "QLinearMul"),
            Capability("activation.leaky_relu_float32", two, 20, 40, partial(own.leaky_relu, t), "QLinearLeakyRelu"),
            Capability("activation.logistic_float32_rational", two, 20, 40, partial(own.logistic, t), "QLinearSigmoid"),
            Capability(
                "softmax.float32_levels",
                {"q": (t,), "dtype": (t,)},
                0,
                40,
                partial(own.softmax, t),
                "QLinearSoftmax",
                INFINITE,
            ),
        ]
    for a, b, y in GEMM:
        held: dict[str, Any] = {"matmul.a": (a,), "matmul.b": (b,)}
        zero_points = tuple(np.array([z]) for z in range(y.qmin, y.qmax + 1))
        result: dict[str, Any] = {"requantize.dtype": (y,), "requantize.zero_point": zero_points}
        gemm = partial(own.gemm, a, b, y)
        made.append(Capability("linear.float32_ties_even", held | result, 12, 40, gemm, "QGemm"))
        for serves, real in ((TO_FLOAT, False), ("MatMulIntegerToFloat", True)):
            directed = partial(own.real_result, a, b, real)
            made.append(Capability("linear.float32_result", held, 0, 40, directed, serves))
    for b in TYPES:
        dynamic: dict[str, Any] = {"matmul.b": (b,), "quantize.empty_scale_bits": (ONE,), "m": (1, 5, 17)}
        made.append(
            Capability("linear.dynamic_asymmetric", dynamic, 12, 40, partial(own.dynamic, b), "DynamicQuantizeMatMul")
        )
    return made


def _number(values: Any, t: Any) -> Operand:
    return Operand.of(np.array(values, t.storage if hasattr(t, "storage") else np.float32), t, constant=True)


def _real(bits: int) -> Operand:
    return Operand.of(np.array(bits, np.int32).view(np.float32), "FLOAT", constant=True)


def _two_operands(nodes: Nodes, case: Case, kind: str, a_scale: Operand, b_scale: Operand) -> Array:
    p = case.params
    if not p.a == p.b == p.dtype:
        raise Unsupported(f"{kind} has one type, not {p.a}, {p.b} and {p.dtype}")
    if case.a.size == 1:
        raise Unsupported("a tensor of one element is broadcast, by another kernel")
    operands = [
        Operand.of(case.a, p.a),
        a_scale,
        _number(p.a_zero_point, p.a),
        Operand.of(case.b, p.b),
        b_scale,
        _number(p.b_zero_point, p.b),
        _number(1, "FLOAT"),
        _number(p.zero_point, p.dtype),
    ]
    return nodes.node(kind, operands, str(p.dtype).upper(), domain=MICROSOFT)[0]


def _add(nodes: Nodes, case: Case) -> Array:
    return _two_operands(nodes, case, "QLinearAdd", _real(case.params.a_ratio_bits), _real(case.params.b_ratio_bits))


def _mul(nodes: Nodes, case: Case) -> Array:
    return _two_operands(nodes, case, "QLinearMul", _real(case.params.multiplier_bits), _number(1, "FLOAT"))


def _activation(kind: str, nodes: Nodes, case: Case) -> Array:
    p = case.params
    if p.x != p.dtype:
        raise Unsupported(f"{kind} has one type, not {p.x} and {p.dtype}")
    operands = [
        Operand.of(case.x, p.x),
        _real(p.x_scale_bits),
        _number(p.x_zero_point, p.x),
        _real(p.scale_bits),
        _number(p.zero_point, p.dtype),
    ]
    attributes = {}
    if kind == "QLinearLeakyRelu":
        attributes["alpha"] = float(np.array(p.alpha_bits, np.int32).view(np.float32))
    return nodes.node(kind, operands, str(p.dtype).upper(), domain=MICROSOFT, **attributes)[0]


def _softmax(nodes: Nodes, case: Case) -> Array:
    p, columns = case.params, case.q.shape[1]
    if p.q != p.dtype:
        raise Unsupported(f"QLinearSoftmax has one type, not {p.q} and {p.dtype}")
    if (case.stop != columns).any():
        raise Unsupported("QLinearSoftmax sees every column")
    if not p.x_scale > 0 or (case.table != float32_levels.table(p.x_scale, columns)).any():
        raise Unsupported("QLinearSoftmax fills its table from the scale of its input")
    # the smallest scale with these levels, nearly 1 / (levels + 1): that 1 / scale is rounded down tells most there
    scale = np.float32(1) / np.float32(p.levels + 1)
    while np.floor(np.float32(1) / scale) > p.levels:
        scale = np.nextafter(scale, np.float32(2))
    operands = [
        Operand.of(case.q, p.q),
        _number(p.x_scale, "FLOAT"),
        None,
        _number(scale, "FLOAT"),
        _number(p.zero_point, p.dtype),
    ]
    made = nodes.node("QLinearSoftmax", operands, str(p.dtype).upper(), domain=MICROSOFT, axis=-1, opset=13)
    return made[0]


def _weights(nodes: Nodes, case: Case, scale: Array, b: Any, zero_points: Array) -> list[Operand]:
    scale, zero_point = np.broadcast_arrays(scale, zero_points.astype(b.storage))
    if scale.size == 1:
        scale, zero_point = scale.reshape(()), zero_point.reshape(())
    return [
        Operand.of(case.b.T, b, constant=nodes.constant_weights),
        Operand.of(scale, "FLOAT", constant=True),
        Operand.of(zero_point, b, constant=True),
    ]


def _gemm(nodes: Nodes, case: Case) -> Array:
    p, r = case.params.matmul, case.params.requantize
    if (p.a, p.b, r.dtype) not in GEMM:
        raise Unsupported(f"QGemm has no kernel for {p.a} times {p.b} to {r.dtype}")
    if (r.zero_point != r.zero_point[0]).any():
        raise Unsupported("QGemm has one zero point for the result")
    check_fits(r.zero_point, r.dtype)
    check_pairs(p, case.a, case.b)
    multiplier = r.multiplier_bits.astype(np.int32).view(np.float32)
    operands = [
        Operand.of(case.a, p.a),
        _number(1, "FLOAT"),
        _number(p.a_zero_point, p.a),
        *_weights(nodes, case, multiplier, p.b, p.b_zero_point),
        Operand.of(case.bias, int32, constant=True),
        _number(1, "FLOAT"),
        _number(r.zero_point[0], r.dtype),
    ]
    return nodes.node("QGemm", operands, str(r.dtype).upper(), domain=MICROSOFT)[0]


def _real_result(nodes: Nodes, case: Case) -> Array:
    p = case.params.matmul
    if (case.a_scale != case.a_scale[0]).any():
        raise Unsupported("ONNX Runtime has one scale for the left operand")
    if (p.a, p.b) not in [(a, b) for a, b, _ in GEMM]:
        raise Unsupported(f"QGemm has no kernel for {p.a} times {p.b}")
    if not 0 < case.a_scale[0] < np.inf:
        raise Unsupported("a scale is positive and finite")
    check_pairs(p, case.a, case.b)
    a_scale = _number(case.a_scale[0], "FLOAT")
    a_zero_point = _number(p.a_zero_point, p.a)
    b, scale, zero_point = _weights(nodes, case, case.b_scale, p.b, p.b_zero_point)
    if case.serves == TO_FLOAT:
        if case.real_bias.any():
            raise Unsupported("QGemm has no real bias")
        bias = Operand.of(case.bias, int32, constant=True)
        operands = [Operand.of(case.a, p.a), a_scale, a_zero_point, b, scale, zero_point, bias]
        return nodes.node("QGemm", operands, "FLOAT", domain=MICROSOFT)[0]
    if case.bias.any():
        raise Unsupported("MatMulIntegerToFloat has no integer bias")
    given = Operand.of(case.real_bias, "FLOAT", constant=True)
    operands = [Operand.of(case.a, p.a), b, a_scale, scale, a_zero_point, zero_point, given]
    return nodes.node("MatMulIntegerToFloat", operands, "FLOAT", domain=MICROSOFT)[0]


def _dynamic(nodes: Nodes, case: Case) -> Array:
    p = case.params
    if p.quantize.empty_scale_bits != ONE:
        raise Unsupported("ONNX Runtime's scale of a range of 0 is 1")
    with np.errstate(over="ignore"):
        span = np.maximum(case.x.max(), 0) - np.minimum(case.x.min(), 0)
        if not np.isfinite(span / np.float32(255) * case.b_scale).all():
            raise Unsupported("an infinite scale times 0 is no number")
    if p.matmul.b == int8:
        check_weights(case.b)
    b, scale, zero_point = _weights(nodes, case, case.b_scale, p.matmul.b, p.matmul.b_zero_point)
    bias = Operand.of(case.bias, "FLOAT", constant=True)
    operands = [Operand.of(case.x, "FLOAT"), b, scale, zero_point, bias]
    return nodes.node("DynamicQuantizeMatMul", operands, "FLOAT", domain=MICROSOFT)[0]


NODES: Mapping[str, Callable[[Nodes, Case], Any]] = {
    "add.float32_fused": _add,
    "mul.float32_zero_point_first": _mul,
    "activation.leaky_relu_float32": partial(_activation, "QLinearLeakyRelu"),
    "activation.logistic_float32_rational": partial(_activation, "QLinearSigmoid"),
    "softmax.float32_levels": _softmax,
    "linear.float32_ties_even": _gemm,
    "linear.float32_result": _real_result,
    "linear.dynamic_asymmetric": _dynamic,
}

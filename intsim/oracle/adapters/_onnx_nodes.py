"""Models of one ONNX node, and the nodes that ONNX Runtime and the ONNX reference evaluator both have."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

from intsim.binding import Array
from intsim.numerics import IntType, Overflow, Rounding, int8, int32, uint8
from intsim.oracle.adapter import Unsupported
from intsim.oracle.cases import Case

# Opset 21 is the first with blocked scales, 4 and 16 bits, and 25 with 2 bits; with each the first IR that may name it.
OPSET, OPSET_OF_2_BITS = (21, 10), (25, 13)
MICROSOFT = "com.microsoft"


@cache
def package(name: str, extra: str) -> Any:
    """The module ``name``. Raises ValueError, naming what to install, where it is missing."""
    try:
        return importlib.import_module(name)
    except ImportError as missing:
        raise ValueError(
            f"the {extra} backend needs the package {missing.name}: pip install 'intsim[{extra}]'"
        ) from missing


@dataclass(frozen=True, slots=True)
class Operand:
    """An input of a node: its values, its ONNX type by name, and whether it is a constant of the model."""

    values: Array
    type: str
    constant: bool = False

    @classmethod
    def of(cls, values: Any, t: IntType | str, *, constant: bool = False) -> Operand:
        # An operand of 2 or 4 bits is always a constant: NumPy has no such arrays to pass in.
        name = str(t).upper()
        return cls(np.asarray(values), name, constant or name.endswith(("INT4", "INT2")))


def model(
    kind: str, operands: Sequence[Operand | None], results: Sequence[str], domain: str = "", **attributes: Any
) -> Any:
    """The model with one ``kind`` node; an operand that is None is left out.

    Shapes are left open, so that one model serves all of a rank. A result of 2 or 4 bits goes through a
    DequantizeLinear of scale 1 (exact) and comes as float32: NumPy has no such arrays to hand out.
    """
    onnx = package("onnx", "onnxruntime")
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
    nodes = [helper.make_node(kind, names, made, domain=domain, **attributes)]
    outputs = [helper.make_tensor_value_info(n, getattr(types, t), None) for n, t in zip(made, results, strict=True)]
    if results[0].endswith(("INT4", "INT2")):
        constants.append(helper.make_tensor("one", types.FLOAT, (), [1.0]))
        nodes.append(helper.make_node("DequantizeLinear", [made[0], "one"], ["whole"]))
        outputs = [helper.make_tensor_value_info("whole", types.FLOAT, None)]
    graph = helper.make_graph(nodes, kind, inputs, outputs, constants)
    types_named = [*results, *(o.type for o in operands if o is not None)]
    opset, ir = OPSET_OF_2_BITS if any(t.endswith("INT2") for t in types_named) else OPSET
    imports = [helper.make_opsetid("", opset), *([helper.make_opsetid(domain, 1)] if domain else [])]
    return helper.make_model(graph, opset_imports=imports, ir_version=ir)


@dataclass
class Nodes:
    """The nodes of the ONNX standard, as calls. constant_weights: whether ``b`` is a constant of the model."""

    constant_weights: bool = True

    def node(
        self, kind: str, operands: Sequence[Operand | None], *results: str, domain: str = "", **attributes: Any
    ) -> list[Array]:
        """The results of one node."""
        raise NotImplementedError

    def matmul(self, case: Case) -> Array:
        """MatMulInteger."""
        p = case.params
        zero_point = p.b_zero_point if p.b_zero_point.size > 1 else p.b_zero_point[0]
        a, b = getattr(p, "a", uint8), getattr(p, "b", int8)
        operands = [
            Operand.of(case.a, a),
            Operand.of(case.b.T, b, constant=self.constant_weights),
            Operand.of(np.array(p.a_zero_point, a.storage), a),
            Operand.of(np.array(zero_point, b.storage), b, constant=self.constant_weights),
        ]
        return self.node("MatMulInteger", operands, "INT32")[0]

    def qlinear_matmul(self, case: Case, multiplier: Array) -> Array:
        """QLinearMatMul; multiplier: float32, one or one a column."""
        p, r = case.params.matmul, case.params.requantize
        if (r.zero_point != r.zero_point[0]).any():
            raise Unsupported("QLinearMatMul has one zero point for the result")
        check_fits(r.zero_point, r.dtype)
        # f32(f32(1 * multiplier) / 1) is the multiplier itself, so that every float32 can be judged.
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

    def quantize(self, case: Case, *, blocked: bool = False) -> Array:
        """QuantizeLinear; blocked: blocks are named even where there is one a row."""
        t = case.params.dtype
        check_fits(case.zero_point, t)
        scale, zero_point, attributes = granularity(case, blocked)
        operands = [
            Operand.of(case.x, "FLOAT"),
            Operand.of(scale, "FLOAT"),
            Operand.of(zero_point.astype(t.storage), t),
        ]
        return self.node("QuantizeLinear", operands, str(t).upper(), **attributes)[0].astype(t.storage)

    def dequantize(self, case: Case) -> Array:
        """DequantizeLinear."""
        t = case.params.q
        scale, zero_point, attributes = granularity(case)
        if t == int32 and zero_point.any():
            raise Unsupported("DequantizeLinear of int32 has no zero point")
        check_fits(zero_point, t)
        given = None if t == int32 else Operand.of(zero_point.astype(t.storage), t)
        operands = [Operand.of(case.q, t), Operand.of(scale, "FLOAT"), given]
        return self.node("DequantizeLinear", operands, "FLOAT", **attributes)[0]

    def dynamic(self, case: Case) -> tuple[Array, ...]:
        """DynamicQuantizeLinear, row by row: ONNX takes a tensor as one row."""
        results = ("UINT8", "FLOAT", "UINT8")
        rows = [self.node("DynamicQuantizeLinear", [Operand.of(x, "FLOAT")], *results) for x in case.x]
        q, scale, zero_point = (np.stack(part) for part in zip(*rows, strict=True))
        return q, scale, zero_point


def check_fits(zero_point: Any, t: IntType) -> None:
    """Raises Unsupported where a zero point is not a value of ``t``, as ONNX wants it."""
    if np.min(zero_point) < t.qmin or np.max(zero_point) > t.qmax:
        raise Unsupported(f"an ONNX zero point is a value of the quantized type, {t}")


def check_even(p: Any) -> None:
    """Raises Unsupported where another rounding is asked for."""
    if p.rounding != Rounding.TIES_TO_EVEN:
        raise Unsupported("ONNX quantization rounds ties to even")


def check_product(p: Any) -> None:
    """Raises Unsupported where a product is not ONNX's: operands of 8 bits, an int32 that wraps."""
    if (p.acc, p.overflow) != (int32, Overflow.WRAP):
        raise Unsupported(f"the accumulator is int32 and wraps, not {p.acc} with {p.overflow.name}")
    if {p.a, p.b} - {int8, uint8}:
        raise Unsupported(f"a product has operands of 8 bits, not {p.a} and {p.b}")


def quotient_leaves_int32(case: Case) -> bool:
    """Whether an element of a case of QuantizeLinear is 2**31 steps or more away from 0."""
    group = np.arange(case.x.shape[1]) // case.params.group_size
    with np.errstate(over="ignore", under="ignore"):
        return bool((np.abs(case.x / case.scale[:, group]) >= 2.0**31).any())


def granularity(case: Case, blocked: bool = False) -> tuple[Array, Array, dict[str, Any]]:
    """The scale, the zero point and the attributes of Quantize- and DequantizeLinear."""
    scale, zero_point = case.scale, case.zero_point
    if blocked or scale.shape[1] > 1:
        return scale, zero_point, {"axis": 1, "block_size": case.params.group_size}
    if scale.shape[0] > 1:
        return scale[:, 0], zero_point[:, 0], {"axis": 0}
    return scale[0, 0], zero_point[0, 0], {}

"""The ONNX reference evaluator (onnx.reference, NumPy) as a backend under test: one node a model.

Source: onnx/onnx onnx/reference/ops.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from intsim.binding import Array
from intsim.composites.linear import float64_ties_even as linear
from intsim.numerics import IntType, Order, Overflow, int2, int4, int8, int16, int32, uint2, uint4, uint8, uint16
from intsim.ops.quantize import affine_through_int32, dynamic_asymmetric_unguarded
from intsim.ops.requantize import float64_ties_even as result
from intsim.oracle.adapter import Capability, System, Unsupported
from intsim.oracle.adapters import _onnxruntime_cases as common
from intsim.oracle.adapters._onnx_nodes import Nodes, Operand, check_product, model, package
from intsim.oracle.cases import Case, make

SYSTEM = System(
    title="ONNX reference evaluator",
    runs="wheel",
    needs="pip install 'intsim[onnxruntime]'",
    source="onnx/onnx onnx/reference/ops",
    left={
        "ConvInteger, QLinearConv": "no operation of the catalogue is a convolution",
        "QuantizeLinear to float8, float4": "not integers",
    },
)
EIGHT = (int8, uint8)
QUANTIZED = (int8, uint8, int16, uint16, int4, uint4)
TWO_BITS = (int2, uint2)
# float32 multipliers, the only ones that the evaluator can have: exact ties, and some that round the product
MULTIPLIERS = tuple(
    result.Params.from_scale(float(np.float32(s))).multiplier_bits for s in (1 / 16, 0.3, 1e-7, 1 / 512)
)

THROUGH_INT32 = (
    "The rounded quotient is cast to int32 before it is saturated: from 2**31 on, x86 gives -2**31, and adding the "
    "zero point wraps, so that +infinity becomes the lowest value (or the highest, where the zero point is negative) "
    "and -infinity the highest there. The specification asks for saturation."
)
SCALE_OF_NOTHING = (
    "A tensor of zeros gets the scale f32(1 / 255), not 1: the 1 is divided too; and a range below 2**-142 gets the "
    "scale 0 and the zero point 255."
)
ZERO_POINT_FIRST = (
    "The zero point is added in float64 before the rounding. The specification, and ONNX Runtime, round "
    "first: an odd zero point moves a tie."
)


@dataclass
class Backend(Nodes):
    """The adapter."""

    constant_weights: bool = False  # nothing is packed: a constant is an input
    name: str = "onnx_reference"

    def capabilities(self) -> Sequence[Capability]:
        wrapping: dict[str, Any] = {"acc": (int32,), "overflow": (Overflow.WRAP,), "a": EIGHT, "b": EIGHT}
        products = [
            Capability(
                "linear.float64_ties_even",
                {
                    "matmul.a": (a,),
                    "matmul.b": (b,),
                    "requantize.dtype": (y,),
                    "requantize.zero_point": tuple(np.array([z]) for z in range(y.qmin, y.qmax + 1)),
                    "requantize.multiplier_bits": MULTIPLIERS,
                    "requantize.zero_point_added": (Order.FIRST,),
                },
                10,
                40,
                partial(_qlinear, a, b, y),
                "QLinearMatMul",
                ZERO_POINT_FIRST,
            )
            for a, b in common.SIGNS
            for y in EIGHT
        ]
        return [
            Capability("matmul.integer", wrapping, 60, 40, common.matmul, "MatMulInteger"),
            *products,
            Capability(
                "quantize.affine_through_int32",
                {"dtype": (*QUANTIZED, *TWO_BITS)},
                80,
                40,
                _quantize,
                "QuantizeLinear",
                THROUGH_INT32,
            ),
            Capability(
                "dequantize.affine",
                {"q": (*QUANTIZED, *TWO_BITS, int32)},
                80,
                40,
                common.dequantize,
                "DequantizeLinear",
            ),
            Capability(
                "quantize.dynamic_asymmetric_unguarded",
                {"dtype": (uint8,), "empty_scale_bits": (dynamic_asymmetric_unguarded.ONE_OVER_255,)},
                40,
                40,
                _dynamic,
                "DynamicQuantizeLinear",
                SCALE_OF_NOTHING,
            ),
        ]

    def versions(self) -> Mapping[str, str]:
        return {"onnx": package("onnx", "onnxruntime").__version__, "numpy": np.__version__}

    def run(self, case: Case) -> Any:
        served: dict[str, Callable[[Case], Any]] = {
            "matmul.integer": self._matmul,
            "linear.float64_ties_even": self._qlinear,
            "quantize.affine_through_int32": self.quantize,
            "dequantize.affine": self.dequantize,
            "quantize.dynamic_asymmetric_unguarded": self._dynamic,
        }
        if case.op.name not in served:
            raise Unsupported(f"no ONNX node computes {case.op.name}")
        return served[case.op.name](case)

    def node(
        self, kind: str, operands: Sequence[Operand | None], *results: str, domain: str = "", **attributes: Any
    ) -> list[Array]:
        """The results of one node."""
        package("onnx", "onnxruntime")
        from onnx.reference import ReferenceEvaluator

        feeds = {f"x{i}": o.values for i, o in enumerate(operands) if o is not None and not o.constant}
        with np.errstate(all="ignore"):  # infinities, and casts of them
            made = ReferenceEvaluator(model(kind, operands, results, domain, **attributes)).run(None, feeds)
        return [np.asarray(a) for a in made]

    def _matmul(self, case: Case) -> Array:
        if case.bias.any():
            raise Unsupported("MatMulInteger has no bias")
        check_product(case.params)
        return self.matmul(case)

    def _qlinear(self, case: Case) -> Array:
        r = case.params.requantize
        if case.bias.any():
            raise Unsupported("QLinearMatMul has no bias")
        if r.zero_point_added != Order.FIRST:
            raise Unsupported("the evaluator adds the zero point before the rounding")
        if r.dtype not in EIGHT:
            raise Unsupported(f"QLinearMatMul has results of 8 bits, not {r.dtype}")
        check_product(case.params.matmul)
        exact = r.multiplier_bits.astype(np.int64).view(np.float64)
        multiplier = exact.astype(np.float32)
        if (multiplier.astype(np.float64) != exact).any():
            raise Unsupported("the evaluator's multiplier is a float32")
        return self.qlinear_matmul(case, multiplier)

    def _dynamic(self, case: Case) -> tuple[Array, ...]:
        p = case.params
        if p.dtype != uint8 or p.empty_scale_bits != dynamic_asymmetric_unguarded.ONE_OVER_255:
            raise Unsupported("DynamicQuantizeLinear gives uint8, and the scale f32(1 / 255) where the range is 0")
        return self.dynamic(case)


def _slug(case: Case) -> str:
    return case.id.rpartition("/")[2].replace("ort-", "onnx-")


def _qlinear(a: IntType, b: IntType, y: IntType) -> Iterator[Case]:
    for case in common.qlinear(a, b, y):
        p = case.params
        multiplier = p.requantize.multiplier_bits.astype(np.int32).view(np.float32).astype(np.float64)
        if (multiplier < 2.0**-53).any():
            continue  # beyond the limits of the variant
        requantize = result.Params.from_scale(multiplier, zero_point=p.requantize.zero_point, dtype=y)
        yield make(linear.OP, _slug(case), case.comment, case.inputs, linear.Params(p.matmul, requantize))


def _quantize() -> Iterator[Case]:
    op = affine_through_int32.OP
    for case in common.quantize():
        p = affine_through_int32.Params(case.params.group_size, case.params.dtype)
        yield make(op, _slug(case), case.comment, case.inputs, p)
    wild = np.array([[np.inf, -np.inf, 3e38, -3e38, 2.0**31, -(2.0**31), 2.0**31 - 128, -(2.0**31) + 128]], np.float32)
    for t in (*QUANTIZED, *TWO_BITS):
        for zero_point in sorted({t.qmin, -1 if t.signed else 1, 0, t.qmax}):
            arrays = (wild, np.ones((1, 1), np.float32), np.array([[zero_point]], np.int32))
            why = "quotients at the ends of int32 and beyond"
            yield make(op, f"onnx-{t}-beyond-int32-{zero_point}", why, arrays, affine_through_int32.Params(dtype=t))
    yield from common.quantize_scalar(TWO_BITS)


def _dynamic() -> Iterator[Case]:
    p = dynamic_asymmetric_unguarded.Params(dynamic_asymmetric_unguarded.ONE_OVER_255)
    for case in common.dynamic():
        yield make(case.op, _slug(case), case.comment, case.inputs, p)

"""ONNX Runtime's CPU kernels as a backend under test: one node a model, no graph optimisation, one thread.

The ONNX standard's operators are here, those of the domain com.microsoft in ``_onnxruntime_contrib``.
Weights are constants of the model, as in an exported one, so that the runtime packs them.
Source: microsoft/onnxruntime onnxruntime/core/providers/cpu/quantization, onnxruntime/core/mlas/lib.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np

from intsim.binding import Array
from intsim.numerics import Overflow, Rounding, int2, int4, int8, int16, int32, uint2, uint4, uint8, uint16
from intsim.ops.quantize.dynamic_asymmetric_unguarded import ONE
from intsim.oracle.adapter import Capability, System, Unsupported
from intsim.oracle.adapters import _onnxruntime_cases as own, _onnxruntime_contrib as contrib
from intsim.oracle.adapters._onnx_nodes import (
    Nodes,
    Operand,
    check_even,
    check_product,
    model,
    package,
    quotient_leaves_int32,
)
from intsim.oracle.adapters._onnxruntime_session import check_pairs, pairs_saturate, runtime, session
from intsim.oracle.cases import Case

SYSTEM = System(
    title="ONNX Runtime",
    runs="wheel",
    needs="pip install 'intsim[onnxruntime]'",
    source="microsoft/onnxruntime onnxruntime/core/providers/cpu/quantization, "
    "onnxruntime/contrib_ops/cpu/quantization, onnxruntime/core/mlas/lib",
    left={
        "MatMulNBits": "the float32 order of summation is not specified: with accuracy_level 4 the integer dot product "
        "of each block is exact, but 54 of 256 results were equal to the bit when blocks are added in order, and with "
        "accuracy_level 0 results are within 1.4e-6 of float64",
        "QAttention": "only its first product is on integers; logits, softmax and context are float32 products whose "
        "order of summation is not specified (read, not run)",
        "QOrdered*": "CUDA kernels only",
        "QLinearConv": "no operation of the catalogue is a convolution",
        "QuantizeLinear of 2 and 4 bits and QLinearSoftmax from 1.32.0 on": "the first saturates a quotient beyond "
        "int32 now, as documented; the second rounds one apart where the order of a float32 sum decides; the extra "
        "installs what is restated, an earlier version",
        "QLinearConcat, QLinearGlobalAveragePool": "not compared: no operation of the catalogue states them",
    },
    by_processor=("MatMulInteger u8s8",),
)
# (a, b, result) of the QLinearMatMul kernels; for the others the runtime says NOT_IMPLEMENTED.
QLINEAR = ((int8, int8, int8), (uint8, int8, uint8), (uint8, uint8, uint8))
QUANTIZED = (int8, uint8, int16, uint16, int4, uint4)
TWO_BITS = (int2, uint2)

PAIRS = (
    "Without VNNI, on x86, the uint8-int8 kernel adds pairs of products in saturating int16 (VPMADDUBSW), before "
    "zero points: 255 * 127 + 255 * 127 gives 32767. The documentation of MatMulInteger has an exact product."
)
SCALAR_CAST = (
    "The scalar code for 2 and 4 bits converts a quotient to int32 before it saturates: from 2**31 on x86 gives "
    "-2**31, to which the zero point is added modulo 2**32, so that +infinity becomes the lowest value (or the "
    "highest, where the zero point is negative). It serves 2 bits, and 4 bits in blocks of 1 and at odd ends."
)
UNDERFLOW = (
    "A range that is not 0 but below 2**-142 gives a scale of 0, the zero point 255 and quotients by 0; the "
    "specification does not provide for it."
)


@dataclass
class Backend(Nodes):
    """The adapter. constant_weights: whether ``b`` of a product is a constant of the model, or an input."""

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
        through = "quantize.affine_through_int32"
        return [
            Capability("matmul.integer", wrapping | {"a": eight, "b": eight}, 60, 40, own.matmul, "MatMulInteger"),
            *(
                [Capability("matmul.int16_pairs_saturating", {}, 20, 40, own.pairs, "MatMulInteger u8s8", PAIRS)]
                if pairs_saturate()
                else []
            ),
            *products,
            Capability("quantize.affine", even | {"dtype": QUANTIZED}, 80, 40, own.quantize, "QuantizeLinear"),
            Capability(
                through,
                {"dtype": TWO_BITS},
                40,
                40,
                partial(own.quantize_scalar, TWO_BITS),
                "QuantizeLinear 2 bits",
                SCALAR_CAST,
            ),
            Capability(
                through,
                {"dtype": (int4, uint4), "group_size": (1,)},
                40,
                40,
                partial(own.quantize_scalar, (int4, uint4)),
                "QuantizeLinear 4 bits, blocks of 1",
                SCALAR_CAST,
            ),
            Capability(
                "dequantize.affine", {"q": (*QUANTIZED, *TWO_BITS, int32)}, 80, 40, own.dequantize, "DequantizeLinear"
            ),
            Capability(
                "quantize.dynamic_asymmetric_unguarded",
                {"dtype": (uint8,), "empty_scale_bits": (ONE,)},
                40,
                40,
                own.dynamic,
                "DynamicQuantizeLinear",
                UNDERFLOW,
            ),
            *contrib.capabilities(),
        ]

    def versions(self) -> Mapping[str, str]:
        return {"onnxruntime": runtime().__version__, "onnx": package("onnx", "onnxruntime").__version__}

    def run(self, case: Case) -> Any:
        served: dict[str, Callable[[Case], Any]] = {
            "matmul.integer": self._matmul,
            "matmul.int16_pairs_saturating": self.matmul,
            "linear.qlinear_matmul": self._qlinear,
            "quantize.affine": self._quantize,
            "quantize.affine_through_int32": self._quantize_scalar,
            "dequantize.affine": self.dequantize,
            "quantize.dynamic_asymmetric": self._dynamic,
            "quantize.dynamic_asymmetric_unguarded": self._dynamic,
        }
        if case.op.name in contrib.NODES:
            return contrib.NODES[case.op.name](self, case)
        if case.op.name not in served:
            raise Unsupported(f"no ONNX node computes {case.op.name}")
        return served[case.op.name](case)

    def node(
        self, kind: str, operands: Sequence[Operand | None], *results: str, domain: str = "", **attributes: Any
    ) -> list[Array]:
        """The results of one node."""
        shapes = tuple(o and (o.type, o.values.ndim, o.constant) for o in operands)
        key = (kind, shapes, results, tuple(attributes.items()))
        fixed = any(o is not None and o.constant for o in operands)  # a constant makes a model of its own
        made = None if fixed else self._sessions.get(key)
        if made is None:
            made = session(model(kind, operands, results, domain, **attributes))
            if not fixed:
                self._sessions[key] = made
        feeds = {f"x{i}": o.values for i, o in enumerate(operands) if o is not None and not o.constant}
        outputs: list[Array] = made.run(None, feeds)
        return outputs

    def _matmul(self, case: Case) -> Array:
        if case.bias.any():
            raise Unsupported("MatMulInteger has no bias")
        check_product(case.params)
        check_pairs(case.params, case.a, case.b)
        return self.matmul(case)

    def _qlinear(self, case: Case) -> Array:
        p, r = case.params.matmul, case.params.requantize
        if (p.a, p.b, r.dtype) not in QLINEAR:
            raise Unsupported(f"QLinearMatMul has no kernel for {p.a} times {p.b} to {r.dtype}")
        check_product(p)
        check_pairs(p, case.a, case.b)
        return self.qlinear_matmul(case, r.multiplier_bits.astype(np.int32).view(np.float32))

    def _quantize(self, case: Case) -> Array:
        check_even(case.params)
        if case.params.dtype.bits == 4 and quotient_leaves_int32(case):
            raise Unsupported("from 2**31 on, 4 bits differ by position: quantize.affine_through_int32 states some")
        return self.quantize(case)

    def _quantize_scalar(self, case: Case) -> Array:
        p = case.params
        if p.dtype.bits > 4 or (p.dtype.bits == 4 and p.group_size > 1):
            raise Unsupported("vector code saturates the quotient itself")
        return self.quantize(case, blocked=p.group_size == 1)

    def _dynamic(self, case: Case) -> tuple[Array, ...]:
        p = case.params
        if p.dtype != uint8 or getattr(p, "rounding", Rounding.TIES_TO_EVEN) != Rounding.TIES_TO_EVEN:
            raise Unsupported("DynamicQuantizeLinear gives uint8 and rounds ties to even")
        if hasattr(p, "rounding") and _scale_underflows(case.x):
            raise Unsupported("here ONNX Runtime divides by a scale of 0: quantize.dynamic_asymmetric_unguarded")
        if getattr(p, "empty_scale_bits", ONE) != ONE:
            raise Unsupported("ONNX Runtime's scale of a range of 0 is 1")
        return self.dynamic(case)


def _scale_underflows(x: Array) -> bool:
    with np.errstate(over="ignore", under="ignore"):
        span = np.maximum(x.max(axis=1), 0) - np.minimum(x.min(axis=1), 0)
        return bool(((span > 0) & (span / np.float32(255) == 0)).any())

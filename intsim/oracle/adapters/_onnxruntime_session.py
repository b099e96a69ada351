"""Sessions of ONNX Runtime, and what its x86 kernels without VNNI do to a product of uint8 and int8."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np

from intsim.binding import Array
from intsim.numerics import int8, uint8
from intsim.oracle.adapter import Unsupported
from intsim.oracle.adapters._onnx_nodes import Operand, model, package


def runtime() -> Any:
    """The package. Raises ValueError where it is missing."""
    package("onnx", "onnxruntime")
    return package("onnxruntime", "onnxruntime")


def session(made: Any) -> Any:
    """``made`` as a session of one thread, its nodes as they are. Raises Unsupported where there is no kernel."""
    ort = runtime()
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL  # else nodes are replaced
    options.intra_op_num_threads = 1
    options.log_severity_level = 4  # what fails is raised
    try:
        return ort.InferenceSession(made.SerializeToString(), options, providers=["CPUExecutionProvider"])
    except ort.capi.onnxruntime_pybind11_state.NotImplemented as missing:
        raise Unsupported(f"this release has no kernel: {str(missing).splitlines()[0]}") from None


def check_pairs(p: Any, a: Array, b: Array) -> None:
    """Raises Unsupported where this processor's kernel saturates a pair of products."""
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
    got = session(model("MatMulInteger", operands, ["INT32"])).run(None, {"x0": a})[0]
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


def check_weights(b: Array) -> None:
    """Raises Unsupported where some uint8 operand makes a pair leave int16: for those not known beforehand."""
    worst = np.vstack([np.where(row > 0, 255, 0) for row in b] + [np.where(row < 0, 255, 0) for row in b])
    if pairs_saturate() and _pair_leaves_int16(np.unique(worst, axis=0).astype(np.uint8), b):
        raise Unsupported("on this processor a pair of uint8-int8 products may leave int16; use weights of 7 bits")

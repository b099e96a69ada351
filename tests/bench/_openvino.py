"""OpenVINO as a peer: the models that ONNX Runtime gets, in its CPU plugin."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from typing import Any

import numpy as np

NAME = "OpenVINO"


def way(model: Any, x: Any, y: Any, threads: int) -> dict[str, Callable[[], object]]:
    """An ONNX model from ``x`` into ``y``, computing in float32; no way where OpenVINO is not installed."""
    if importlib.util.find_spec("openvino") is None:
        return {}
    import openvino

    core = openvino.Core()
    options = {"INFERENCE_NUM_THREADS": threads, "NUM_STREAMS": 1, "INFERENCE_PRECISION_HINT": "f32"}
    request = core.compile_model(core.read_model(model.SerializeToString()), "CPU", options).create_infer_request()
    request.set_input_tensor(openvino.Tensor(x, shared_memory=True))
    request.set_output_tensor(openvino.Tensor(y, shared_memory=True))
    return {NAME: lambda: (request.infer(), x, y)}


STEP = 2.0**-7  # of both operands: products of whole steps are exact in float32 up to 2**24 of them


def product(a: Any, w: Any, threads: int) -> dict[str, Callable[[], Any]]:
    """int8 "m k" by int8 "n k" as OpenVINO has it: float32 rounded to 256 levels, a product of bytes, float32 again.

    The result is in steps of STEP**2. No way where OpenVINO is not installed.
    """
    if importlib.util.find_spec("openvino") is None:
        return {}
    import openvino
    from openvino import opset13 as ops

    x = ops.parameter(a.shape, np.float32)
    ends = [np.float32(end * STEP) for end in (-128, 127)]
    levels = ops.fake_quantize(x, *ends, *ends, 256)
    weights = ops.multiply(ops.convert(ops.constant(w, dtype=np.int8), "f32"), ops.constant(np.float32(STEP)))
    model = openvino.Model([ops.result(ops.matmul(levels, weights, False, True))], [x], "product")
    fields = {"INFERENCE_NUM_THREADS": threads, "NUM_STREAMS": 1, "INFERENCE_PRECISION_HINT": "f32"}
    request = openvino.Core().compile_model(model, "CPU", fields).create_infer_request()
    real, y = (a * np.float32(STEP)).astype(np.float32), np.empty((len(a), len(w)), np.float32)
    request.set_input_tensor(openvino.Tensor(real, shared_memory=True))
    request.set_output_tensor(openvino.Tensor(y, shared_memory=True))

    def run(_alive: Any = real) -> Any:  # the tensor does not hold its memory
        request.infer()
        return y

    return {NAME: run}

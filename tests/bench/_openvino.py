"""OpenVINO as a peer: the models that ONNX Runtime gets, in its CPU plugin."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from typing import Any

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

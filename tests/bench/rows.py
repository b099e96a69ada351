"""Row operations on integers beside the same operations on float32: softmax, norms, GELU, requantize.

The others read and write float32, four bytes an element; an integer network has no such array to give them.
ONNX Runtime and OpenVINO write into memory that lies ready; intsim and PyTorch make their result anew in every call.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

import intsim
from intsim.numerics import Rounding, int8, int16
from tests.bench import _openvino
from tests.bench.frame import Case

SOFTMAX = ((1536, 128), (1536, 512), (1024, 2048))
NORM = ((128, 768), (4096, 768))
REQUANTIZE = ((128, 3072), (2048, 2048))

Ways = dict[str, Callable[[], object]]


def cases(threads: int) -> Iterator[Case]:
    import torch

    torch.set_num_threads(threads)
    draw = np.random.default_rng(0)
    for m, n in SOFTMAX:
        for t, scale in ((int8, 0.05), (int16, 2.0**-9)):
            q = _levels(draw.standard_normal((m, n)) * 2 / scale, t)
            yield Case(f"softmax.ibert {t}, {m} x {n}", _softmax(q, scale, t, threads), {})
    for m, n in NORM:
        x = _levels(draw.standard_normal((m, n)) * 6000, int16)
        bias = draw.integers(-(2**20), 2**20, n).astype(np.int32)
        yield Case(f"layernorm.ibert int16, {m} x {n}", _norm(x, bias, threads), {})
    q = _levels(draw.standard_normal((128, 3072)) * 40, int8)
    yield Case("GELU by activation.table int8, 128 x 3072", _gelu(q, threads), {})
    for m, n in REQUANTIZE:
        acc = draw.integers(-(2**20), 2**20, (m, n)).astype(np.int32)
        scale = 2.0**-14 * draw.uniform(0.6, 1.0, n)
        for variant in ("single_rounding", "double_rounding", "dyadic", "float32_ties_even"):
            yield Case(f"requantize.{variant}, {m} x {n}", _requantize(variant, acc, scale, threads), {})


def _levels(x: Any, t: Any) -> Any:
    return np.clip(np.rint(x), t.qmin, t.qmax).astype(t.storage)


def _softmax(q: Any, scale: float, t: Any, threads: int) -> Ways:
    import torch

    ours = intsim.prepare("softmax.ibert", p=intsim.get("softmax.ibert").params.from_scale(scale, q=t))  # type: ignore[attr-defined]
    x = (q * scale).astype(np.float32)
    tensor = torch.from_numpy(x)
    return {
        "intsim": lambda: ours(q),
        "torch": lambda: torch.softmax(tensor, -1),
        **_by_onnx("Softmax", x, threads, axis=-1),
    }


def _norm(x: Any, bias: Any, threads: int) -> Ways:
    import torch

    ours = intsim.prepare("layernorm.ibert", p=intsim.get("layernorm.ibert").params())
    real = x.astype(np.float32)
    gamma, beta = np.ones(x.shape[1], np.float32), bias.astype(np.float32)
    tensor, weight, shift = (torch.from_numpy(a) for a in (real, gamma, beta))
    return {
        "intsim": lambda: ours(x, bias),
        "torch": lambda: torch.nn.functional.layer_norm(tensor, x.shape[1:], weight, shift),
        **_by_onnx("LayerNormalization", real, threads, gamma, beta),
    }


def _gelu(q: Any, threads: int) -> Ways:
    import torch

    scale = 1 / 16
    params = intsim.get("activation.gelu_ibert").params.from_scale(scale, x=int8)  # type: ignore[attr-defined]
    wide = intsim.tabulate("activation.gelu_ibert", p=params)
    table = _levels(wide * (params.out_scale / scale), int8)
    ours = intsim.prepare("activation.table", p=intsim.get("activation.table").params())
    x = (q * scale).astype(np.float32)
    tensor = torch.from_numpy(x)
    return {
        "intsim": lambda: ours(q, table),
        "torch": lambda: torch.nn.functional.gelu(tensor),
        **_by_onnx("Gelu", x, threads, domain="com.microsoft"),
    }


def _requantize(variant: str, acc: Any, scale: Any, threads: int) -> Ways:
    import torch

    op = intsim.get(f"requantize.{variant}")
    rule = {"rounding": Rounding.TIES_TO_EVEN} if variant == "single_rounding" else {}
    ours = intsim.prepare(op, p=op.params.from_scale(scale, zero_point=3, **rule))  # type: ignore[attr-defined]
    x = acc.astype(np.float32)
    tensor, step, zero = torch.from_numpy(x), np.float32(2.0**14), np.int8(3)

    def quantized() -> object:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the quantized tensors of torch are deprecated
            return torch.quantize_per_tensor(tensor, float(step), int(zero), torch.qint8)

    return {
        "intsim": lambda: ours(acc),
        "torch": quantized,
        **_by_onnx("QuantizeLinear", x, threads, step, zero, result=np.int8),
    }


def _by_onnx(
    kind: str, x: Any, threads: int, *constants: Any, domain: str = "", result: Any = np.float32, **attributes: Any
) -> Ways:
    """One node on one float32 input, into memory that lies ready: by ONNX Runtime, and by OpenVINO where installed."""
    import onnxruntime
    from onnx import helper, numpy_helper

    names = [f"c{i}" for i in range(len(constants))]
    graph = helper.make_graph(
        [helper.make_node(kind, ["x", *names], ["y"], domain=domain, **attributes)],
        kind,
        [helper.make_tensor_value_info("x", helper.np_dtype_to_tensor_dtype(x.dtype), x.shape)],
        [helper.make_tensor_value_info("y", helper.np_dtype_to_tensor_dtype(np.dtype(result)), x.shape)],
        [numpy_helper.from_array(np.asarray(c), name) for c, name in zip(constants, names, strict=True)],
    )
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=8)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    y, binding = np.empty(x.shape, result), session.io_binding()
    binding.bind_cpu_input("x", x)
    binding.bind_output("y", "cpu", 0, result, x.shape, y.ctypes.data)
    return {
        "ONNX Runtime": lambda: (session.run_with_iobinding(binding), y),
        **_openvino.way(model, x, np.empty_like(y), threads),
    }

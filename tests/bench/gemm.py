"""Matrix products of 8-bit integers into int32; the weights known beforehand.

Weights are uniform over 8 bits, and over 7 bits, where ONNX Runtime, FBGEMM and oneDNN are exact without
VNNI too. Every way writes into memory of its own that lies ready where the library can.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from intsim.backends.lines import empty
from intsim.ops.matmul._cpu_gemm import product
from intsim.ops.matmul._cpu_panels import packed
from tests.bench import _openvino
from tests.bench.frame import Case

SHAPES = (
    (256, 256, 256),
    (512, 512, 512),
    (1024, 1024, 1024),
    (2048, 2048, 2048),
    (128, 768, 3072),
    (128, 3072, 768),
    (128, 768, 768),
    (4096, 768, 768),
    (1, 4096, 4096),
)


def cases(threads: int) -> Iterator[Case]:
    generator = np.random.default_rng(0)
    for m, k, n in SHAPES:
        for bits in (8, 7):
            a = generator.integers(-128, 128, (m, k)).astype(np.int8)
            w = generator.integers(-(2 ** (bits - 1)), 2 ** (bits - 1), (n, k)).astype(np.int8)
            yield _case(f"{m} x {k} x {n}, weights of {bits} bits", a, w, threads)


def _case(name: str, a: Any, w: Any, threads: int) -> Case:
    m, n = a.shape[0], w.shape[0]
    exact = (a.astype(np.float64) @ w.T.astype(np.float64)).astype(np.int64)
    kept, out = packed(w), empty((m, n), np.int32)
    ways: dict[str, Callable[[], Any]] = {
        "intsim": lambda: product(a, kept, out=out),
        "intsim, packing each time": lambda: product(a, w, out=out),
    }
    notes: dict[str, str] = {}
    unsigned = a.view(np.uint8) ^ 128
    ways["ORT u8s8"] = _onnxruntime(unsigned, w, threads)
    ways["ORT u8u8"] = _onnxruntime(unsigned, w.view(np.uint8) ^ 128, threads)
    small = m * n * a.shape[1] < 2**28
    if small:
        ways["ORT s8s8"] = _onnxruntime(a, w, threads)
        wide, wide_w = a.astype(np.int32), w.T.astype(np.int32)
        ways["numpy float64"] = lambda: (a.astype(np.float64) @ w.T.astype(np.float64)).astype(np.int32)
        if m * n * a.shape[1] <= 2**24:
            ways["numpy int32"] = lambda: wide @ wide_w
        ways["torch._int_mm"] = _int_mm(a, w, threads)
    ways |= _quantized_linear(unsigned, w, threads)
    for way in ("ORT u8s8", "ORT u8u8", "ORT s8s8", "torch._int_mm"):
        if way in ways:
            wrong = np.mean(np.asarray(ways[way]()) != exact)
            if wrong:
                notes[way] = "not exact with weights of 8 bits on this CPU (pairs of products saturate at int16)"
    for way in ways:
        if way.startswith("torch linear"):
            notes[way] = "requantizes to uint8 as well"
    for way, run in _openvino.product(a, w, threads).items():
        ways[way] = run
        wrong = np.mean(np.rint(run() / _openvino.STEP**2) != exact) if abs(exact).max() <= 2**24 else 0
        notes[way] = f"from float32 and to float32{', not exact with weights of 8 bits on this CPU' if wrong else ''}"
    assert (out == exact).all() or (product(a, kept, out=out) == exact).all()
    return Case(name, ways, notes)


def _onnxruntime(a: Any, w: Any, threads: int) -> Callable[[], Any]:
    import onnxruntime
    from onnx import TensorProto, helper

    kinds = {"uint8": TensorProto.UINT8, "int8": TensorProto.INT8}
    (m, k), n = a.shape, w.shape[0]
    zero = [128 if t.dtype == np.uint8 else 0 for t in (a, w)]
    constants = [
        helper.make_tensor("b", kinds[str(w.dtype)], [k, n], np.ascontiguousarray(w.T).tobytes(), raw=True),
        helper.make_tensor("za", kinds[str(a.dtype)], [], np.array(zero[0], a.dtype).tobytes(), raw=True),
        helper.make_tensor("zb", kinds[str(w.dtype)], [], np.array(zero[1], w.dtype).tobytes(), raw=True),
    ]
    graph = helper.make_graph(
        [helper.make_node("MatMulInteger", ["a", "b", "za", "zb"], ["y"])],
        "product",
        [helper.make_tensor_value_info("a", kinds[str(a.dtype)], [m, k])],
        [helper.make_tensor_value_info("y", TensorProto.INT32, [m, n])],
        constants,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    y, binding = empty((m, n), np.int32), session.io_binding()
    binding.bind_cpu_input("a", a)
    binding.bind_output("y", "cpu", 0, np.int32, (m, n), y.ctypes.data)

    def run() -> Any:
        session.run_with_iobinding(binding)
        return y

    return run


def _int_mm(a: Any, w: Any, threads: int) -> Callable[[], Any]:
    import torch

    torch.set_num_threads(threads)
    left, right = torch.from_numpy(a), torch.from_numpy(w).t()
    return lambda: torch._int_mm(left, right)


def _quantized_linear(a: Any, w: Any, threads: int) -> dict[str, Callable[[], Any]]:
    import torch

    torch.set_num_threads(threads)
    made: dict[str, Callable[[], Any]] = {}
    for engine in ("fbgemm", "onednn"):
        if engine not in torch.backends.quantized.supported_engines:
            continue
        torch.backends.quantized.engine = engine
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the quantized tensors of torch are deprecated
            weights = torch._make_per_tensor_quantized_tensor(torch.from_numpy(w), 0.01, 0)
            x = torch._make_per_tensor_quantized_tensor(torch.from_numpy(a), 0.01, 128)
            prepacked = torch.ops.quantized.linear_prepack(weights, None)

        def call(x: Any = x, prepacked: Any = prepacked, engine: str = engine) -> Any:
            torch.backends.quantized.engine = engine
            return torch.ops.quantized.linear(x, prepacked, 1.0, 0)

        made[f"torch linear {engine}"] = call
    return made

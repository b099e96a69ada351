"""A BERT encoder as ONNX graphs: float32 and dynamic int8, both by ONNX Runtime's own optimizer and quantizer."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization import QuantType, quantize_dynamic
from onnxruntime.transformers import optimizer

from intsim.models.layout import Shape

Array = np.ndarray[Any, Any]


class _Graph:
    """Nodes and constants under construction; every method gives the name of its result."""

    def __init__(self, tensors: Mapping[str, Array]) -> None:
        self.tensors, self.nodes, self.constants = tensors, list[Any](), dict[str, Array]()

    def constant(self, name: str, value: Any) -> str:
        self.constants[name] = np.asarray(value)
        return name

    def op(self, kind: str, *inputs: str, **fields: Any) -> str:
        out = f"{kind}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, inputs, [out], out, **fields))
        return out

    def tensor(self, name: str) -> str:
        return self.constant(name, self.tensors[name])

    def dense(self, name: str, x: str) -> str:
        weight = self.constant(f"{name}.weight", np.ascontiguousarray(self.tensors[f"{name}.weight"].T))
        return self.op("Add", self.op("MatMul", x, weight), self.tensor(f"{name}.bias"))

    def norm(self, name: str, x: str) -> str:
        return self.op("LayerNormalization", x, self.tensor(f"{name}.gamma"), self.tensor(f"{name}.beta"))

    def gelu(self, x: str) -> str:
        erf = self.op("Erf", self.op("Div", x, self.constant("root", np.float32(math.sqrt(2)))))
        twice = self.op("Mul", x, self.op("Add", erf, self.constant("one", np.float32(1))))
        return self.op("Mul", twice, self.constant("half", np.float32(0.5)))

    def attention(self, layer: str, x: str, shape: Shape) -> str:
        apart = self.constant("apart", np.array([0, 0, shape.heads, shape.head], np.int64))
        together = self.constant("together", np.array([0, 0, shape.hidden], np.int64))

        def heads(name: str, *order: int) -> str:
            split = self.op("Reshape", self.dense(f"{layer}.{name}", x), apart)
            return self.op("Transpose", split, perm=order)

        q, k, v = heads("query", 0, 2, 1, 3), heads("key", 0, 2, 3, 1), heads("value", 0, 2, 1, 3)
        root = self.constant("root of head", np.float32(math.sqrt(shape.head)))
        weights = self.op("Softmax", self.op("Div", self.op("MatMul", q, k), root), axis=-1)
        mixed = self.op("Transpose", self.op("MatMul", weights, v), perm=(0, 2, 1, 3))
        return self.dense(f"{layer}.attention", self.op("Reshape", mixed, together))


def _model(shape: Shape, tensors: Mapping[str, Array], tokens: int) -> Any:
    g = _Graph(tensors)
    places = tensors["position.table"][:tokens] + tensors["type.table"][0]
    words = g.op("Gather", g.tensor("word.table"), "ids")
    x = g.norm("embedding", g.op("Add", words, g.constant("places", places)))
    for i in range(shape.layers):
        layer = f"layer.{i}"
        x = g.norm(f"{layer}.attention_norm", g.op("Add", g.attention(layer, x, shape), x))
        x = g.norm(f"{layer}.output", g.op("Add", g.dense(f"{layer}.down", g.gelu(g.dense(f"{layer}.up", x))), x))
    pooled = g.op("ReduceMean", x, axes=[1], keepdims=0)
    graph = helper.make_graph(
        g.nodes,
        "bert",
        [helper.make_tensor_value_info("ids", TensorProto.INT64, [1, tokens])],
        [helper.make_tensor_value_info(pooled, TensorProto.FLOAT, [1, shape.hidden])],
        [numpy_helper.from_array(a, name) for name, a in g.constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def runners(
    shape: Shape, tensors: Mapping[str, Array], ids: Array, threads: int, folder: Path
) -> dict[str, Callable[[], Array]]:
    """Calls that give the pooled float32 of ``ids`` [1, tokens]: in float32, and in dynamic int8 of 8 and 7 bits.

    Raises ValueError where the optimizer did not find an attention in every layer.
    """
    logging.getLogger().setLevel(logging.ERROR)  # the quantizer advises to do what was done
    real, fused = folder / "real.onnx", folder / "fused.onnx"
    onnx.save(_model(shape, tensors, ids.shape[1]), real)
    better = optimizer.optimize_model(str(real), model_type="bert", num_heads=shape.heads, hidden_size=shape.hidden)
    found = better.get_fused_operator_statistics()
    if found["Attention"] != shape.layers:
        raise ValueError(f"the optimizer fused {found}; an attention a layer was wanted")
    better.save_model_to_file(str(fused))
    made = {"ORT float32": _session(fused, ids, threads), **_openvino(real, ids, threads)}
    for name, narrow in (("ORT dynamic int8", False), ("ORT dynamic int8, 7-bit weights", True)):
        file = folder / f"{narrow}.onnx"
        told = {"DefaultTensorType": TensorProto.FLOAT}  # behind operators whose shapes ONNX does not know
        quantize_dynamic(fused, file, weight_type=QuantType.QInt8, reduce_range=narrow, extra_options=told)
        made[name] = _session(file, ids, threads)
    return made


def _openvino(file: Path, ids: Array, threads: int) -> dict[str, Callable[[], Array]]:
    """OpenVINO in float32, where it is installed. (Its integers need a calibrated model.)"""
    try:
        import openvino
    except ImportError:
        return {}
    model = openvino.Core().read_model(file)
    fields = {"INFERENCE_NUM_THREADS": threads, "INFERENCE_PRECISION_HINT": "f32"}
    request = openvino.Core().compile_model(model, "CPU", fields).create_infer_request()
    feed = {"ids": ids.astype(np.int64)}
    return {"OpenVINO float32": lambda: np.array(request.infer(feed)[0])}


def _session(file: Path, ids: Array, threads: int) -> Callable[[], Array]:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    feed = {"ids": ids.astype(np.int64)}
    return lambda: session.run(None, feed)[0]  # an array

"""Models of one operator as .tflite flatbuffers, and tflite-micro to run them.

The schema is the one inside the tflite-micro wheel, so that writer and reader cannot disagree.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import flatbuffers
import numpy as np
from tflite_micro.python.tflite_micro import runtime

schema = runtime.schema_fb

ARENA = 1 << 24  # bytes; the largest model of these tests needs a tenth
FILE_IDENTIFIER = b"TFL3"
SCHEMA_VERSION = 3

Array = np.ndarray[Any, Any]


@dataclass
class Tensor:
    """A tensor of a model. data: of a constant. scale, zero_point: one, or one an index of the first axis."""

    shape: tuple[int, ...]
    dtype: str
    scale: Any
    zero_point: Any = 0
    data: Array | None = None

    def pack(self, name: str, buffer: int) -> Any:
        made = schema.TensorT()
        made.name, made.shape, made.buffer = name, np.array(self.shape, np.int32), buffer
        made.type = getattr(schema.TensorType, self.dtype.upper())
        scale = np.atleast_1d(np.asarray(self.scale, np.float32))
        made.quantization = schema.QuantizationParametersT()
        made.quantization.scale = scale
        made.quantization.zeroPoint = np.array(np.broadcast_to(self.zero_point, scale.shape), np.int64)
        made.quantization.quantizedDimension = 0
        return made


def model(operator: str, operands: Sequence[Tensor], result: Tensor, options: Any, version: int) -> bytes:
    """The flatbuffer of one ``operator``; operands with data are constants, the others its inputs.

    options: an object of the schema's class for the operator, None where it has none. version: of
    the operator, as the converter writes it for these types.
    """
    graph, whole, code, call = schema.SubGraphT(), schema.ModelT(), schema.OperatorCodeT(), schema.OperatorT()
    whole.buffers = [schema.BufferT()]  # buffer 0 is empty by convention
    graph.tensors = []
    for i, tensor in enumerate([*operands, result]):
        if tensor.data is not None:
            buffer = schema.BufferT()
            buffer.data = np.frombuffer(np.ascontiguousarray(tensor.data).tobytes(), np.uint8)
            whole.buffers.append(buffer)
        graph.tensors.append(tensor.pack(f"t{i}", len(whole.buffers) - 1 if tensor.data is not None else 0))
    call.inputs, call.outputs = np.arange(len(operands), dtype=np.int32), np.array([len(operands)], np.int32)
    if options is not None:
        call.builtinOptions = options
        call.builtinOptionsType = getattr(schema.BuiltinOptions, type(options).__name__.removesuffix("T"))
    code.builtinCode = getattr(schema.BuiltinOperator, operator)
    code.deprecatedBuiltinCode = min(code.builtinCode, 127)
    code.version = version
    graph.inputs = np.array([i for i, t in enumerate(operands) if t.data is None], np.int32)
    graph.outputs, graph.operators = call.outputs, [call]
    whole.version, whole.operatorCodes, whole.subgraphs = SCHEMA_VERSION, [code], [graph]
    builder = flatbuffers.Builder(1024)
    builder.Finish(whole.Pack(builder), FILE_IDENTIFIER)
    return bytes(builder.Output())


def run(flatbuffer: bytes, *arrays: Array) -> Array:
    """The output of a model."""
    interpreter = runtime.Interpreter.from_bytes(flatbuffer, arena_size=ARENA)
    for i, a in enumerate(arrays):
        interpreter.set_input(np.ascontiguousarray(a), i)
    interpreter.invoke()
    return np.asarray(interpreter.get_output(0))


def fully_connected(
    x: Array, w: Array, bias: Array, *, scales: Sequence[Any], zero_points: Sequence[int], result: str
) -> Array:
    """FULLY_CONNECTED of ``x`` (m k) and weights ``w`` (n k); scales and zero points: of x, w, the result.

    A scale of the weights may be one a row. bias: int32, or int64 for int16 activations.
    """
    (sx, sw, so), (zx, zw, zo) = scales, zero_points
    operands = [
        Tensor(x.shape, x.dtype.name, sx, zx),
        Tensor(w.shape, w.dtype.name, sw, zw, w),
        Tensor(bias.shape, bias.dtype.name, np.float32(sx) * np.asarray(sw, np.float32), 0, bias),
    ]
    out = Tensor((len(x), len(w)), result, so, zo)
    return run(model("FULLY_CONNECTED", operands, out, schema.FullyConnectedOptionsT(), version=9), x)


def softmax(q: Array, *, scale: float, beta: float, result: str) -> Array:
    """SOFTMAX over the last axis; the input's zero point cannot matter."""
    options = schema.SoftmaxOptionsT()
    options.beta = beta
    bits = np.dtype(result).itemsize * 8
    out = Tensor(q.shape, result, 2.0**-bits, -(2 ** (bits - 1)))
    return run(model("SOFTMAX", [Tensor(q.shape, q.dtype.name, scale, 3)], out, options, version=2), q)


def add(a: Array, b: Array, *, scales: Sequence[float], zero_points: Sequence[int]) -> Array:
    """ADD of two tensors of one shape; scales and zero points: of a, b, the result."""
    operands = [Tensor(x.shape, x.dtype.name, s, z) for x, s, z in zip((a, b), scales, zero_points, strict=False)]
    options = schema.AddOptionsT()
    options.potScaleInt16 = False
    out = Tensor(a.shape, a.dtype.name, scales[2], zero_points[2])
    return run(model("ADD", operands, out, options, version=2), a, b)


def activation(operator: str, x: Array, *, scale: float, zero_point: int, result: tuple[float, int]) -> Array:
    """LOGISTIC, TANH or RSQRT of one tensor; result: scale and zero point of the output."""
    out = Tensor(x.shape, x.dtype.name, *result)
    return run(model(operator, [Tensor(x.shape, x.dtype.name, scale, zero_point)], out, None, version=2), x)


def binary(operator: str, a: Array, b: Array, *, scales: Sequence[float], zero_points: Sequence[int]) -> Array:
    """MUL or SQUARED_DIFFERENCE of two tensors of one shape; scales and zero points: of a, b, the result."""
    operands = [Tensor(x.shape, x.dtype.name, s, z) for x, s, z in zip((a, b), scales, zero_points, strict=False)]
    options = {"MUL": schema.MulOptionsT, "SQUARED_DIFFERENCE": schema.SquaredDifferenceOptionsT}[operator]()
    out = Tensor(a.shape, a.dtype.name, scales[2], zero_points[2])
    return run(model(operator, operands, out, options, version=2), a, b)


def reduction(operator: str, x: Array, *, scales: Sequence[float], zero_points: Sequence[int]) -> Array:
    """MEAN or SUM over the last of two axes; scales and zero points: of the input, the result."""
    axis = np.array([1], np.int32)
    operands = [Tensor(x.shape, x.dtype.name, scales[0], zero_points[0]), Tensor((1,), "int32", 1.0, 0, axis)]
    options = schema.ReducerOptionsT()
    options.keepDims = True
    out = Tensor((len(x), 1), x.dtype.name, scales[1], zero_points[1])
    return run(model(operator, operands, out, options, version=2), x)[:, 0]

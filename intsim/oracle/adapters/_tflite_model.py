"""Models of one operator as .tflite flatbuffers, for any runtime of such models.

The schema is the package ``tflite``; nothing here needs the runtime that reads them: a function that
runs one is passed in (``Run``).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from types import SimpleNamespace
from typing import Any

import numpy as np

FILE_IDENTIFIER = b"TFL3"
SCHEMA_VERSION = 3
ARENA = 1 << 24  # bytes for tflite-micro; the largest model of its tests needs a tenth
DEPRECATED_CODES = 127  # the old field of an operator's code is one byte, and this stands for "see the new one"

Array = np.ndarray[Any, Any]
Run = Callable[..., Array]  # (flatbuffer, *inputs) -> the output
Options = tuple[str, dict[str, Any]]  # the schema's table for an operator, and its fields


@cache
def _packages() -> SimpleNamespace:
    try:
        import flatbuffers
        import tflite
    except ImportError as missing:
        raise ValueError(
            f"writing .tflite models needs the package {missing.name}: pip install flatbuffers tflite"
        ) from missing
    return SimpleNamespace(flatbuffers=flatbuffers, schema=tflite)


@dataclass
class Tensor:
    """A tensor of a model. data: of a constant. scale, zero_point: one, or one an index of ``axis``.

    dtype: of NumPy, or "int4" (data of one value an element, which are packed two a byte, low half first).
    scale: None for a tensor of plain numbers.
    """

    shape: tuple[int, ...]
    dtype: str
    scale: Any = None
    zero_point: Any = 0
    data: Array | None = None
    axis: int = 0

    def bytes(self) -> Array:
        """The data as a model holds it."""
        assert self.data is not None
        if self.dtype == "int4":
            flat = np.append(self.data.reshape(-1), np.zeros(self.data.size % 2, np.int8)).astype(np.uint8) & 15
            return np.asarray(flat[0::2] | (flat[1::2] << 4), np.uint8)
        return np.frombuffer(np.ascontiguousarray(self.data).tobytes(), np.uint8)

    def write(self, builder: Any, name: str, buffer: int) -> Any:
        schema = _packages().schema
        quantization = None
        if self.scale is not None:
            scales = np.atleast_1d(np.asarray(self.scale, np.float32))
            scale = builder.CreateNumpyVector(scales)
            zeros = builder.CreateNumpyVector(np.array(np.broadcast_to(self.zero_point, scales.shape), np.int64))
            quantization = _table(
                builder,
                "QuantizationParameters",
                {"Scale": scale, "ZeroPoint": zeros, "QuantizedDimension": self.axis},
            )
        fields = {
            "Shape": builder.CreateNumpyVector(np.array(self.shape, np.int32)),
            "Type": getattr(schema.TensorType, self.dtype.upper()),
            "Buffer": buffer,
            "Name": builder.CreateString(name),
        }
        return _table(builder, "Tensor", fields | ({} if quantization is None else {"Quantization": quantization}))


def _table(builder: Any, name: str, fields: dict[str, Any]) -> Any:
    """One table of the schema; values that are no scalars are offsets made before."""
    schema = _packages().schema
    getattr(schema, f"{name}Start")(builder)
    for field, value in fields.items():
        getattr(schema, f"{name}Add{field}")(builder, value)
    return getattr(schema, f"{name}End")(builder)


def _vector(builder: Any, owner: str, field: str, offsets: Sequence[Any]) -> Any:
    getattr(_packages().schema, f"{owner}Start{field}Vector")(builder, len(offsets))
    for offset in reversed(offsets):
        builder.PrependUOffsetTRelative(offset)
    return builder.EndVector()


@dataclass(frozen=True)
class Call:
    """One operator of a model: the numbers of its input tensors and of its output. options: the schema's table
    and its fields ("SoftmaxOptions", {"Beta": 1.0}), None where there is none. version: of the operator, as the
    converter writes it for these types.
    """

    operator: str
    inputs: Sequence[int]
    output: int
    options: Options | None
    version: int


def model(operator: str, operands: Sequence[Tensor], result: Tensor, options: Options | None, version: int) -> bytes:
    """The flatbuffer of one ``operator``; operands with data are constants, the others its inputs. See ``Call``."""
    last = len(operands)
    return graph([*operands, result], [Call(operator, range(last), last, options, version)])


def graph(tensors: Sequence[Tensor], calls: Sequence[Call]) -> bytes:
    """The flatbuffer of operators in a row. Its inputs are the tensors that no call makes and that hold no data; its
    output is that of the last call.
    """
    packages = _packages()
    schema, builder = packages.schema, packages.flatbuffers.Builder(1024)
    contents = [builder.CreateNumpyVector(t.bytes()) for t in tensors if t.data is not None]
    buffers = [_table(builder, "Buffer", {})]  # buffer 0 is empty by convention
    buffers += [_table(builder, "Buffer", {"Data": c}) for c in contents]
    numbers = iter(range(1, len(buffers)))
    written = [t.write(builder, f"t{i}", 0 if t.data is None else next(numbers)) for i, t in enumerate(tensors)]
    operators = []
    for index, call in enumerate(calls):
        fields = {
            "OpcodeIndex": index,
            "Inputs": builder.CreateNumpyVector(np.array(call.inputs, np.int32)),
            "Outputs": builder.CreateNumpyVector(np.array([call.output], np.int32)),
        }
        if call.options is not None:
            table, values = call.options
            fields["BuiltinOptions"] = _table(builder, table, values)
            fields["BuiltinOptionsType"] = getattr(schema.BuiltinOptions, table)
        operators.append(_table(builder, "Operator", fields))
    made = {call.output for call in calls}
    free = np.array([i for i, t in enumerate(tensors) if t.data is None and i not in made], np.int32)
    subgraph = {
        "Tensors": _vector(builder, "SubGraph", "Tensors", written),
        "Inputs": builder.CreateNumpyVector(free),
        "Outputs": builder.CreateNumpyVector(np.array([calls[-1].output], np.int32)),
        "Operators": _vector(builder, "SubGraph", "Operators", operators),
    }
    graphs = [_table(builder, "SubGraph", subgraph)]
    codes = []
    for call in calls:
        number = getattr(schema.BuiltinOperator, call.operator)
        code = {"DeprecatedBuiltinCode": min(number, DEPRECATED_CODES), "BuiltinCode": number, "Version": call.version}
        codes.append(_table(builder, "OperatorCode", code))
    whole = {
        "Version": SCHEMA_VERSION,
        "OperatorCodes": _vector(builder, "Model", "OperatorCodes", codes),
        "Subgraphs": _vector(builder, "Model", "Subgraphs", graphs),
        "Buffers": _vector(builder, "Model", "Buffers", buffers),
    }
    builder.Finish(_table(builder, "Model", whole), FILE_IDENTIFIER)
    return bytes(builder.Output())


def micro(flatbuffer: bytes, *arrays: Array) -> Array:
    """The output of a model in tflite-micro's interpreter."""
    from tflite_micro.python.tflite_micro import runtime

    interpreter = runtime.Interpreter.from_bytes(flatbuffer, arena_size=ARENA)
    for i, a in enumerate(arrays):
        interpreter.set_input(np.ascontiguousarray(a), i)
    interpreter.invoke()
    return np.asarray(interpreter.get_output(0))


def fully_connected(
    x: Array,
    w: Array,
    bias: Array,
    *,
    scales: Sequence[Any],
    zero_points: Sequence[int],
    result: str,
    weights: str = "",
    run: Run = micro,
) -> Array:
    """FULLY_CONNECTED of ``x`` (m k) and weights ``w`` (n k); scales and zero points: of x, w, the result.

    A scale of the weights may be one a row. bias: int32, or int64 for int16 activations.
    weights: their type where it is not that of ``w`` ("int4").
    """
    (sx, sw, so), (zx, zw, zo) = scales, zero_points
    with np.errstate(over="ignore", under="ignore"):
        product = np.float32(sx) * np.asarray(sw, np.float32)
    operands = [
        Tensor(x.shape, x.dtype.name, sx, zx),
        Tensor(w.shape, weights or w.dtype.name, sw, zw, w),
        Tensor(bias.shape, bias.dtype.name, product, 0, bias),
    ]
    out = Tensor((len(x), len(w)), result, so, zo)
    return run(model("FULLY_CONNECTED", operands, out, ("FullyConnectedOptions", {}), version=9), x)


def softmax(q: Array, *, scale: float, beta: float, result: str, run: Run = micro) -> Array:
    """SOFTMAX over the last axis; the input's zero point cannot matter. int16 inputs give scale 2**-15."""
    bits = np.dtype(result).itemsize * 8
    zero, out_scale, version = (0, 2.0**-15, 3) if q.dtype == np.int16 else (-(2 ** (bits - 1)), 2.0**-bits, 2)
    operand = Tensor(q.shape, q.dtype.name, scale, 0 if q.dtype == np.int16 else 3)
    out = Tensor(q.shape, result, out_scale, zero)
    return run(model("SOFTMAX", [operand], out, ("SoftmaxOptions", {"Beta": beta}), version), q)


_BINARY: dict[str, Options] = {
    "ADD": ("AddOptions", {"PotScaleInt16": False}),
    "MUL": ("MulOptions", {}),
    "SUB": ("SubOptions", {"PotScaleInt16": False}),
    "SQUARED_DIFFERENCE": ("SquaredDifferenceOptions", {}),
    "BATCH_MATMUL": ("BatchMatMulOptions", {}),
}


def binary(
    operator: str, a: Array, b: Array, *, scales: Sequence[float], zero_points: Sequence[int], run: Run = micro
) -> Array:
    """ADD, SUB, MUL or SQUARED_DIFFERENCE of two tensors of one shape; scales and zero points: of a, b, the result."""
    operands = [Tensor(x.shape, x.dtype.name, s, z) for x, s, z in zip((a, b), scales, zero_points, strict=False)]
    out = Tensor(a.shape, a.dtype.name, scales[2], zero_points[2])
    return run(model(operator, operands, out, _BINARY[operator], version=2), a, b)


def add(a: Array, b: Array, *, scales: Sequence[float], zero_points: Sequence[int], run: Run = micro) -> Array:
    """ADD of two tensors of one shape; scales and zero points: of a, b, the result."""
    return binary("ADD", a, b, scales=scales, zero_points=zero_points, run=run)


def batch_matmul(a: Array, b: Array, *, scales: Sequence[float], zero_points: Sequence[int], run: Run = micro) -> Array:
    """BATCH_MATMUL of ``a`` (m k) and ``b`` (k n), one of a batch; scales and zero points: of a, b, the result."""
    a, b = np.ascontiguousarray(a)[None], np.ascontiguousarray(b)[None]
    operands = [Tensor(x.shape, x.dtype.name, s, z) for x, s, z in zip((a, b), scales, zero_points, strict=False)]
    out = Tensor((1, a.shape[1], b.shape[2]), a.dtype.name, scales[2], zero_points[2])
    product: Array = run(model("BATCH_MATMUL", operands, out, _BINARY["BATCH_MATMUL"], version=4), a, b)[0]
    return product


def activation(
    operator: str,
    x: Array,
    *,
    scale: float,
    zero_point: int,
    result: tuple[float, int],
    options: Options | None = None,
    run: Run = micro,
) -> Array:
    """LOGISTIC, TANH, GELU or RSQRT of one tensor; result: scale and zero point of the output."""
    out = Tensor(x.shape, x.dtype.name, *result)
    return run(model(operator, [Tensor(x.shape, x.dtype.name, scale, zero_point)], out, options, version=2), x)


def reduction(
    operator: str, x: Array, *, scales: Sequence[float], zero_points: Sequence[int], run: Run = micro
) -> Array:
    """MEAN or SUM over the last of two axes; scales and zero points: of the input, the result."""
    axis = np.array([1], np.int32)
    operands = [Tensor(x.shape, x.dtype.name, scales[0], zero_points[0]), Tensor((1,), "int32", None, 0, axis)]
    out = Tensor((len(x), 1), x.dtype.name, scales[1], zero_points[1])
    return run(model(operator, operands, out, ("ReducerOptions", {"KeepDims": True}), version=2), x)[:, 0]


def conversion(
    operator: str,
    x: Array,
    result: str,
    *,
    operand: tuple[float | None, int],
    made: tuple[float | None, int],
    run: Run = micro,
) -> Array:
    """QUANTIZE or DEQUANTIZE of one tensor; operand, made: scale (None for floats) and zero point."""
    options = {"QUANTIZE": "QuantizeOptions", "DEQUANTIZE": "DequantizeOptions"}[operator]
    tensor, out = Tensor(x.shape, x.dtype.name, *operand), Tensor(x.shape, result, *made)
    return run(model(operator, [tensor], out, (options, {}), version=3 if operator == "DEQUANTIZE" else 2), x)

"""What an integer encoder holds: its shape, its steps (operations with parameters) and its tensors.

A step is a place where an operation runs, named by where it lies: ``layer.3.scores.requantize``. The
tensors are what the operations read besides activations. Both lists follow from the shape alone, so
a model is complete or it is refused.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from intsim.params import Params
from intsim.registry import get

Array = np.ndarray[Any, Any]

# The linear maps of a layer: in the attention, and in the feed-forward part.
DENSE = ("query", "key", "value", "attention", "up", "down")

_LAYER_STEPS: Mapping[str, str] = {
    "input.quantize": "quantize.dynamic_token",
    "query.matmul": "matmul.integer",
    "query.requantize": "requantize.row_column",
    "key.matmul": "matmul.integer",
    "key.requantize": "requantize.row_column",
    "value.matmul": "matmul.integer",
    "value.requantize": "requantize.row_column",
    "query.quantize": "quantize.dynamic_token",
    "key.quantize": "quantize.dynamic_token",
    "scores.matmul": "matmul.integer",
    "scores.requantize": "requantize.row_column",
    "probabilities.softmax": "softmax.ibert",
    "context.matmul": "matmul.integer",
    "context.requantize": "requantize.single_rounding",
    "context.quantize": "quantize.dynamic_token",
    "attention.matmul": "matmul.integer",
    "attention.requantize": "requantize.row_column",
    "attention_sum.add": "add.matched",
    "attention_norm.layernorm": "layernorm.ibert",
    "attention_norm.requantize": "requantize.single_rounding",
    "attention_norm.quantize": "quantize.dynamic_token",
    "up.matmul": "matmul.integer",
    "up.requantize": "requantize.row_column",
    "gelu.activation": "activation.gelu_ibert",
    "gelu.requantize": "requantize.single_rounding",
    "gelu.quantize": "quantize.dynamic_token",
    "down.matmul": "matmul.integer",
    "down.requantize": "requantize.row_column",
    "output_sum.add": "add.matched",
    "output.layernorm": "layernorm.ibert",
    "output.requantize": "requantize.single_rounding",
}


@dataclass(frozen=True, slots=True)
class Shape:
    """The sizes of a BERT encoder. ``tokens``: the longest sentence that it takes, [CLS] and [SEP] included."""

    layers: int
    heads: int
    hidden: int
    inner: int
    vocabulary: int
    positions: int
    types: int
    tokens: int

    def __post_init__(self) -> None:
        for name, value in dataclasses.asdict(self).items():
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise ValueError(f"{name} is a whole number of at least 1, got {value!r}")
        if self.hidden % self.heads:
            raise ValueError(f"hidden = {self.hidden} is not a multiple of heads = {self.heads}")
        if self.tokens > self.positions:
            raise ValueError(f"tokens = {self.tokens}, but there are only {self.positions} positions")

    @property
    def head(self) -> int:
        """The width of one attention head."""
        return self.hidden // self.heads

    def dense(self, name: str) -> tuple[int, int]:
        """(outputs, inputs) of a linear map of a layer."""
        return {"up": (self.inner, self.hidden), "down": (self.hidden, self.inner)}.get(
            name, (self.hidden, self.hidden)
        )


@dataclass(slots=True)
class IntegerModel:
    """An integer encoder. ``scales``, ``source`` are for people and for the host: no kernel reads them.

    steps: the parameters of the operation at each place. tensors: int8, int16 and int32.
    scales: the real value of one integer step at each traced place ("pooled" among them).
    tokenizer: the bytes of tokenizer.json. source: where the weights came from, and their sha256.
    """

    shape: Shape
    steps: dict[str, Params]
    tensors: dict[str, Array]
    scales: dict[str, float]
    tokenizer: bytes
    source: dict[str, Any] = field(default_factory=dict)


def step_ops(shape: Shape) -> dict[str, str]:
    """The operation of every step of a model of this shape, in the order in which they run."""
    steps = {
        "word.embedding": "embedding.row_scaled",
        "position.embedding": "embedding.gather",
        "type.embedding": "embedding.gather",
        "position_sum.add": "add.matched",
        "embedding_sum.add": "add.matched",
        "embedding.layernorm": "layernorm.ibert",
        "embedding.requantize": "requantize.single_rounding",
    }
    for i in range(shape.layers):
        steps |= {f"layer.{i}.{name}": op for name, op in _LAYER_STEPS.items()}
    return steps | {"pooled.mean": "reduce.mean"}


def tensor_types(shape: Shape) -> dict[str, tuple[str, tuple[int, ...]]]:
    """(dtype, shape) of every tensor of a model of this shape."""
    h = shape.hidden
    made: dict[str, tuple[str, tuple[int, ...]]] = {
        "word.table": ("int8", (shape.vocabulary, h)),
        "word.multiplier": ("int32", (shape.vocabulary,)),
        "position.table": ("int16", (shape.positions, h)),
        "type.table": ("int16", (shape.types, h)),
    }
    for i in range(shape.layers):
        for name in DENSE:
            outputs, inputs = shape.dense(name)
            made[f"layer.{i}.{name}.weight"] = ("int8", (outputs, inputs))
            made[f"layer.{i}.{name}.column"] = ("int16", (outputs,))
            made[f"layer.{i}.{name}.bias"] = ("int32", (outputs,))
    return made


def scale_names(shape: Shape) -> tuple[str, ...]:
    """The places whose scale a model states."""
    layer = ("query", "key", "scores", "probabilities", "context", "attention", "attention_sum",
             "attention_norm", "up", "gelu", "down", "output_sum", "output")  # fmt: skip
    places = [f"layer.{i}.{name}" for i in range(shape.layers) for name in layer]
    return ("embedding_sum", "embedding", *places, "pooled")


def check(model: IntegerModel) -> None:
    """Raises ValueError where a step, a tensor or a scale is missing, of another kind, or one too many."""
    same_names("step", model.steps, step_ops(model.shape))
    for name, op in step_ops(model.shape).items():
        try:
            get(op).check(model.steps[name])
        except TypeError as wrong:
            raise ValueError(f"step {name}: {wrong}") from None
    wanted = tensor_types(model.shape)
    same_names("tensor", model.tensors, wanted)
    for name, (dtype, dims) in wanted.items():
        a = model.tensors[name]
        if a.dtype != dtype or a.shape != dims:
            raise ValueError(
                f"tensor {name} is {a.dtype} {a.shape}, needs {dtype} {dims}; convert the checkpoint again"
            )
    same_names("scale", model.scales, scale_names(model.shape))
    for name, scale in model.scales.items():
        if not (isinstance(scale, float) and 0 < scale < math.inf):
            raise ValueError(f"scale {name} is {scale!r}, needs a positive number")


def same_names(what: str, got: Mapping[str, Any], wanted: Any) -> None:
    """Raises ValueError where a name is missing, or one too many."""
    missing, extra = [n for n in wanted if n not in got], [n for n in got if n not in wanted]
    for word, names in (("lacks", missing), ("has an unknown", extra)):
        if names:
            others = f" and {len(names) - 1} more" if len(names) > 1 else ""
            raise ValueError(f"the model {word} {what} {names[0]}{others}; convert the checkpoint again")

"""What an Integer Transformer with propagated scales holds: architecture, options, steps and tensors.

A step is a place where an operation runs. Operations whose parameters are the same everywhere are one
step. Steps and tensors follow from the architecture and the options alone: a model is complete or refused.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from intsim.models.architecture import Architecture
from intsim.models.layout import Array, same_names
from intsim.models.transformer_checkpoint import attentions, linear_maps, needs_integer_form, norms
from intsim.numerics import IntType, Rounding, int8, int16, uint8
from intsim.ops.propagate import Centring, Policy, Probabilities
from intsim.params import Params
from intsim.registry import get


class Granularity(Enum):
    """What weights share a scale."""

    ROW = "row"  # an output channel, or a token of the embedding
    TENSOR = "tensor"


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """Where the paper leaves a choice. The defaults lost least when they were measured.

    residual: type of the sums that run through all layers (int16 or int8). weights: what shares a scale.
    probabilities: their sum in the scale, or divided out. probability: their type (uint8, int8, int16).
    policy: when a row is rescaled. centring: of the L1 norm. rounding: of every rescaling and match.
    """

    residual: IntType = int16
    weights: Granularity = Granularity.ROW
    probabilities: Probabilities = Probabilities.DENOMINATOR
    probability: IntType = uint8
    policy: Policy = Policy.WHEN_NEEDED
    centring: Centring = Centring.EXACT
    rounding: Rounding = Rounding.TIES_TO_AWAY

    def __post_init__(self) -> None:
        for name, types in (("residual", (int16, int8)), ("probability", (uint8, int8, int16))):
            if getattr(self, name) not in types:
                listed = ", ".join(map(str, types))
                raise ValueError(f"{name} is one of {listed}, got {getattr(self, name)}")

    def as_names(self) -> dict[str, str]:
        return {f.name: _name(getattr(self, f.name)) for f in dataclasses.fields(self)}

    @classmethod
    def from_names(cls, names: Mapping[str, str]) -> Options:
        """The inverse of ``as_names``. Raises ValueError for a name or a value that there is not."""
        made: dict[str, Any] = {}
        kinds = {f.name: getattr(cls(), f.name) for f in dataclasses.fields(cls)}
        for name, value in names.items():
            if name not in kinds:
                raise ValueError(f"no option is called {name!r}; there are {', '.join(kinds)}")
            made[name] = _parsed(name, value, kinds[name])
        return cls(**made)


def _name(value: Any) -> str:
    return str(value) if isinstance(value, IntType) else str(value.name).lower()


def _parsed(option: str, text: str, kind: Any) -> Any:
    if isinstance(kind, IntType):
        return IntType.parse(text)
    try:
        return type(kind)[text.upper()]
    except KeyError:
        listed = ", ".join(_name(m) for m in type(kind))
        raise ValueError(f"{option} is one of {listed}, got {text!r}") from None


@dataclass(slots=True)
class PropagatedModel:
    """An Integer Transformer. ``source`` is for people: where the weights came from, and their sha256.

    parts: what a file holds, from which the rest follows (``transformer_parts``). steps: the parameters of the
    operation at each place. tensors: int8 weights, int32 mantissas and int16 exponents of the tables' scales.
    tokenizer: the text of tokenizer.json.
    """

    shape: Architecture
    options: Options
    parts: dict[str, Array]
    steps: dict[str, Params]
    tensors: dict[str, Array]
    tokenizer: str
    source: dict[str, Any] = field(default_factory=dict)


def step_ops(shape: Architecture) -> dict[str, str]:
    """The operation of every step of a model of this shape."""
    steps = {
        "embedding.embed": "propagate.embed",
        "stream.rescale": "propagate.rescale",
        "stream.add": "propagate.add",
        "narrow.rescale": "propagate.rescale",
        "head.rescale": "propagate.rescale",
        "mixed.rescale": "propagate.rescale",
        "hidden.rescale": "propagate.rescale",
        "linear.matmul": "matmul.integer",
    }
    steps |= {f"{name}.l1_norm": "propagate.l1_norm" for name in used_norms(shape)}
    steps |= {f"{name}.bias": "propagate.bias" for name in linear_maps(shape)}
    steps |= {f"{name}.attention": "attention.propagated" for name in attentions(shape)}
    return steps | {"logits.bias": "propagate.bias", "logits.argmax": "reduce.argmax"}


def used_norms(shape: Architecture) -> list[str]:
    """Those that run: with the norms behind the sums there is none at the end."""
    return [n for n in norms(shape) if shape.norm_first or n not in ("encoder_norm", "decoder_norm")]


def tensor_types(shape: Architecture, options: Options) -> dict[str, tuple[str, tuple[int, ...]]]:
    """(dtype, shape) of every tensor but those that belong to the steps' parameters."""
    made: dict[str, tuple[str, tuple[int, ...]]] = {}
    for name, rows in (("embedding", shape.vocabulary), ("positions", shape.positions)):
        scales = rows if options.weights is Granularity.ROW else 1
        made[f"{name}.weight"] = ("int8", (rows, shape.width))
        made[f"{name}.mantissa"] = ("int32", (scales,))
        made[f"{name}.exponent"] = ("int16", (scales,))
    return made | {f"{name}.weight": ("int8", dims) for name, dims in linear_maps(shape).items()}


def check(model: PropagatedModel) -> None:
    """Raises ValueError where a step or a tensor is missing, of another kind, or one too many."""
    needs_integer_form(model.shape)
    same_names("step", model.steps, step_ops(model.shape))
    for name, op in step_ops(model.shape).items():
        try:
            get(op).check(model.steps[name])
        except TypeError as wrong:
            raise ValueError(f"step {name}: {wrong}") from None
    wanted = tensor_types(model.shape, model.options)
    same_names("tensor", model.tensors, wanted)
    for name, (dtype, dims) in wanted.items():
        a = model.tensors[name]
        if a.dtype != dtype or a.shape != dims:
            raise ValueError(
                f"tensor {name} is {a.dtype} {a.shape}, needs {dtype} {dims}; convert the checkpoint again"
            )

"""A folder of ``intsim train``: config.json, model.safetensors, tokenizer.json, as float32 tensors."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from intsim.models.architecture import Architecture, AttentionKind, NormKind, Positions
from intsim.models.extras import need
from intsim.models.float_transformer import FloatTransformer
from intsim.models.layout import Array
from intsim.models.vocabulary import Vocabulary

FILES = ("config.json", "model.safetensors", "tokenizer.json")
FLOAT_BYTES = 4  # of a float32 parameter


@dataclass(frozen=True, slots=True)
class TransformerCheckpoint:
    """A trained float Transformer.

    tensors: float32, by the names of the trained network. tokenizer: the text of tokenizer.json.
    sha256: of model.safetensors.
    """

    name: str
    shape: Architecture
    tensors: dict[str, Array]
    tokenizer: str
    sha256: str

    @property
    def float_bytes(self) -> int:
        """What the parameters take as float32, whatever type they are stored in."""
        return FLOAT_BYTES * sum(a.size for a in self.tensors.values())

    def model(self) -> FloatTransformer:
        return FloatTransformer(self.shape, self.tensors)


def is_ours(source: str | Path) -> bool:
    """Whether a folder holds a Transformer of ``intsim train`` (and no checkpoint of another make)."""
    try:
        found = json.loads((Path(source) / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(found, dict) and "task" in found and "format" in found


def read(source: str | Path) -> TransformerCheckpoint:
    """The checkpoint in a folder. Raises ValueError for one that is not whole, or whose parts do not fit."""
    folder = Path(source)
    missing = [name for name in FILES if not (folder / name).is_file()]
    if missing:
        raise ValueError(f"{folder} lacks {', '.join(missing)}; a trained folder holds {', '.join(FILES)}")
    shape = Architecture.read(folder / "config.json")
    tokenizer = (folder / "tokenizer.json").read_text(encoding="utf-8")
    check_vocabulary(tokenizer, shape)
    weights = folder / "model.safetensors"
    with weights.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return TransformerCheckpoint(folder.name, shape, _tensors(weights, shape), tokenizer, digest)


def check_vocabulary(tokenizer: str, shape: Architecture) -> Vocabulary:
    """The vocabulary. Raises ValueError where it has another number of tokens than the embedding has rows."""
    made = Vocabulary(tokenizer)
    if made.size != shape.vocabulary:
        raise ValueError(f"tokenizer.json has {made.size} tokens, the embedding {shape.vocabulary} rows")
    return made


def linear_maps(shape: Architecture) -> dict[str, tuple[int, int]]:
    """(outputs, inputs) of every linear map."""
    made: dict[str, tuple[int, int]] = {}
    for layer, attentions in _layers(shape):
        for attention in attentions:
            for part in ("query", "key", "value", "out"):
                made[f"{layer}.{attention}.{part}"] = (shape.width, shape.width)
        made[f"{layer}.feed_up"] = (shape.feed, shape.width)
        made[f"{layer}.feed_down"] = (shape.width, shape.feed)
    return made


def attentions(shape: Architecture) -> list[str]:
    return [f"{layer}.{name}" for layer, names in _layers(shape) for name in names]


def norms(shape: Architecture) -> list[str]:
    made = []
    for layer, names in _layers(shape):
        made += [f"{layer}.{name.removesuffix('_attention')}_norm" for name in names] + [f"{layer}.feed_norm"]
    return [*made, "decoder_norm", *(["encoder_norm"] if shape.translates else [])]


def _layers(shape: Architecture) -> list[tuple[str, tuple[str, ...]]]:
    decoder = ("self_attention", "cross_attention") if shape.translates else ("self_attention",)
    made: list[tuple[str, tuple[str, ...]]] = [(f"decoder.{i}", decoder) for i in range(shape.layers)]
    if shape.translates:
        made += [(f"encoder.{i}", ("self_attention",)) for i in range(shape.layers)]
    return made


def tensor_shapes(shape: Architecture) -> dict[str, tuple[int, ...]]:
    """The shape of every float tensor of a model."""
    made: dict[str, tuple[int, ...]] = {"embedding.weight": (shape.vocabulary, shape.width)}
    if shape.position_kind is Positions.LEARNED:
        made["positions.weight"] = (shape.positions, shape.width)
    for name, dims in linear_maps(shape).items():
        made |= {f"{name}.weight": dims, f"{name}.bias": dims[:1]}
    for name in norms(shape):
        made |= {f"{name}.weight": (shape.width,), f"{name}.bias": (shape.width,)}
    if shape.attention is AttentionKind.POLYNOMIAL:
        for name in attentions(shape):
            made |= {f"{name}.shift": (shape.heads,), f"{name}.floor": (shape.heads,)}
    return made


def needs_integer_form(shape: Architecture) -> None:
    """Raises ValueError for an architecture whose operations have no integer form here."""
    if shape.attention is not AttentionKind.POLYNOMIAL or shape.norm is not NormKind.L1:
        raise ValueError(
            f"the model has {shape.attention.value} attention and the {shape.norm.value} norm; integers with "
            "propagated scales need polynomial attention and the l1 norm: train it with them (the defaults)"
        )


def _tensors(path: Path, shape: Architecture) -> dict[str, Array]:
    safetensors = need("safetensors")
    need("safetensors.numpy")
    try:
        found: dict[str, Array] = safetensors.numpy.load_file(str(path))
    except (safetensors.SafetensorError, KeyError, TypeError) as wrong:  # the last two: a number type NumPy lacks
        raise ValueError(f"{path} cannot be read as safetensors of NumPy types: {wrong}") from None
    made = {}
    for name, dims in tensor_shapes(shape).items():
        if name not in found:
            raise ValueError(f"{path} lacks the tensor {name}, which config.json calls for")
        a = found.pop(name)
        if a.shape != dims:
            raise ValueError(f"{path}: {name} has shape {a.shape}, config.json calls for {dims}")
        if a.dtype.kind != "f":
            raise ValueError(f"{path}: {name} is {a.dtype}, needs a float type")
        if not np.isfinite(a).all():
            raise ValueError(f"{path}: {name} holds NaN or infinity")
        made[name] = a.astype(np.float32)
    if found:
        raise ValueError(f"{path}: {sorted(found)[0]} is no tensor of the model that config.json describes")
    return made

"""A BERT checkpoint in Hugging Face layout: config.json, model.safetensors, tokenizer.json."""

from __future__ import annotations

import hashlib
import importlib.util
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from intsim.models.extras import need
from intsim.models.layout import DENSE, Array, Shape

FILES = ("config.json", "model.safetensors", "tokenizer.json")

_IN_CHECKPOINT = {
    "query": "attention.self.query",
    "key": "attention.self.key",
    "value": "attention.self.value",
    "attention": "attention.output.dense",
    "up": "intermediate.dense",
    "down": "output.dense",
}
_UNUSED = ("pooler.", "cls.", "embeddings.position_ids")  # heads of pre-training, and a constant 0, 1, 2, ...


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A float32 BERT encoder with mean pooling.

    tensors: float32, under this package's names: ``word.table``, ``layer.0.query.weight``,
        ``layer.0.output.gamma`` ... ; weights are (outputs, inputs).
    weight_bytes, sha256: of model.safetensors.
    """

    name: str
    shape: Shape
    eps: float
    tensors: dict[str, Array]
    tokenizer: bytes
    weight_bytes: int
    sha256: str


def find(source: str) -> Path:
    """The folder that ``source`` names: a folder, or an installed package that holds one (it is not imported).

    Raises ValueError where there is none with a config.json.
    """
    folder = Path(source)
    if folder.is_dir():
        missing = [name for name in FILES if not (folder / name).is_file()]
        if missing:
            raise ValueError(f"{source} lacks {', '.join(missing)}; a checkpoint folder holds {', '.join(FILES)}")
        return folder
    package = source.replace("-", "_")
    if package.isidentifier():
        spec = importlib.util.find_spec(package)
        for root in (spec.submodule_search_locations or ()) if spec else ():
            for config in sorted(Path(root).rglob("config.json")):
                if all((config.parent / name).is_file() for name in FILES):
                    return config.parent
        if spec:
            raise ValueError(f"the package {package} holds no folder with {', '.join(FILES)}")
    raise ValueError(f"{source!r} is neither a folder nor an installed package; give a folder with {', '.join(FILES)}")


def read(source: str) -> Checkpoint:
    """The checkpoint that ``source`` names. Raises ValueError for one that is not whole or not supported."""
    folder = find(source)
    config = _json(folder / "config.json")
    shape = _shape(config, folder)
    weights = folder / "model.safetensors"
    with weights.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return Checkpoint(
        name=str(config.get("_name_or_path") or folder.name),
        shape=shape,
        eps=float(config.get("layer_norm_eps", 1e-12)),
        tensors=_tensors(weights, shape),
        tokenizer=(folder / "tokenizer.json").read_bytes(),
        weight_bytes=weights.stat().st_size,
        sha256=digest,
    )


def _json(path: Path) -> dict[str, Any]:
    try:
        made = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as wrong:
        raise ValueError(f"{path} is not JSON: {wrong}") from None
    if not isinstance(made, dict):
        raise ValueError(f"{path} holds no JSON object")
    return made


def _shape(config: dict[str, Any], folder: Path) -> Shape:
    for key, wanted, default in (
        ("model_type", "bert", None),
        ("hidden_act", "gelu", "gelu"),
        ("position_embedding_type", "absolute", "absolute"),
        ("is_decoder", False, False),
    ):
        got = config.get(key, default)
        if got != wanted:
            raise ValueError(f"config.json: {key} is {got!r}; only {wanted!r} is supported")
    pooling = folder / "1_Pooling" / "config.json"
    if pooling.is_file():
        modes = [k for k, v in _json(pooling).items() if k.startswith("pooling_mode_") and v is True]
        if modes != ["pooling_mode_mean_tokens"]:
            raise ValueError(
                f"1_Pooling/config.json asks for {', '.join(modes) or 'nothing'}; only the mean is supported"
            )
    try:
        positions = config["max_position_embeddings"]
        tokens = positions
        limits = folder / "sentence_bert_config.json"
        if limits.is_file():
            tokens = min(_json(limits).get("max_seq_length") or positions, positions)
        return Shape(
            layers=config["num_hidden_layers"],
            heads=config["num_attention_heads"],
            hidden=config["hidden_size"],
            inner=config["intermediate_size"],
            vocabulary=config["vocab_size"],
            positions=positions,
            types=config["type_vocab_size"],
            tokens=tokens,
        )
    except KeyError as missing:
        raise ValueError(f"config.json lacks {missing}") from None
    except (TypeError, ValueError) as wrong:
        raise ValueError(f"config.json: {wrong}") from None


def _wanted(shape: Shape) -> dict[str, tuple[str, tuple[int, ...]]]:
    """Name in this package -> (name in the checkpoint, shape)."""
    h = shape.hidden
    made: dict[str, tuple[str, tuple[int, ...]]] = {
        "word.table": ("embeddings.word_embeddings.weight", (shape.vocabulary, h)),
        "position.table": ("embeddings.position_embeddings.weight", (shape.positions, h)),
        "type.table": ("embeddings.token_type_embeddings.weight", (shape.types, h)),
    }
    norms = {"embedding": "embeddings.LayerNorm"}
    for i in range(shape.layers):
        source = f"encoder.layer.{i}."
        for name in DENSE:
            outputs, inputs = shape.dense(name)
            made[f"layer.{i}.{name}.weight"] = (f"{source}{_IN_CHECKPOINT[name]}.weight", (outputs, inputs))
            made[f"layer.{i}.{name}.bias"] = (f"{source}{_IN_CHECKPOINT[name]}.bias", (outputs,))
        norms[f"layer.{i}.attention_norm"] = f"{source}attention.output.LayerNorm"
        norms[f"layer.{i}.output"] = f"{source}output.LayerNorm"
    for name, source in norms.items():
        made |= {f"{name}.gamma": (f"{source}.weight", (h,)), f"{name}.beta": (f"{source}.bias", (h,))}
    return made


def tensor_shapes(shape: Shape) -> dict[str, tuple[int, ...]]:
    """The shape of every tensor of a ``Checkpoint``, under this package's names."""
    return {name: dims for name, (_, dims) in _wanted(shape).items()}


def _tensors(path: Path, shape: Shape) -> dict[str, Array]:
    safetensors = need("safetensors")
    need("safetensors.numpy")
    try:
        stored: dict[str, Array] = safetensors.numpy.load_file(str(path))
    except (safetensors.SafetensorError, KeyError, TypeError) as wrong:  # the last two: a number type NumPy lacks
        raise ValueError(f"{path} cannot be read as safetensors of NumPy types: {wrong}") from None
    found = {name.removeprefix("bert."): a for name, a in stored.items()}
    made = {}
    for name, (source, dims) in _wanted(shape).items():
        if source not in found:
            raise ValueError(f"{path} lacks the tensor {source}, which config.json calls for")
        a = found.pop(source)
        if a.shape != dims:
            raise ValueError(f"{path}: {source} has shape {a.shape}, config.json calls for {dims}")
        if a.dtype.kind != "f":
            raise ValueError(f"{path}: {source} is {a.dtype}, needs a float type")
        if not np.isfinite(a).all():
            raise ValueError(f"{path}: {source} holds NaN or infinity")
        made[name] = a.astype(np.float32)
    extra = [name for name in found if not name.startswith(_UNUSED)]
    if extra:
        raise ValueError(f"{path}: {extra[0]} is no tensor of a BERT encoder with {shape.layers} layers")
    return made

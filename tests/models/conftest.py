"""A tiny random BERT checkpoint, as a folder in Hugging Face layout."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

WORDS = (
    "[PAD] [UNK] [CLS] [SEP] a the cat dog man child plays sleeps runs sings in on house street song red old and . ##s"
)
TEXTS = ("a cat sleeps in the house", "the old man sings a song .", "dogs", "a child and a dog play on the red street")
CONFIG = {
    "model_type": "bert",
    "hidden_act": "gelu",
    "hidden_size": 8,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 12,
    "vocab_size": 24,
    "max_position_embeddings": 14,
    "type_vocab_size": 2,
    "layer_norm_eps": 1e-12,
}


def random_tensors(config: dict[str, Any], seed: int = 1) -> dict[str, np.ndarray[Any, Any]]:
    draw = np.random.default_rng(seed)
    h, inner = config["hidden_size"], config["intermediate_size"]
    made: dict[str, Any] = {
        "embeddings.position_ids": np.arange(config["max_position_embeddings"])[None],
        "embeddings.word_embeddings.weight": draw.normal(size=(config["vocab_size"], h)),
        "embeddings.position_embeddings.weight": draw.normal(size=(config["max_position_embeddings"], h)) / 4,
        "embeddings.token_type_embeddings.weight": draw.normal(size=(config["type_vocab_size"], h)) / 4,
        "pooler.dense.weight": draw.normal(size=(h, h)),
    }
    norms = ["embeddings.LayerNorm"]
    for i in range(config["num_hidden_layers"]):
        layer = f"encoder.layer.{i}."
        for name, shape in (
            ("attention.self.query", (h, h)),
            ("attention.self.key", (h, h)),
            ("attention.self.value", (h, h)),
            ("attention.output.dense", (h, h)),
            ("intermediate.dense", (inner, h)),
            ("output.dense", (h, inner)),
        ):
            made[f"{layer}{name}.weight"] = draw.normal(size=shape) / np.sqrt(shape[1])
            made[f"{layer}{name}.bias"] = draw.normal(size=shape[0]) / 4
        norms += [f"{layer}attention.output.LayerNorm", f"{layer}output.LayerNorm"]
    for name in norms:
        made[f"{name}.weight"] = draw.uniform(0.5, 1.5, h) * np.where(np.arange(h) == 3, -1, 1)
        made[f"{name}.bias"] = draw.normal(size=h) / 4
    return {k: np.ascontiguousarray(v, np.int64 if k.endswith("_ids") else np.float32) for k, v in made.items()}


def write_tokenizer(path: Path) -> None:
    tokenizers = pytest.importorskip("tokenizers", reason="pip install 'intsim[models]'")
    made = tokenizers.Tokenizer(
        tokenizers.models.WordPiece({word: i for i, word in enumerate(WORDS.split())}, unk_token="[UNK]")
    )
    made.normalizer = tokenizers.normalizers.Lowercase()
    made.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    made.post_processor = tokenizers.processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    made.enable_padding(length=9)  # checkpoints do come with padding and truncation; both must be ignored
    made.enable_truncation(4)
    made.save(str(path))


def write_checkpoint(folder: Path, tensors: Any = None, **changes: Any) -> Path:
    save = pytest.importorskip("safetensors.numpy", reason="pip install 'intsim[models]'").save_file
    config = CONFIG | changes
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))
    save(random_tensors(config) if tensors is None else tensors, folder / "model.safetensors")
    write_tokenizer(folder / "tokenizer.json")
    return folder


@pytest.fixture(scope="session")
def write() -> Any:
    """write_checkpoint(folder, tensors, **changes of the config)"""
    return write_checkpoint


@pytest.fixture(scope="session")
def texts() -> tuple[str, ...]:
    return TEXTS


@pytest.fixture
def tensors() -> dict[str, np.ndarray[Any, Any]]:
    """The tensors of the tiny checkpoint, to be changed."""
    return random_tensors(CONFIG)


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("tiny") / "checkpoint")


@pytest.fixture(scope="session")
def checkpoint(folder: Path) -> Any:
    from intsim.models.checkpoint import read

    return read(str(folder))


@pytest.fixture(scope="session")
def model(checkpoint: Any) -> Any:
    from intsim.models import calibrate, convert

    return convert.convert(checkpoint, calibrate.measure(checkpoint, TEXTS))


@pytest.fixture(scope="session")
def sentences(checkpoint: Any) -> list[Any]:
    """The ids of the texts."""
    from intsim.models.text import TextReader

    return [s.ids for s in TextReader(checkpoint.tokenizer, checkpoint.shape).read(TEXTS)]


@pytest.fixture(scope="session")
def transformer() -> Any:
    """transformer(**changes of the shape) -> (Architecture, random float32 tensors)"""
    from intsim.models.architecture import Architecture, Task
    from intsim.models.transformer_checkpoint import tensor_shapes

    def make(seed: int = 1, **changes: Any) -> Any:
        usual = {"task": Task.TRANSLATION, "width": 16, "layers": 2, "heads": 2, "feed": 24, "vocabulary": 40}
        shape = Architecture(**(usual | {"positions": 12} | changes))  # type: ignore[arg-type]  # fields by name
        draw = np.random.default_rng(seed)
        tensors = {}
        for name, dims in tensor_shapes(shape).items():
            spread = 0.5 if len(dims) == 1 else dims[-1] ** -0.5
            middle = 1.0 if name.endswith(("norm.weight", "shift")) else 0.0
            tensors[name] = (middle + spread * draw.normal(size=dims)).astype(np.float32)
        return shape, tensors

    return make


@pytest.fixture(scope="session")
def write_trained(transformer: Any) -> Any:
    """write_trained(folder, **changes of the shape): a random Transformer as intsim train writes it, in float16"""
    from intsim.models.vocabulary import Vocabulary

    save = pytest.importorskip("safetensors.numpy", reason="pip install 'intsim[models]'").save_file

    def make(folder: Path, **changes: Any) -> Path:
        vocabulary = Vocabulary.learn(["a dog runs in the house", "the old man sings a song"] * 4, 270)
        shape, tensors = transformer(**({"vocabulary": vocabulary.size, "positions": 40} | changes))
        folder.mkdir(parents=True, exist_ok=True)
        save({name: a.astype(np.float16) for name, a in tensors.items()}, folder / "model.safetensors")
        (folder / "config.json").write_text(shape.as_text())
        (folder / "tokenizer.json").write_text(vocabulary.as_text())
        return folder

    return make

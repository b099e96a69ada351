"""Every way in which a checkpoint can be wrong has a message that says so."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from intsim.models.checkpoint import find, read

QUERY = "encoder.layer.1.attention.self.query.weight"


def test_reads_float16_too(write: Any, tensors: Any, tmp_path: Path) -> None:
    made = read(
        str(write(tmp_path / "c", {k: v.astype(np.float16) if v.dtype.kind == "f" else v for k, v in tensors.items()}))
    )
    assert {a.dtype for a in made.tensors.values()} == {np.dtype("float32")}
    assert made.tensors["layer.1.query.weight"][0, 0] == np.float16(tensors[QUERY][0, 0])


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "tokenizer.json"])
def test_a_missing_file_is_named(write: Any, tmp_path: Path, name: str) -> None:
    folder = write(tmp_path / "c")
    (folder / name).unlink()
    with pytest.raises(ValueError, match=f"lacks {name}; a checkpoint folder holds"):
        read(str(folder))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"model_type": "gpt2"}, "model_type is 'gpt2'; only 'bert'"),
        ({"hidden_act": "relu"}, "hidden_act is 'relu'; only 'gelu'"),
        ({"position_embedding_type": "relative_key"}, "only 'absolute'"),
        ({"is_decoder": True}, "is_decoder is True"),
        ({"num_attention_heads": 3}, "hidden = 8 is not a multiple of heads = 3"),
        ({"num_hidden_layers": 0}, "layers is a whole number of at least 1, got 0"),
        ({"num_hidden_layers": "two"}, "layers is a whole number of at least 1, got 'two'"),
    ],
)
def test_unsupported_configurations(
    write: Any, tensors: Any, tmp_path: Path, change: dict[str, Any], said: str
) -> None:
    with pytest.raises(ValueError, match=said):
        read(str(write(tmp_path / "c", tensors, **change)))


def test_config_json_that_is_not_an_object_or_not_whole(write: Any, tmp_path: Path) -> None:
    folder = write(tmp_path / "c")
    config = json.loads((folder / "config.json").read_text())
    for text, said in (("{", "is not JSON"), ("[]", "holds no JSON object")):
        (folder / "config.json").write_text(text)
        with pytest.raises(ValueError, match=said):
            read(str(folder))
    del config["hidden_size"]
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match=r"config\.json lacks 'hidden_size'"):
        read(str(folder))


def test_pooling_and_length_of_sentence_transformers(write: Any, tmp_path: Path) -> None:
    folder = write(tmp_path / "c")
    (folder / "sentence_bert_config.json").write_text('{"max_seq_length": 5}')
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling" / "config.json").write_text('{"pooling_mode_mean_tokens": true}')
    assert read(str(folder)).shape.tokens == 5
    (folder / "1_Pooling" / "config.json").write_text('{"pooling_mode_cls_token": true}')
    with pytest.raises(ValueError, match="asks for pooling_mode_cls_token; only the mean"):
        read(str(folder))


def test_missing_extra_and_misshapen_tensors(write: Any, tensors: Any, tmp_path: Path) -> None:
    def refused(change: dict[str, Any], said: str) -> None:
        made = {k: v for k, v in (tensors | change).items() if v is not None}
        with pytest.raises(ValueError, match=said):
            read(str(write(tmp_path / "c", made)))

    refused({QUERY: None}, f"lacks the tensor {QUERY}")
    refused({"encoder.layer.2.output.dense.bias": np.zeros(8, np.float32)}, "no tensor of a BERT encoder with 2 layers")
    refused({QUERY: np.zeros((8, 7), np.float32)}, r"has shape \(8, 7\), config.json calls for \(8, 8\)")
    refused({QUERY: np.zeros((8, 8), np.int8)}, "is int8, needs a float type")
    for bad in (np.nan, np.inf):
        refused({QUERY: np.full((8, 8), bad, np.float32)}, f"{QUERY} holds NaN or infinity")


def test_weights_that_are_not_safetensors(write: Any, tmp_path: Path) -> None:
    folder = write(tmp_path / "c")
    whole = (folder / "model.safetensors").read_bytes()
    for content in (b"", b"no tensors at all", whole[:-5]):
        (folder / "model.safetensors").write_bytes(content)
        with pytest.raises(ValueError, match="cannot be read as safetensors"):
            read(str(folder))


def test_an_installed_package_is_found_and_not_imported(write: Any, tmp_path: Path, monkeypatch: Any) -> None:
    for name in ("tiny_bert_for_tests", "empty_for_tests"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("raise RuntimeError('imported')")
    write(tmp_path / "tiny_bert_for_tests" / "model")
    monkeypatch.syspath_prepend(tmp_path)
    assert find("tiny-bert-for-tests") == tmp_path / "tiny_bert_for_tests" / "model"
    assert "tiny_bert_for_tests" not in sys.modules
    with pytest.raises(ValueError, match="the package empty_for_tests holds no folder"):
        find("empty-for-tests")
    for nothing in ("no_such_package_at_all", "no/such/folder"):
        with pytest.raises(ValueError, match="neither a folder nor an installed package"):
            find(nothing)

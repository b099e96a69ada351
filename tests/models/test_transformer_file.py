"""Checkpoints of trained Transformers, and integer ones on disk: nothing is lost, and nothing damaged is read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import save_file

from intsim.models import container, transformer_checkpoint, transformer_file as file
from intsim.models.architecture import AttentionKind, NormKind, Task
from intsim.models.integer_transformer import IntegerTransformer
from intsim.models.transformer_convert import convert
from intsim.models.transformer_layout import Options
from intsim.models.vocabulary import BEGIN, END, Vocabulary
from intsim.numerics import int8


@pytest.fixture(scope="module")
def trained(write_trained: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Path(write_trained(tmp_path_factory.mktemp("trained") / "run"))


@pytest.fixture(scope="module")
def checkpoint(trained: Path) -> Any:
    return transformer_checkpoint.read(trained)


@pytest.fixture
def path(checkpoint: Any, tmp_path: Path) -> Path:
    file.write(convert(checkpoint), tmp_path / "model.safetensors")
    return tmp_path / "model.safetensors"


def parts(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    with safe_open(str(path), "numpy") as stored:
        return json.loads(stored.metadata()["intsim"]), {k: stored.get_tensor(k) for k in stored.keys()}  # noqa: SIM118  # safetensors: not a dict, has keys() only


def forge(path: Path, header: dict[str, Any], tensors: dict[str, Any]) -> None:
    """A changed model with a matching sha256."""
    header.pop("sha256", None)
    header["sha256"] = container.digest(header, tensors)
    save_file(tensors, path, metadata={"intsim": json.dumps(header)})


def logits(model: Any) -> Any:
    made = IntegerTransformer(model)
    return made.step(made.start([[5, 6, END]]), np.array([[BEGIN, 7]]))


@pytest.mark.compiled
def test_what_is_read_is_what_was_written(checkpoint: Any, path: Path) -> None:
    model, back = convert(checkpoint), file.read(path)
    assert (back.shape, back.options, back.tokenizer) == (model.shape, model.options, model.tokenizer)
    assert back.steps == model.steps
    assert (
        back.source
        == model.source
        == {
            "name": "run",
            "sha256": checkpoint.sha256,
            "float32_bytes": 4 * sum(a.size for a in checkpoint.tensors.values()),
        }
    )
    for name, a in model.tensors.items():
        np.testing.assert_array_equal(back.tensors[name], a)
    for a, b in zip(logits(back), logits(model), strict=True):
        np.testing.assert_array_equal(a, b)
    other = convert(checkpoint, Options(residual=int8))
    file.write(other, path)
    assert file.read(path).options == Options(residual=int8)


def test_the_same_input_gives_the_same_bytes(trained: Path, path: Path, tmp_path: Path) -> None:
    size = file.write(convert(transformer_checkpoint.read(trained)), tmp_path / "again")
    assert (tmp_path / "again").read_bytes() == path.read_bytes()
    assert size == path.stat().st_size


def test_only_integers_are_in_the_file(path: Path) -> None:
    header, tensors = parts(path)
    assert {a.dtype.name for a in tensors.values()} == {"int8", "int16", "int32", "uint8"}

    def values(fields: Any) -> Any:
        for value in fields.values():
            yield from values(value) if isinstance(value, dict) else [value]

    assert not any(isinstance(v, float) for step in header["steps"].values() for v in values(step["params"]))
    assert header["steps"]["decoder.1.cross_attention.attention"]["op"] == "attention.propagated/1"
    assert tensors["encoder.0.feed_up.weight"].dtype == np.int8
    assert tensors["encoder.0.feed_up.bias:bias"].dtype == np.int32


def test_missing_extra_and_misshapen_parts(path: Path) -> None:
    def refused(said: str, change: Any) -> None:
        header, tensors = parts(path)
        change(header, tensors)
        target = path.with_name("forged")
        forge(target, header, tensors)
        with pytest.raises(ValueError, match=f"forged: .*{said}"):
            file.read(target)

    weight, bias = "encoder.1.feed_up.weight", "encoder.1.feed_up.bias:bias"
    b = "decoder.0.self_attention.attention:polynomial.b"
    refused(f"lacks tensor {weight}", lambda h, t: t.pop(weight))
    refused(f"lacks tensor {bias}", lambda h, t: t.pop(bias))
    refused(f"lacks tensor {b}", lambda h, t: t.pop(b))
    refused("lacks tensor tokenizer.json", lambda h, t: t.pop("tokenizer.json"))
    refused("unknown tensor more", lambda h, t: t.update(more=np.zeros(2, np.int8)))
    refused(rf"tensor {weight} is int8 \(8, 8\)", lambda h, t: t.update({weight: np.zeros((8, 8), np.int8)}))
    refused("lacks step stream.add", lambda h, t: h["steps"].pop("stream.add"))
    refused("step stream.add", lambda h, t: h["steps"].update({"stream.add": h["steps"]["linear.matmul"]}))
    refused("the metadata lacks 'source'", lambda h, t: h.pop("source"))
    refused("describes no Transformer", lambda h, t: h["architecture"].update(colour=9))
    refused("no option is called 'colour'", lambda h, t: h["options"].update(colour="red"))
    refused("policy is one of when_needed", lambda h, t: h["options"].update(policy="never"))
    refused("residual is one of int16, int8, got int9", lambda h, t: h["options"].update(residual="int9"))
    refused("lacks step", lambda h, t: h["architecture"].update(layers=3))
    refused("need polynomial attention", lambda h, t: h["architecture"].update(attention="softmax"))

    def other_words(_: Any, tensors: Any) -> None:
        text = Vocabulary.learn(["some other words"] * 9, 263).as_text()
        tensors["tokenizer.json"] = np.frombuffer(text.encode(), np.uint8)

    refused("tokenizer.json has 263 tokens, the embedding 270 rows", other_words)


def test_damage_and_other_kinds_are_noticed(path: Path, trained: Path) -> None:
    header, tensors = parts(path)
    header["options"]["rounding"] = "ties_to_even"
    save_file(tensors, path.with_name("changed"), metadata={"intsim": json.dumps(header)})
    with pytest.raises(ValueError, match="the file is damaged"):
        file.read(path.with_name("changed"))
    forge(path.with_name("forged"), parts(path)[0] | {"version": 2}, tensors)
    with pytest.raises(ValueError, match="this release reads 'intsim integer transformer' version 1"):
        file.read(path.with_name("forged"))
    whole = bytearray(path.read_bytes())
    whole[-3] ^= 1
    path.write_bytes(whole)
    with pytest.raises(ValueError, match="the file is damaged"):
        file.read(path)
    path.write_bytes(whole[:-10])
    with pytest.raises(ValueError, match="is no safetensors file, or a part of it is missing"):
        file.read(path)
    with pytest.raises(ValueError, match="is no integer model"):
        file.read(trained / "model.safetensors")
    save_file({"a": np.zeros(1, np.int8)}, path, metadata={"intsim": "[]"})
    with pytest.raises(ValueError, match="its metadata is no JSON object"):
        file.read(path)


def test_a_vocabulary_that_does_not_fit_is_not_written(checkpoint: Any, tmp_path: Path) -> None:
    model = convert(checkpoint)
    model.tokenizer = Vocabulary.learn(["some other words"] * 9, 263).as_text()
    with pytest.raises(ValueError, match=r"tokenizer\.json has 263 tokens, the embedding 270 rows"):
        file.write(model, tmp_path / "m")
    assert not list(tmp_path.iterdir())


def test_names_lead_to_files(path: Path) -> None:
    assert file.find(str(path)) == path
    assert file.is_transformer(path)
    assert not file.is_transformer(path.with_name("nothing"))
    with pytest.raises(
        ValueError, match=r"'de-fr' is neither a file nor a shipped model \(en-de-int8, wikitext2-int8\)"
    ):
        file.find("de-fr")


@pytest.mark.parametrize(
    "change", [{"attention": AttentionKind.SOFTMAX, "norm": NormKind.STANDARD}, {"task": Task.LANGUAGE_MODEL}]
)
def test_checkpoints_of_other_architectures_are_read(write_trained: Any, tmp_path: Path, change: Any) -> None:
    read = transformer_checkpoint.read(write_trained(tmp_path / "run", **change))
    assert {a.dtype.name for a in read.tensors.values()} == {"float32"}
    assert transformer_checkpoint.is_ours(tmp_path / "run")
    assert ("decoder.0.self_attention.shift" in read.tensors) == ("attention" not in change)


def test_broken_checkpoints_are_named(write_trained: Any, tmp_path: Path) -> None:
    from safetensors.numpy import load_file

    def refused(said: str, change: Any) -> None:
        folder = write_trained(tmp_path / "run")
        tensors = load_file(folder / "model.safetensors")
        change(tensors)
        save_file(tensors, folder / "model.safetensors")
        with pytest.raises(ValueError, match=said):
            transformer_checkpoint.read(folder)

    name = "encoder.0.feed_up.weight"
    refused(f"lacks the tensor {name}", lambda t: t.pop(name))
    refused("more is no tensor of the model", lambda t: t.update(more=np.zeros(2, np.float32)))
    refused(rf"{name} has shape \(2,\)", lambda t: t.update({name: np.zeros(2, np.float32)}))
    refused(f"{name} is int8, needs a float type", lambda t: t.update({name: t[name].astype(np.int8)}))
    refused(f"{name} holds NaN", lambda t: t.update({name: t[name] * np.float16("nan")}))
    folder = write_trained(tmp_path / "run")
    (folder / "tokenizer.json").write_text(Vocabulary.learn(["some other words"] * 9, 263).as_text())
    with pytest.raises(ValueError, match=r"tokenizer\.json has 263 tokens, the embedding 270 rows"):
        transformer_checkpoint.read(folder)
    (folder / "tokenizer.json").unlink()
    with pytest.raises(ValueError, match=r"lacks tokenizer\.json; a trained folder holds config\.json"):
        transformer_checkpoint.read(folder)
    assert not transformer_checkpoint.is_ours(tmp_path)

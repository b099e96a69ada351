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
from intsim.models.transformer_convert import convert, quantized, rounded
from intsim.models.transformer_layout import Granularity, Options
from intsim.models.transformer_parts import LAST_CODE, scale_codes, scales_of
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
    assert {a.dtype.name for a in tensors.values()} == {"int8", "int16", "int32", "uint16"}
    assert set(header) == {"format", "version", "architecture", "options", "source", "operations", "sha256"}
    assert "attention.propagated/1" in header["operations"]
    assert tensors["encoder.0.feed_up.weight"].dtype == np.int8
    assert tensors["scales"].dtype == np.uint16


def test_what_is_stored_is_little_more_than_the_weights(checkpoint: Any, path: Path) -> None:
    """Each row of weights has 2 bytes of scale; each bias is 2 bytes, a quarter of a scale more for a whole vector."""
    _, tensors = parts(path)
    shape = checkpoint.shape
    maps = transformer_checkpoint.linear_maps(shape)
    rows = shape.vocabulary + shape.positions + sum(dims[0] for dims in maps.values())
    assert tensors["scales"].nbytes == 2 * rows
    norms, attentions = 12, 6
    biases = sum(dims[0] for dims in maps.values()) + norms * shape.width + 2 * attentions * shape.heads
    assert tensors["constants"].nbytes == 2 * biases
    assert "tokenizer.json" not in tensors


def test_the_vocabulary_is_stored_as_its_merges(checkpoint: Any, path: Path) -> None:
    _, tensors = parts(path)
    made = Vocabulary(checkpoint.tokenizer)
    np.testing.assert_array_equal(tensors["merges"], made.merges())
    assert Vocabulary.of_merges(tensors["merges"]).as_text() == made.as_text() == file.read(path).tokenizer
    with pytest.raises(ValueError, match="merge 1 is of tokens 261 and 4; there are 4 to 260"):
        Vocabulary.of_merges(np.array([[4, 5], [261, 4]], np.uint16))
    with pytest.raises(ValueError, match="merge 0 is of tokens 3 and 4"):
        Vocabulary.of_merges(np.array([[3, 4]], np.uint16))


def test_a_vocabulary_of_another_make_is_stored_as_text(checkpoint: Any, tmp_path: Path) -> None:
    changed = json.loads(checkpoint.tokenizer)
    changed["normalizer"] = None
    model = convert(checkpoint)
    model.tokenizer = Vocabulary(json.dumps(changed)).as_text()
    file.write(model, tmp_path / "m")
    _, tensors = parts(tmp_path / "m")
    assert "merges" not in tensors
    assert tensors["tokenizer.json"].tobytes().decode() == model.tokenizer == file.read(tmp_path / "m").tokenizer


def test_missing_extra_and_misshapen_parts(path: Path) -> None:
    def refused(said: str, change: Any) -> None:
        header, tensors = parts(path)
        change(header, tensors)
        target = path.with_name("forged")
        forge(target, header, tensors)
        with pytest.raises(ValueError, match=f"forged: .*{said}"):
            file.read(target)

    weight = "encoder.1.feed_up.weight"
    for name in (weight, "scales", "constants", "constants.mantissa", "gains.exponent", "merges"):
        refused(f"lacks tensor {name}", lambda h, t, name=name: t.pop(name))
    refused("unknown tensor more", lambda h, t: t.update(more=np.zeros(2, np.int8)))
    refused(rf"tensor {weight} is int8 \(8, 8\)", lambda h, t: t.update({weight: np.zeros((8, 8), np.int8)}))
    refused("tensor scales is int32", lambda h, t: t.update(scales=t["scales"].astype(np.int32)))
    refused("tensor gains: a mantissa is at least", lambda h, t: t["gains.mantissa"].fill(5))
    refused("tensor constants: a mantissa .* exponent of 12 bits", lambda h, t: t["constants.exponent"].fill(2048))
    refused(r"tensor merges is uint16 \(20,\)", lambda h, t: t.update(merges=t["merges"].reshape(-1)))
    refused("made for the operations matmul.integer/1; this", lambda h, t: h.update(operations=["matmul.integer/1"]))
    refused("the metadata lacks 'source'", lambda h, t: h.pop("source"))
    refused("describes no Transformer", lambda h, t: h["architecture"].update(colour=9))
    refused("no option is called 'colour'", lambda h, t: h["options"].update(colour="red"))
    refused("policy is one of when_needed", lambda h, t: h["options"].update(policy="never"))
    refused("residual is one of int16, int8, got int9", lambda h, t: h["options"].update(residual="int9"))
    refused("lacks tensor", lambda h, t: h["architecture"].update(layers=3))
    refused("need polynomial attention", lambda h, t: h["architecture"].update(attention="softmax"))
    refused("tensor scales is uint16", lambda h, t: h["options"].update(weights="tensor"))

    def other_words(_: Any, tensors: Any) -> None:
        tensors["merges"] = Vocabulary.learn(["some other words"] * 9, 263).merges()

    refused("tokenizer.json has 263 tokens, the embedding 270 rows", other_words)


def test_damage_and_other_kinds_are_noticed(path: Path, trained: Path) -> None:
    header, tensors = parts(path)
    header["options"]["rounding"] = "ties_to_even"
    save_file(tensors, path.with_name("changed"), metadata={"intsim": json.dumps(header)})
    with pytest.raises(ValueError, match="the file is damaged"):
        file.read(path.with_name("changed"))
    forge(path.with_name("forged"), parts(path)[0] | {"version": 1}, tensors)
    said = "version 1; this release reads 'intsim integer transformer' version 2; convert the checkpoint again"
    with pytest.raises(ValueError, match=said):
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


@pytest.mark.parametrize("granularity", list(Granularity))
def test_scales_of_weights_are_the_greatest_of_12_bits(granularity: Granularity) -> None:
    weight = np.random.default_rng(3).normal(size=(40, 30)) * 2.0 ** np.linspace(-17, 10, 40)[:, None]
    q, codes = quantized(weight, granularity)
    assert codes.dtype == np.uint16
    mantissa, exponent = scales_of(codes)
    scale = mantissa * 2.0**exponent
    top = abs(weight).max(axis=1 if granularity is Granularity.ROW else None).reshape(-1)
    assert (scale * top <= 127).all()
    assert (scale * (1 + 2.0**-11) * top > 127).all()
    assert (mantissa % 2**19 == 0).all()
    np.testing.assert_array_equal(q, np.rint(weight * scale[:, None]))


def test_the_ends_of_the_scales_of_weights() -> None:
    codes = scale_codes(np.array([0.0, 127 / 2.0**26, 127.0, 8128.0]))
    assert codes.tolist() == [LAST_CODE, LAST_CODE, 6 << 11, 0]
    mantissa, exponent = scales_of(codes)
    assert (mantissa * 2.0**exponent).tolist() == [(2**12 - 1) * 2.0**14, (2**12 - 1) * 2.0**14, 1.0, 2.0**-6]
    with pytest.raises(ValueError, match="weights up to 8129 have no scale here; at most 8128"):
        scale_codes(np.array([1.0, 8129.0]))


def test_constants_have_one_scale() -> None:
    q, mantissa, exponent = rounded(np.array([0.5, -1.0, 1e-9, 0.25]), 2**15 - 1)
    assert q.tolist() == [16384, -32767, 0, 8192]
    assert mantissa * 2.0**exponent == 32767.0
    assert rounded(np.zeros(2), 127)[1:] == (2**31 - 1, 2047)


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

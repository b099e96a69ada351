"""Model files: the same bytes for the same model, and a clear refusal of anything else."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import save_file

from intsim.models import calibrate, container, convert, file
from intsim.models.checkpoint import read as read_checkpoint
from intsim.models.encoder import IntegerEncoder


@pytest.fixture
def path(model: Any, tmp_path: Path) -> Path:
    file.write(model, tmp_path / "model.safetensors")
    return tmp_path / "model.safetensors"


def parts(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    with safe_open(str(path), "numpy") as stored:
        return json.loads(stored.metadata()["intsim"]), {k: stored.get_tensor(k) for k in stored.keys()}  # noqa: SIM118  # safetensors: not a dict, has keys() only


def forge(path: Path, header: dict[str, Any], tensors: dict[str, Any]) -> None:
    """A changed model with a matching sha256."""
    header.pop("sha256", None)
    header["sha256"] = container.digest(header, tensors)
    save_file(tensors, path, metadata={"intsim": json.dumps(header)})


def test_what_is_read_is_what_was_written(model: Any, path: Path, sentences: list[Any]) -> None:
    back = file.read(path)
    assert back.steps == model.steps
    assert list(back.steps) == list(model.steps)
    assert (back.shape, back.scales, back.tokenizer, back.source) == (
        model.shape,
        model.scales,
        model.tokenizer,
        model.source,
    )
    for name, a in model.tensors.items():
        np.testing.assert_array_equal(back.tensors[name], a)
    np.testing.assert_array_equal(IntegerEncoder(back).embed(sentences), IntegerEncoder(model).embed(sentences))


def test_the_same_input_gives_the_same_bytes(folder: Path, texts: Any, path: Path, tmp_path: Path) -> None:
    checkpoint = read_checkpoint(str(folder))
    size = file.write(convert.convert(checkpoint, calibrate.measure(checkpoint, texts)), tmp_path / "again")
    assert (tmp_path / "again").read_bytes() == path.read_bytes()
    assert size == path.stat().st_size


def test_no_float_tensor_is_in_the_file(path: Path) -> None:
    header, tensors = parts(path)
    assert {a.dtype.name for a in tensors.values()} <= {"int8", "int16", "int32", "uint8"}
    for step in header["steps"].values():
        assert not any(isinstance(v, float) for v in step["params"].values())
    assert header["steps"]["layer.0.probabilities.softmax"]["op"] == "softmax.ibert/1"
    assert header["steps"]["layer.0.probabilities.softmax"]["params"]["rounding"] == "TIES_TO_EVEN"


def test_missing_extra_and_misshapen_parts(path: Path) -> None:
    def refused(said: str, change: Any) -> None:
        header, tensors = parts(path)
        change(header, tensors)
        target = path.with_name("forged")
        forge(target, header, tensors)
        with pytest.raises(ValueError, match=f"forged: .*{said}"):
            file.read(target)

    weight, multiplier = "layer.1.up.weight", "embedding.requantize:multiplier"
    refused(f"lacks tensor {weight}", lambda h, t: t.pop(weight))
    refused(f"lacks tensor {multiplier}", lambda h, t: t.pop(multiplier))
    refused("lacks tensor tokenizer.json", lambda h, t: t.pop("tokenizer.json"))
    refused("unknown tensor more", lambda h, t: t.update(more=np.zeros(2, np.int8)))
    refused(rf"tensor {weight} is int8 \(8, 8\)", lambda h, t: t.update({weight: np.zeros((8, 8), np.int8)}))
    refused(rf"tensor {weight} is float32", lambda h, t: t.update({weight: np.zeros((12, 8), np.float32)}))
    refused("lacks step pooled.mean", lambda h, t: h["steps"].pop("pooled.mean"))
    refused("lacks scale pooled", lambda h, t: h["scales"].pop("pooled"))
    refused("scale pooled is -1.0", lambda h, t: h["scales"].update(pooled=-1.0))
    refused("the metadata lacks 'source'", lambda h, t: h.pop("source"))
    refused("tokens = 99", lambda h, t: h["shape"].update(tokens=99))
    refused("unexpected keyword", lambda h, t: h["shape"].update(colour=99))

    def step(h: Any) -> Any:
        return h["steps"]["layer.0.scores.requantize"]

    refused("has the fields shift, dtype, rounding; the file has", lambda h, t: step(h)["params"].pop("shift"))
    refused("needs 0 <= shift <= 62", lambda h, t: step(h)["params"].update(shift=63))
    refused("no op is called", lambda h, t: step(h).update(op="requantize.magic/1"))
    refused("is at version 1", lambda h, t: step(h).update(op="requantize.row_column/9"))
    refused("step layer.0.scores.requantize", lambda h, t: h["steps"].update({
        "layer.0.scores.requantize": h["steps"]["layer.0.context.matmul"]}))  # fmt: skip


def test_unknown_formats_and_versions(path: Path) -> None:
    for change in ({"version": 2}, {"format": "something"}):
        header, tensors = parts(path)
        forge(path.with_name("forged"), header | change, tensors)
        with pytest.raises(ValueError, match="this release reads 'intsim integer encoder' version 1"):
            file.read(path.with_name("forged"))


def test_a_changed_parameter_is_noticed(path: Path) -> None:
    header, tensors = parts(path)
    header["steps"]["layer.0.scores.requantize"]["params"]["shift"] += 1
    save_file(tensors, path, metadata={"intsim": json.dumps(header)})
    with pytest.raises(ValueError, match="the file is damaged"):
        file.read(path)


def test_a_changed_byte_is_noticed(path: Path) -> None:
    whole = bytearray(path.read_bytes())
    whole[-3] ^= 1
    path.write_bytes(whole)
    with pytest.raises(ValueError, match="the file is damaged"):
        file.read(path)


def test_files_of_another_kind(path: Path, folder: Path) -> None:
    whole = path.read_bytes()
    for content in (whole[:-10], whole[:50], b"", b"text, no tensors"):
        path.write_bytes(content)
        with pytest.raises(ValueError, match="is no safetensors file, or a part of it is missing"):
            file.read(path)
    with pytest.raises(ValueError, match="is no integer model"):
        file.read(folder / "model.safetensors")
    with pytest.raises(FileNotFoundError):
        file.read(path.with_name("nothing"))
    save_file({"a": np.zeros(1, np.int8)}, path, metadata={"intsim": "{"})
    with pytest.raises(ValueError, match="Expecting property name"):
        file.read(path)


def test_nothing_is_half_written(model: Any, path: Path, monkeypatch: Any) -> None:
    before = path.read_bytes()

    def broken(*_: Any) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(os, "replace", broken)
    with pytest.raises(OSError, match="disk full"):
        file.write(model, path)
    assert [p.name for p in path.parent.iterdir()] == [path.name]
    assert path.read_bytes() == before


def test_a_path_that_cannot_be_written_is_named(model: Any, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no-folder/model\.safetensors"):
        file.write(model, tmp_path / "no-folder" / "model.safetensors")


def test_an_incomplete_model_is_not_written(model: Any, tmp_path: Path) -> None:
    cut = type(model)(model.shape, {}, model.tensors, model.scales, b"{}")
    with pytest.raises(ValueError, match=r"lacks step word\.embedding and"):
        file.write(cut, tmp_path / "x")
    assert not list(tmp_path.iterdir())

"""The commands: what they print, write and refuse."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result

from intsim.cli.model import model as group
from intsim.models import file
from intsim.models.encoder import IntegerEncoder


def call(*arguments: Any, text: str | None = None) -> Result:
    return CliRunner().invoke(group, [str(a) for a in arguments], input=text)


@pytest.fixture(scope="module")
def path(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("cli") / "tiny.safetensors"
    words = made.with_name("words.txt")
    words.write_text("a cat sleeps in the house\n\nthe old man sings a song .\n")
    result = call("convert", folder, "-o", made, "--calibrate", words)
    assert result.exit_code == 0, result.output
    assert "2 layers, 2 heads, hidden size 8, at most 14 tokens" in result.stdout
    assert "calibrated on 2 sentences\n" in result.stdout
    assert "calibrating" in result.stderr
    return made


def test_converts_with_the_shipped_text(folder: Path, tmp_path: Path) -> None:
    result = call("convert", folder, "--output", tmp_path / "m")
    assert result.exit_code == 0, result.output
    assert "calibrated on 40 sentences that are shipped with intsim" in result.stdout


def test_runs_and_summarizes(path: Path) -> None:
    result = call("run", path, "--text", "a cat", "--text", "dogs")
    assert result.exit_code == 0, result.output
    assert "2 x 8 integers, backend cpu, sha256 " in result.stdout
    assert "4 tokens" in result.stdout
    assert "cosines" in result.stdout
    assert call("run", path, "--file", "-", text="a cat\ndogs").stdout == result.stdout
    assert call("run", path, text="a cat\ndogs\n").stdout == result.stdout
    for backend in ("reference", "exact"):
        other = call("run", path, "--text", "a cat", "--text", "dogs", "--backend", backend)
        assert other.stdout == result.stdout.replace("backend cpu", f"backend {backend}")


def test_json_holds_the_encoders_integers(path: Path) -> None:
    found = json.loads(call("run", path, "--text", "a cat", "--json").stdout)
    wanted = IntegerEncoder(file.read(path)).embed([np.array([2, 4, 6, 3], np.int32)])[0]
    (sentence,) = found["sentences"]
    assert sentence["pooled"] == wanted.tolist()
    assert (sentence["text"], sentence["tokens"], sentence["dropped_tokens"]) == ("a cat", 4, 0)
    np.testing.assert_allclose(sentence["embedding"], wanted / np.sqrt((wanted.astype(float) ** 2).sum()), atol=1e-6)
    assert found["pooled_scale"] == file.read(path).scales["pooled"]


def test_writes_arrays(path: Path, tmp_path: Path) -> None:
    texts = tmp_path / "texts"
    texts.write_text("a cat\ndogs\nthe man\n")
    result = call("run", path, "--file", texts, "-o", tmp_path / "e.npy")
    assert f"{tmp_path / 'e.npy'}: embeddings, shape (3, 8)" in result.stdout
    embeddings = np.load(tmp_path / "e.npy")
    assert embeddings.dtype == np.float32
    np.testing.assert_allclose((embeddings**2).sum(axis=1), 1, atol=1e-6)
    call("run", path, "--file", texts, "-o", tmp_path / "p.npy", "--pooled")
    assert np.load(tmp_path / "p.npy").dtype == np.int32


def test_says_what_it_cuts(path: Path) -> None:
    result = call("run", path, "--text", "cat " * 20)
    assert "text 1 is cut to 14 tokens, 8 are left out" in result.stderr


def test_evaluates(path: Path, folder: Path, tmp_path: Path) -> None:
    pairs = tmp_path / "pairs.tsv"
    rows = [
        (4, "a cat", "the cat"),
        (1, "dogs", "a man sings"),
        (2.5, "old house", "a red house"),
        (2.5, "dogs", "a cat"),
    ]
    pairs.write_text("".join(f"g\tf\t2012\t{i}\t{s}\t{a}\t{b}\n" for i, (s, a, b) in enumerate(rows)))
    result = call("evaluate", path, pairs, "--checkpoint", folder)
    assert result.exit_code == 0, result.output
    for line in ("Spearman x100 with human scores", "Spearman x100 between the models", "mean cosine", "file size"):
        assert line in result.stdout
    assert "4 pairs, 6 sentences, backend cpu" in result.stdout
    found = json.loads(call("evaluate", path, pairs, "--checkpoint", folder, "--json").stdout)
    assert found["integer_bytes"] == path.stat().st_size
    assert found["mean_cosine"] > 0.98


def test_bad_input_ends_with_2_and_a_message(path: Path, folder: Path, tmp_path: Path) -> None:
    (tmp_path / "latin").write_bytes(b"caf\xe9\n")
    for arguments, said in (
        (("convert", "no/such", "-o", tmp_path / "m"), "neither a folder nor an installed package"),
        (("convert", folder, "-o", tmp_path / "no" / "m"), "is no folder; create it first"),
        (("convert", folder, "-o", tmp_path), "is a folder; give the name of a file"),
        (("convert", folder, "-o", tmp_path / "m", "--calibrate", tmp_path / "none"), "No such file"),
        (("convert", folder, "-o", tmp_path / "m", "--calibrate", tmp_path / "latin"), "is not UTF-8"),
        (("run", tmp_path / "none", "--text", "a"), "No such file"),
        (("run", folder / "model.safetensors", "--text", "a"), "is no integer model"),
        (("run", path, "--text", ""), "text 1 has no tokens"),
        (("run", path), "there is no text"),
        (("run", path, "--text", "a", "--file", "-"), "not both"),
        (("run", path, "--text", "a", "--pooled"), "give one with -o"),
        (("run", path, "--text", "a", "--backend", "gpu"), "'gpu' is not one of"),
        (("evaluate", path, tmp_path / "none", "--checkpoint", folder), "No such file"),
        (("evaluate", path, tmp_path / "latin", "--checkpoint", folder), "is not UTF-8"),
    ):
        result = call(*arguments)
        assert result.exit_code == 2, result.output
        assert said in result.stderr, result.output
    assert [p.name for p in tmp_path.iterdir()] == ["latin"]


def test_a_missing_extra_is_explained(path: Path, monkeypatch: Any) -> None:
    monkeypatch.setitem(sys.modules, "safetensors", None)
    result = call("run", path, "--text", "a")
    assert result.exit_code == 1
    assert "pip install 'intsim[models]'" in result.stderr


def test_help_loads_neither_numpy_nor_numba() -> None:
    code = "import sys, intsim.cli.model; sys.exit(sum(m in sys.modules for m in ('numpy', 'numba', 'tokenizers')))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0

"""The commands for trained Transformers: what they print, and what they refuse."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from intsim.cli.model import model as group
from intsim.models import results, scoring, transformer_checkpoint, transformer_file
from intsim.models.architecture import Task
from intsim.models.generation import beam, greedy
from intsim.models.integer_transformer import IntegerTransformer
from intsim.models.vocabulary import Vocabulary

TINY = {
    "width": 4,
    "layers": 1,
    "heads": 1,
    "feed": 4,
    "positions": 14,
}  # so that the job without compilation can run them
TEXT = "a dog sings"
LINES = ["the old man", "a dog runs in", "a song"] * 2


def call(*arguments: Any, text: str | None = None) -> Result:
    return CliRunner().invoke(group, [str(a) for a in arguments], input=text)


@pytest.fixture(scope="module")
def home(write_trained: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folders run and lm with their integer models run.safetensors and lm.safetensors, and texts."""
    made = tmp_path_factory.mktemp("home")
    write_trained(made / "run", **TINY)
    write_trained(made / "lm", task=Task.LANGUAGE_MODEL, **TINY | {"positions": 16})
    for name in ("run", "lm"):
        result = call("convert", made / name, "-o", made / f"{name}.safetensors")
        assert result.exit_code == 0, result.output
        assert "options: residual int16, weights row, probabilities denominator, probability uint8" in result.output
        assert "times less" in result.output
    (made / "text.txt").write_text("\n".join(LINES) + "\n")
    (made / "pairs.txt").write_text("".join(f"{a}\t{b}\n" for a, b in zip(LINES, LINES[::-1], strict=True)))
    return made


@pytest.fixture(scope="module")
def model(home: Path) -> IntegerTransformer:
    return IntegerTransformer(transformer_file.read(home / "run.safetensors"))


@pytest.fixture(scope="module")
def vocabulary(home: Path) -> Vocabulary:
    return Vocabulary((home / "run" / "tokenizer.json").read_text())


def test_options_of_a_conversion(home: Path) -> None:
    made = home / "other.safetensors"
    result = call("convert", home / "run", "-o", made, "--option", "residual=int8", "--option", "rounding=ties_to_even")
    assert result.exit_code == 0, result.output
    assert transformer_file.read(made).options.as_names()["residual"] == "int8"
    assert transformer_file.read(made).options.as_names()["rounding"] == "ties_to_even"
    for given, said in (
        ("residual", "--option takes NAME=VALUE"),
        ("colour=red", "no option is called 'colour'; there are residual"),
        ("weights=all", "weights is one of row, tensor, got 'all'"),
    ):
        refused = call("convert", home / "run", "-o", made, "--option", given)
        assert refused.exit_code == 2
        assert said in refused.output
    assert "leave --calibrate out" in call("convert", home / "run", "-o", made, "--calibrate", "x").output


def test_translates_as_the_model_does(home: Path, model: IntegerTransformer, vocabulary: Vocabulary) -> None:
    ids = vocabulary.encode([TEXT, LINES[0]])
    wanted = [vocabulary.decode(t) for t in greedy(model, ids)]
    path = home / "run.safetensors"
    result = call("translate", path, "--text", TEXT, "--text", LINES[0])
    assert result.exit_code == 0, result.output
    assert result.stdout == "".join(f"{w}\n" for w in wanted)
    assert call("translate", path, text=f"{TEXT}\n{LINES[0]}\n").stdout == result.stdout
    for more in (["--no-cache"], ["--backend", "reference"]):
        assert call("translate", path, "--text", TEXT, *more).stdout == f"{wanted[0]}\n"
    found = vocabulary.decode(beam(model, ids[0], width=2).ids)
    assert call("translate", path, "--text", TEXT, "--beam", 2).stdout == f"{found}\n"
    assert call("translate", home / "run", "--text", TEXT).exit_code == 0  # the float model


def test_completes_a_text(home: Path) -> None:
    result = call("complete", home / "lm.safetensors", "--text", "the", "--tokens", 5)
    assert result.exit_code == 0, result.output
    assert result.stdout.startswith("the")
    assert (
        call("complete", home / "lm.safetensors", "--text", "the", "--tokens", 5, "--no-cache").stdout == result.stdout
    )


def test_scores(home: Path, vocabulary: Vocabulary, model: IntegerTransformer) -> None:
    found = json.loads(call("score", home / "run.safetensors", home / "pairs.txt", "--json").stdout)
    ids = vocabulary.encode(LINES)
    (wanted,), _ = scoring.measure_pairs([model], list(zip(ids, ids[::-1], strict=True)))
    assert found["token_perplexity"] == wanted.token_perplexity
    whole = call("score", home / "lm.safetensors", home / "text.txt")
    assert "perplexity a word" in whole.stdout
    some = call("score", home / "lm.safetensors", home / "text.txt", "--windows", 2)
    assert "(24 tokens)" in some.stdout
    assert "perplexity a word" not in some.stdout


def test_evaluates_against_the_float_model(home: Path) -> None:
    pytest.importorskip("sacrebleu", reason="pip install 'intsim[evaluate]'")
    result = call("evaluate", home / "run.safetensors", "--pairs", home / "pairs.txt", "--checkpoint", home / "run")
    assert result.exit_code == 0, result.output
    for said in ("BLEU", "same translation as the first", "KL to the first", "6 sentences; nrefs:1", "times less"):
        assert said in result.stdout, said
    sides = ("--source", home / "text.txt", "--target", home / "text.txt", "--limit", 3, "--json")
    (one,) = json.loads(call("evaluate", home / "run.safetensors", *sides).stdout)
    assert len(one["translations"]) == 3
    assert call("evaluate", home / "run", "--pairs", home / "pairs.txt", "--beam", 2).exit_code == 0
    text = call("evaluate", home / "lm.safetensors", "--text", home / "text.txt", "--checkpoint", home / "lm")
    assert text.exit_code == 0, text.output
    for said in ("perplexity a word", "same best token", "times less"):
        assert said in text.stdout, said


def test_traces(home: Path, tmp_path: Path) -> None:
    result = call("trace", home / "run.safetensors", "--text", TEXT, "--checkpoint", home / "run")
    assert result.exit_code == 0, result.output
    assert "decoder.0.cross_attention" in result.stdout
    places = json.loads(call("trace", home / "run.safetensors", "--text", TEXT, "--target", "a dog", "--json").stdout)
    assert places[0]["name"] == "encoder.embedding"
    assert places[-1]["name"] == "logits"
    assert {p["dtype"] for p in places} == {"int8", "int16", "int32"}
    assert places[0]["error"] is None
    pytest.importorskip("matplotlib", reason="pip install 'intsim[plots]'")
    for more in ([], ["--checkpoint", home / "lm"]):
        drawn = call("trace", home / "lm.safetensors", "--text", TEXT, "--plot", tmp_path / "t.png", *more)
        assert drawn.exit_code == 0, drawn.output
        assert (tmp_path / "t.png").read_bytes().startswith(b"\x89PNG")


def test_what_cannot_be_done_is_said(home: Path, tmp_path: Path) -> None:
    run, lm = home / "run.safetensors", home / "lm.safetensors"

    def refused(said: str, *arguments: Any) -> None:
        result = call(*arguments)
        assert result.exit_code == 2, result.output
        assert said in result.output, result.output

    refused("the text is empty; give at least one word", "translate", run, "--text", "  ")
    refused("the model takes at most 13: split it", "translate", run, "--text", "dog house " * 40)
    refused("the model takes at most 16: split it", "complete", lm, "--text", "dog house " * 40)
    refused("give --text or --file, not both", "translate", run, "--text", "a", "--file", "-")
    refused("a beam has at least one text, got 0", "translate", run, "--text", "a", "--beam", 0)
    refused("is a language model, no translator", "translate", lm, "--text", "a")
    refused("is a translator", "complete", run, "--text", "a")
    refused("'de-fr' is neither a file nor a shipped model", "translate", "de-fr", "--text", "a")
    refused("No such file or directory", "translate", home / "nothing.safetensors", "--text", "a")
    refused("is no encoder; use: intsim model translate", "run", run, "--text", "a")
    refused("evaluated on --pairs FILE", "evaluate", run)
    refused("evaluated on --text FILE", "evaluate", lm)
    refused("a language model has no --target", "trace", lm, "--text", "a", "--target", "b")
    refused("the model was converted from weights with sha256", "evaluate", run, "--pairs", home / "pairs.txt",
            "--checkpoint", home / "lm")  # fmt: skip
    refused("an encoder is evaluated on PAIRS", "evaluate", tmp_path / "encoder.safetensors")
    assert transformer_checkpoint.is_ours(home / "run")


def test_what_was_measured_is_kept_and_shown(home: Path, tmp_path: Path) -> None:
    pytest.importorskip("sacrebleu", reason="pip install 'intsim[evaluate]'")
    kept, sides = tmp_path / "kept.json", ("--pairs", home / "pairs.txt", "--limit", 2, "--record")
    real = ("--checkpoint", home / "run")
    for made in ("a", "b", "a"):  # the third takes the place of the first
        done = call("evaluate", home / "run.safetensors", *sides, f"data {made}", "--record-file", kept, *real)
        assert done.exit_code == 0, done.output
    text = ("--text", home / "text.txt", "--windows", 1, "--record", "text", "--record-file", kept)
    assert call("evaluate", home / "lm", *text).exit_code == 0
    lines = results.read(kept)
    assert [(line.data, line.form) for line in lines] == [
        (d, form) for d in ("data a", "data b") for form in ("float32", "integers")
    ] + [("text", "float32")]
    assert (lines[0].kl, lines[0].model, lines[0].count) == (None, "polynomial of degree 3, l1 norm", 2)
    assert lines[1].kl is not None
    assert (
        lines[1].size
        == (home / "run.safetensors").stat().st_size
        - Vocabulary((home / "run" / "tokenizer.json").read_text()).merges().nbytes
    )
    shown = call("results", "--file", kept).stdout
    assert "data b, 2 sentences:" in shown
    assert "| polynomial of degree 3, l1 norm | integers |" in shown
    page = tmp_path / "page.md"
    page.write_text(f"before\n{results.START}\nold\n{results.END}\nafter\n")
    assert "written" in call("results", "--file", kept, "--update", page).stdout
    assert "is up to date" in call("results", "--file", kept, "--update", page).stdout
    assert page.read_text() == f"before\n{results.START}\n\n{shown.strip()}\n\n{results.END}\nafter\n"
    assert len(json.loads(call("results", "--file", kept, "--json").stdout)) == 5
    page.write_text("no marks")
    assert "has no lines" in call("results", "--file", kept, "--update", page).output
    refused = call("evaluate", home / "run.safetensors", *sides, "data")
    assert "--record keeps an integer model beside its float one: give --checkpoint" in refused.output
    kept.write_text("[]")
    assert "is not a file of measured lines" in call("results", "--file", kept).output

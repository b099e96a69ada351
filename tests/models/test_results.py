"""How a line of the results names a model and its training."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from intsim.models import results
from intsim.models.architecture import AttentionKind, NormKind


def test_the_name_of_a_training(transformer: Any, tmp_path: Path) -> None:
    polynomial = transformer(attention=AttentionKind.POLYNOMIAL, norm=NormKind.STANDARD)[0]
    softmax = transformer(attention=AttentionKind.SOFTMAX, norm=NormKind.STANDARD)[0]
    l1 = transformer(attention=AttentionKind.SOFTMAX, norm=NormKind.L1)[0]
    assert results.training_name(tmp_path, softmax) == ""
    done: dict[str, Any] = {"steps": 9700, "recipe": {"steps": 9700, "dropout": 0.2, "shift": 3.0}}

    def name(shape: Any) -> str:
        (tmp_path / "training.json").write_text(json.dumps(done))
        return results.training_name(tmp_path, shape)

    assert name(softmax) == "9,700 steps, dropout 0.2"
    assert name(polynomial) == "9,700 steps, dropout 0.2, b from 3"
    assert name(l1) == "9,700 steps, dropout 0.2, gain from 1"
    done["recipe"] |= {"gain": 0.7979, "seed": 2}
    assert name(l1) == "9,700 steps, dropout 0.2, gain from 0.8, seed 2"
    del done["recipe"]["shift"], done["recipe"]["seed"]  # runs before there was a choice
    done["steps"] = 500
    assert name(polynomial) == "500 steps, dropout 0.2, b from 1, stopped before 9,700"


def test_the_name_of_a_model(transformer: Any) -> None:
    assert results.model_name(transformer(degree=2)[0]) == "polynomial of degree 2, l1 norm"
    other = transformer(attention=AttentionKind.SOFTMAX, norm=NormKind.STANDARD)[0]
    assert results.model_name(other) == "softmax, standard norm"


def test_the_lines_of_one_model_stay_together(tmp_path: Path) -> None:
    kept = tmp_path / "kept.json"

    def line(data: str, model: str, form: str, perplexity: float = 2.0) -> results.Line:
        return results.Line(
            data=data, model=model, training="", form=form, count=9, bleu=None, token_perplexity=perplexity,
            word_perplexity=None, kl=None, same_best=None, same_text=None, size=1, weights="", date="2026-01-01",
        )  # fmt: skip

    results.write(kept, [line("a", "x", "float32"), line("a", "y", "float32"), line("b", "x", "float32")])
    results.write(kept, [line("a", "x", "integers"), line("a", "y", "float32", 3.0)])
    assert [(e.data, e.model, e.form, e.token_perplexity) for e in results.read(kept)] == [
        ("a", "x", "float32", 2.0),
        ("a", "x", "integers", 2.0),
        ("a", "y", "float32", 3.0),
        ("b", "x", "float32", 2.0),
    ]
    assert results.read(tmp_path / "nothing.json") == []
    kept.write_text("[]")
    with pytest.raises(ValueError, match=r"kept\.json is not a file of measured lines"):
        results.read(kept)

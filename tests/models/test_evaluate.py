"""The metrics against their definitions."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from intsim.models import evaluate


def _rank(x: list[float], i: int) -> float:
    """One more than the number below, and half of the others that are equal."""
    return 1 + sum(v < x[i] for v in x) + (sum(v == x[i] for v in x) - 1) / 2


def _spearman(x: list[float], y: list[float]) -> float:
    n = range(len(x))
    a, b = [_rank(x, i) for i in n], [_rank(y, i) for i in n]
    mean = (len(x) + 1) / 2
    cross = sum((a[i] - mean) * (b[i] - mean) for i in n)
    return float(cross / (sum((v - mean) ** 2 for v in a) * sum((v - mean) ** 2 for v in b)) ** 0.5)


@pytest.mark.parametrize("seed", range(20))
def test_spearman_with_ties_equals_the_definition(seed: int) -> None:
    draw = np.random.default_rng(seed)
    x, y = draw.integers(0, 6, 25).tolist(), (draw.integers(0, 9, 25) / 4).tolist()
    np.testing.assert_allclose(evaluate.ranks(x), [_rank(x, i) for i in range(25)])
    assert evaluate.spearman(x, y) == pytest.approx(_spearman(x, y), abs=1e-12)


def test_spearman_by_hand() -> None:
    assert evaluate.ranks([10, 30, 10, 20]).tolist() == [1.5, 4, 1.5, 3]
    assert evaluate.spearman([1, 2, 3], [2, 4, 99]) == pytest.approx(1)
    assert evaluate.spearman([1, 2, 3], [3, 2, 1]) == pytest.approx(-1)
    assert evaluate.spearman([1, 2, 3, 4], [1, 3, 2, 4]) == pytest.approx(0.8)
    with pytest.raises(ValueError, match="two different values"):
        evaluate.spearman([1, 1], [1, 2])


def test_reads_pairs_without_quoting(tmp_path: Path) -> None:
    path = tmp_path / "pairs.tsv"
    path.write_text('g\tf\t2012\t7\t3.5\tHe said "no\tNo.\tmore\r\n\ng\tf\t2012\t8\t0\ta\tb\n', encoding="utf-8")
    assert evaluate.read_pairs(path) == [evaluate.Pair(3.5, 'He said "no', "No."), evaluate.Pair(0.0, "a", "b")]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "holds 0 pairs"),
        ("g\tf\t1\t2\t3\ta\tb\n", "holds 1 pairs"),
        ("g\tf\t1\t2\t3\ta\n", "line 1: 6 columns separated by tabs, needs at least 7"),
        ("g\tf\t1\t2\thigh\ta\tb\n", r"line 1: the score \(column 5\) is 'high', needs a number"),
        ("\ng\tf\t1\t2\tnan\ta\tb\n", "line 2: the score"),
    ],
)
def test_pairs_that_are_none(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "pairs.tsv").write_text(text)
    with pytest.raises(ValueError, match=said):
        evaluate.read_pairs(tmp_path / "pairs.tsv")


def test_pairs_that_are_not_text(tmp_path: Path) -> None:
    (tmp_path / "pairs.tsv").write_bytes(b"\xff\xfe\t")
    with pytest.raises(ValueError, match="is not UTF-8"):
        evaluate.read_pairs(tmp_path / "pairs.tsv")


def test_evaluates_both_models(model: Any, checkpoint: Any, texts: Any) -> None:
    # Scores that follow the float model's cosines give it a correlation of 1.
    from intsim.models.float_encoder import FloatEncoder, normalised
    from intsim.models.text import TextReader

    ids = [s.ids for s in TextReader(checkpoint.tokenizer, checkpoint.shape).read(texts)]
    e = normalised(FloatEncoder(checkpoint).embed(ids))
    chosen = [(0, 1), (1, 2), (2, 3), (0, 0)]
    pairs = [evaluate.Pair(float(e[i] @ e[j]), texts[i], texts[j]) for i, j in chosen]
    seen: list[int] = []
    found = evaluate.evaluate(model, 1234, checkpoint, pairs, progress=seen.append)
    assert (found.pairs, found.sentences, found.integer_bytes) == (4, 4, 1234)
    assert found.float_spearman == pytest.approx(1)
    assert found.integer_spearman == pytest.approx(found.between_models)
    assert found.between_models > 0.7
    assert 0.99 < found.mean_cosine <= 1
    assert found.float_bytes == checkpoint.weight_bytes
    assert min(found.float_seconds, found.integer_seconds) > 0
    assert sum(seen) == 8


def test_a_model_of_another_checkpoint_is_refused(model: Any, checkpoint: Any) -> None:
    other = dataclasses.replace(checkpoint, sha256="0" * 64)
    with pytest.raises(ValueError, match="the checkpoint has 0000"):
        evaluate.evaluate(model, 1, other, [evaluate.Pair(1.0, "a", "the")])

"""The float encoder against BERT's equations written out for one token at a time."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from intsim.models.float_encoder import FloatEncoder, erf, normalised


def _written_out(t: Any, config: dict[str, int], ids: list[int]) -> list[float]:
    """Pooled output by loops over Python floats, from the tensors as the checkpoint names them."""

    def affine(name: str, x: list[float]) -> list[float]:
        rows = zip(t[f"{name}.weight"].tolist(), t[f"{name}.bias"].tolist(), strict=True)
        return [sum(w * v for w, v in zip(row, x, strict=True)) + bias for row, bias in rows]

    def norm(name: str, x: list[float]) -> list[float]:
        mean = sum(x) / len(x)
        std = math.sqrt(sum((v - mean) ** 2 for v in x) / len(x) + 1e-12)
        gamma, beta = t[f"{name}.weight"].tolist(), t[f"{name}.bias"].tolist()
        return [(v - mean) / std * g + b for v, g, b in zip(x, gamma, beta, strict=True)]

    tables = [t[f"embeddings.{n}_embeddings.weight"].tolist() for n in ("word", "position", "token_type")]
    words, positions, kinds = tables
    x = [
        norm("embeddings.LayerNorm", [w + p + k for w, p, k in zip(words[i], positions[at], kinds[0], strict=True)])
        for at, i in enumerate(ids)
    ]
    heads, width = config["heads"], len(x[0]) // config["heads"]
    for layer in (f"encoder.layer.{i}." for i in range(config["layers"])):
        q, k, v = ([affine(f"{layer}attention.self.{n}", row) for row in x] for n in ("query", "key", "value"))
        for at, row in enumerate(list(x)):
            context: list[float] = []
            for head in range(heads):
                part = slice(head * width, (head + 1) * width)
                scores = [
                    sum(a * b for a, b in zip(q[at][part], key[part], strict=True)) / math.sqrt(width) for key in k
                ]
                exps = [math.exp(s) for s in scores]
                weights = [e / sum(exps) for e in exps]
                context += [sum(w * value[part][j] for w, value in zip(weights, v, strict=True)) for j in range(width)]
            out = affine(f"{layer}attention.output.dense", context)
            middle = norm(f"{layer}attention.output.LayerNorm", [a + b for a, b in zip(row, out, strict=True)])
            up = [0.5 * u * (1 + math.erf(u / math.sqrt(2))) for u in affine(f"{layer}intermediate.dense", middle)]
            down = affine(f"{layer}output.dense", up)
            x[at] = norm(f"{layer}output.LayerNorm", [a + b for a, b in zip(middle, down, strict=True)])
    return [sum(row[j] for row in x) / len(x) for j in range(len(x[0]))]


def test_equals_the_equations(checkpoint: Any, tensors: Any) -> None:
    ids = [2, 5, 9, 23, 14, 3]
    wanted = _written_out(tensors, {"heads": 2, "layers": 2}, ids)
    np.testing.assert_allclose(FloatEncoder(checkpoint).run(np.array([ids]))[0], wanted, atol=2e-6)


def test_sentences_of_any_length_keep_their_order(checkpoint: Any, sentences: list[Any]) -> None:
    encoder, seen = FloatEncoder(checkpoint), []
    together = encoder.embed([*sentences, sentences[0]], progress=seen.append)
    alone = np.vstack([encoder.run(s[None]) for s in [*sentences, sentences[0]]])
    np.testing.assert_allclose(together, alone, atol=1e-6)
    assert sum(seen) == len(sentences) + 1


def test_a_prefix_in_the_checkpoint_is_ignored(checkpoint: Any, tensors: Any, write: Any, tmp_path: Path) -> None:
    from intsim.models.checkpoint import read

    prefixed = read(str(write(tmp_path / "c", {f"bert.{k}": v for k, v in tensors.items()})))
    assert prefixed.tensors.keys() == checkpoint.tensors.keys()


def test_erf_is_within_its_stated_error() -> None:
    x = np.linspace(-6, 6, 4001)
    assert np.abs(erf(x) - [math.erf(v) for v in x]).max() < 1.6e-7


def test_normalised_rows_have_length_1_and_zeros_stay() -> None:
    np.testing.assert_allclose(normalised(np.array([[3, 4], [0, 0]])), [[0.6, 0.8], [0, 0]])
    with pytest.raises(ValueError, match="could not convert"):
        normalised(np.array([["a"]]))

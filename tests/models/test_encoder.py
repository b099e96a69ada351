"""The integer encoder: the same bits on every backend, for every batch, near the float encoder."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from intsim.models.encoder import IntegerEncoder
from intsim.models.float_encoder import FloatEncoder, normalised
from intsim.models.layout import scale_names


@pytest.mark.parametrize("backend", ["reference", "exact"])
def test_backends_agree_to_the_bit(model: Any, sentences: list[Any], backend: str) -> None:
    got = IntegerEncoder(model, backend).embed(sentences)
    assert got.dtype == np.int32
    np.testing.assert_array_equal(got, IntegerEncoder(model, "cpu").embed(sentences))


@pytest.mark.parametrize("backend", ["reference", "cpu"])
def test_padding_and_batch_mates_change_nothing(model: Any, sentences: list[Any], backend: str) -> None:
    encoder = IntegerEncoder(model, backend)
    alone = np.vstack([encoder.embed([s]) for s in sentences])
    np.testing.assert_array_equal(encoder.embed(sentences), alone)
    np.testing.assert_array_equal(encoder.embed(sentences[::-1], batch=2)[::-1], alone)
    lengths = np.array([len(s) for s in sentences], np.int32)
    ids = np.full((len(sentences), model.shape.tokens), 7, np.int32)  # padded with a word, to the very end
    for row, s in zip(ids, sentences, strict=True):
        row[: len(s)] = s
    np.testing.assert_array_equal(encoder.run(ids, lengths), alone)


def test_integers_stand_for_the_float_model(model: Any, checkpoint: Any, sentences: list[Any]) -> None:
    encoder, real = IntegerEncoder(model, "cpu"), FloatEncoder(checkpoint)
    pooled = encoder.embed(sentences)
    wanted = real.embed(sentences)
    assert (normalised(pooled) * normalised(wanted)).sum(axis=1).min() > 0.995
    np.testing.assert_allclose(pooled * encoder.pooled_scale, wanted, atol=0.15)


def test_trace_shows_every_place_with_its_scale(model: Any, checkpoint: Any, sentences: list[Any]) -> None:
    floats: dict[str, Any] = {}
    integers: dict[str, Any] = {}
    longest = max(sentences, key=len)
    FloatEncoder(checkpoint).run(longest[None], floats.__setitem__)
    lengths = np.array([len(longest)], np.int32)
    IntegerEncoder(model).run(longest[None], lengths, lambda place, a, scale: integers.update({place: a * scale}))
    values = {f"layer.{i}.value" for i in range(model.shape.layers)}
    assert set(integers) == set(floats) == set(scale_names(model.shape)) | values
    for place, real in floats.items():
        assert integers[place].shape == real.shape, place
        error = np.abs(integers[place] - real).max()
        assert error < 0.02 + 0.06 * np.abs(real).max(), f"{place}: {error}"


def test_a_trace_changes_nothing_and_holds_integers(model: Any, sentences: list[Any]) -> None:
    seen: list[Any] = []
    encoder, ids = IntegerEncoder(model), sentences[0][None]
    lengths = np.array([ids.shape[1]], np.int32)
    traced = encoder.run(ids, lengths, lambda place, a, scale: seen.append(a.dtype.kind))
    assert set(seen) <= {"i", "u"}
    np.testing.assert_array_equal(traced, encoder.run(ids, lengths))


def test_grids_from_bounds_never_saturate(model: Any) -> None:
    ids = np.random.default_rng(3).integers(0, model.shape.vocabulary, (40, model.shape.tokens)).astype(np.int32)
    extremes: dict[str, int] = {}

    def trace(place: str, a: Any, scale: Any) -> None:
        if place.rpartition(".")[2] in ("query", "key", "context", "embedding", "attention_norm", "output"):
            extremes[place] = int(np.abs(a.astype(np.int64)).max())

    IntegerEncoder(model).run(ids, np.full(40, ids.shape[1], np.int32), trace)
    assert len(extremes) == 1 + 5 * model.shape.layers
    assert max(extremes.values()) < 32767, extremes
    assert min(extremes.values()) > 1000, extremes  # and they use the 16 bits


def test_too_many_tokens_and_unknown_ids_are_refused(model: Any) -> None:
    encoder = IntegerEncoder(model)
    one = np.ones(1, np.int32)
    with pytest.raises(ValueError, match="has 15 tokens, the model takes at most 14"):
        encoder.run(np.zeros((1, 15), np.int32), one)
    with pytest.raises(ValueError, match="needs 0 to 23"):
        encoder.run(np.full((1, 3), 24, np.int32), one)
    with pytest.raises(ValueError, match="stop"):
        encoder.run(np.zeros((1, 3), np.int32), one * 0)


def test_unknown_backend_is_refused(model: Any) -> None:
    with pytest.raises(ValueError, match="backend is one of"):
        IntegerEncoder(model, "abacus")


def test_no_sentences_give_no_rows(model: Any) -> None:
    assert IntegerEncoder(model).embed([]).shape == (0, model.shape.hidden)

"""Generation: greedy, streaming and beams find what a search through all texts finds."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest

from intsim.models.architecture import Task
from intsim.models.float_transformer import FloatTransformer
from intsim.models.generation import LENGTH_PENALTY, beam, greedy, log_softmax, stream
from intsim.models.vocabulary import BEGIN, END, PAD

SOURCES = [[5, 6, 7, 8], [11], [12, 9, 4], [5, 6], [30, 31, 32, 33, 34, 35]]


@pytest.fixture(scope="module")
def model(transformer: Any) -> FloatTransformer:
    shape, tensors = transformer(seed=4)
    tensors["positions.weight"] *= 16  # so that texts end at different places
    return FloatTransformer(shape, tensors)


def naive(model: FloatTransformer, source: list[int]) -> list[int]:
    made = [BEGIN]
    while len(made) <= model.shape.positions:
        token = int(model.step(model.start([[*source, END]]), np.array([made]))[-1].argmax())
        if token in (END, PAD):
            break
        made.append(token)
    return made[1:]


def test_greedy_takes_the_best_token_each_time(model: FloatTransformer) -> None:
    wanted = [naive(model, s) for s in SOURCES]
    assert len({len(w) for w in wanted}) > 1
    assert greedy(model, SOURCES) == wanted
    assert greedy(model, SOURCES, batch=2, cache=False) == wanted
    assert [list(stream(model, s)) for s in SOURCES] == wanted
    assert greedy(model, []) == []


def test_a_stream_stops_where_it_is_told(model: FloatTransformer) -> None:
    whole = next(t for t in greedy(model, SOURCES) if len(t) > 3)
    source = SOURCES[greedy(model, SOURCES).index(whole)]
    assert list(stream(model, source, most=2)) == whole[:2]
    assert list(stream(model, source, prompt=whole[:2])) == whole[2:]


def test_a_language_model_goes_on_to_its_last_position(transformer: Any) -> None:
    shape, tensors = transformer(task=Task.LANGUAGE_MODEL)
    tensors["embedding.weight"][[PAD, END]] = 0.0
    tensors["embedding.weight"][7] = 4 * tensors["decoder_norm.bias"]  # so that it never ends
    model = FloatTransformer(shape, tensors)
    made = list(stream(model, prompt=[5, 6, 7]))
    assert len(made) == shape.positions - 3 + 1
    assert made == list(stream(model, prompt=[5, 6, 7], cache=False))
    with pytest.raises(ValueError, match="needs a text to go on from"):
        list(stream(model))


def likelihood(model: FloatTransformer, source: list[int], text: list[int]) -> float:
    ids = np.array([[BEGIN, *text[:-1]]])
    steps = log_softmax(model.real(model.step(model.start([[*source, END]]), ids)))
    return float(steps[np.arange(len(text)), text].sum())


@pytest.mark.parametrize("penalty", [0.0, LENGTH_PENALTY, 1.5])
def test_a_wide_beam_finds_the_best_text_of_all(transformer: Any, penalty: float) -> None:
    model = FloatTransformer(*transformer(vocabulary=6, positions=4, seed=5))
    free = [t for t in range(6) if t not in (PAD, END)]
    for source in ([5, 4], [3]):
        ended = [[*t, END] for n in range(4) for t in itertools.product(free, repeat=n)]
        cut = [list(t) for t in itertools.product(free, repeat=4)]
        scores = [likelihood(model, source, t) / ((5 + len(t)) / 6) ** penalty for t in [*ended, *cut]]
        best = int(np.argmax(scores))
        found = beam(model, source, width=1000, penalty=penalty)
        assert found.ids == [t for t in [*ended, *cut][best] if t != END]
        assert found.score == pytest.approx(scores[best], abs=1e-5)
        assert beam(model, source, width=1000, penalty=penalty, cache=False).ids == found.ids
        assert beam(model, source, width=1, penalty=penalty).score <= found.score + 1e-6


def test_what_cannot_be_generated_from_is_refused(model: FloatTransformer) -> None:
    with pytest.raises(ValueError, match="a beam has at least one text, got 0"):
        beam(model, [5], width=0)
    with pytest.raises(ValueError, match="a source has 13 tokens, the model has 12 positions"):
        greedy(model, [[5] * 12])

"""Scoring: perplexity counts each token once, KL is 0 for equal models, BLEU is sacrebleu's."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from intsim.models import scoring
from intsim.models.architecture import Task
from intsim.models.float_transformer import FloatTransformer
from intsim.models.generation import log_softmax
from intsim.models.vocabulary import BEGIN, END, Vocabulary

LINES = ["the quick brown fox", "jumps over the lazy dog", "and it sleeps"] * 3


@pytest.fixture(scope="module")
def vocabulary() -> Vocabulary:
    return Vocabulary.learn(LINES, 270)


def test_every_token_is_counted_once_with_half_a_window_of_context(transformer: Any, vocabulary: Vocabulary) -> None:
    shape, tensors = transformer(task=Task.LANGUAGE_MODEL, vocabulary=vocabulary.size, positions=10)
    model = FloatTransformer(shape, tensors)
    ids = scoring.text_ids(vocabulary, LINES)
    nats = 0.0
    for at in range(1, len(ids)):
        start = 0 if at <= 10 else 5 * math.ceil((at - 10) / 5)
        logits = model.step(model.start(), np.array([ids[start:at]]), last=True)
        nats -= log_softmax(model.real(logits))[0, ids[at]]
    (found,), _ = scoring.measure([model], LINES, vocabulary)
    assert found.tokens == len(ids) - 1
    assert found.words == sum(len(line.split()) + 1 for line in LINES)
    assert found.nats == pytest.approx(nats, rel=1e-5)
    assert found.word_perplexity == pytest.approx(math.exp(nats / found.words), rel=1e-4)
    some, _ = scoring.measure([model], LINES, vocabulary, windows=3)
    assert (some[0].tokens, some[0].words) == (20, 0)
    assert some[0].word_perplexity is None


def test_divergence_is_that_of_the_definition(transformer: Any, vocabulary: Vocabulary) -> None:
    shape, tensors = transformer(task=Task.LANGUAGE_MODEL, vocabulary=vocabulary.size, positions=200)
    other = tensors | {"embedding.weight": tensors["embedding.weight"] * np.float32(1.1)}
    models = [FloatTransformer(shape, t) for t in (tensors, tensors, other)]
    _, (_, same, off) = scoring.measure(models, LINES[:3], vocabulary)
    assert (same.kl, same.same_best) == (0.0, 1.0)
    ids = np.array([scoring.text_ids(vocabulary, LINES[:3])[:-1]])
    p, q = (log_softmax(m.real(m.step(m.start(), ids))) for m in (models[0], models[2]))
    assert off.kl == pytest.approx(float((np.exp(p) * (p - q)).sum(axis=1).mean()), rel=1e-9)
    assert off.kl > 0


def test_translations_are_scored_without_their_padding(transformer: Any) -> None:
    model = FloatTransformer(*transformer())
    pairs = [([5, 6, 7], [8, 9]), ([10], [11, 12, 13, 14]), ([4, 4, 4, 4, 4], [])]
    nats = 0.0
    for source, target in pairs:
        logits = model.step(model.start([[*source, END]]), np.array([[BEGIN, *target]]))
        nats -= log_softmax(model.real(logits))[np.arange(len(target) + 1), [*target, END]].sum()
    (found,), _ = scoring.measure_pairs([model], pairs, batch=2)
    assert found.tokens == 9
    assert found.nats == pytest.approx(nats, rel=1e-5)


def test_bleu_is_that_of_sacrebleu_with_an_interval_around_it() -> None:
    sacrebleu = pytest.importorskip("sacrebleu", reason="pip install 'intsim[evaluate]'")
    wanted = ["the cat sat on the mat .", "a dog runs in the park", "two men play a song", "it rains today again"] * 5
    got = ["the cat sat on a mat .", "the dog runs in the park", "two men play a game", "it rains again"] * 5
    found = scoring.bleu(got, wanted)
    assert found.score == sacrebleu.corpus_bleu(got, [wanted]).score
    assert found.low < found.score < found.high
    assert "tok:13a" in found.signature
    assert scoring.bleu(wanted, wanted).low == pytest.approx(100)
    with pytest.raises(ValueError, match="2 translations and 20 references"):
        scoring.bleu(got[:2], wanted)


def test_a_text_without_tokens_has_no_perplexity(transformer: Any, vocabulary: Vocabulary) -> None:
    shape, tensors = transformer(task=Task.LANGUAGE_MODEL, vocabulary=vocabulary.size)
    with pytest.raises(ValueError, match="the text has 1 tokens"):
        scoring.measure([FloatTransformer(shape, tensors)], [""], vocabulary)

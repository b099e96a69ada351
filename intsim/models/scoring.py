"""How good a model's text is: perplexity, KL divergence to another model, BLEU."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from intsim.models import corpora
from intsim.models.extras import need
from intsim.models.generation import Ids, log_softmax
from intsim.models.layout import Array
from intsim.models.transformer import Transformer
from intsim.models.vocabulary import BEGIN, END, Vocabulary

WINDOWS = 8  # at a time: no more than a few MB of logits a model
RESAMPLES = 1000
CONFIDENCE = 0.95


@dataclass(frozen=True, slots=True)
class Likelihood:
    """How likely a model finds a text.

    nats: of all counted tokens together. tokens: how many were counted. words: those of the text, line
    ends included, where all of it was counted; else 0.
    """

    nats: float
    tokens: int
    words: int = 0

    @property
    def token_perplexity(self) -> float:
        return math.exp(self.nats / self.tokens)

    @property
    def word_perplexity(self) -> float | None:
        return math.exp(self.nats / self.words) if self.words else None


@dataclass(frozen=True, slots=True)
class Divergence:
    """Of a model from another on the same tokens: mean KL (nats a token), and how often the best token is the same."""

    kl: float
    same_best: float
    tokens: int


Window = tuple[Array, Array, int]  # ids [1, length], what follows each of them [length], the first counted


def text_ids(vocabulary: Vocabulary, lines: Sequence[str]) -> list[int]:
    """The tokens of running text, END behind each line."""
    return [i for row in vocabulary.encode(list(lines)) for i in [*row, END]]


def text_windows(ids: Ids, context: int) -> Iterator[Window]:
    """Windows over ``ids``, half of each being context; the first token is only context."""
    whole = np.asarray(ids, np.int32)
    for start, end, counted in corpora.windows(len(whole) - 1, context):
        yield whole[None, start:end], whole[start + 1 : end + 1], counted - start


def measure(
    models: Sequence[Transformer[Any]],
    lines: Sequence[str],
    vocabulary: Vocabulary,
    *,
    windows: int = 0,
    progress: Callable[[int], None] | None = None,
) -> tuple[list[Likelihood], list[Divergence]]:
    """(likelihood of each model, divergence of each model from the first) on running text.

    windows: only the first so many; 0 is all. Raises ValueError for a model that translates, or a text
    of fewer than two tokens.
    """
    ids = text_ids(vocabulary, lines)
    if len(ids) < 2:
        raise ValueError(f"the text has {len(ids)} tokens; a perplexity needs at least 2")
    chosen = list(text_windows(ids, models[0].shape.positions))
    whole = not windows or windows >= len(chosen)
    chosen = chosen[: windows or None]
    tally = _Tally(len(models))
    for first in range(0, len(chosen), WINDOWS):
        batch = chosen[first : first + WINDOWS]
        for group in _of_one_length(batch):
            given = np.concatenate([w[0] for w in group])
            logs = [log_softmax(m.real(m.step(m.start(texts=len(group)), given))) for m in models]
            for number, (_, wanted, counted) in enumerate(group):
                own = slice(number * given.shape[1] + counted, (number + 1) * given.shape[1])
                tally.count([log[own] for log in logs], wanted[counted:])
        if progress:
            progress(len(batch))
    return tally.result(corpora.words(lines) if whole else 0)


def window_count(lines: Sequence[str], vocabulary: Vocabulary, context: int) -> int:
    return sum(1 for _ in corpora.windows(len(text_ids(vocabulary, lines)) - 1, context))


def measure_pairs(
    models: Sequence[Transformer[Any]],
    pairs: Sequence[tuple[Ids, Ids]],
    *,
    batch: int = 32,
    progress: Callable[[int], None] | None = None,
) -> tuple[list[Likelihood], list[Divergence]]:
    """As ``measure``, on translations: each token of the target, given the source and what stands before it."""
    tally = _Tally(len(models))
    order = sorted(range(len(pairs)), key=lambda i: (len(pairs[i][1]), len(pairs[i][0])))
    for first in range(0, len(order), batch):
        group = [pairs[i] for i in order[first : first + batch]]
        longest = max(len(target) for _, target in group) + 1
        given = np.zeros((len(group), longest), np.int32)
        for row, (_, target) in zip(given, group, strict=True):
            row[: len(target) + 1] = [BEGIN, *target]
        sources = [[*source, END] for source, _ in group]
        logs = [log_softmax(m.real(m.step(m.start(sources), given))) for m in models]
        for number, (_, target) in enumerate(group):
            own = slice(number * longest, number * longest + len(target) + 1)
            tally.count([log[own] for log in logs], np.array([*target, END]))
        if progress:
            progress(len(group))
    return tally.result(0)


def _of_one_length(windows: Sequence[Window]) -> list[list[Window]]:
    groups: dict[int, list[Window]] = {}
    for window in windows:
        groups.setdefault(window[0].shape[1], []).append(window)
    return list(groups.values())


class _Tally:
    def __init__(self, models: int) -> None:
        self._nats, self._kl, self._same = np.zeros(models), np.zeros(models), np.zeros(models)
        self._tokens = 0

    def count(self, logs: Sequence[Array], wanted: Array) -> None:
        """logs: log probabilities [tokens, vocabulary] of each model."""
        self._tokens += len(wanted)
        first = np.exp(logs[0])
        for i, log in enumerate(logs):
            self._nats[i] -= log[np.arange(len(wanted)), wanted].sum()
            self._kl[i] += (first * (logs[0] - log)).sum()
            self._same[i] += (log.argmax(axis=-1) == logs[0].argmax(axis=-1)).sum()

    def result(self, words: int) -> tuple[list[Likelihood], list[Divergence]]:
        n = self._tokens
        return (
            [Likelihood(float(nats), n, words) for nats in self._nats],
            [Divergence(float(k) / n, float(s) / n, n) for k, s in zip(self._kl, self._same, strict=True)],
        )


# -- BLEU ------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Bleu:
    """score with the ends of its 95 % bootstrap interval over sentences, in [0, 100]; how it was counted."""

    score: float
    low: float
    high: float
    signature: str


def bleu(translations: Sequence[str], references: Sequence[str], *, seed: int = 1) -> Bleu:
    """Corpus BLEU by sacrebleu, and its interval (Koehn 2004): sentences are drawn again 1000 times.

    Raises ModuleNotFoundError where sacrebleu is not installed, ValueError for lists of other lengths or empty ones.
    """
    if len(translations) != len(references) or not references:
        raise ValueError(f"{len(translations)} translations and {len(references)} references; needs as many of both")
    try:
        sacrebleu = need("sacrebleu")
    except ModuleNotFoundError:
        raise ModuleNotFoundError(
            "sacrebleu is not installed; BLEU needs it: pip install 'intsim[evaluate]'", name="sacrebleu"
        ) from None
    metric = sacrebleu.BLEU()
    score = float(metric.corpus_score(list(translations), [list(references)]).score)
    # What a sentence adds to the sums that BLEU is made of: lengths, matches and n-grams of each order.
    single = [metric.corpus_score([t], [[r]]) for t, r in zip(translations, references, strict=True)]
    sums = np.array([[s.sys_len, s.ref_len, *s.counts, *s.totals] for s in single], np.int64)
    draw = np.random.default_rng(seed)
    scores = []
    for _ in range(RESAMPLES):
        sys_len, ref_len, *counts = sums[draw.integers(0, len(sums), len(sums))].sum(axis=0).tolist()
        half = len(counts) // 2
        scores.append(metric.compute_bleu(counts[:half], counts[half:], sys_len, ref_len, smooth_method="exp").score)
    tail = 100 * (1 - CONFIDENCE) / 2
    low, high = np.percentile(scores, [tail, 100 - tail])
    return Bleu(score, float(low), float(high), str(metric.get_signature()))

"""Integer and float Transformers side by side: BLEU or perplexity, divergence, storage, time."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np

from intsim.models import scoring
from intsim.models.generation import LENGTH_PENALTY, beam, greedy
from intsim.models.transformer import Transformer
from intsim.models.vocabulary import Vocabulary

Progress = Callable[[int], None]


@dataclass(frozen=True, slots=True)
class TranslationFigures:
    """One model on pairs. seconds: a sentence. kl, same_best, same_text: against the first model.

    token_perplexity: of the references, each token given those before it.
    """

    name: str
    bleu: scoring.Bleu
    token_perplexity: float
    kl: float
    same_best: float
    same_text: float
    seconds: float
    translations: list[str]

    @property
    def count(self) -> int:
        return len(self.translations)


@dataclass(frozen=True, slots=True)
class TextFigures:
    """One model on running text. seconds: a token. word_perplexity: only where the whole text was read."""

    name: str
    token_perplexity: float
    word_perplexity: float | None
    tokens: int
    kl: float
    same_best: float
    seconds: float

    @property
    def count(self) -> int:
        return self.tokens


def translate(
    model: Transformer[Any], sources: Sequence[Sequence[int]], width: int = 1, progress: Progress | None = None
) -> list[list[int]]:
    """Greedy in batches where ``width`` is 1, else by beams with the usual length penalty."""
    if width == 1:
        return greedy(model, sources, progress=progress)
    made = []
    for source in sources:
        made.append(beam(model, source, width=width, penalty=LENGTH_PENALTY).ids)
        if progress:
            progress(1)
    return made


def on_pairs(
    models: Mapping[str, Transformer[Any]],
    vocabulary: Vocabulary,
    pairs: Sequence[tuple[str, str]],
    *,
    width: int = 1,
    progress: Progress | None = None,
) -> list[TranslationFigures]:
    """Every model's translations of the same sentences; ``progress`` hears of len(models) times len(pairs).

    Raises ValueError for no pairs, an empty sentence or one longer than the positions.
    """
    if not pairs:
        raise ValueError("there are no pairs to translate")
    sources, targets = (vocabulary.encode([pair[i] for pair in pairs]) for i in (0, 1))
    references = [target for _, target in pairs]
    likelihoods, divergences = scoring.measure_pairs(list(models.values()), list(zip(sources, targets, strict=True)))
    made: list[TranslationFigures] = []
    for (name, model), likelihood, divergence in zip(models.items(), likelihoods, divergences, strict=True):
        start = time.perf_counter()
        texts = [vocabulary.decode(ids) for ids in translate(model, sources, width, progress)]
        seconds = (time.perf_counter() - start) / len(pairs)
        first = made[0].translations if made else texts
        made.append(
            TranslationFigures(
                name=name,
                bleu=scoring.bleu(texts, references),
                token_perplexity=likelihood.token_perplexity,
                kl=divergence.kl,
                same_best=divergence.same_best,
                same_text=sum(a == b for a, b in zip(texts, first, strict=True)) / len(texts),
                seconds=seconds,
                translations=texts,
            )
        )
    return made


def on_text(
    models: Mapping[str, Transformer[Any]],
    vocabulary: Vocabulary,
    lines: Sequence[str],
    *,
    windows: int = 0,
    progress: Progress | None = None,
) -> list[TextFigures]:
    """Every model on the same windows of a text."""
    for model in models.values():
        model.step(
            model.start(), np.zeros((1, 2), np.int32)
        )  # kernels are compiled or loaded outside the measured time
    timed = {name: _Timed(model) for name, model in models.items()}
    likelihoods, divergences = scoring.measure(
        cast(Any, list(timed.values())), lines, vocabulary, windows=windows, progress=progress
    )
    return [
        TextFigures(
            name=name,
            token_perplexity=likelihood.token_perplexity,
            word_perplexity=likelihood.word_perplexity,
            tokens=likelihood.tokens,
            kl=divergence.kl,
            same_best=divergence.same_best,
            seconds=model.seconds / max(1, model.tokens),
        )
        for (name, model), likelihood, divergence in zip(timed.items(), likelihoods, divergences, strict=True)
    ]


class _Timed:
    """A model whose steps are timed; the rest of it is the model's own."""

    def __init__(self, model: Transformer[Any]) -> None:
        self._model, self.seconds, self.tokens = model, 0.0, 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)

    def step(self, state: Any, ids: Any, **given: Any) -> Any:
        start = time.perf_counter()
        made = self._model.step(state, ids, **given)
        self.seconds += time.perf_counter() - start
        self.tokens += ids.size
        return made

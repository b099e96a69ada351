"""An integer model against the float model that it came from, on pairs of sentences with human scores."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from intsim.models.checkpoint import Checkpoint
from intsim.models.fused_encoder import opened
from intsim.models.float_encoder import FloatEncoder, normalised
from intsim.models.layout import Array, IntegerModel
from intsim.models.text import TextReader

# Columns of the STS benchmark (Cer et al. 2017): genre, file, year, id, score, sentence1, sentence2, ...
SCORE, FIRST, SECOND = 4, 5, 6


@dataclass(frozen=True, slots=True)
class Pair:
    score: float
    first: str
    second: str


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Spearman correlations lie in [-1, 1]; seconds are for one sentence.

    float_bytes: of model.safetensors; integer_bytes: of the whole model, tokenizer included.
    """

    pairs: int
    sentences: int
    float_spearman: float
    integer_spearman: float
    between_models: float
    mean_cosine: float
    float_bytes: int
    integer_bytes: int
    float_seconds: float
    integer_seconds: float


def read_pairs(path: str | Path) -> list[Pair]:
    """The pairs of a tab-separated file without quoting. Raises ValueError, naming the line, for what is not one."""
    made = []
    try:
        lines = Path(path).read_text(encoding="utf-8").split("\n")
    except UnicodeDecodeError as wrong:
        raise ValueError(f"{path} is not UTF-8: {wrong}") from None
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        columns = line.rstrip("\r").split("\t")
        if len(columns) <= SECOND:
            raise ValueError(
                f"{path}, line {number}: {len(columns)} columns separated by tabs, needs at least {SECOND + 1}: "
                "genre, file, year, id, score, sentence1, sentence2"
            )
        try:
            score = float(columns[SCORE])
        except ValueError:
            score = float("nan")
        if not np.isfinite(score):
            raise ValueError(
                f"{path}, line {number}: the score (column {SCORE + 1}) is {columns[SCORE]!r}, needs a number"
            )
        made.append(Pair(score, columns[FIRST], columns[SECOND]))
    if len(made) < 2:
        raise ValueError(f"{path} holds {len(made)} pairs; a correlation needs at least 2")
    return made


def ranks(x: Any) -> Array:
    """The ranks 1, 2, ... of a row of numbers; equal ones share the mean of their ranks."""
    _, inverse, counts = np.unique(np.asarray(x), return_inverse=True, return_counts=True)
    made: Array = (np.cumsum(counts) - (counts - 1) / 2)[inverse]
    return made


def spearman(x: Any, y: Any) -> float:
    """Spearman's rank correlation: Pearson's, of the ranks. Raises ValueError where a side is constant."""
    a, b = (r - r.mean() for r in (ranks(x), ranks(y)))
    norm = float(np.sqrt((a * a).sum() * (b * b).sum()))
    if norm == 0:
        raise ValueError("a rank correlation needs at least two different values on each side")
    return float((a * b).sum()) / norm


def evaluate(
    model: IntegerModel,
    model_bytes: int,
    checkpoint: Checkpoint,
    pairs: Sequence[Pair],
    backend: str = "cpu",
    progress: Callable[[int], None] | None = None,
) -> Evaluation:
    """Both models on the distinct sentences of ``pairs``.

    Raises ValueError where ``model`` came from another checkpoint.
    """
    if model.source.get("sha256") != checkpoint.sha256:
        raise ValueError(
            f"the model was converted from weights with sha256 {model.source.get('sha256')}, "
            f"the checkpoint has {checkpoint.sha256}; convert it again, or give the other checkpoint"
        )
    texts = sorted({t for pair in pairs for t in (pair.first, pair.second)})
    sentences = [s.ids for s in TextReader(model.tokenizer, model.shape).read(texts)]
    encoder = opened(model, backend)
    encoder.embed(sentences[:1])  # kernels are compiled or loaded outside the measured time
    pooled, integer_seconds = _timed(lambda: encoder.embed(sentences, progress=progress))
    real, float_seconds = _timed(lambda: FloatEncoder(checkpoint).embed(sentences, progress=progress))
    integer, floating = normalised(pooled), normalised(real)
    row = {text: i for i, text in enumerate(texts)}
    firsts, seconds = ([row[getattr(pair, side)] for pair in pairs] for side in ("first", "second"))
    cosines = [(e[firsts] * e[seconds]).sum(axis=1) for e in (floating, integer)]
    scores = [pair.score for pair in pairs]
    return Evaluation(
        pairs=len(pairs),
        sentences=len(texts),
        float_spearman=spearman(cosines[0], scores),
        integer_spearman=spearman(cosines[1], scores),
        between_models=spearman(*cosines),
        mean_cosine=float((floating * integer).sum(axis=1).mean()),
        float_bytes=checkpoint.weight_bytes,
        integer_bytes=model_bytes,
        float_seconds=float_seconds / len(texts),
        integer_seconds=integer_seconds / len(texts),
    )


def _timed(work: Callable[[], Array]) -> tuple[Array, float]:
    start = time.perf_counter()
    made = work()
    return made, time.perf_counter() - start

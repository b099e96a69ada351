"""Text from a model, token by token: the best token each time, or the best of several beams.

Any model that is a ``Transformer`` serves: float or integer, translation or language model.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from intsim.models.layout import Array
from intsim.models.transformer import Transformer
from intsim.models.vocabulary import BEGIN, END, PAD

LENGTH_PENALTY = 0.6  # Wu et al. 2016 (arXiv 1609.08144), equation 14
ROOM = 50  # a translation has at most so many tokens more than its source: Vaswani et al. 2017, section 6.1
BATCH = 256

Ids = Sequence[int]


def log_softmax(logits: Array) -> Array:
    """Along the last axis, in float64."""
    shifted = logits - logits.max(axis=-1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True)))


def stream(
    model: Transformer[Any], source: Ids = (), *, prompt: Ids = (), most: int = 0, cache: bool = True
) -> Iterator[int]:
    """Token after token, the best each time, until the model ends the text or ``most`` tokens are made.

    source: what a translation model translates, END not included. prompt: how the text begins.
    most: at most so many new tokens; 0 is the source's length and 50 more, for a language model the
    positions that are left. Raises ValueError where source or prompt has no token or too many.
    """
    translates = model.shape.translates
    if not translates and not len(prompt):
        raise ValueError("a language model needs a text to go on from, got none")
    state = model.start([[*source, END]] if translates else [], cache=cache)
    begin = [BEGIN, *prompt] if translates else list(prompt)
    new = np.array([begin], np.int32)
    left = _room(model, len(source), len(begin), most)
    while left > 0:
        token = int(model.next(state, new)[0])
        if token in (END, PAD):
            return
        yield token
        new, left = np.array([[token]], np.int32), left - 1


def _room(model: Transformer[Any], source: int, begun: int, most: int) -> int:
    room = model.shape.positions - begun + 1  # the last token made needs no place
    wanted = most or (source + ROOM if model.shape.translates else room)
    return max(0, min(room, wanted))


def greedy(model: Transformer[Any], sources: Sequence[Ids], *, cache: bool = True, batch: int = BATCH,
           progress: Callable[[int], None] | None = None) -> list[list[int]]:  # fmt: skip
    """The best token each time, for many sources; those of like length go together.

    A text's result does not depend on the others in its batch where the model's does not: an integer
    model's never does. Raises ValueError for an empty source or one longer than the positions.
    """
    made: list[list[int]] = [[] for _ in sources]
    order = sorted(range(len(sources)), key=lambda i: len(sources[i]))
    for first in range(0, len(order), batch):
        chosen = order[first : first + batch]
        _greedy_batch(model, chosen, sources, made, cache)
        if progress:
            progress(len(chosen))
    return made


def _greedy_batch(
    model: Transformer[Any], chosen: list[int], sources: Sequence[Ids], made: list[list[int]], cache: bool
) -> None:
    state = model.start([[*sources[i], END] for i in chosen], cache=cache)
    rooms = {n: _room(model, n, 1, 0) for n in {len(sources[i]) for i in chosen}}
    room = np.array([rooms[len(sources[i])] for i in chosen])
    texts, lengths = np.empty((len(chosen), max(1, int(room.max()))), np.int32), np.zeros(len(chosen), np.int64)
    alive, new, length = np.arange(len(chosen)), np.full((len(chosen), 1), BEGIN, np.int32), 0
    while len(alive):
        tokens = np.asarray(model.next(state, new))
        ended = (tokens == END) | (tokens == PAD)
        texts[alive, length], lengths[alive] = tokens, np.where(ended, length, length + 1)
        length += 1
        goes_on = ~ended & (length < room[alive])
        if not goes_on.all():
            kept = np.flatnonzero(goes_on)
            state, alive, tokens = state.chosen(kept), alive[kept], tokens[kept]
        new = tokens[:, None]
    for i, text, n in zip(chosen, texts, lengths, strict=True):
        made[i] = text[:n].tolist()


@dataclass(frozen=True, slots=True)
class Found:
    """A finished text and its score: log probability over the length penalty."""

    ids: list[int]
    score: float


def beam(
    model: Transformer[Any], source: Ids, *, width: int = 4, penalty: float = LENGTH_PENALTY, cache: bool = True
) -> Found:
    """The best text that a beam of ``width`` finds.

    Scores are log probabilities (float64 on the host) over ((5 + length) / 6) ** penalty. Stops when no
    text that goes on can beat the best finished one. Raises ValueError for width < 1, an empty source
    or one longer than the positions.
    """
    if width < 1:
        raise ValueError(f"a beam has at least one text, got {width}")
    state = model.start([[*source, END]], cache=cache)
    room = _room(model, len(source), 1, 0)
    texts: list[list[int]] = [[]]
    scores = np.zeros(1)
    new = np.full((1, 1), BEGIN, np.int32)
    best = Found([], -np.inf)
    for length in range(1, room + 1):
        steps = log_softmax(model.real(model.step(state, new, last=True)))
        steps[:, PAD] = -np.inf
        total = scores[:, None] + steps
        for text, ended in zip(texts, total[:, END], strict=True):
            score = float(ended) / _divisor(length, penalty)
            if score > best.score:
                best = Found(text, score)
        total[:, END] = -np.inf
        order = np.argsort(-total, axis=None, kind="stable")[:width]  # of equals the first text, the lowest id
        rows, tokens = np.divmod(order, total.shape[1])
        texts = [[*texts[r], int(t)] for r, t in zip(rows, tokens, strict=True)]
        scores = total.reshape(-1)[order]
        # Log probabilities only fall, and no divisor is greater than that of the longest text.
        if scores[0] / _divisor(room, penalty) <= best.score:
            return best
        state, new = state.chosen(rows), tokens[:, None].astype(np.int32)
    last = float(scores[0]) / _divisor(room, penalty)
    return best if best.score >= last else Found(texts[0], last)


def _divisor(length: int, penalty: float) -> float:
    return float(((5 + length) / 6) ** penalty)

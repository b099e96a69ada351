"""Batches of token ids: sentences of like length together, windows of running text."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from intsim.models.layout import Array
from intsim.models.vocabulary import BEGIN, END, PAD

STEP = 8  # lengths are padded to a multiple of this: fewer shapes, which fewer kernels are made for

Batch = tuple[Tensor | None, Tensor]  # (source, target with begin and end); no source for a language model


class Rows:
    """Rows of ids, padded once: a batch is a part of one table. Every row is END-ed; ``begin`` puts BEGIN before it."""

    def __init__(self, rows: Sequence[Sequence[int]], *, begin: bool) -> None:
        first = [BEGIN] if begin else []
        whole = [[*first, *row, END] for row in rows]
        self.lengths = np.array([len(row) for row in whole], np.int64)
        width = _up(int(self.lengths.max(initial=1))) + 1
        self._ids = torch.full((len(whole), width), PAD)
        for line, row in zip(self._ids.numpy(), whole, strict=True):
            line[: len(row)] = row

    def batch(self, chosen: Array, extra: int) -> Tensor:
        """The rows of these numbers, as long as the longest of them, rounded up, and ``extra`` columns."""
        length = _up(int(self.lengths[chosen].max())) + extra
        return self._ids[torch.from_numpy(chosen), :length]


def _up(length: int) -> int:
    return -(-length // STEP) * STEP


def grouped(source: Array, target: Array, tokens: int, order: Array) -> list[Array]:
    """Indices of pairs in groups of like length; a group has at most ``tokens`` with its padding.

    source, target: lengths. order: pairs of equal lengths keep it.
    """
    order = order[np.lexsort((source[order], target[order]))]
    most = -(-(np.maximum(source, target)[order] + 2) // STEP) * STEP
    groups, start, longest = [], 0, 0
    for at, length in enumerate(most.tolist()):
        longest = max(longest, length)
        if at > start and longest * (at + 1 - start) > tokens:
            groups.append(order[start:at])
            start, longest = at, length
    return [*groups, order[start:]]


class Pairs:
    """Pairs of texts as ids, and batches of at most ``tokens`` a side."""

    def __init__(self, source: Sequence[Sequence[int]], target: Sequence[Sequence[int]], tokens: int) -> None:
        self._source, self._target, self._tokens = Rows(source, begin=False), Rows(target, begin=True), tokens

    def batches(self, order: Array | None = None) -> list[Batch]:
        """Every pair once."""
        s, t = self._source, self._target
        order = np.arange(len(s.lengths)) if order is None else order
        groups = grouped(s.lengths - 1, t.lengths - 2, self._tokens, order)
        # the target's last column is only predicted
        return [(s.batch(group, 0), t.batch(group, 1)) for group in groups if len(group)]

    def shuffled(self, chance: random.Random) -> Iterator[Batch]:
        """Batches without end: each pass over the pairs in another order, pairs of equal length mixed."""
        while True:
            order = list(range(len(self._source.lengths)))
            chance.shuffle(order)
            made = self.batches(np.array(order))
            chance.shuffle(made)
            yield from made


def text_windows(ids: Tensor, context: int, rows: int, chance: random.Random) -> Iterator[Batch]:
    """Batches without end of ``rows`` windows of ``context`` + 1 tokens; each pass begins at another place."""
    if len(ids) < context + 2:
        raise ValueError(f"the text has {len(ids):,} tokens; a window needs {context + 2}")
    while True:
        first = chance.randrange(min(context, len(ids) - context - 1))
        starts = list(range(first, len(ids) - context, context))
        chance.shuffle(starts)
        for at in range(0, len(starts), rows):
            yield None, torch.stack([ids[i : i + context + 1] for i in starts[at : at + rows]])

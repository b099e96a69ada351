"""Batches of token ids: sentences of like length together, windows of running text."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from intsim.models.vocabulary import BEGIN, END, PAD

STEP = 8  # lengths are padded to a multiple of this: fewer shapes, which fewer kernels are made for

Batch = tuple[Tensor | None, Tensor]  # (source, target with begin and end); no source for a language model


def padded(rows: Sequence[Sequence[int]], length: int) -> Tensor:
    return torch.tensor([[*row, *[PAD] * (length - len(row))] for row in rows])


def _length(rows: Sequence[Sequence[int]]) -> int:
    return -(-max(map(len, rows)) // STEP) * STEP


def grouped(source: Sequence[Sequence[int]], target: Sequence[Sequence[int]], tokens: int) -> list[list[int]]:
    """Indices of pairs in groups of like length; a group has at most ``tokens`` with its padding."""
    order = sorted(range(len(source)), key=lambda i: (len(target[i]), len(source[i])))
    groups: list[list[int]] = []
    longest = 0
    for i in order:
        longest = max(longest, -(-(max(len(source[i]), len(target[i])) + 2) // STEP) * STEP)
        if groups and longest * (len(groups[-1]) + 1) <= tokens:
            groups[-1].append(i)
        else:
            longest = -(-(max(len(source[i]), len(target[i])) + 2) // STEP) * STEP
            groups.append([i])
    return groups


def pairs(source: Sequence[Sequence[int]], target: Sequence[Sequence[int]], tokens: int) -> list[Batch]:
    """Every pair once, in batches of at most ``tokens`` a side."""
    made: list[Batch] = []
    for group in grouped(source, target, tokens):
        s = [[*source[i], END] for i in group]
        t = [[BEGIN, *target[i], END] for i in group]
        made.append((padded(s, _length(s)), padded(t, _length(t) + 1)))  # the last column is only predicted
    return made


def shuffled(
    source: Sequence[Sequence[int]], target: Sequence[Sequence[int]], tokens: int, chance: random.Random
) -> Iterator[Batch]:
    """Batches without end: each pass over the pairs in another order, pairs of equal length mixed."""
    while True:
        order = list(range(len(source)))
        chance.shuffle(order)
        made = pairs([source[i] for i in order], [target[i] for i in order], tokens)
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

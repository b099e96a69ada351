"""Greedy translation with a cache: the shipped INT8 model beside the same model in float32.

The work is the test part of the Tatoeba pairs, or a sample of it, in batches of texts of like length, with as
many steps for each text on all sides. Float weights are what the INT8 ones stand for. $INTSIM_PAIRS names
the file of pairs (English TAB German); where there is none, ids are drawn.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from intsim.models import corpora, transformer_file
from intsim.models.fused_transformer import opened
from intsim.models.generation import greedy
from intsim.models.vocabulary import Vocabulary
from tests.bench._dequantized import tensors
from tests.bench.frame import Case

MODEL = "en-de-int8"
BATCHES = (64, 256)
SENTENCES = 1148  # as many as the test part has


def cases(threads: int) -> Iterator[Case]:
    import torch

    from tests.bench._float_onnxruntime import Translator as InOnnxruntime
    from tests.bench._float_pytorch import Translator as InPytorch

    torch.set_num_threads(threads)
    read = transformer_file.read(transformer_file.find(MODEL))
    sources = _sources(Vocabulary(read.tokenizer), read.shape.vocabulary)
    sources.sort(key=len)
    model, real = opened(read), tensors(read)
    wanted = greedy(model, sources)
    lengths = [len(text) + 1 for text in wanted]
    peers: dict[str, Any] = {
        "PyTorch": InPytorch(read.shape, real),
        "ONNX Runtime": InOnnxruntime(read.shape, real, threads),
    }
    for batch in BATCHES:
        ways: dict[str, Callable[[], object]] = {"intsim": lambda batch=batch: _ours(model, sources, batch, threads)}
        for name, peer in peers.items():
            ways[name] = lambda peer=peer, batch=batch: _theirs(peer, sources, lengths, batch)
        assert ways["intsim"]() == wanted
        same = {name: sum(a[:-1] == b for a, b in zip(ways[name](), wanted, strict=True)) for name in peers}  # type: ignore[call-overload]
        notes = {name: f"{count} of {len(sources)} translations the same" for name, count in same.items()}
        yield Case(f"{len(sources)} sentences, batches of {batch}", ways, notes)


def _sources(vocabulary: Vocabulary, size: int) -> list[list[int]]:
    file = os.environ.get("INTSIM_PAIRS")
    if file:
        pairs = corpora.part(corpora.tabbed(Path(file)), "test")
        return [list(ids) for ids in vocabulary.encode([source for source, _ in pairs])][:SENTENCES]
    draw = np.random.default_rng(1)
    return [draw.integers(4, size, draw.integers(3, 9)).tolist() for _ in range(SENTENCES)]


def _ours(model: Any, sources: Sequence[Sequence[int]], batch: int, threads: int) -> list[list[int]]:
    """Batches shared out to threads: the kernels hold no lock."""
    parts = [sources[at : at + batch] for at in range(0, len(sources), batch)]
    if threads == 1:
        return [text for part in parts for text in greedy(model, part, batch=batch)]
    with ThreadPoolExecutor(threads) as pool:
        return [text for made in pool.map(lambda part: greedy(model, part, batch=batch), parts) for text in made]


def _theirs(peer: Any, sources: Sequence[Sequence[int]], lengths: Sequence[int], batch: int) -> list[list[int]]:
    made: list[list[int]] = []
    for at in range(0, len(sources), batch):
        made += peer.batch(sources[at : at + batch], lengths[at : at + batch])
    return made

"""A BERT-base encoder, 128 tokens: integers from end to end beside ONNX Runtime in dynamic int8 and in float32.

Twelve layers of 768, with random weights: the work is that of the real ones, the meaning is not. The integer model is
what ``intsim model convert`` makes of them, and equals its spec to the bit.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from intsim.models import calibrate, convert
from intsim.models.checkpoint import Checkpoint, tensor_shapes
from intsim.models.encoder import IntegerEncoder
from intsim.models.fused_encoder import opened
from intsim.models.layout import Shape
from tests.bench.frame import Case

SHAPE = Shape(
    layers=12, heads=12, hidden=768, inner=3072, vocabulary=30522, positions=512, types=2, tokens=512
)  # fmt: skip
TOKENS = 128


def random_checkpoint(shape: Shape) -> Checkpoint:
    """Normal weights as at the start of a training, and norms that differ from channel to channel."""
    draw, tensors = np.random.default_rng(0), {}
    for name, dims in tensor_shapes(shape).items():
        norm = name.endswith("gamma")
        spread = 0.2 if norm else 0.04
        tensors[name] = (norm + spread * draw.standard_normal(dims)).astype(np.float32)
    return Checkpoint("random", shape, 1e-12, tensors, b"", 0, "")


def cases(threads: int) -> Iterator[Case]:
    checkpoint = random_checkpoint(SHAPE)
    ids = np.random.default_rng(1).integers(0, SHAPE.vocabulary, (2, TOKENS)).astype(np.int32)
    model = convert.convert(checkpoint, calibrate.ranges(checkpoint, ids))
    lengths = np.array([TOKENS], np.int32)
    encoder, ids = opened(model), ids[:1]
    ways: dict[str, Callable[[], Any]] = {"intsim": lambda: encoder.run(ids, lengths)}
    assert (ways["intsim"]() == IntegerEncoder(model, "reference").run(ids, lengths)).all()
    from tests.bench import _bert_onnx

    with tempfile.TemporaryDirectory() as folder:
        ways |= _bert_onnx.runners(SHAPE, checkpoint.tensors, ids, threads, Path(folder))
    real = ways["ORT float32"]()
    ours = ways["intsim"]() * encoder.pooled_scale
    notes = {
        way: f"cosine to float32 {_cosine(ours if way == 'intsim' else run(), real):.4f}" for way, run in ways.items()
    }
    yield Case(f"{SHAPE.layers} layers, {TOKENS} tokens", ways, notes)


def _cosine(a: Any, b: Any) -> float:
    a, b = np.ravel(a).astype(np.float64), np.ravel(b).astype(np.float64)
    return float(a @ b / np.sqrt((a @ a) * (b @ b)))

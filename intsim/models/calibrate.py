"""The ranges that activations take on text: what the few static grids of an integer model need.

Grids that a bound proves (layer norms, queries, keys, embeddings) need no text; see ``convert``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from intsim.models.checkpoint import Checkpoint
from intsim.models.float_encoder import FloatEncoder
from intsim.models.layout import Array
from intsim.models.text import TextReader

PER_TENSOR = ("scores", "up", "gelu")


@dataclass(frozen=True, slots=True)
class Ranges:
    """The largest magnitudes seen: one number a place, and for values one a channel (float64)."""

    largest: dict[str, float]
    values: dict[str, Array]
    sentences: int


def measure(checkpoint: Checkpoint, texts: Sequence[str], progress: Callable[[int], None] | None = None) -> Ranges:
    """The ranges of the float encoder on ``texts``. Raises ValueError where there are none.

    Rounded up to 6 significant bits, so that the last bits of a machine's float sums seldom matter.
    """
    if not texts:
        raise ValueError("calibration needs at least one sentence")
    return ranges(checkpoint, [s.ids for s in TextReader(checkpoint.tokenizer, checkpoint.shape).read(texts)], progress)


def ranges(checkpoint: Checkpoint, sentences: Sequence[Array], progress: Callable[[int], None] | None = None) -> Ranges:
    """The same on the ids of at least one sentence."""
    largest: dict[str, float] = {}
    values: dict[str, Array] = {}

    def observe(name: str, a: Array) -> None:
        place = name.rpartition(".")[2]
        if place in PER_TENSOR:
            largest[name] = max(largest.get(name, 0.0), float(np.abs(a).max()))
        elif place == "value":
            values[name] = np.maximum(values.get(name, 0.0), np.abs(a).max(axis=0))

    FloatEncoder(checkpoint).embed(sentences, observe, progress)
    return Ranges(
        {name: float(_up(np.array(top))) for name, top in largest.items()},
        {name: _up(top) for name, top in values.items()},
        len(sentences),
    )


def _up(x: Array) -> Array:
    fraction, exponent = np.frexp(np.asarray(x, np.float64))
    made: Array = np.ldexp(np.ceil(fraction * 64) / 64, exponent)
    return made

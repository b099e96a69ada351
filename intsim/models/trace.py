"""What passes through a Transformer, place by place: how many bits it uses, and how far it is from the float model."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from intsim.models.generation import greedy
from intsim.models.integer_transformer import IntegerTransformer, Scaled
from intsim.models.layout import Array
from intsim.models.transformer import Transformer
from intsim.models.vocabulary import BEGIN, END


@dataclass(frozen=True, slots=True)
class Place:
    """Integers at one place of the model, all tokens together.

    dtype: of the integers; largest: of their absolute values. low, high: of the scales, as powers of two.
    rms: of the real values. error: rms of their difference to the float model, over the float model's
    rms; None where there is no float model.
    """

    name: str
    dtype: str
    largest: int
    low: float
    high: float
    rms: float
    error: float | None

    @property
    def bits(self) -> int:
        """With the sign."""
        return self.largest.bit_length() + 1


def run(model: Transformer[Any], source: Sequence[int], text: Sequence[int]) -> dict[str, Any]:
    """The value at each place for one text: in a translation model ``text`` follows upon ``source``."""
    seen: dict[str, Any] = {}
    translates = model.shape.translates
    state = model.start([[*source, END]] if translates else [], see=seen.__setitem__)
    model.step(state, np.array([[BEGIN, *text] if translates else list(text)], np.int32), see=seen.__setitem__)
    return seen


def trace(
    model: IntegerTransformer, real: Transformer[Any] | None, source: Sequence[int], text: Sequence[int] | None = None
) -> list[Place]:
    """Every place in the order in which it is reached. Without ``text`` a translation model's own translation.

    Raises ValueError for a text without tokens or longer than the positions.
    """
    if text is None:
        text = greedy(model, [source])[0][: model.shape.positions - 1]
    if not model.shape.translates and not len(text):
        raise ValueError("the text has no tokens; give a longer one")
    integers = run(model, source, text)
    floats = run(real, source, text) if real is not None else {}
    return [_place(name, value, floats.get(name)) for name, value in integers.items()]


def _place(name: str, value: Scaled, wanted: Array | None) -> Place:
    made = value.real()
    powers = np.log2(value.mantissa) + value.exponent
    return Place(
        name=name,
        dtype=str(value.q.dtype),
        largest=int(np.abs(value.q.astype(np.int64)).max()),
        low=float(powers.min()),
        high=float(powers.max()),
        rms=_rms(made),
        error=None if wanted is None else _rms(made - wanted) / max(_rms(wanted), math.ulp(0.0)),
    )


def _rms(a: Array) -> float:
    return float(np.sqrt(np.mean(np.square(a, dtype=np.float64))))

"""Which elements were saturated, overflowed or tied.

No kernel computes a flag. A flag is a contrast: the elements that differ between two runs whose
parameters differ in one rule. So it costs nothing when nobody asks, needs no second arithmetic, and
is the same on every implementation that is equal to the bit.

    saturated   the result differs from the one that an unlimited result type holds
    wrapped     the result differs from the one that an unlimited accumulator holds; likewise
    clipped     where the accumulator saturates
    tie         TIES_TO_POSITIVE and TIES_TO_NEGATIVE differ, with an unlimited result type

A flag sees what changes a *result*: a partial sum that wraps and comes back is not "wrapped", and
one that is clipped without changing the end is not "clipped". Rounding rules that a variant fixes
(the two of gemmlowp) are no fields, and have no flag.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from intsim.binding import Array
from intsim.numerics import Overflow, Rounding, unlimited
from intsim.params import Choice, kinds


@dataclass(frozen=True, slots=True)
class Flags:
    """Masks of the first output, by flag; ``counts`` sums them up."""

    masks: dict[str, Array]

    @property
    def counts(self) -> dict[str, int]:
        return {name: int(mask.sum()) for name, mask in self.masks.items()}

    @property
    def overflowed(self) -> dict[str, int]:
        """The flags, with their counts, that say that a value did not fit."""
        return {name: n for name, n in self.counts.items() if n and not name.split(".")[-1].startswith("tie")}


def contrasts(p: Any) -> Iterator[tuple[str, Any, Any]]:
    """(name of the flag, parameters, parameters): derived from the declared kinds; no op is named."""
    types = {n: k for n, k in kinds(p).items() if isinstance(k, Choice) and unlimited in k.options}
    free = dataclasses.replace(p, **{n: unlimited for n, k in types.items() if k.role == "result"})
    for name, kind in kinds(p).items():
        value = getattr(p, name)
        if name in types and types[name].role == "result":
            yield f"saturated:{name}", p, dataclasses.replace(p, **{name: unlimited})
        elif name in types and types[name].role == "accumulator":
            word = "clipped" if getattr(p, "overflow", None) == Overflow.SATURATE else "wrapped"
            yield f"{word}:{name}", p, dataclasses.replace(p, **{name: unlimited})
        elif isinstance(kind, Choice) and isinstance(value, Rounding):
            yield (
                f"tie:{name}",
                dataclasses.replace(free, **{name: Rounding.TIES_TO_POSITIVE}),
                dataclasses.replace(free, **{name: Rounding.TIES_TO_NEGATIVE}),
            )


def flags_of(execute: Callable[[Any], Array], p: Any) -> Flags:
    """The flags of one op; ``execute(params)`` gives its first output."""
    masks = {}
    for name, one, other in contrasts(p):
        a, b = (execute(q).astype(np.int64) for q in (one, other))
        masks[name] = a != b
    return Flags(masks)

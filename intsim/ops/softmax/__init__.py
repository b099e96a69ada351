"""Softmax over the last axis: q -> probabilities. What every variant must keep.

Row i sees the columns below ``stop[i]``: a causal mask (stop = past + i + 1), padding (stop =
length) and a cache with room to spare are the same input.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from intsim.numerics import Rounding

LONGEST = 2**16
WORTH_TUNING = 1 << 14  # elements: below, the one kernel of the program, which serves every type, is as good

# Rules that differ for a quotient that is never negative: TOWARD_ZERO is TOWARD_NEGATIVE there, TIES_TO_AWAY is
# TIES_TO_POSITIVE, TIES_TO_ZERO is TIES_TO_NEGATIVE. No softmax rounds every probability up.
UNSIGNED_ROUNDINGS = (
    Rounding.TOWARD_NEGATIVE,
    Rounding.TIES_TO_POSITIVE,
    Rounding.TIES_TO_EVEN,
    Rounding.TIES_TO_NEGATIVE,
)


@dataclass(frozen=True, slots=True)
class Steps:
    """A row's program, a number at a time: for whoever holds a row in pieces. All are ``portable``.

    term(q, top, p): what a visible column weighs, not negative; top: the largest visible q.
    added(term, p): what it adds to the total. settled(total, seen, p): two numbers, of the total over the
    ``seen`` visible columns. share(term, settled, p): the column's probability.
    """

    term: Callable[..., Any]
    added: Callable[..., Any]
    settled: Callable[..., tuple[Any, Any]]
    share: Callable[..., Any]


def real_softmax(x: Any, stop: Any) -> Any:
    """The softmax of the visible columns in float64; 0 elsewhere."""
    seen = np.arange(x.shape[-1]) < np.asarray(stop).reshape(-1, 1)
    x = np.where(seen, x, -np.inf)
    e = np.exp(x - x.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


def shift_invariant(f: Callable[[Any], Any], q: Any) -> bool:
    """Adding a constant to a row changes nothing."""
    t = np.iinfo(q.dtype)
    q = np.clip(q, t.min // 2, t.max // 2)
    return bool((f(q + q.dtype.type(5)) == f(q)).all())


def order_preserving(f: Callable[[Any], Any], q: Any) -> bool:
    """A larger input never gets a smaller output."""
    order = np.argsort(q, axis=-1, kind="stable")
    return bool((np.diff(np.take_along_axis(f(q).astype(np.int64), order, -1), axis=-1) >= 0).all())


def equal_stay_equal(f: Callable[[Any], Any], q: Any) -> bool:
    """Equal inputs get equal outputs, wherever they stand in the row."""
    return bool((f(q)[:, ::-1] == f(np.ascontiguousarray(q[:, ::-1]))).all())


LAWS = (shift_invariant, order_preserving, equal_stay_equal)

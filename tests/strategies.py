"""Hypothesis as a source of numbers for intsim.oracle.draw: property tests and shipped cases draw alike."""

from __future__ import annotations

from typing import Any

from hypothesis import assume
from hypothesis import strategies as st

from intsim.op import Op
from intsim.oracle import draw


class Drawn:
    def __init__(self, draw_one: Any) -> None:
        self._draw = draw_one

    def integer(self, low: int, high: int) -> int:
        return self._draw(st.integers(low, high))

    def integers(self, count: int, low: int, high: int) -> list[int]:
        return self._draw(st.lists(st.integers(low, high), min_size=count, max_size=count))

    def reject(self) -> None:
        assume(False)


@st.composite
def calls(draw_one: Any, op: Op, longest: int = 4) -> Any:
    """(inputs, params) of ``op``, inside every limit."""
    return draw.call(op, Drawn(draw_one), longest=longest)


@st.composite
def accuracy_calls(draw_one: Any, op: Op, longest: int = 5) -> Any:
    """(inputs, params) where the parameters stand for a real scale."""
    low, high = op.oracle.scales
    p = op.oracle.params(draw_one(st.floats(low, high)))
    source = Drawn(draw_one)
    size = {}
    for d in op.dims:
        bounds = op.sizes.get(d)
        if bounds is None or bounds.derived is None:
            size[d] = source.integer(max(bounds.low if bounds else 1, 1), longest)
    for d, bounds in op.sizes.items():
        if bounds.derived is not None:
            size[d] = bounds.derived(p, size)
    return draw.inputs(op, source, p, size, all_given=True), p

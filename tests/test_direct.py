"""Calls of shapes and types met before: values are checked and read anew, and results are the caller's own."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import intsim
from intsim.registry import get

DRAW = np.random.default_rng(31)
SOFTMAX, NORM = get("softmax.ibert"), get("layernorm.ibert")
LOGITS = SOFTMAX.params.from_scale(0.05, q=intsim.int8)  # type: ignore[attr-defined]  # get's Params


def logits(*shape: int) -> Any:
    return DRAW.integers(-128, 128, shape).astype(np.int8)


@pytest.mark.parametrize("loop", [(), (3,), (2, 3)], ids=str)
def test_later_calls_are_as_the_first(loop: tuple[int, ...]) -> None:
    again, spec = intsim.prepare(SOFTMAX, p=LOGITS), intsim.prepare(SOFTMAX, p=LOGITS, backend="reference")
    kept = []
    for turn in range(3):
        q, stop = logits(*loop, 200, 90), DRAW.integers(1, 91, (*loop, 200)).astype(np.int32)
        q = q[..., ::-1] if turn == 1 else q  # not contiguous
        q.flags.writeable = turn != 2
        kept.append((again(q, stop), spec(q, stop)))
        assert len(again._direct) == 1
    for got, wanted in kept:
        assert got.dtype == wanted.dtype
        np.testing.assert_array_equal(got, wanted)


def test_rows_that_are_shared_are_copied_as_before() -> None:
    again, spec = intsim.prepare(SOFTMAX, p=LOGITS), intsim.prepare(SOFTMAX, p=LOGITS, backend="reference")
    for _ in range(2):
        q, stop = logits(3, 200, 90), DRAW.integers(1, 91, 200).astype(np.int32)
        np.testing.assert_array_equal(again(q, stop), spec(q, stop))
    assert not again._direct


def test_values_are_checked_in_every_call() -> None:
    again, q, stop = intsim.prepare(SOFTMAX, p=LOGITS), logits(200, 90), np.full(200, 90, np.int32)
    again(q, stop)
    stop[7] = 91
    with pytest.raises(ValueError, match=r"stop\[7\] is 91; needs 1 to 90"):
        again(q, stop)


def test_constants_and_what_is_left_out_keep_their_places() -> None:
    x, bias = DRAW.integers(-9000, 9000, (200, 90)).astype(np.int16), DRAW.integers(-99, 99, 90).astype(np.int32)
    spec = intsim.prepare(NORM, p=NORM.params(), backend="reference")
    for constant, arrays in (({"bias": bias}, (x,)), ({}, (x, bias)), ({}, (x, None)), ({"x": x}, (bias,))):
        again = intsim.prepare(NORM, p=NORM.params(), constant=constant)
        wanted = spec(x, bias) if constant or arrays[-1] is bias else spec(x)
        for _ in range(2):
            np.testing.assert_array_equal(again(*arrays), wanted)
        assert len(again._direct) == 1
    with pytest.raises(TypeError, match="takes at most 2 inputs"):
        again(bias, x, x)

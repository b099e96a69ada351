"""A whole model on a GPU: nothing leaves it between the tokens and the result, and one call makes a graph of it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from cuda_callers import CALLERS, fetch, overwrite, usable

if not usable():
    pytest.skip("needs Numba's simulator or a GPU: the uncompiled job simulates it", allow_module_level=True)

import intsim
from intsim.models.encoder import IntegerEncoder

IDS = np.array([[2, 4, 6, 3, 0], [2, 5, 3, 0, 0], [2, 1, 1, 7, 3]], np.int32)
LENGTHS = np.array([4, 3, 5], np.int32)


@pytest.mark.parametrize("caller", CALLERS)
def test_a_model_runs_where_its_inputs_lie(model: Any, caller: str) -> None:
    put = CALLERS[caller]
    wanted = IntegerEncoder(model, "reference").run(IDS, LENGTHS)
    out = IntegerEncoder(model, "cuda").run(put(IDS), put(LENGTHS))
    assert not isinstance(out, np.ndarray)
    assert np.array_equal(fetch(out), wanted)


def test_a_model_is_captured_in_one_call(model: Any) -> None:
    encoder = IntegerEncoder(model, "cuda")
    ids, lengths = CALLERS["intsim"](IDS), CALLERS["intsim"](LENGTHS)
    graph = intsim.capture(encoder.run, ids, lengths)
    assert graph.launches > 20
    other: Any = IDS[::-1].copy()
    overwrite(ids, other)
    overwrite(lengths, LENGTHS[::-1].copy())
    wanted = IntegerEncoder(model, "reference").run(other, LENGTHS[::-1].copy())
    assert np.array_equal(fetch(graph()), wanted)

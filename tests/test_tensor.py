"""QTensor: the parts fit together, or the error says which does not."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from intsim import Granularity, Nibbles, QTensor, int4, int8, uint4

ONE, NONE = np.float32(0.5), np.int32(0)
Q = np.arange(-6, 6, dtype=np.int8).reshape(3, 4)


def made(**parts: Any) -> QTensor:
    return QTensor(**({"q": Q, "scale": np.array(ONE), "zero_point": np.array(NONE), "dtype": int8} | parts))


def test_granularities() -> None:
    assert made().granularity is Granularity.PER_TENSOR
    channels = {"scale": np.full(4, ONE), "zero_point": np.zeros(4, np.int32), "axis": 1}
    assert made(**channels).granularity is Granularity.PER_CHANNEL
    groups = {"scale": np.full((3, 2), ONE), "zero_point": np.zeros((3, 2), np.int32), "group_size": 3}
    assert made(**groups).granularity is Granularity.PER_GROUP


@pytest.mark.parametrize("nibbles", Nibbles)
@pytest.mark.parametrize("width", [3, 4])
def test_packing_and_back(nibbles: Nibbles, width: int) -> None:
    tensor = made(q=Q[:, :width], dtype=int4)
    packed = tensor.pack(nibbles)
    assert packed.q.dtype == np.uint8
    assert packed.q.shape == (3, 2)
    assert packed.shape == (3, width)
    assert (packed.values() == Q[:, :width]).all()
    assert packed.values().dtype == np.int8
    assert (tensor.values() == tensor.q).all()


@pytest.mark.parametrize(
    ("parts", "text"),
    [
        ({"q": Q.astype(np.int16)}, "q is int16, needs int8"),
        ({"scale": np.array(np.float32(0))}, "scale holds positive finite"),
        ({"scale": np.array(np.float32(np.nan))}, "scale holds positive finite"),
        ({"scale": np.array(np.float32(np.inf))}, "scale holds positive finite"),
        ({"scale": np.array(0.5)}, "scale holds positive finite float32"),
        ({"zero_point": np.array(0)}, "zero_point is int32"),
        ({"zero_point": np.zeros(2, np.int32)}, "zero_point is int32 of shape"),
        ({"axis": 1}, r"scale has shape \(\), needs \(4,\) \(per channel\)"),
        ({"group_size": 3}, r"needs \(3, 2\) \(per group\)"),
        ({"dtype": uint4, "q": Q.view(np.uint8)}, "q leaves uint4"),
        ({"packed": True, "q": Q.view(np.uint8)}, "only 4-bit types are packed"),
        ({"packed": True, "q": Q.view(np.uint8), "dtype": int4}, "needs the length"),
        ({"packed": True, "q": Q.view(np.uint8), "dtype": int4, "length": 5}, "needs the length"),
    ],
)
def test_parts_that_do_not_fit(parts: dict[str, Any], text: str) -> None:
    with pytest.raises((TypeError, ValueError), match=text):
        made(**parts)

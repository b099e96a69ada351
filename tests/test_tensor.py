"""QTensor: the parts fit together, or the error says which does not."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from intsim import Granularity, Nibbles, QTensor, dequantize, int4, int8, quantize, uint4

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


X = (np.arange(-30, 30, dtype=np.float32) / 4).reshape(3, 4, 5)
ZERO_POINTS = np.array([-3, 0, 5, 7])


def test_quantize_per_tensor_is_the_formula() -> None:
    tensor = quantize(X, 0.5, 3)
    assert tensor.granularity is Granularity.PER_TENSOR
    assert (tensor.q == np.clip(np.rint(X / np.float32(0.5)) + 3, -128, 127)).all()
    assert (dequantize(tensor) == (tensor.q.astype(np.float32) - 3) * np.float32(0.5)).all()


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_quantize_per_channel_is_per_tensor_of_each_channel(axis: int) -> None:
    scale = np.linspace(0.25, 1.5, X.shape[axis], dtype=np.float32)
    zeros = np.resize(ZERO_POINTS, X.shape[axis])
    tensor = quantize(X, scale, zeros, axis=axis)
    back = dequantize(tensor)
    assert (tensor.granularity, tensor.q.shape) == (Granularity.PER_CHANNEL, X.shape)
    for i in range(X.shape[axis]):
        one = quantize(np.take(X, i, axis), scale[i], zeros[i])
        assert (np.take(tensor.q, i, axis) == one.q).all()
        assert (np.take(back, i, axis) == dequantize(one)).all()


def test_quantize_per_group_is_per_tensor_of_each_group() -> None:
    scale = np.linspace(0.25, 1.5, 24, dtype=np.float32).reshape(3, 4, 2)
    tensor = quantize(X, scale, group_size=3, dtype=uint4, zero_point=7)
    assert tensor.granularity is Granularity.PER_GROUP
    for at in np.ndindex(3, 4):
        for g, part in enumerate((slice(0, 3), slice(3, 5))):
            assert (tensor.q[at][part] == quantize(X[at][part], scale[(*at, g)], 7, dtype=uint4).q).all()
    assert (dequantize(tensor.pack()) == dequantize(tensor)).all()


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda: quantize(X.astype(np.float64), 1), "x is a float32 array, got float64"),
        (lambda: quantize(np.float32(1), 1), "x is a float32 array"),
        (lambda: quantize(X, 1, 0.5), "zero_point holds whole numbers"),
        (lambda: quantize(X, 1, 200), "zero_point leaves int8: 200 to 200"),
        (lambda: quantize(X, [1, 2], axis=0), r"scale has shape \(2,\), needs \(3,\)"),
        (lambda: quantize(X, np.nan), "scale.* is nan; needs numbers that are positive"),
        (lambda: quantize(X, np.inf), "scale.* is inf; needs numbers that are positive"),
        (lambda: quantize(X, 0), "needs numbers that are positive"),
        (lambda: quantize(X * np.float32(np.nan), 1), "x.* is nan; needs numbers that are not NaN"),
    ],
)
def test_quantize_refuses(call: Any, text: str) -> None:
    with pytest.raises((TypeError, ValueError), match=text):
        call()

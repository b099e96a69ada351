"""The NumPy twin of the network that is trained: the same logits, with and without cache, alone and in a batch."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest

from intsim.models.architecture import Architecture, AttentionKind, NormKind, Positions, Task
from intsim.models.float_transformer import FloatTransformer, sinusoids
from intsim.models.transformer import padded
from intsim.models.vocabulary import BEGIN, END

torch = pytest.importorskip("torch", reason="holds the network that is trained")

from intsim.training import network  # noqa: E402

pytestmark = pytest.mark.compiled  # no kernel of intsim runs here: once is enough
SMALL = Architecture(task=Task.TRANSLATION, width=16, layers=2, heads=2, feed=24, vocabulary=40, positions=12, degree=3)
SHAPES = {
    "integer": SMALL,
    "standard": dataclasses.replace(SMALL, attention=AttentionKind.SOFTMAX, norm=NormKind.STANDARD),
    "post-norm, sinusoids, degree 2": dataclasses.replace(
        SMALL, norm_first=False, position_kind=Positions.SINUSOIDAL, degree=2
    ),
    "language model": dataclasses.replace(SMALL, task=Task.LANGUAGE_MODEL),
}
SOURCES = [[5, 6, 7, 8, 9, 10, END], [11, 5, END], [12, END]]
ATOL = 2e-5  # of logits below 10: some ten float32 sums of at most 24 products a layer


def pair(shape: Architecture) -> tuple[Any, FloatTransformer]:
    torch.manual_seed(3)
    net = network.Network(shape)
    with torch.no_grad():
        for parameter in net.parameters():  # nothing is 0 or 1, as it is before training
            parameter.add_(0.1 * torch.randn_like(parameter))
    net.eval()
    return net, FloatTransformer(shape, {n: p.detach().numpy() for n, p in net.named_parameters()})


@pytest.mark.parametrize("kind", SHAPES)
def test_logits_are_those_of_the_network(kind: str) -> None:
    shape = SHAPES[kind]
    net, twin = pair(shape)
    ids = np.random.default_rng(1).integers(4, 40, (3, 9)).astype(np.int32)
    ids[:, 0] = BEGIN
    source = SOURCES if shape.translates else []
    with torch.no_grad():
        wanted = net(torch.tensor(ids), torch.tensor(padded(SOURCES)[0]) if source else None).numpy()
    assert np.abs(wanted).max() > 0.5
    got = twin.step(twin.start(source, texts=3), ids).reshape(wanted.shape)
    np.testing.assert_allclose(got, wanted, rtol=0, atol=ATOL)
    state = twin.start(source, texts=3)
    pieces = [twin.step(state, ids[:, a:b]).reshape(3, b - a, -1) for a, b in ((0, 1), (1, 2), (2, 6), (6, 9))]
    np.testing.assert_allclose(np.concatenate(pieces, axis=1), wanted, rtol=0, atol=ATOL)
    state = twin.start(source, texts=3, cache=False)
    twin.step(state, ids[:, :4])
    np.testing.assert_allclose(twin.step(state, ids[:, 4:], last=True), wanted[:, -1], rtol=0, atol=ATOL)


@pytest.mark.parametrize("kind", ["integer", "standard"])
def test_a_source_alone_is_as_in_a_batch(kind: str) -> None:
    twin = pair(SHAPES[kind])[1]
    ids = np.array([[BEGIN, 9, 8]] * 3, np.int32)
    together = twin.step(twin.start(SOURCES), ids).reshape(3, 3, -1)
    for i, source in enumerate(SOURCES):
        alone = twin.step(twin.start([source]), ids[:1])
        np.testing.assert_allclose(alone, together[i], rtol=0, atol=ATOL)


def test_sinusoids_are_those_of_the_network() -> None:
    np.testing.assert_allclose(sinusoids(50, 8), network.sinusoids(50, 8).numpy(), rtol=0, atol=1e-6)


def test_what_a_model_cannot_take_is_refused() -> None:
    twin, lm = pair(SMALL)[1], pair(SHAPES["language model"])[1]
    with pytest.raises(ValueError, match="takes source texts"):
        twin.start()
    with pytest.raises(ValueError, match="takes no source"):
        lm.start(SOURCES)
    with pytest.raises(ValueError, match="text 2 has no tokens"):
        twin.start([[5], []])
    with pytest.raises(ValueError, match="a source has 13 tokens, the model has 12 positions"):
        twin.start([[5] * 13])
    state = lm.start()
    lm.step(state, np.full((1, 12), 5, np.int32))
    with pytest.raises(ValueError, match="a text has 13 tokens, the model has 12 positions"):
        lm.step(state, np.full((1, 1), 5, np.int32))

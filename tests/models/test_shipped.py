"""The models that come with intsim: whole, described, and the same translations on every machine."""

from __future__ import annotations

import hashlib
import re

import numpy as np
import pytest

from intsim.models import fused_transformer, transformer_file
from intsim.models.generation import beam, greedy
from intsim.models.transformer_layout import Options, PropagatedModel
from intsim.models.vocabulary import Vocabulary

pytestmark = pytest.mark.compiled  # whole models: too slow without
LARGEST = 8 * 2**20  # bytes
WANTED = {
    "Where is my bicycle?": "Wo ist mein Fahrrad?",
    "I don't know what to do.": "Ich weiß nicht, was zu tun ist.",
    "He reads the paper every morning.": "Er liest das jede Vormittemittag.",
}
# sha256 of the logits (int32), mantissas (int32) and exponents (int16) of the first 24 tokens of TEXT
TEXT = "The river was the first to be dammed , and its water is led to the city by a tunnel of 12 kilometres ."
DIGEST = "dbdff153ccba7b0eb23a45109aefbfd2f5aa88883ca5148863d1187bf99550b2"


@pytest.fixture(scope="module", params=transformer_file.SHIPPED)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def opened(name: str) -> tuple[PropagatedModel, Vocabulary]:
    read = transformer_file.read(transformer_file.find(name))
    return read, Vocabulary(read.tokenizer)


def test_the_card_says_what_the_file_is(name: str) -> None:
    path = transformer_file.find(name)
    card = path.with_suffix(".md").read_text(encoding="utf-8")
    content = path.read_bytes()
    assert len(content) < LARGEST
    assert hashlib.sha256(content).hexdigest() in card
    assert f"{len(content):,} bytes" in card
    read, _ = opened(name)
    assert read.options == Options()
    assert read.source["sha256"] in card
    for said in ("## Data and licence", "## Figures", "## Commands", "CC BY"):
        assert said in card
    assert not re.search(r"/(work|home|tmp|root)/", card)


@pytest.mark.parametrize("backend", ["cpu", "reference"])
def test_translations_are_the_same_on_every_machine(backend: str) -> None:
    read, vocabulary = opened("en-de-int8")
    model = fused_transformer.opened(read, backend)
    ids = vocabulary.encode(list(WANTED))
    assert [vocabulary.decode(t) for t in greedy(model, ids)] == list(WANTED.values())
    found = beam(model, ids[2], width=4)
    assert vocabulary.decode(found.ids) == "Er liest das Papier."


@pytest.mark.parametrize("backend", ["cpu", "reference"])
def test_logits_are_the_same_on_every_machine(backend: str) -> None:
    read, vocabulary = opened("wikitext2-int8")
    model = fused_transformer.opened(read, backend)
    ids = np.array(vocabulary.encode([TEXT]), np.int32)[:, :24]
    assert ids.shape == (1, 24)
    seen = hashlib.sha256()
    for part in model.step(model.start(), ids):
        seen.update(part.astype(part.dtype.newbyteorder("<")).tobytes())
    assert seen.hexdigest() == DIGEST

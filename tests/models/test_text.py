"""Text to ids."""

from __future__ import annotations

import importlib
import sys
from typing import Any

import pytest

from intsim.models.extras import need
from intsim.models.text import TextReader


def test_ids_are_the_tokenizers(checkpoint: Any) -> None:
    read = TextReader(checkpoint.tokenizer, checkpoint.shape).read(["A Cat sleeps .", "dogs"])
    assert [s.ids.tolist() for s in read] == [[2, 4, 6, 11, 22, 3], [2, 7, 23, 3]]
    assert [s.ids.dtype.name for s in read] == ["int32"] * 2
    assert [s.dropped for s in read] == [0, 0]


def test_long_text_is_cut_and_keeps_its_last_special_token(checkpoint: Any) -> None:
    (read,) = TextReader(checkpoint.tokenizer, checkpoint.shape).read(["cat " * 30])
    assert read.ids.tolist() == [2, *[6] * 12, 3]
    assert read.dropped == 18


@pytest.mark.parametrize("text", ["", "   ", "\n"])
def test_text_without_tokens_is_refused(checkpoint: Any, text: str) -> None:
    with pytest.raises(ValueError, match="text 2 has no tokens: "):
        TextReader(checkpoint.tokenizer, checkpoint.shape).read(["a", text])


def test_tokenizers_that_do_not_fit(checkpoint: Any) -> None:
    small = type(checkpoint.shape)(
        **{n: getattr(checkpoint.shape, n) for n in checkpoint.shape.__slots__} | {"vocabulary": 9}
    )
    with pytest.raises(ValueError, match="has 24 tokens, the embedding only 9 rows"):
        TextReader(checkpoint.tokenizer, small)
    for content in (b"{}", b"\xff"):
        with pytest.raises(ValueError, match=r"tokenizer\.json cannot be read"):
            TextReader(content, checkpoint.shape)


def test_a_missing_extra_says_what_to_install(monkeypatch: Any) -> None:
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'intsim\[models\]'"):
        need("tokenizers")


def test_a_broken_extra_keeps_its_own_message(monkeypatch: Any) -> None:
    def broken(name: str) -> Any:
        raise ModuleNotFoundError("no libfoo", name="libfoo")

    monkeypatch.setattr(importlib, "import_module", broken)
    with pytest.raises(ModuleNotFoundError, match="no libfoo"):
        need("tokenizers")

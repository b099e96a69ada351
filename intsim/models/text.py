"""Text to ids, by the checkpoint's own tokenizer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from intsim.models.extras import need
from intsim.models.layout import Array, Shape


@dataclass(frozen=True, slots=True)
class Sentence:
    """ids: int32, special tokens included. dropped: how many tokens did not fit."""

    text: str
    ids: Array
    dropped: int


class TextReader:
    """tokenizer: the bytes of tokenizer.json. Raises ValueError where they are none, or do not fit ``shape``."""

    def __init__(self, tokenizer: bytes, shape: Shape) -> None:
        tokenizers = need("tokenizers")
        try:
            self._tokenizer = tokenizers.Tokenizer.from_str(tokenizer.decode())
        except Exception as wrong:  # the library raises bare Exception
            raise ValueError(f"tokenizer.json cannot be read: {wrong}") from None
        size = self._tokenizer.get_vocab_size()
        if size > shape.vocabulary:
            raise ValueError(f"tokenizer.json has {size} tokens, the embedding only {shape.vocabulary} rows")
        self._tokenizer.no_padding()
        self._tokenizer.no_truncation()
        self._special = self._tokenizer.num_special_tokens_to_add(False)
        self._tokens = shape.tokens

    def read(self, texts: Sequence[str]) -> list[Sentence]:
        """The ids of each text, cut to the model's longest. Raises ValueError for a text without any token."""
        made = []
        plain = self._tokenizer.encode_batch(list(texts), add_special_tokens=False)
        for i, (text, encoding) in enumerate(zip(texts, plain, strict=True)):
            if not encoding.ids:
                raise ValueError(f"text {i + 1} has no tokens: {text[:40]!r}; leave it out")
            room = self._tokens - self._special
            dropped = max(0, len(encoding.ids) - room)
            if dropped:
                encoding.truncate(room)
            ids = self._tokenizer.post_process(encoding).ids
            made.append(Sentence(text, np.array(ids, np.int32), dropped))
        return made

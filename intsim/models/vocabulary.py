"""Text to tokens and back: byte-pair encoding through the ``tokenizers`` library, four special tokens first."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from intsim.models.extras import need
from intsim.models.layout import Array

PAD, BEGIN, END, UNKNOWN = range(4)
SPECIAL = ("<pad>", "<bos>", "<eos>", "<unk>")


class Vocabulary:
    """tokenizer: the text of a tokenizer.json. Raises ValueError where it is none or lacks the special tokens."""

    def __init__(self, tokenizer: str) -> None:
        tokenizers = need("tokenizers")
        try:
            self._tokenizer: Any = tokenizers.Tokenizer.from_str(tokenizer)
        except Exception as wrong:  # the library raises bare Exception
            raise ValueError(f"tokenizer.json cannot be read: {wrong}") from None
        found = [self._tokenizer.token_to_id(word) for word in SPECIAL]
        if found != list(range(len(SPECIAL))):
            raise ValueError(f"tokenizer.json needs {', '.join(SPECIAL)} as its first tokens, got ids {found}")

    @classmethod
    def learn(cls, texts: Iterable[str], size: int) -> Vocabulary:
        """A byte-level vocabulary of at most ``size`` tokens learned from ``texts``; no text is unknown to it.

        ``<unk>`` is a token of its own, for corpora that hold the word. Raises ValueError where ``size``
        does not hold the special tokens and all bytes.
        """
        least = len(SPECIAL) + 256
        if size < least:
            raise ValueError(f"a vocabulary has at least {least} tokens (bytes and special ones), got {size}")
        parts = need("tokenizers")
        made = _byte_level(parts, parts.models.BPE())
        trainer = parts.trainers.BpeTrainer(
            vocab_size=size,
            special_tokens=_special(parts),
            show_progress=False,
            initial_alphabet=parts.pre_tokenizers.ByteLevel.alphabet(),
        )
        made.train_from_iterator(texts, trainer)
        return cls(made.to_str())

    @classmethod
    def of_merges(cls, merges: Array) -> Vocabulary:
        """The byte-level vocabulary with these merges: ids [merges, 2], of which each makes the next token.

        Raises ValueError where a merge names a token that is not made before it.
        """
        parts = need("tokenizers")
        alphabet = sorted(parts.pre_tokenizers.ByteLevel.alphabet())
        tokens = [*SPECIAL, *alphabet]
        pairs = []
        for number, (a, b) in enumerate(merges.tolist()):
            if max(a, b) >= len(tokens) or min(a, b) < len(SPECIAL):
                raise ValueError(
                    f"merge {number} is of tokens {a} and {b}; there are {len(SPECIAL)} to {len(tokens) - 1}"
                )
            pairs.append((tokens[a], tokens[b]))
            tokens.append(tokens[a] + tokens[b])
        made = _byte_level(parts, parts.models.BPE({token: i for i, token in enumerate(tokens)}, pairs))
        made.add_special_tokens(_special(parts))
        return cls(made.to_str())

    def merges(self) -> Array | None:
        """uint16 [merges, 2], from which ``of_merges`` makes this vocabulary to the letter; else None."""
        model = json.loads(self.as_text())["model"]
        ids = model.get("vocab")
        if model.get("type") != "BPE" or max(ids.values()) >= 2**16:
            return None
        try:
            made = np.array([[ids[a], ids[b]] for a, b in model["merges"]], np.uint16).reshape(-1, 2)
            same = Vocabulary.of_merges(made).as_text() == self.as_text()
        except (KeyError, ValueError):
            return None
        return made if same else None

    @property
    def size(self) -> int:
        return int(self._tokenizer.get_vocab_size())

    def as_text(self) -> str:
        """The text of tokenizer.json."""
        return str(self._tokenizer.to_str())

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """The ids of each text, without beginning or end."""
        return [e.ids for e in self._tokenizer.encode_batch([t.strip() for t in texts])]

    def decode(self, ids: Sequence[int]) -> str:
        """The text of ``ids``; special tokens but ``<unk>`` are left out."""
        return str(self._tokenizer.decode([i for i in ids if i >= UNKNOWN], skip_special_tokens=False)).strip()


def _byte_level(parts: Any, model: Any) -> Any:
    made = parts.Tokenizer(model)
    made.normalizer = parts.normalizers.NFC()
    made.pre_tokenizer = parts.pre_tokenizers.ByteLevel(add_prefix_space=True)
    made.decoder = parts.decoders.ByteLevel()
    return made


def _special(parts: Any) -> list[Any]:
    return [parts.AddedToken(word, lstrip=word == SPECIAL[UNKNOWN]) for word in SPECIAL]

"""The Transformer that the float and the integer model share: which part follows which, and what a decoding keeps.

No arithmetic lives here. A value is a float array [tokens, width] in one model, and integers with
their scales in the other; rows are the tokens of all texts in the batch, one text after the other.
What a token may see is always a beginning of the columns: the whole source without its padding, or
the tokens up to its own. So a number of columns for each token (``stop``) says all.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

import numpy as np

from intsim.models.architecture import Architecture
from intsim.models.layout import Array
from intsim.models.vocabulary import PAD

Value = TypeVar("Value")  # the activations of all tokens
Seen = TypeVar("Seen")
Kept = tuple[Array, ...]  # keys and values of an attention: every array is [texts, columns, ...]
Observer = Callable[[str, Any], None]  # (place, value)


@dataclass(slots=True)
class State:
    """What a decoding remembers of its texts, which are all of one length.

    memory: keys and values of the source for each layer's cross-attention; none in a language model.
    seen: int32, one a text: how many columns of the memory are its own. kept: keys and values of the
    tokens so far for each layer, where there is a cache. ids: int32 [texts, tokens so far].
    """

    seen: Array
    ids: Array
    memory: list[Kept] = field(default_factory=list)
    kept: list[Kept] = field(default_factory=list)
    cache: bool = True

    @property
    def length(self) -> int:
        return int(self.ids.shape[1])

    def chosen(self, rows: Array) -> State:
        """The texts of these numbers, in this order; one may come several times."""

        def take(parts: list[Kept]) -> list[Kept]:
            return [tuple(a[rows] for a in part) for part in parts]

        return State(self.seen[rows], self.ids[rows], take(self.memory), take(self.kept), self.cache)


def padded(texts: Sequence[Sequence[int]]) -> tuple[Array, Array]:
    """(ids int32 [texts, longest], their lengths int32). Raises ValueError for a text without a token."""
    lengths = np.array([len(text) for text in texts], np.int32)
    if lengths.size and lengths.min() < 1:
        raise ValueError(f"text {int(lengths.argmin()) + 1} has no tokens; leave it out")
    ids = np.full((len(texts), int(lengths.max(initial=1))), PAD, np.int32)
    for row, text in zip(ids, texts, strict=True):
        row[: len(text)] = text
    return ids, lengths


class Transformer(ABC, Generic[Value]):
    """A model that continues texts. ``start`` reads the sources, ``step`` takes more tokens of each text."""

    shape: Architecture

    # -- what the two kinds of model do differently --------------------------------------------------

    @abstractmethod
    def embed(self, ids: Array, first: int) -> Value:
        """The tokens of ids [texts, length], of which the first stands at place ``first``."""

    @abstractmethod
    def norm(self, name: str, x: Value) -> Value: ...

    @abstractmethod
    def keys(self, name: str, x: Value, texts: int) -> Kept:
        """Keys and values of an attention, by head."""

    @abstractmethod
    def attend(self, name: str, x: Value, kept: Kept, stop: Array) -> Any:
        """The attention's result. stop: int32 [texts, tokens], how many of the columns each token may see."""

    @abstractmethod
    def feed(self, name: str, x: Value) -> Any: ...

    @abstractmethod
    def add(self, x: Value, y: Any) -> Value: ...

    @abstractmethod
    def logits(self, x: Value) -> Any: ...

    @abstractmethod
    def narrow(self, x: Value) -> Value:
        """What a block takes, where no norm stands before it."""

    @abstractmethod
    def rows(self, x: Value, chosen: Array) -> Value:
        """The tokens of these numbers."""

    @abstractmethod
    def best(self, logits: Any) -> Array:
        """int32, one a token: the id with the greatest logit, the lowest of equals."""

    @abstractmethod
    def real(self, logits: Any) -> Array:
        """The logits as float64."""

    # -- what is the same ----------------------------------------------------------------------------

    def start(
        self, source: Sequence[Sequence[int]] = (), *, texts: int = 1, cache: bool = True, see: Observer | None = None
    ) -> State:
        """A decoding of nothing yet.

        source: the ids of each source text; without them ``texts`` continuations of a language model.
        cache=False computes all tokens again in each step: the same result, to the bit.
        Raises ValueError for a model of the other task, an empty source, or one longer than the positions.
        """
        if self.shape.translates != bool(len(source)):
            needed = "source texts, as it translates" if self.shape.translates else "no source, as it is no translator"
            raise ValueError(f"this model takes {needed}")
        if not self.shape.translates:
            none = np.zeros((texts, 0), np.int32)
            return State(np.zeros(texts, np.int32), none, cache=cache)
        ids, lengths = padded(source)
        self._check_length(ids.shape[1], "a source")
        stop = np.broadcast_to(lengths[:, None], ids.shape)
        x = self._seen(see, "encoder.embedding", self.embed(ids, 0))
        for i in range(self.shape.layers):
            x = self._layer(f"encoder.{i}", x, stop, see)
        memory = self._seen(see, "encoder_norm", self.norm("encoder_norm", x)) if self.shape.norm_first else x
        inner = memory if self.shape.norm_first else self.narrow(memory)
        made = [self.keys(f"decoder.{i}.cross_attention", inner, len(ids)) for i in range(self.shape.layers)]
        return State(lengths, np.zeros((len(ids), 0), np.int32), made, cache=cache)

    def step(self, state: State, ids: Array, *, last: bool = False, see: Observer | None = None) -> Any:
        """Logits for what follows each of ids (int32 [texts, new tokens]), a row a token; ``state`` moves on.

        last: only those behind the last token of each text.
        Raises ValueError where the texts become longer than the positions.
        """
        texts, new = ids.shape
        self._check_length(state.length + new, "a text")
        state.ids = np.concatenate([state.ids, ids.astype(np.int32)], axis=1)
        first = state.length - new if state.cache else 0
        if not state.cache:
            state.kept = []
        ids = state.ids[:, first:]
        stop = np.broadcast_to(np.arange(first + 1, state.length + 1, dtype=np.int32), ids.shape)
        x = self._seen(see, "decoder.embedding", self.embed(ids, first))
        for i in range(self.shape.layers):
            x = self._layer(f"decoder.{i}", x, stop, see, state, i)
        x = self._seen(see, "decoder_norm", self.norm("decoder_norm", x)) if self.shape.norm_first else self.narrow(x)
        wanted = 1 if last else new
        if wanted < ids.shape[1]:
            places = np.arange(texts)[:, None] * ids.shape[1] + np.arange(ids.shape[1] - wanted, ids.shape[1])
            x = self.rows(x, places.reshape(-1))
        return self._seen(see, "logits", self.logits(x))

    def next(self, state: State, ids: Array) -> Array:
        """``best`` of the ``step`` behind each text's last token."""
        return self.best(self.step(state, ids, last=True))

    def _layer(
        self, name: str, x: Value, stop: Array, see: Observer | None, state: State | None = None, number: int = 0
    ) -> Value:
        texts = stop.shape[0]

        def own(h: Value) -> Any:
            place = f"{name}.self_attention"
            kept = self.keys(place, h, texts)
            if state is not None:
                if len(state.kept) > number:
                    before = state.kept[number]
                    kept = tuple(np.concatenate(pair, axis=1) for pair in zip(before, kept, strict=True))
                    state.kept[number] = kept
                else:
                    state.kept.append(kept)
            return self._seen(see, place, self.attend(place, h, kept, stop))

        def cross(h: Value) -> Any:
            assert state is not None
            seen = np.broadcast_to(state.seen[:, None], stop.shape)
            place = f"{name}.cross_attention"
            return self._seen(see, place, self.attend(place, h, state.memory[number], seen))

        def feed(h: Value) -> Any:
            return self._seen(see, f"{name}.feed", self.feed(name, h))

        x = self._around(f"{name}.self", own, x, see)
        if state is not None and state.memory:
            x = self._around(f"{name}.cross", cross, x, see)
        return self._around(f"{name}.feed", feed, x, see)

    def _around(self, name: str, block: Callable[[Value], Any], x: Value, see: Observer | None) -> Value:
        def norm(y: Value) -> Value:
            return self._seen(see, f"{name}_norm", self.norm(f"{name}_norm", y))

        def total(y: Any) -> Value:
            return self._seen(see, f"{name}_sum", self.add(x, y))

        return total(block(norm(x))) if self.shape.norm_first else norm(total(block(self.narrow(x))))

    @staticmethod
    def _seen(see: Observer | None, place: str, value: Seen) -> Seen:
        if see:
            see(place, value)
        return value

    def _check_length(self, tokens: int, what: str) -> None:
        if tokens > self.shape.positions:
            raise ValueError(
                f"{what} has {tokens} tokens, the model has {self.shape.positions} positions; give a shorter text"
            )

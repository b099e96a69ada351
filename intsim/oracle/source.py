"""Where drawn numbers come from: one interface, so that shipped cases and property tests draw alike."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Protocol, TypeVar

T = TypeVar("T")


class Source(Protocol):
    """Numbers for ``intsim.oracle.draw``; a property-based test brings its own."""

    def integer(self, low: int, high: int) -> int:
        """An integer in [low, high], any of them equally likely."""

    def integers(self, count: int, low: int, high: int) -> list[int]:
        """So many of them."""

    def reject(self) -> None:
        """Gives up a draw that cannot be completed inside the limits."""


class Rejected(Exception):
    """A draw met a condition across fields that it does not fulfil."""


class Stream:
    """Numbers from SHAKE-256 of a text: the same on every machine and in every release of NumPy."""

    def __init__(self, seed: str) -> None:
        self._seed = seed
        self._block = 0
        self._bytes = b""
        self._at = 0

    def _take(self, count: int) -> int:
        while len(self._bytes) < self._at + count:
            block = hashlib.shake_256(f"{self._seed}|{self._block}".encode()).digest(4096)
            self._bytes, self._at = self._bytes[self._at :] + block, 0
            self._block += 1
        self._at += count
        return int.from_bytes(self._bytes[self._at - count : self._at], "little")

    def integer(self, low: int, high: int) -> int:
        # Sixteen bits more than the range needs: no value is likelier than another by more than 2**-16.
        return low + self._take((high - low).bit_length() // 8 + 3) % (high - low + 1)

    def integers(self, count: int, low: int, high: int) -> list[int]:
        return [self.integer(low, high) for _ in range(count)]

    def reject(self) -> None:
        raise Rejected


def choose(source: Source, options: Sequence[T]) -> T:
    """One of ``options``."""
    return options[source.integer(0, len(options) - 1)]

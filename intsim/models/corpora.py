"""Texts to train on and to measure with: pairs of sentences, and running text."""

from __future__ import annotations

import gzip
import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path

SPLITS = ("train", "valid", "test")
HELD_OUT = 3  # of a hundred: the share of English sentences that each of valid and test gets


def read_text(file: Path) -> str:
    """The text of a file, plain or gzip. Raises OSError, ValueError where it is not UTF-8."""
    raw = file.read_bytes()
    if raw[:2] == b"\x1f\x8b":
        raw = gzip.decompress(raw)
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as wrong:
        raise ValueError(f"{file} is not UTF-8: {wrong}") from None


def lines(file: Path) -> list[str]:
    """The lines of a file, without their ends."""
    return [line.removesuffix("\r") for line in read_text(file).removesuffix("\n").split("\n")]


def parallel(source: Path, target: Path) -> list[tuple[str, str]]:
    """Pairs from two files, line by line. Raises ValueError where they have other numbers of lines."""
    a, b = lines(source), lines(target)
    if len(a) != len(b):
        raise ValueError(f"{source} has {len(a):,} lines and {target} {len(b):,}: line i of both belongs together")
    return list(zip(a, b, strict=True))


def tabbed(file: Path) -> list[tuple[str, str]]:
    """Pairs from one file: source TAB target. Raises ValueError for a line without a tab."""
    made = []
    for number, line in enumerate(lines(file), 1):
        source, tab, target = line.partition("\t")
        if not tab:
            raise ValueError(f"{file}, line {number}: source TAB target is needed, got {line[:60]!r}")
        made.append((source, target.partition("\t")[0]))
    return made


def split_of(sentence: str) -> str:
    """The part of a corpus that a source sentence belongs to, by its text alone: no sentence is in two parts."""
    place = int.from_bytes(hashlib.sha256(sentence.encode()).digest()[:8], "big") % 100
    return "test" if place < HELD_OUT else "valid" if place < 2 * HELD_OUT else "train"


def part(pairs: Sequence[tuple[str, str]], name: str) -> list[tuple[str, str]]:
    """The pairs of one of SPLITS; of valid and test one pair for a source sentence, the first."""
    if name not in SPLITS:
        raise ValueError(f"a part is one of {', '.join(SPLITS)}, got {name!r}")
    chosen = [pair for pair in pairs if split_of(pair[0]) == name]
    if name == "train":
        return chosen
    first: dict[str, str] = {}
    for source, target in chosen:
        first.setdefault(source, target)
    return list(first.items())


def windows(length: int, context: int) -> Iterator[tuple[int, int, int]]:
    """(start, end, first counted) of windows over ``length`` predictions, each with half a window of context.

    Every prediction is counted once; all but the first window count their second half.
    """
    start = 0
    while True:
        end = min(start + context, length)
        yield start, end, start if start == 0 else start + context // 2
        if end == length:
            return
        start += context // 2


def words(text_lines: Sequence[str]) -> int:
    """Words and one end a line: what perplexity per word is counted by on WikiText."""
    return sum(len(line.split()) + 1 for line in text_lines)

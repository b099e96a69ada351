"""Corpora and architectures: parts without a common sentence, windows that count each token once, clear errors."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from intsim.models import corpora
from intsim.models.architecture import Architecture, Positions, Task

SHAPE = Architecture(
    task=Task.LANGUAGE_MODEL, width=8, layers=1, heads=2, feed=8, vocabulary=300, positions=16
)  # fmt: skip


def test_no_sentence_is_in_two_parts() -> None:
    pairs = [(f"sentence {i // 2}", f"Satz {i}") for i in range(4000)]
    parts = {name: corpora.part(pairs, name) for name in corpora.SPLITS}
    sources = {name: {s for s, _ in part} for name, part in parts.items()}
    assert set.union(*sources.values()) == {s for s, _ in pairs}
    assert sum(map(len, sources.values())) == 2000
    assert len(parts["test"]) == len(sources["test"])
    assert parts["test"][0][1] == next(t for s, t in pairs if s == parts["test"][0][0])
    assert 0.02 < len(sources["test"]) / 2000 < 0.04
    with pytest.raises(ValueError, match="a part is one of train, valid, test"):
        corpora.part(pairs, "dev")


@pytest.mark.parametrize("length", [1, 7, 8, 9, 12, 13, 40])
def test_windows_count_every_prediction_once(length: int) -> None:
    made = list(corpora.windows(length, 8))
    assert [i for start, end, first in made for i in range(first, end)] == list(range(length))
    assert all(end - start <= 8 for start, end, _ in made)
    assert all(first - start >= 4 for start, _, first in made[1:])


def test_files_plain_and_packed(tmp_path: Path) -> None:
    (tmp_path / "plain").write_text("a\nb\n")
    (tmp_path / "packed").write_bytes(gzip.compress(b"a\nb\n"))
    assert corpora.lines(tmp_path / "plain") == corpora.lines(tmp_path / "packed") == ["a", "b"]
    (tmp_path / "latin").write_bytes(b"\xe4")
    with pytest.raises(ValueError, match="is not UTF-8"):
        corpora.lines(tmp_path / "latin")
    assert corpora.words(["a b c", ""]) == 5


def test_an_architecture_reads_back_what_it_wrote() -> None:
    assert Architecture.from_text(SHAPE.as_text()) == SHAPE
    assert SHAPE.head_width == 4
    for change, (other, text) in {
        '"heads": 2': ('"heads": 3', "width 8 is no multiple of 3 heads"),
        '"task": "language_model"': ('"task": "poem"', "poem"),
        '"format": 1': ('"format": 2', "needs format 1"),
        '"degree": 3': ('"grade": 3', "unknown field grade"),
        '"feed": 8': ('"feed": 0', "feed is a positive integer"),
    }.items():
        with pytest.raises(ValueError, match=text):
            Architecture.from_text(SHAPE.as_text().replace(change, other))
    with pytest.raises(ValueError, match="even width"):
        Architecture(
            task=Task.LANGUAGE_MODEL, width=3, layers=1, heads=1, feed=8, vocabulary=9, positions=4,
            position_kind=Positions.SINUSOIDAL,
        )  # fmt: skip

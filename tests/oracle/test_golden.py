"""Golden outputs: the same bytes everywhere, and every kind of damage is an error that comes at once."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result

from intsim.cli import main
from intsim.oracle import golden, judge, runner
from intsim.oracle.adapter import load
from intsim.registry import all_ops, get

FILE = "requantize/single_rounding-v1.json"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return Path(shutil.copytree(golden.root(), tmp_path / "reference_outputs", ignore=shutil.ignore_patterns("models")))


def invoke(*arguments: Any) -> Result:
    return CliRunner().invoke(main, ["golden", *map(str, arguments)])


def rehash(folder: Path, name: str = FILE) -> None:
    """Makes the index agree with a changed file: what is left is for the reader to find."""
    index = json.loads((folder / "INDEX.json").read_text())
    index["sha256"][name] = hashlib.sha256((folder / name).read_bytes()).hexdigest()
    (folder / "INDEX.json").write_text(json.dumps(index))


def edit(folder: Path, change: Callable[[Any], None], name: str = FILE) -> None:
    content = json.loads((folder / name).read_text())
    change(content)
    (folder / name).write_text(json.dumps(content))
    rehash(folder, name)


SOME = ("requantize.single_rounding", "softmax", "matmul.integer")


def test_building_twice_gives_the_committed_bytes(tmp_path: Path) -> None:
    """Some ops by the command; tests/test_operations.py holds every op's text against its file."""
    assert invoke("build", *SOME, "--folder", tmp_path / "new").exit_code == 0
    committed = golden.root()
    names = [golden.file_name(op) for op in all_ops() if op.family == "softmax" or op.name in SOME]
    assert len(names) > 10
    for name in names:
        assert (tmp_path / "new" / name).read_bytes() == (committed / name).read_bytes(), name
    again = invoke("build", *SOME, "--folder", tmp_path / "new")
    assert "0 files new or changed" in again.output


def test_building_some_keeps_the_index_of_the_others(folder: Path) -> None:
    before = (folder / "INDEX.json").read_bytes()
    assert invoke("build", "requantize.single_rounding", "--folder", folder).exit_code == 0
    assert (folder / "INDEX.json").read_bytes() == before
    index = json.loads(before)["sha256"]
    assert list(index) == sorted(golden.file_name(op) for op in all_ops())
    assert "no op is called 'softmax.none'" in invoke("build", "softmax.none", "--folder", folder).output


def test_a_published_file_is_not_overwritten(folder: Path) -> None:
    edit(folder, lambda content: content["cases"][0]["outputs"]["q"]["data"].__setitem__(0, 5))
    before = (folder / FILE).read_bytes()
    refused = invoke("build", "requantize.single_rounding", "--folder", folder)
    assert refused.exit_code == 4
    assert "raise the op's version" in refused.output
    assert (folder / FILE).read_bytes() == before
    assert (
        "1 files new or changed"
        in invoke("build", "requantize.single_rounding", "--folder", folder, "--replace").output
    )
    assert invoke("check", "--folder", folder, "--backend", "reference").exit_code == 0


def test_more_cases_and_other_words_are_no_change(folder: Path) -> None:
    def change(content: Any) -> None:
        content["cases"].pop()
        content["cases"][0]["comment"] = "other words"

    edit(folder, change)
    assert "1 files new or changed" in invoke("build", "requantize.single_rounding", "--folder", folder).output
    assert (folder / FILE).read_text() == golden.text(get("requantize.single_rounding"))


def test_check_replays_every_backend(folder: Path) -> None:
    done = invoke("check", "--folder", folder)
    assert done.exit_code == 0, done.output
    for backend in ("reference", "cpu"):
        assert (
            f"{backend}: {len(golden.verify(folder))} of {len(golden.verify(folder))} cases equal to the bit"
            in done.output
        )


def _flip(path: Path) -> None:
    raw = bytearray(path.read_bytes())
    raw[len(raw) // 2] ^= 1
    path.write_bytes(bytes(raw))


DAMAGE: dict[str, tuple[Callable[[Path], Any], str]] = {
    "a flipped byte": (lambda f: _flip(f / FILE), "the index says"),
    "a truncated file": (lambda f: (f / FILE).write_bytes((f / FILE).read_bytes()[:500]), "the index says"),
    "a truncated file with its hash": (
        lambda f: ((f / FILE).write_bytes((f / FILE).read_bytes()[:500]), rehash(f)),
        "is not whole",
    ),
    "a missing file": (lambda f: (f / FILE).unlink(), "No such file"),
    "no index": (lambda f: (f / "INDEX.json").unlink(), "No such file"),
    "an index that is no JSON": (lambda f: (f / "INDEX.json").write_text("{"), "is not whole"),
    "an index of another schema": (
        lambda f: (f / "INDEX.json").write_text('{"schema": 9, "sha256": {}}'),
        "needs schema 1",
    ),
    "a path that leaves the folder": (
        lambda f: (f / "INDEX.json").write_text(json.dumps({"schema": 1, "sha256": {"../../etc/passwd": "0" * 64}})),
        "is no name of a golden file",
    ),
    "an absolute path": (
        lambda f: (f / "INDEX.json").write_text(json.dumps({"schema": 1, "sha256": {"/etc/passwd": "0" * 64}})),
        "is no name of a golden file",
    ),
    "a hash that is none": (
        lambda f: (f / "INDEX.json").write_text(json.dumps({"schema": 1, "sha256": {FILE: "00"}})),
        "the sha256 of",
    ),
    "a file that the index does not list": (
        lambda f: (f / "requantize/single_rounding-v9.json").write_text("{}"),
        "does not list requantize/single_rounding-v9.json",
    ),
    "a huge declared shape": (
        lambda f: edit(f, lambda c: c["cases"][0]["inputs"]["acc"].update(shape=[2**40, 2**40])),
        "elements, 17 are there",
    ),
    "a negative shape": (
        lambda f: edit(f, lambda c: c["cases"][0]["inputs"]["acc"].update(shape=[-1, -17])),
        "is outside what a golden file holds",
    ),
    "a value beyond its type": (
        lambda f: edit(f, lambda c: c["cases"][0]["inputs"]["acc"]["data"].__setitem__(0, 2**31)),
        "a value leaves int32",
    ),
    "a float where an integer belongs": (
        lambda f: edit(f, lambda c: c["cases"][0]["inputs"]["acc"]["data"].__setitem__(0, 1.5)),
        "1.5 is no integer",
    ),
    "another type": (lambda f: edit(f, lambda c: c["cases"][0]["inputs"]["acc"].update(type="int8")), "needs int32"),
    "a parameter out of range": (
        lambda f: edit(f, lambda c: c["cases"][0]["params"].update(shift=[63])),
        "needs 0 <= shift <= 62",
    ),
    "a rule that does not exist": (
        lambda f: edit(f, lambda c: c["cases"][0]["params"].update(rounding="HALF_UP")),
        "HALF_UP",
    ),
    "a missing output": (lambda f: edit(f, lambda c: c["cases"][0].update(outputs={})), "KeyError: 'q'"),
    "another op": (lambda f: edit(f, lambda c: c.update(op="requantize.dyadic")), "holds requantize.dyadic"),
    "an op that does not exist": (lambda f: edit(f, lambda c: c.update(op="requantize.none")), "no op is called"),
    "a version that does not exist": (lambda f: edit(f, lambda c: c.update(version=7)), "is at version 1"),
    "a deeply nested text": (lambda f: ((f / FILE).write_text("[" * 10**6), rehash(f)), "is not whole"),
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_damage_is_an_error_before_anything_is_replayed(
    kind: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    damage, text = DAMAGE[kind]
    damage(folder)

    def replay(*_: Any) -> None:
        raise AssertionError("a case was replayed")

    monkeypatch.setattr(runner, "call", replay)
    done = invoke("check", "--folder", folder)
    assert done.exit_code == 4, done.output
    assert text in done.output, done.output
    assert "golden outputs damaged: " in done.output


def test_a_file_that_is_too_large_is_not_read(folder: Path) -> None:
    with (folder / FILE).open("wb") as file:
        file.truncate(golden.LARGEST_FILE + 1)
    done = invoke("check", "--folder", folder)
    assert (done.exit_code, "has at most" in done.output) == (4, True), done.output


def test_damage_stops_a_check_too(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _flip(folder / FILE)
    monkeypatch.setattr(golden, "root", lambda: folder)
    golden.cases.cache_clear()
    golden._read_index.cache_clear()
    done = CliRunner().invoke(main, ["check", "reference", "--op", "requantize.single_rounding"])
    golden.cases.cache_clear()
    assert done.exit_code == 4
    assert "golden outputs damaged" in done.output


def test_a_wrong_output_in_a_golden_file_is_a_mismatch_and_a_dispute(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def change(content: Any) -> None:
        content["cases"][0]["outputs"]["q"]["data"][0] += 1

    edit(folder, change)
    done = invoke("check", "--folder", folder)
    assert done.exit_code == 1
    assert "1 of 17 elements of q differ" in done.output
    monkeypatch.setattr(golden, "root", lambda: folder)
    golden.cases.cache_clear()
    report = judge.check(load("reference"), ops=["requantize.single_rounding"])
    golden.cases.cache_clear()
    assert report.exit_code == 6
    assert "REFERENCES DISAGREE" in str(report)


def test_values_beyond_53_bits_are_text() -> None:
    content = json.loads(golden.text(get("requantize.multiplier16")))
    assert all(abs(v) < 2**53 for case in content["cases"] for v in case["inputs"]["acc"]["data"] if isinstance(v, int))
    content = json.loads(golden.text(get("requantize.float64_ties_away")))
    bits = content["cases"][0]["params"]["multiplier_bits"]
    assert bits == [hex(int(np.float64(1 / 16).view(np.int64)))]


def test_flags_tell_why_a_case_exists() -> None:
    content = json.loads(golden.text(get("requantize.single_rounding")))
    assert content["cases"][0]["flags"] == ["Extreme", "Saturates", "Tie"]
    assert set(content["flags"]) >= {flag for case in content["cases"] for flag in case["flags"]}
    assert "Overflows" in {f for c in json.loads(golden.text(get("matmul.integer")))["cases"] for f in c["flags"]}


def test_unknown_backend_and_unwritable_folder(tmp_path: Path) -> None:
    assert "there is no backend 'gpu'" in invoke("check", "--backend", "gpu").output
    (tmp_path / "file").write_text("")
    assert invoke("build", "--folder", tmp_path / "file").exit_code == 2

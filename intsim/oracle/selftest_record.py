"""The record of a selftest: where it ran, with what, and the hash of every op; and the README's part that shows it."""

from __future__ import annotations

import datetime
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from intsim.documents import write_between
from intsim.oracle import golden
from intsim.oracle.evidence import machine
from intsim.oracle.selftest import Row

FILE = "records/selftest.json"  # in the folder of the golden outputs
START, END = "<!-- made by: intsim selftest --update README.md -->", "<!-- end of selftest -->"


@dataclass(frozen=True, slots=True)
class Entry:
    """One op of a record. ways: how it was run; inputs, hash: of the cases and of their outputs (SHA-256)."""

    cases: int
    elements: int
    runs: int
    ways: Sequence[str]
    inputs: str
    hash: str


@dataclass(frozen=True, slots=True)
class Record:
    """A selftest in which every way to run every op gave the same bits. date: ISO 8601."""

    date: str
    machine: str
    devices: Sequence[str]
    threads: Sequence[int]
    versions: Mapping[str, str]
    ops: Mapping[str, Entry]


def of(rows: Sequence[Row], devices: Sequence[str], threads: Sequence[int], versions: Mapping[str, str]) -> Record:
    """The record of a run. Raises ValueError where ways differ: that is no record of anything."""
    parted = [row.op for row in rows if row.parted]
    if parted:
        raise ValueError(f"not recorded: {', '.join(parted)} gave different bits")
    entries = {
        row.op: Entry(row.cases, row.elements, row.runs, [str(way) for way in row.ways], row.inputs, row.hash)
        for row in sorted(rows, key=lambda row: row.op)
    }
    return Record(
        datetime.datetime.now(datetime.UTC).date().isoformat(),
        machine(),
        list(devices),
        list(threads),
        versions,
        entries,
    )


def path() -> Path:
    return golden.root() / FILE


def write(file: Path, record: Record) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps({"schema": 1, **asdict(record)}, indent=1) + "\n")


def read(file: Path | None = None) -> Record | None:
    """The record; None where there is none. Raises GoldenError where it is damaged."""
    file = path() if file is None else file
    if not file.is_file():
        return None
    try:
        content: dict[str, Any] = json.loads(file.read_text())
        ops = {name: Entry(**entry) for name, entry in content["ops"].items()}
        return Record(ops=ops, **{k: v for k, v in content.items() if k not in ("schema", "ops")})
    except (ValueError, KeyError, TypeError, AttributeError) as damaged:
        raise golden.GoldenError(f"{file} is not the record of a selftest: {damaged}") from None


def markdown(record: Record) -> str:
    """The README's part: one line of what ran where, then every op with its hash."""
    cases = sum(entry.cases for entry in record.ops.values())
    runs = sum(entry.runs for entry in record.ops.values())
    elements = sum(entry.elements for entry in record.ops.values())
    versions = ", ".join(f"{name} {version}" for name, version in record.versions.items())
    lines = [
        f"{len(record.ops)} operations, {cases:,} cases with {elements:,} output elements, {runs:,} runs: devices "
        f"{', '.join(record.devices)}; {', '.join(map(str, record.threads))} CPU threads; programs and tuned kernels. "
        f"All ways gave the same bits. {record.date}, {record.machine}; {versions}.",
        "",
        "<details><summary>Every operation: cases, ways to run it, SHA-256 of its outputs</summary>",
        "",
        "| operation | cases | ways | outputs |",
        "|---|---|---|---|",
        *(f"| {name} | {e.cases} | {len(e.ways)} | `{e.hash[:16]}` |" for name, e in record.ops.items()),
        "",
        "</details>",
    ]
    return "\n".join(lines)


def update(document: Path, record: Record) -> bool:
    """Writes ``markdown`` between the two marks of ``document``; whether it changed.

    Raises ValueError where the marks are not there.
    """
    return write_between(document, START, END, markdown(record))

"""What was measured: one line an operator of a published system."""

from __future__ import annotations

import datetime
import json
import platform
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from intsim.oracle import golden
from intsim.oracle.adapter import Capability, published, system, systems
from intsim.oracle.judge import Report

FILE = "records/systems.json"  # in the folder of the golden outputs


@dataclass(frozen=True, slots=True)
class Line:
    """One operator of one profile of a system, compared with the variant that states it.

    cases, elements: judged, to the bit. mismatches: elements that differ. unsupported: cases that the
    system does not serve. versions: of the packages. date: ISO 8601. machine: architecture and processor.
    """

    system: str
    profile: str
    serves: str
    op: str
    params: str
    defect: str
    cases: int
    elements: int
    mismatches: int
    unsupported: int
    versions: Mapping[str, str]
    date: str
    machine: str

    @property
    def place(self) -> tuple[str, str]:
        return self.system, self.profile


def of(report: Report, target: str, profile: str | None) -> list[Line]:
    """The lines of a check of one system."""
    name = published(target)
    if name not in systems():
        raise ValueError(f"{target} is no published system: there are {', '.join(systems())}")
    known = system(name).profiles
    return [
        Line(
            name,
            profile or next(iter(known), ""),
            row.serves or row.op.name,
            row.op.id,
            _held(row.capabilities),
            " ".join(dict.fromkeys(c.defect for c in row.capabilities if c.defect)),
            row.judged,
            row.elements,
            row.wrong,
            len(row.judgements) - row.judged - len(row.failures),
            report.versions,
            datetime.datetime.now(datetime.UTC).date().isoformat(),
            machine(),
        )
        for row in report.rows
    ]


def _held(capabilities: Sequence[Capability]) -> str:
    """The parameters that a profile stands for; those with a long choice are left to ``intsim ops show``."""
    fields: dict[str, dict[str, None]] = {}
    for capability in capabilities:
        for name, values in capability.only.items():
            fields.setdefault(name, {}).update(dict.fromkeys(_text(v) for v in values))
    return ", ".join(f"{name}={'|'.join(values)}" for name, values in fields.items() if 0 < len(values) <= 6)


def _text(value: Any) -> str:
    if isinstance(value, np.ndarray):
        return ",".join(map(str, value.reshape(-1).tolist()))
    return str(getattr(value, "name", value))


def machine() -> str:
    """Architecture and processor."""
    from llvmlite import binding

    return f"{platform.machine()} {binding.get_host_cpu_name()}"


def path() -> Path:
    """The file of what was measured for this release."""
    return golden.root() / FILE


def read(file: Path | None = None) -> list[Line]:
    """The lines of a file, by system and profile; none where it does not exist."""
    file = path() if file is None else file
    if not file.is_file():
        return []
    try:
        return [Line(**entry) for entry in json.loads(file.read_text())["lines"]]
    except (ValueError, KeyError, TypeError) as damaged:
        raise golden.GoldenError(f"{file} is not a file of measured lines: {damaged}") from None


def write(file: Path, lines: Iterable[Line]) -> None:
    """Puts ``lines`` in place of those of the same systems and profiles."""
    new = list(lines)
    places = {line.place for line in new}
    kept = [line for line in read(file) if line.place not in places]
    ordered = sorted([*kept, *new], key=lambda line: (line.system, line.profile))
    file.parent.mkdir(parents=True, exist_ok=True)
    written = file.with_suffix(".new")
    written.write_text(json.dumps({"schema": 1, "lines": [asdict(line) for line in ordered]}, indent=1) + "\n")
    written.replace(file)  # what was there stays whole until the new file is

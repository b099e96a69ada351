"""The tables made of what was measured: for a terminal, and for the README."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from pathlib import Path

from intsim.documents import write_between
from intsim.oracle.adapter import System, system, systems
from intsim.oracle.evidence import Line

START, END = "<!-- made by: intsim profiles --update README.md -->", "<!-- end -->"
HEADER = ("system", "operator", "intsim", "parameters", "cases", "elements", "mismatches", "date", "runs as")


def rows(lines: Sequence[Line], names: Sequence[str] = ()) -> list[tuple[str, ...]]:
    """The table: measured lines, then what no variant states and why."""
    made: list[tuple[str, ...]] = []
    for name in names or systems():
        stated = system(name)
        measured = [line for line in lines if line.system == name]
        made += [
            (
                title(stated, line),
                line.serves,
                line.op,
                line.params,
                f"{line.cases:,}",
                f"{line.elements:,}",
                f"{line.mismatches:,}",
                line.date,
                stated.runs,
            )
            for line in measured
        ]
        there = {line.profile for line in measured}
        absent = [p for p in stated.profiles or [""] if p not in there]
        made += [
            (f"{stated.title} {p}".strip(), "", "", f"not measured: {stated.needs}", "", "", "", "", stated.runs)
            for p in absent
        ]
        made += [(stated.title, op, "", f"left: {why}", "", "", "", "", "") for op, why in stated.left.items()]
    return made


def title(stated: System, line: Line) -> str:
    """The system with its version and profile; a C library goes by its profile, and a commit by seven digits."""
    version = next(iter(line.versions.values()), "")
    if len(version) >= 12 and version.isalnum():
        version = version[:7]
    names = (line.profile, version) if stated.runs == "C library" else (stated.title, version, line.profile)
    return " ".join(filter(None, names))


def _table(header: Sequence[str], body: Sequence[Sequence[str]]) -> list[str]:
    rows = [" | ".join(cell.replace("|", "\\|") for cell in row) for row in body]
    return [f"| {' | '.join(header)} |", "|" + "---|" * len(header), *(f"| {row} |" for row in rows)]


def _sums(lines: Sequence[Line]) -> list[str]:
    return [
        str(len(lines)),
        f"{sum(line.cases for line in lines):,}",
        f"{sum(line.elements for line in lines):,}",
        f"{sum(line.mismatches for line in lines):,}",
    ]


def markdown(lines: Sequence[Line]) -> str:
    """The README's tables: a row a system, every operator under it, what is left and why, the known defects."""
    grouped = [(place, list(group)) for place, group in groupby(lines, key=lambda line: line.place)]
    summary = [
        [title(system(name), group[0]), *_sums(group), group[0].date, system(name).runs] for (name, _), group in grouped
    ]
    summary.append(["**all**", *_sums(lines), "", ""])
    body = _table(("system", "operators", "cases", "elements", "mismatches", "measured", "runs as"), summary)
    body += ["", "<details><summary>Every operator, with the variant and parameters that state it</summary>", ""]
    for (name, _), group in grouped:
        body += [f"**{title(system(name), group[0])}** ({group[0].machine})", ""]
        cells = [(o.serves, o.op, o.params, f"{o.cases:,}", f"{o.elements:,}", f"{o.mismatches:,}") for o in group]
        body += [*_table(("operator", "intsim", "parameters", "cases", "elements", "mismatches"), cells), ""]
    body += ["</details>", "", "<details><summary>What no variant states, and why</summary>", ""]
    body += [f"- {system(n).title}, {op}: {why}" for n in systems() for op, why in system(n).left.items()]
    body += ["", "</details>", "", "<details><summary>Known defects that variants reproduce</summary>", ""]
    defects: dict[tuple[str, str], list[str]] = {}
    for o in lines:
        if o.defect:
            defects.setdefault((title(system(o.system), o), o.defect), []).append(o.serves)
    body += [f"- {name}, {', '.join(operators)}: {defect}" for (name, defect), operators in defects.items()]
    return "\n".join([*body, "", "</details>"])


def update(document: Path, lines: Sequence[Line]) -> bool:
    """Writes the table between the two marks of ``document``; whether it changed.

    Raises ValueError where the marks are not there.
    """
    return write_between(document, START, END, markdown(lines))

"""What a benchmark is, and how it is measured.

A module of this package is a subject. It has a docstring and ``cases(threads)``, which yields ``Case``s:
the same work done by this package ("intsim") and by others. All ways run in one process, in turns,
so that whatever else the machine does meets them alike. The figure is the median of the rounds; the
ratio is the time of the other over the time of intsim: above 1, intsim is faster.

With one thread the time is that of the process's CPU (waiting for a core does not count; a library may work in
a thread of its own), with more it is the clock's.
"""

from __future__ import annotations

import importlib.metadata
import math
import platform
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

OURS = "intsim"
LEAST = 2e-3  # seconds a turn: shorter work is repeated


@dataclass(frozen=True, slots=True)
class Case:
    """name: the work, in words. ways: who does it, as a call without arguments; one is "intsim".

    notes: remarks on a way, such as that its result is not exact.
    """

    name: str
    ways: Mapping[str, Callable[[], object]]
    notes: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Measured:
    case: Case
    seconds: Mapping[str, float]

    def ratio(self, way: str) -> float:
        return self.seconds[way] / self.seconds[OURS]


def measure(case: Case, threads: int, rounds: int) -> Measured:
    clock = time.process_time if threads == 1 else time.perf_counter
    turns: dict[str, int] = {}
    for way, call in case.ways.items():
        call()  # compiles, allocates
        start = clock()
        call()
        turns[way] = max(1, math.ceil(LEAST / max(clock() - start, 1e-7)))
    seconds: dict[str, list[float]] = {way: [] for way in case.ways}
    for _ in range(rounds):
        for way, call in case.ways.items():
            start = clock()
            for _ in range(turns[way]):
                call()
            seconds[way].append((clock() - start) / turns[way])
    return Measured(case, {way: statistics.median(found) for way, found in seconds.items()})


def subjects() -> list[str]:
    """The modules of this package that declare cases."""
    files = Path(__file__).parent.glob("*.py")
    return sorted(f.stem for f in files if "\ndef cases(" in f.read_text())


def header(threads: int, rounds: int) -> str:
    versions = []
    for package in ("numpy", "numba", "torch", "onnxruntime", "openvino"):
        try:
            versions.append(f"{package} {importlib.metadata.version(package)}")
        except importlib.metadata.PackageNotFoundError:
            versions.append(f"no {package}: left out")
    kind = "CPU time" if threads == 1 else "wall time"
    return f"{_processor()}; {threads} thread(s), {kind}, medians of {rounds}; Python {platform.python_version()}, " + (
        ", ".join(versions)
    )


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    told = dict(line.split(":", 1) for line in lines if ":" in line)
    fields = {key.strip(): value.strip() for key, value in told.items()}
    family = f" (family {fields['cpu family']}, model {fields['model']})" if "cpu family" in fields else ""
    return fields.get("model name", platform.processor() or platform.machine()) + family


def table(found: Sequence[Measured], *, markdown: bool) -> str:
    """Microseconds of intsim, and of each other way its ratio; a dash where it was not run."""
    others = list(dict.fromkeys(way for m in found for way in m.seconds if way != OURS))
    rows = [["", "intsim, us", *others]]
    for m in found:
        ratios = [f"{m.ratio(way):.2f}x" if way in m.seconds else "-" for way in others]
        rows.append([m.case.name, f"{m.seconds[OURS] * 1e6:.0f}", *ratios])
    if len(found) > 1:
        means = []
        for way in others:
            logs = [math.log(m.ratio(way)) for m in found if way in m.seconds]
            means.append(f"{math.exp(sum(logs) / len(logs)):.2f}x")
        rows.append(["geometric mean", "", *means])
    notes = dict(item for m in found for item in m.case.notes.items())
    told = "".join(f"\n{way}: {text}" for way, text in notes.items())
    if markdown:
        lines = ["| " + " | ".join(row) + " |" for row in rows]
        return "\n".join([lines[0], "|---" * len(rows[0]) + "|", *lines[1:]]) + told.replace("\n", "\n\n")
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "\n".join("  ".join(f"{cell:>{w}}" for cell, w in zip(row, widths, strict=True)) for row in rows) + told

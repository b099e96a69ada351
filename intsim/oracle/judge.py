"""Judging a backend: every case of every op that it serves, and proof that the judge is awake."""

from __future__ import annotations

import itertools
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from intsim import registry
from intsim.execute import reference
from intsim.op import Op
from intsim.oracle import cases, golden
from intsim.oracle.adapter import Adapter, Capability
from intsim.oracle.cases import Case
from intsim.oracle.compare import Judgement, Verdict, compare
from intsim.oracle.runner import InProcess, Runner

PATIENCE = 3  # crashes or time-outs of one op after which its other cases are left out: the verdict stands

CONFORMS, MISMATCH, USAGE, FAILED_TO_RUN, GOLDEN_DAMAGED, VACUOUS, REFERENCES_DISAGREE = range(7)


@dataclass(slots=True)
class Row:
    """The result for one op, or for one of several operators of a system that the op states."""

    op: Op
    serves: str = ""  # what the backend calls it
    capabilities: list[Capability] = field(default_factory=list)
    judgements: list[Judgement] = field(default_factory=list)
    skipped: int = 0  # golden cases outside what the backend says it serves
    seconds: float = 0.0

    def count(self, *verdicts: Verdict) -> int:
        return sum(j.verdict in verdicts for j in self.judgements)

    @property
    def judged(self) -> int:
        return sum(j.verdict.judged for j in self.judgements)

    @property
    def elements(self) -> int:
        """Output elements compared."""
        return sum(j.total for j in self.judgements)

    @property
    def wrong(self) -> int:
        """Elements that differ; all of a case's where nothing could be compared."""
        return sum(j.wrong or sum(a.size for a in j.case.wanted) for j in self.failures)

    @property
    def failures(self) -> list[Judgement]:
        return [j for j in self.judgements if j.verdict not in (Verdict.CONFORMS, Verdict.UNSUPPORTED)]


@dataclass(slots=True)
class Report:
    """The result of a check."""

    name: str
    versions: dict[str, str]
    rows: list[Row] = field(default_factory=list)
    proofs: int = 0  # planted wrong expectations that were caught
    asleep: list[str] = field(default_factory=list)  # ids of cases whose planted wrong expectation was not
    disputed: list[str] = field(default_factory=list)  # ids of golden cases with which the spec itself disagrees

    @property
    def failures(self) -> list[Judgement]:
        return [j for row in self.rows for j in row.failures]

    @property
    def vacuous(self) -> list[str]:
        """Why the check proves nothing; empty where it does."""
        reasons = [f"a planted wrong expectation was not caught in {id_}" for id_ in self.asleep]
        reasons += [f"{row.op.id}: no case was judged ({_reason(row)})" for row in self.rows if not row.judged]
        return reasons if self.rows else ["the backend serves no operation that was asked for"]

    @property
    def exit_code(self) -> int:
        """0 conforms, 1 mismatch, 3 the backend raised, crashed or timed out, 5 vacuous, 6 references disagree."""
        failures = self.failures
        if self.disputed:
            return REFERENCES_DISAGREE
        if any(j.verdict.failed_to_run for j in failures):
            return FAILED_TO_RUN
        if failures:
            return MISMATCH
        return VACUOUS if self.vacuous else CONFORMS

    def raise_for_mismatch(self) -> None:
        """Raises AssertionError with the first failure where the backend does not conform."""
        from intsim.oracle.report import describe

        if self.failures:
            raise AssertionError(describe(self.failures[0]))
        if self.vacuous:
            raise AssertionError("; ".join(self.vacuous))

    def details(self, most: int = 5) -> str:
        """The first failures in full."""
        from intsim.oracle.report import describe

        return "\n\n".join(describe(failure) for failure in self.failures[:most])

    def __str__(self) -> str:
        from intsim.oracle.report import table

        return table(self)


def _reason(row: Row) -> str:
    texts = {j.text for j in row.judgements if j.verdict is Verdict.UNSUPPORTED}
    if texts:
        return f"unsupported: {'; '.join(sorted(texts)[:3])}"
    failed = [j for j in row.judgements if j.verdict.failed_to_run]
    return failed[0].verdict.value if failed else "there was none"


def cases_for(capability: Capability, *, seed: str = "intsim", label: str = "random") -> Iterator[Case | None]:
    """The cases of one capability: golden or directed, pseudorandom (named by ``label``), the backend's own.

    None stands for a golden case outside the capability.
    """
    op = registry.get(capability.op)
    stated = golden.cases(op) or list(cases.directed(op))
    for case in stated:
        yield case if _inside(case, capability) else None
    yield from cases.random(
        op, capability.cases, seed=seed, longest=capability.longest, only=capability.only, label=label
    )
    yield from capability.directed()


def _rows(adapter: Adapter) -> list[tuple[Row, list[str]]]:
    """The rows to fill, and for each of a row's capabilities the label of its pseudorandom cases."""
    rows: dict[tuple[str, str], tuple[Row, list[str]]] = {}
    seen: Counter[str] = Counter()
    for capability in adapter.capabilities():
        key = (capability.op, capability.serves)
        row, labels = rows.setdefault(key, (Row(registry.get(capability.op), capability.serves), []))
        row.capabilities.append(capability)
        labels.append(f"random-{seen[capability.op]}" if seen[capability.op] else "random")
        seen[capability.op] += 1
    return list(rows.values())


def _inside(case: Case, capability: Capability) -> bool:
    for name, allowed in capability.only.items():
        value: Any = case.params
        for part in name.split("."):
            value = getattr(value, part, None)
        if value is None:  # a dimension
            sizes = {
                d: n
                for port, a in zip(case.op.inputs, case.inputs, strict=True)
                for d, n in zip(port.core, a.shape[a.ndim - len(port.core) :], strict=True)
            }
            value = sizes.get(name)
        if not any(np.array_equal(value, one) for one in allowed):
            return False
    return True


def check(
    adapter: Adapter,
    *,
    ops: Sequence[str] = (),
    case: str | None = None,
    seed: str = "intsim",
    runner: Runner | None = None,
    progress: Callable[[Row], None] = lambda row: None,
) -> Report:
    """Judges ``adapter`` on every case of what it serves.

    ops: only these (names or families). case: only the one with this id. seed: of the pseudorandom
    cases. runner: how the backend is called (default: in this process). progress: called with each
    row when it is complete. Raises GoldenError where the golden outputs are damaged.
    """
    runner = InProcess(adapter) if runner is None else runner
    report = Report(adapter.name, dict(adapter.versions()))
    for row, labels in _rows(adapter):
        name = row.op.name
        if (ops and not {name, name.split(".")[0]} & set(ops)) or (case and not case.startswith(f"{name}/")):
            continue
        report.rows.append(row)
        start, done = time.perf_counter(), set[str]()
        for one in itertools.chain.from_iterable(
            cases_for(c, seed=seed, label=label) for c, label in zip(row.capabilities, labels, strict=True)
        ):
            if one is None:
                row.skipped += case is None
            elif one.id not in done and case in (None, one.id):
                done.add(one.id)  # a golden case may lie inside two capabilities
                one.serves = row.serves
                _judge(one, runner, row, report)
            if row.count(Verdict.CRASHED, Verdict.TIMED_OUT) >= PATIENCE:
                break
        row.seconds = time.perf_counter() - start
        progress(row)
    return report


def _judge(case: Case, runner: Runner, row: Row, report: Report) -> None:
    outcome = runner.call(case)
    if outcome.arrays is None:
        assert outcome.verdict is not None
        row.judgements.append(Judgement(case, outcome.verdict, outcome.text))
        return
    judgement = compare(case, outcome.arrays)
    if judgement.verdict is Verdict.MISMATCH and case.expected is not None:
        spec = reference(case.op, *case.inputs, p=case.params)
        if compare(case, spec).verdict is not Verdict.CONFORMS:
            report.disputed.append(case.id)
    if judgement.verdict is Verdict.CONFORMS and not row.count(Verdict.CONFORMS):
        judgement = _prove_awake(case, outcome.arrays, runner, report) or judgement
    row.judgements.append(judgement)


def _prove_awake(case: Case, got: tuple[np.ndarray[Any, Any], ...], runner: Runner, report: Report) -> Judgement | None:
    """Once an op: a planted wrong expectation must be caught, and a second call must give the same bits."""
    planted = tuple(a.copy() for a in case.wanted)
    if planted[0].size:
        planted[0].view(np.uint8).reshape(-1)[0] ^= 1
        if compare(case, got, planted).verdict is Verdict.MISMATCH:
            report.proofs += 1
        else:
            report.asleep.append(case.id)
    again = runner.call(case)
    if again.arrays is None or compare(case, again.arrays).verdict is not Verdict.CONFORMS:
        return Judgement(case, Verdict.NOT_REPEATABLE, again.text or "the same call gave other bits")
    return None

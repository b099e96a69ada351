"""What a check found, as text for a terminal."""

from __future__ import annotations

from collections.abc import Iterable

from intsim.oracle.compare import Judgement, Verdict
from intsim.oracle.judge import Report, Row

HEADER = f"{'op':48} {'cases':>6} {'elements':>9} {'wrong':>6} {'unsupported':>12} {'time':>8}"


def line(row: Row) -> str:
    """One row of the table."""
    verdict = "" if not row.failures else f"  {row.failures[0].verdict.value.upper()}"
    if not row.failures and not row.judged:
        verdict = "  NOTHING JUDGED"
    name = f"{row.serves} = {row.op.id}" if row.serves else row.op.id
    return (
        f"{name:48} {row.judged:6} {row.elements:9,} {len(row.failures):6} "
        f"{row.count(Verdict.UNSUPPORTED):12} {row.seconds:6.2f} s{verdict}"
    )


def table(report: Report) -> str:
    return "\n".join([HEADER, *map(line, report.rows), *summary(report)])


def summary(report: Report) -> Iterable[str]:
    """The totals, and the reasons where nothing was proven."""
    judged = sum(row.judged for row in report.rows)
    elements = sum(row.elements for row in report.rows)
    failures = report.failures
    skipped = sum(row.skipped for row in report.rows)
    ops = len({row.op.name for row in report.rows})
    yield (
        f"\n{report.name}: {ops} ops, {judged} cases, {elements:,} elements compared to the bit, "
        f"{len(failures)} cases failed"
    )
    if skipped:
        yield f"{skipped} golden cases lie outside what the backend says it serves"
    if report.proofs:
        yield f"proof of life: {report.proofs} planted wrong expectations, all caught; first case of each op repeatable"
    for reason in report.vacuous:
        yield f"VACUOUS: {reason}"
    for id_ in report.disputed:
        yield f"REFERENCES DISAGREE: golden file and spec give different outputs for {id_}; please report it"
    verdicts = {
        0: "conforms",
        1: "does NOT conform",
        3: "FAILED TO RUN",
        5: "NOTHING PROVEN",
        6: "could not be judged: REFERENCES DISAGREE",
    }
    yield f"{report.name} {verdicts[report.exit_code]} (exit {report.exit_code})"


def describe(judgement: Judgement, target: str | None = None) -> str:
    """One failure in full: which case, why it exists, how many, where, what went in, got, wanted, how to repeat.

    target: what the command line calls the backend; None for one that was judged from Python.
    """
    case = judgement.case
    lines = [
        f"-- {case.id}",
        f"   {judgement.verdict.value.upper()}  {judgement.text}",
        f"   why this case exists: {case.comment}",
    ]
    if judgement.verdict is Verdict.MISMATCH:
        share = 100 * judgement.wrong / judgement.total
        lines[1] = (
            f"   MISMATCH  {judgement.wrong:,} of {judgement.total:,} elements of {judgement.output} differ "
            f"({share:.3g} %), {judgement.text}".rstrip(", ")
        )
    for d in judgement.differences:
        into = "  ".join(f"{name}={value}" for name, value in d.inputs.items())
        lines.append(f"   {judgement.output}{list(d.index)}: got {d.got}, wanted {d.wanted}    from  {into}")
    if judgement.differences:
        lines.append(f"   parameters: {case.params}")
    again = f"intsim check {target} --case '{case.id}'" if target else f"intsim.check(adapter, case={case.id!r})"
    lines.append(f"   repeat: {again}")
    return "\n".join(lines)

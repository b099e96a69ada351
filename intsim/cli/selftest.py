"""``intsim selftest``: every way to run every op, one hash an op."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import click

_FILE = click.Path(dir_okay=False, path_type=Path)


def _listed(text: str, known: tuple[str, ...], what: str) -> list[str]:
    words = [word.strip() for word in text.split(",") if word.strip()]
    for word in words:
        if word not in known:
            raise click.UsageError(f"there is no {what} {word!r}; there are {', '.join(known)}")
    return list(dict.fromkeys(words))


@click.command()
@click.option("--devices", default="cpu", show_default=True, metavar="LIST", help="cpu, cuda or cpu,cuda.")
@click.option("--threads", default="1,2,8", show_default=True, metavar="LIST", help="Numbers of CPU threads.")
@click.option(
    "--tiles", type=click.Choice(["all", "none"]), default="all", show_default=True, help="Tuned kernels, each alone."
)
@click.option("--op", "ops", multiple=True, metavar="NAME", help="Only this op or family (repeatable).")
@click.option("--jobs", type=click.IntRange(1), help="Processes at a time (default: one a core, 8 at most).")
@click.option("--record", is_flag=True, help="Keep the hashes with the golden outputs, if every op is equal.")
@click.option("--file", type=_FILE, help="Where the record lies (default: with the golden outputs).")
@click.option("--update", type=_FILE, metavar="FILE", help="Write the last record into FILE, between its two marks.")
def selftest(
    devices: str,
    threads: str,
    tiles: str,
    ops: tuple[str, ...],
    jobs: int | None,
    record: bool,
    file: Path | None,
    update: Path | None,
) -> None:
    """Run every op on every device, with every number of threads and every tuned kernel: one hash an op.

    \b
    intsim selftest --devices cpu,cuda --threads 1,2,8 --tiles all
    intsim selftest --devices cpu,cuda --record     keeps what was found in reference_outputs/records
    intsim selftest --update README.md              shows the last record

    \b
    Exit codes: 0 all equal, 1 some way gives other bits, 2 usage or no GPU, 4 the record is damaged,
    5 a tuned kernel was not reached.
    """
    from intsim.oracle import golden, judge, selftest_record

    if update is not None:
        try:
            last = selftest_record.read(file)
            if last is None:
                raise click.UsageError("there is no record yet: intsim selftest --devices cpu,cuda --record makes one")
            changed = selftest_record.update(update, last)
        except golden.GoldenError as damaged:
            click.echo(str(damaged), err=True)
            sys.exit(judge.GOLDEN_DAMAGED)
        except (OSError, ValueError) as refused:
            raise click.UsageError(str(refused)) from None
        click.echo(f"{update}: {'written' if changed else 'is up to date'}")
        return
    if record and ops:
        raise click.UsageError("--record takes all ops: leave out --op")
    _run(_listed(devices, ("cpu", "cuda"), "device"), _numbers(threads), tiles == "all", ops, jobs, record, file)


def _numbers(text: str) -> list[int]:
    try:
        numbers = [int(word) for word in text.split(",")]
    except ValueError:
        raise click.UsageError(f"--threads takes numbers, as in 1,2,8; got {text!r}") from None
    if not all(1 <= n <= 1024 for n in numbers):
        raise click.UsageError(f"--threads takes numbers from 1 to 1024; got {text!r}")
    return numbers


def _run(
    devices: list[str],
    threads: list[int],
    tiles: bool,
    ops: tuple[str, ...],
    jobs: int | None,
    record: bool,
    file: Path | None,
) -> None:
    from intsim import __version__, registry
    from intsim.oracle import judge, selftest as work, selftest_record
    from intsim.oracle.adapters.builtin import Builtin, no_gpu

    if not devices:
        raise click.UsageError("--devices names none")
    if "cuda" in devices and (reason := no_gpu()):
        raise click.UsageError(reason)
    names = [n for n in registry.names() if not ops or {n, n.split(".")[0]} & set(ops)]
    if not names:
        raise click.UsageError(f"no op is called {ops[0]!r}; intsim ops list shows all")
    versions = {"intsim": __version__}
    for device in devices:
        versions |= Builtin(device).versions()
    click.echo("  ".join(f"{name} {version}" for name, version in versions.items()) + "\n")
    click.echo(f"{'op':40} {'cases':>6} {'elements':>10} {'ways':>5} {'runs':>6}  outputs")
    rows = []
    jobs = jobs or min(os.cpu_count() or 1, 8, len(names))
    for row in work.rows(names, jobs, devices=devices, threads=threads, tiles=tiles):
        rows.append(row)
        verdict = "  DIFFERS" if row.parted else "  NOT REACHED" if row.unreached else ""
        click.echo(
            f"{row.op:40} {row.cases:6} {row.elements:10,} {len(row.ways):5} {row.runs:6}  {row.hash[:16]}{verdict}"
        )
        for line in (*row.parted[:5], *row.unreached):
            click.echo(f"    {line}")
    parted, unreached = sum(bool(r.parted) for r in rows), sum(bool(r.unreached) for r in rows)
    ways = {str(way).partition(", intsim")[0] for row in rows for way in row.ways}
    click.echo(
        f"\n{len(rows)} ops, {sum(r.runs for r in rows):,} runs, {len(ways)} ways; {len(rows) - parted} ops with one "
        f"hash, {parted} that differ, {unreached} with a tuned kernel that no case reached"
    )
    if parted:
        sys.exit(judge.MISMATCH)
    if record:
        place = selftest_record.path() if file is None else file
        selftest_record.write(place, selftest_record.of(rows, devices, threads, versions))
        click.echo(f"recorded in {place}; intsim selftest --update README.md shows it")
    sys.exit(judge.VACUOUS if unreached else judge.CONFORMS)

"""``intsim profiles``: which published systems intsim reproduces, and what was measured."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import click

_FILE = click.Path(dir_okay=False, path_type=Path)


@click.group(invoke_without_command=True)
@click.option("--system", "chosen", multiple=True, metavar="NAME", help="Only this system (repeatable).")
@click.option("--markdown", is_flag=True, help="As the README shows it.")
@click.option("--json", "as_json", is_flag=True, help="Machine-readable.")
@click.option("--update", type=_FILE, metavar="FILE", help="Write the table into FILE, between its two marks.")
@click.pass_context
def profiles(ctx: click.Context, chosen: tuple[str, ...], markdown: bool, as_json: bool, update: Path | None) -> None:
    """The published systems that intsim reproduces: operator, variant, cases, elements, mismatches, date.

    \b
    intsim profiles measure litert     compares again what is installed here, and keeps the figures
    intsim check litert --profile P    judges one profile, without keeping them
    """
    if ctx.invoked_subcommand:
        return
    from intsim.oracle import evidence, evidence_tables, golden
    from intsim.oracle.adapter import systems
    from intsim.oracle.judge import GOLDEN_DAMAGED

    unknown = [name for name in chosen if name not in systems()]
    if unknown:
        raise click.UsageError(f"there is no system {unknown[0]!r}; there are {', '.join(systems())}")
    try:
        lines = evidence.read()
    except golden.GoldenError as damaged:
        click.echo(str(damaged), err=True)
        sys.exit(GOLDEN_DAMAGED)
    if update is not None:
        try:
            changed = evidence_tables.update(update, lines)
        except (OSError, ValueError) as refused:
            raise click.UsageError(str(refused)) from None
        click.echo(f"{update}: {'written' if changed else 'is up to date'}")
    elif as_json:
        shown = [line for line in lines if not chosen or line.system in chosen]
        click.echo(json.dumps([dataclasses.asdict(line) for line in shown], indent=1))
    elif markdown:
        click.echo(evidence_tables.markdown(lines))
    else:
        table = [evidence_tables.HEADER, *evidence_tables.rows(lines, chosen)]
        widths = [min(max(len(row[i]) for row in table), 44) for i in range(len(evidence_tables.HEADER))]
        for row in table:
            click.echo("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


@profiles.command()
@click.argument("names", nargs=-1, metavar="[SYSTEM]...")
@click.option("--file", type=_FILE, help="Where to keep the figures (default: with the golden outputs).")
def measure(names: tuple[str, ...], file: Path | None) -> None:
    """Compare every profile of the SYSTEMs (default: of all that install as packages), each in its own process.

    A source checkout is measured where it is: intsim profiles measure ivit:FOLDER. So is a C library:
    intsim check c:LIBRARY.so --profile P --record FILE.
    """
    from intsim.oracle import evidence
    from intsim.oracle.adapter import published, system, systems

    for name in names:
        if published(name) not in systems():
            raise click.UsageError(f"there is no system {name!r}; there are {', '.join(systems())}")
    file = evidence.path() if file is None else file
    failed = []
    for name in names or [n for n in systems() if system(n).runs not in {"C library", "source checkout"}]:
        for profile in system(published(name)).profiles or ("",):
            command = [sys.executable, "-m", "intsim", "check", name, "--record", str(file)]
            command += ["--profile", profile] if profile else []
            command += ["--install"] if system(published(name)).requirement else []
            if subprocess.run(command, check=False).returncode:
                failed.append(" ".join(filter(None, (name, profile))))
            click.echo()
    click.echo(f"figures in {file}; intsim profiles shows them")
    if failed:
        click.echo(f"not equal, or not installed: {', '.join(failed)}", err=True)
        sys.exit(1)

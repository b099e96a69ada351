"""``python -m tests.bench [NAMES]``: tables of ratios to other libraries."""

from __future__ import annotations

import importlib
import os
from pathlib import Path

import click

from intsim.documents import write_between

from tests.bench import frame


@click.command()
@click.argument("names", nargs=-1, type=click.Choice(frame.subjects()))
@click.option("--threads", default=1, show_default=True, help="Threads of every library; 1 counts CPU time.")
@click.option("--rounds", default=21, show_default=True, help="Turns of each way; the median counts.")
@click.option("--only", default="", help="Leave out cases whose name does not hold this text.")
@click.option(
    "--update",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="A document whose tables of NAMES with so many threads are written anew, such as README.md.",
)
def main(names: tuple[str, ...], threads: int, rounds: int, only: str, update: Path | None) -> None:
    """Measure NAMES (all subjects where none is given) beside other libraries in one process."""
    if only and update:
        raise click.UsageError("--update writes whole tables; leave out --only")
    for variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ[variable] = str(threads)  # read when the libraries load, which is below
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # spinning threads would disturb the others' turns
    from intsim.backends import cpu
    from intsim.compiling import compile_ahead

    compile_ahead()
    cpu.THREADS = threads
    header = frame.header(threads, rounds)
    click.echo(header)
    for name in names or frame.subjects():
        subject = importlib.import_module(f"tests.bench.{name}")
        click.echo(f"\n{(subject.__doc__ or '').splitlines()[0]}")
        found = []
        for case in subject.cases(threads):
            if only in case.name:
                found.append(frame.measure(case, threads, rounds))
                click.echo(f"  {case.name}", err=True)
        if found:
            click.echo(frame.table(found, markdown=False))
        if found and update:
            what = f"{name} --threads {threads}"
            start = f"<!-- made by: python -m tests.bench {what} --update README.md -->"
            write_between(update, start, f"<!-- end of {what} -->", f"{header}\n\n{frame.table(found, markdown=True)}")


if __name__ == "__main__":
    main()

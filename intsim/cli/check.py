"""``intsim check``: judge a backend."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from intsim.oracle.adapter import Adapter
    from intsim.oracle.runner import InProcess, Isolated

SHOWN = 5  # failures in full


@click.command()
@click.argument("backend")
@click.option("--profile", metavar="NAME", help="Which of a system's kernels (see intsim profiles).")
@click.option("--python", metavar="PATH", help="The Python that holds a system which needs an environment of its own.")
@click.option("--install", is_flag=True, help="First make that environment in the cache folder, once (pip, network).")
@click.option("--op", "ops", multiple=True, metavar="NAME", help="Only this op or family (repeatable).")
@click.option("--case", metavar="ID", help="Only the case with this id, as a report names it.")
@click.option("--seed", default="intsim", show_default=True, help="Seed of the pseudorandom cases.")
@click.option("--timeout", default=60.0, show_default=True, metavar="SECONDS", help="Limit for one case of a backend.")
@click.option(
    "--in-process", is_flag=True, help="Call the backend in this process: for a debugger; a crash ends the run."
)
@click.option(
    "--device",
    type=click.Choice(["cpu", "cuda"]),
    default="cpu",
    show_default=True,
    help="Where inputs and output buffers lie: cuda gives device arrays (DLPack, __cuda_array_interface__).",
)
@click.option("--all", "show_all", is_flag=True, help=f"Show every failure in full, not only {SHOWN} an op.")
@click.option(
    "--record",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Write the figures into this file, for intsim profiles.",
)
def check(
    backend: str,
    profile: str | None,
    python: str | None,
    install: bool,
    ops: tuple[str, ...],
    case: str | None,
    seed: str,
    timeout: float,
    in_process: bool,
    device: str,
    show_all: bool,
    record: Path | None,
) -> None:
    """Judge BACKEND against the spec and the golden outputs, bit for bit.

    BACKEND is cpu, cuda, reference, a published system (intsim profiles lists them), one that is a source
    checkout SYSTEM:FOLDER, a C library c:LIBRARY.so, a program stdio:COMMAND, a file FILE.py:NAME or a module
    package.module:NAME. NAME is a function decorated with @intsim.adapter("op", ...); checkouts, libraries,
    programs, files and modules run in a process of their own.

    \b
    Exit codes: 0 conforms, 1 mismatch, 2 usage, 3 the backend raised, crashed or timed out,
    4 golden outputs damaged, 5 nothing was proven.
    """
    from intsim import __version__
    from intsim.oracle import golden, judge, report
    from intsim.oracle.runner import ChildFailed

    known(ops, case)
    if record is not None and (ops or case):
        raise click.UsageError("--record takes a whole check: leave out --op and --case")
    if install:
        _install(backend, python)
    if device == "cuda":
        _need_cuda()
    adapter, runner = _load(backend, profile, None if in_process else timeout, python, device)
    versions = "  ".join(f"{name} {version}" for name, version in adapter.versions().items())
    click.echo(f"intsim {__version__}  {adapter.name}  {versions}  python {sys.version.split()[0]}  seed {seed!r}\n")
    if backend == "cpu" and not case:
        _compile(ops)
    if not case:
        click.echo(report.HEADER)

    named = f"{backend} --device cuda" if device == "cuda" else backend

    def progress(row: judge.Row) -> None:
        if not case:
            click.echo(report.line(row))
        for failure in row.failures if show_all else row.failures[:SHOWN]:
            click.echo("\n" + report.describe(failure, named) + "\n")
        left = len(row.failures) - SHOWN
        if left > 0 and not show_all:
            click.echo(f"   ... and {left} more failures of {row.op.id} (--all shows them)\n")

    try:
        result = judge.check(adapter, ops=ops, case=case, seed=seed, runner=runner, progress=progress)
    except golden.GoldenError as damaged:
        click.echo(f"golden outputs damaged: {damaged}", err=True)
        sys.exit(judge.GOLDEN_DAMAGED)
    except ChildFailed as failed:
        click.echo(f"{backend} could not be started again: {failed}", err=True)
        sys.exit(judge.FAILED_TO_RUN)
    finally:
        if runner is not None:
            runner.close()
    if case and not any(row.judgements for row in result.rows):
        raise click.UsageError(
            f"there is no case {case!r} among those of {backend}; pseudorandom ones depend on --seed"
        )
    click.echo("\n".join(report.summary(result)))
    if record is not None:
        from intsim.oracle import evidence

        evidence.write(record, evidence.of(result, backend, profile))
    sys.exit(result.exit_code)


def _install(backend: str, python: str | None) -> None:
    """Makes the environment of a system that needs one of its own."""
    from intsim.oracle import environments, judge
    from intsim.oracle.adapter import system, systems

    requirement = system(backend).requirement if backend in systems() else ""
    if not requirement:
        raise click.UsageError(f"{backend} runs in no environment of its own: there is nothing to install")
    if python is not None:
        raise click.UsageError("--python names a Python that has the packages, --install makes one: give one of them")
    try:
        environments.install(requirement)
    except environments.InstallFailed as failed:
        click.echo(f"{backend} could not be installed: {failed}", err=True)
        sys.exit(judge.USAGE)


def _load(
    backend: str, profile: str | None, timeout: float | None, python: str | None, device: str
) -> tuple[Adapter, Isolated | InProcess | None]:
    """The adapter, and the process of its own that a kernel of unknown origin gets where there is a ``timeout``."""
    from intsim.oracle import judge
    from intsim.oracle.adapter import BUILT_IN, PROGRAM, load, systems
    from intsim.oracle.program import Program
    from intsim.oracle.protocol import WorkerFailed
    from intsim.oracle.runner import ChildFailed, InProcess, Isolated

    runner: Isolated | None = None
    try:
        apart = backend.startswith(PROGRAM) or backend in (*BUILT_IN, *systems())
        if timeout is not None and not apart:
            runner = Isolated(backend, timeout, profile, device)  # before it is loaded here: its import may crash too
        adapter = load(backend, profile, python)
        if isinstance(adapter, Program) and timeout is not None:
            adapter.timeout = timeout
        adapter.versions()  # a worker that cannot start says so here
        return adapter, runner or InProcess(adapter, device)
    except ChildFailed as failed:
        click.echo(f"{backend} could not be loaded: {failed}", err=True)
        sys.exit(judge.FAILED_TO_RUN if failed.timed_out or "Error" not in str(failed) else judge.USAGE)
    except (ValueError, ImportError) as wrong:
        raise click.UsageError(str(wrong)) from None
    except WorkerFailed as failed:
        click.echo(f"{backend} could not be started: {failed}", err=True)
        sys.exit(judge.FAILED_TO_RUN)


def _need_cuda() -> None:
    from intsim.oracle.adapters.builtin import no_gpu

    reason = no_gpu()
    if reason:
        raise click.UsageError(reason)


def _compile(ops: tuple[str, ...]) -> None:
    """The kernels that a first run would compile one after the other, on all cores."""
    from intsim import registry
    from intsim.oracle import warm

    names = warm.missing([n for n in registry.names() if not ops or {n, n.split(".")[0]} & set(ops)])
    if len(names) > 1:
        with click.progressbar(length=len(names), label="compiling kernels, first run only", file=sys.stderr) as bar:
            warm.fill(names, lambda name: bar.update(1))


def known(ops: tuple[str, ...], case: str | None) -> None:
    """Refuses names that no op or family has: a typing error must not select nothing."""
    from intsim import registry

    families = {name.split(".")[0] for name in registry.names()}
    try:
        for name in ops:
            if name not in families:
                registry.get(name)
        if case:
            registry.get(case.rsplit("/", 1)[0])
    except ValueError as wrong:
        raise click.UsageError(str(wrong)) from None

"""``intsim golden``: build and check the golden outputs."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from intsim.op import Op

_FOLDER = click.Path(file_okay=False, path_type=Path)


@click.group()
def golden() -> None:
    """Golden outputs: rebuild them from the spec, or verify and replay them."""


def _chosen(names: tuple[str, ...]) -> tuple[Op, ...] | None:
    """The ops and families of these names; None for none. Raises UsageError for one that does not exist."""
    from intsim import registry

    families = {op.family for op in registry.all_ops()} if names else set()
    try:
        chosen = [registry.all_ops() if n in families else (registry.get(n),) for n in names]
    except ValueError as wrong:
        raise click.UsageError(str(wrong)) from None
    found = [op for n, ops in zip(names, chosen, strict=True) for op in ops if n in (op.family, op.name, op.id)]
    return tuple(dict.fromkeys(found)) or None


@golden.command()
@click.argument("names", nargs=-1, metavar="[OP]...")
@click.option("--folder", type=_FOLDER, default=Path("reference_outputs"), show_default=True, help="Where to write.")
@click.option("--replace", is_flag=True, help="Allow a file of an existing version to change (nobody has it yet).")
def build(names: tuple[str, ...], folder: Path, replace: bool) -> None:
    """Write the golden files from the spec on unbounded integers; the same bytes on every machine.

    OP: only these operations or families.
    """
    from intsim.oracle import golden as files
    from intsim.oracle.judge import GOLDEN_DAMAGED

    try:
        changed = files.build(folder, replace=replace, ops=_chosen(names))
    except files.GoldenError as refused:
        click.echo(str(refused), err=True)
        sys.exit(GOLDEN_DAMAGED)
    except OSError as error:
        raise click.UsageError(f"cannot write to {folder}: {error.strerror}") from None
    for name in changed:
        click.echo(f"wrote {folder / name}")
    click.echo(f"{len(changed)} files new or changed in {folder}")


@golden.command()
@click.option("--folder", type=_FOLDER, help="The folder to check (default: the one that this installation uses).")
@click.option(
    "--backend", "backends", multiple=True, default=("reference", "cpu"), show_default=True, help="Replayed on these."
)
def check(folder: Path | None, backends: tuple[str, ...]) -> None:
    """Verify every checksum and value, then replay every case on the backends.

    Exit codes: 0 all equal, 1 a backend differs, 4 the data is damaged.
    """
    from intsim.execute import BACKENDS
    from intsim.oracle import golden as files
    from intsim.oracle.adapters.builtin import Builtin
    from intsim.oracle.compare import Verdict, compare
    from intsim.oracle.judge import GOLDEN_DAMAGED, MISMATCH
    from intsim.oracle.report import describe
    from intsim.oracle.runner import call

    unknown = [name for name in backends if name not in BACKENDS]
    if unknown:
        raise click.UsageError(f"there is no backend {unknown[0]!r}; there are {', '.join(BACKENDS)}")
    try:
        folder = files.root() if folder is None else folder
        cases = files.verify(folder)
    except files.GoldenError as damaged:
        click.echo(f"golden outputs damaged: {damaged}", err=True)
        sys.exit(GOLDEN_DAMAGED)
    click.echo(f"{folder}: {len({c.op for c in cases})} files, {len(cases)} cases, every sha256 as the index says")
    failed = 0
    for name in backends:
        wrong = []
        for case in cases:
            outcome = call(Builtin(name), case)
            judgement = compare(case, outcome.arrays) if outcome.arrays is not None else None
            if judgement is None:
                click.echo(f"{name}: {case.id}: {outcome.text}")
                wrong.append(case)
            elif judgement.verdict is not Verdict.CONFORMS:
                click.echo(describe(judgement, name))
                wrong.append(case)
        click.echo(f"{name}: {len(cases) - len(wrong)} of {len(cases)} cases equal to the bit")
        failed += len(wrong)
    sys.exit(MISMATCH if failed else 0)


@golden.command()
@click.argument("names", nargs=-1, metavar="[OP]...")
@click.option("--folder", type=_FOLDER, help="The folder to audit (default: the one that this installation uses).")
def audit(names: tuple[str, ...], folder: Path | None) -> None:
    """Say what the golden cases do not show: rules not told apart, types never left, ends never reached.

    OP: only these operations or families.

    Exit codes: 0 they show all of it, 4 the data is damaged, 5 something is not shown.
    """
    from intsim.oracle import golden as files
    from intsim.oracle.audit import audit as missing
    from intsim.oracle.judge import GOLDEN_DAMAGED, VACUOUS

    try:
        cases = files.verify(files.root() if folder is None else folder)
    except files.GoldenError as damaged:
        click.echo(f"golden outputs damaged: {damaged}", err=True)
        sys.exit(GOLDEN_DAMAGED)
    found, chosen = 0, _chosen(names)
    for op in dict.fromkeys(case.op for case in cases if chosen is None or case.op in chosen):
        lines = missing(op, [case for case in cases if case.op is op])
        found += len(lines)
        click.echo(f"{op.id:38} {'shows all' if not lines else ''}".rstrip())
        for line in lines:
            click.echo(f"    {line}")
    sys.exit(VACUOUS if found else 0)

"""``intsim warmup``: compile the kernels ahead of their first use."""

from __future__ import annotations

import time

import click


@click.command()
@click.argument("ops", nargs=-1)
@click.option("--clear", is_flag=True, help="Forget the kernels on disk, of every version, before compiling.")
def warmup(ops: tuple[str, ...], clear: bool) -> None:
    """Compile the CPU kernels and keep them on disk, so that later runs start warm.

    OPS: names or families; all where none is given. Each op's kernel is compiled, its tuned kernels for the types
    and rules of its examples, and with all ops those of the Integer Transformer.
    The folder is $INTSIM_CACHE_DIR, or intsim in the user's cache folder.
    """
    import shutil

    from intsim import registry
    from intsim.cli.check import known
    from intsim.compiling import cache_folder
    from intsim.oracle import warm

    known(ops, None)
    folder = cache_folder()
    if clear:
        for old in folder.parent.glob("kernels-*"):
            shutil.rmtree(old)
    start = time.perf_counter()
    chosen = [n for n in registry.names() if not ops or {n, n.split(".")[0]} & set(ops)]
    names, tuned = warm.missing(chosen), warm.missing_tuned(chosen)
    with click.progressbar(length=len(names) + len(tuned), label="compiling") as bar:
        warm.fill(names, lambda name: bar.update(1), tuned=tuned)
    if not ops and tuned:
        _translate()
    seconds = time.perf_counter() - start
    click.echo(
        f"{len(names)} kernels and the tuned kernels of {len(tuned)} ops compiled into {folder} ({seconds:.1f} s)"
    )


def _translate() -> None:
    """One text through the shipped translator, whose kernels belong to no op."""
    from intsim.models import transformer_file
    from intsim.models.fused_transformer import opened
    from intsim.models.generation import greedy

    try:
        model = opened(transformer_file.read(transformer_file.find("en-de-int8")))
    except (ImportError, OSError, ValueError) as lacking:
        click.echo(f"not compiled: the kernels of the Integer Transformer ({lacking})", err=True)
        return
    greedy(model, [[4, 5, 6]])

"""``intsim warmup``: compile the kernels ahead of their first use."""

from __future__ import annotations

import time

import click


@click.command()
@click.option("--clear", is_flag=True, help="Forget the kernels on disk, of every version, before compiling.")
def warmup(clear: bool) -> None:
    """Compile the CPU kernels and keep them on disk, so that later runs start warm.

    The folder is $INTSIM_CACHE_DIR, or intsim in the user's cache folder.
    """
    import shutil

    from intsim import registry
    from intsim.compiling import cache_folder
    from intsim.execute import run
    from intsim.oracle.cases import directed

    folder = cache_folder()
    if clear:
        for old in folder.parent.glob("kernels-*"):
            shutil.rmtree(old)
    ops = registry.all_ops()
    start = time.perf_counter()
    with click.progressbar(ops, label="compiling", item_show_func=lambda op: op.id if op else "") as listed:
        for op in listed:
            for case in directed(op):
                run(op, *case.inputs, p=case.params, tuned=False)
    click.echo(f"{len(ops)} ops ready in {folder} ({time.perf_counter() - start:.1f} s)")

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
    from intsim.oracle import warm

    folder = cache_folder()
    if clear:
        for old in folder.parent.glob("kernels-*"):
            shutil.rmtree(old)
    start = time.perf_counter()
    names = warm.missing(registry.names())
    with click.progressbar(length=len(names), label="compiling") as bar:
        warm.fill(names, lambda name: bar.update(1))
    click.echo(f"{len(names)} kernels compiled into {folder} ({time.perf_counter() - start:.1f} s)")

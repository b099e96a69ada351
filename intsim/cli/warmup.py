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
    and rules of its examples, and with all ops those of the integer encoder and of the Integer Transformer.
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
        _encode()
        _translate()
    seconds = time.perf_counter() - start
    click.echo(
        f"{len(names)} kernels and the tuned kernels of {len(tuned)} ops compiled into {folder} ({seconds:.1f} s)"
    )


def _encode() -> None:
    """One text through a small encoder of random weights, whose kernels belong to no op."""
    import numpy as np

    from intsim.models import calibrate, checkpoint, convert, fused_encoder, layout

    shape = layout.Shape(layers=1, heads=1, hidden=64, inner=64, vocabulary=2, positions=2, types=1, tokens=2)
    draw, ids = np.random.default_rng(0), np.array([[0, 1]], np.int32)
    tensors = {
        name: (0.5 * draw.standard_normal(dims)).astype(np.float32)
        for name, dims in checkpoint.tensor_shapes(shape).items()
    }
    real = checkpoint.Checkpoint("random", shape, 1e-12, tensors, b"", 0, "")
    fused_encoder.opened(convert.convert(real, calibrate.ranges(real, list(ids)))).embed(list(ids))


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

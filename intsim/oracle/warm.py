"""Compiling the CPU kernels ahead of their use, one process a core: Numba compiles one at a time in each."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed

from intsim import registry
from intsim.op import Composition


def missing(names: Sequence[str]) -> list[str]:
    """Those of the ops whose kernel is not on disk."""
    import numba

    from intsim.compiling import cache_folder

    if numba.config.DISABLE_JIT:
        return []
    folder = cache_folder()
    compiled = [n for n in names if not isinstance(registry.get(n).program, Composition)]
    return [name for name in compiled if not (folder / f"{name}.nbi").is_file()]


def fill(names: Sequence[str], done: Callable[[str], None] = lambda name: None) -> None:
    """Compiles the kernels of these ops and keeps them on disk; ``done`` hears of each."""
    workers = min(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1, len(names))
    if workers < 1:
        return
    with ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn")) as pool:
        waiting = {pool.submit(compile_one, name): name for name in names}
        for finished in as_completed(waiting):
            finished.result()
            done(waiting[finished])


def compile_one(name: str) -> None:
    """Compiles the kernel of one op, by running its first example."""
    from intsim.execute import run
    from intsim.oracle.cases import directed

    case = next(iter(directed(registry.get(name))))
    run(case.op, *case.inputs, p=case.params, tuned=False)

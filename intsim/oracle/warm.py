"""Compiling the CPU kernels ahead of their use, one process a core: Numba compiles one at a time in each."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path

from intsim import registry
from intsim.op import Composition


def missing(names: Sequence[str]) -> list[str]:
    """Those of the ops whose kernel is not on disk."""
    import numba

    if numba.config.DISABLE_JIT:
        return []
    compiled = [n for n in names if not isinstance(registry.get(n).program, Composition)]
    return [name for name in compiled if not (_folder() / f"{name}.nbi").is_file()]


def missing_tuned(names: Sequence[str]) -> list[str]:
    """Those of the ops that have tuned kernels which ``compile_tuned`` has not kept on disk."""
    import numba

    if numba.config.DISABLE_JIT:
        return []
    tuned = [n for n in names if any(t.backend == "cpu" for t in registry.get(n).tuned)]
    return [name for name in tuned if not _mark(name).is_file()]


def _folder() -> Path:
    from intsim.compiling import cache_folder

    return cache_folder()


def _mark(name: str) -> Path:
    return _folder() / f"{name}.tuned"


def fill(names: Sequence[str], done: Callable[[str], None] = lambda name: None, *, tuned: Sequence[str] = ()) -> None:
    """Compiles the kernels of these ops, and of ``tuned`` the tuned kernels, and keeps them on disk.

    ``done`` hears of each.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    workers = min(cores, len(names) + len(tuned))
    if workers < 1:
        return
    with ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn")) as pool:
        waiting = {pool.submit(compile_tuned, name): name for name in tuned}  # the longest first
        waiting |= {pool.submit(compile_one, name): name for name in names}
        for finished in as_completed(waiting):
            finished.result()
            done(waiting[finished])


def compile_one(name: str) -> None:
    """Compiles the kernel of one op, by running its first example."""
    from intsim.execute import run
    from intsim.oracle.cases import directed

    case = next(iter(directed(registry.get(name))))
    run(case.op, *case.inputs, p=case.params, tuned=False)


def compile_tuned(name: str) -> None:
    """Compiles the tuned kernels of one op, by running its examples at sizes that they serve."""
    from intsim import compiling
    from intsim.execute import run
    from intsim.oracle.cases import directed
    from intsim.oracle.selftest import reaching

    op = registry.get(name)
    compiling.compile_ahead()
    for t in op.tuned:
        if t.backend == "cpu":
            for case in reaching(op, t, list(directed(op)), "cpu", every=True):
                run(op, *case.inputs, p=case.params, tuned=t.where)
    _mark(name).parent.mkdir(parents=True, exist_ok=True)
    _mark(name).touch()

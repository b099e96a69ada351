"""Iteration patterns on the CPU. No arithmetic lives here.

Kernels are serial over a range of rows and release the GIL; threads share the rows out. (Numba's
``parallel=True`` cannot take a named tuple inside a named tuple, and compiles more slowly.)
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Any

from intsim.backends.widening import is_small, widened
from intsim.compiling import kernel
from intsim.op import Contraction, Elementwise, Program, Rowwise

THREADS = os.cpu_count() or 1
WORTH_A_THREAD = 1 << 15  # steps: below this, handing work to a thread costs more than the work

Kernel = Callable[..., None]


@cache
def compile(name: str, program: Program) -> Kernel:
    """``launch(x, out, p, size)``; ``size`` is the length of the contracted dimension, if any."""
    match program:
        case Elementwise(element):
            rows = _elementwise(element, name)
        case Rowwise(row):
            rows = _rowwise(row, name)
        case Contraction(_, start, step, finish):
            rows = _contraction(start, step, finish, name)
        case _:
            raise TypeError(f"{name} is a composition: its stages have kernels, it has none")

    def launch(x: Any, out: Any, p: Any, size: int) -> None:
        if is_small(x, out):
            widened(lambda x, out: rows(x, out, p, size, 0, out[0].shape[0]), x, out)
            return
        work = max(x[0].size, out[0].size) * max(size, 1)
        shared_out(lambda first, last: rows(x, out, p, size, first, last), out[0].shape[0], work)

    return launch


def shared_out(part: Callable[[int, int], None], count: int, work: int) -> None:
    """``part(first, last)`` over [0, count), in as many threads as ``work`` steps are worth.

    Called in such a part, it does all in its own thread: the others are busy with the rest.
    """
    if getattr(_thread, "in_a_part", False):
        part(0, count)
        return
    parts = min(THREADS, count, 1 + work // WORTH_A_THREAD)
    if parts <= 1:
        part(0, count)
        return
    ends = [count * t // parts for t in range(parts + 1)]
    list(_pool().map(lambda t: part(ends[t], ends[t + 1]), range(parts)))


_thread = threading.local()


def _enter() -> None:
    _thread.in_a_part = True


@cache
def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(THREADS, initializer=_enter)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_pool.cache_clear)  # a forked child has none of the pool's threads


def _elementwise(element: Any, name: str) -> Kernel:
    def rows(x: Any, out: Any, p: Any, size: int, first: int, last: int) -> None:
        y = out[0]
        for i in range(first, last):
            for j in range(y.shape[1]):
                y[i, j] = element(i, j, x, p)

    return kernel(rows, name)


def _rowwise(row: Any, name: str) -> Kernel:
    def rows(x: Any, out: Any, p: Any, size: int, first: int, last: int) -> None:
        for i in range(first, last):
            row(i, x, out, p)

    return kernel(rows, name)


def _contraction(start: Any, step: Any, finish: Any, name: str) -> Kernel:
    def rows(x: Any, out: Any, p: Any, size: int, first: int, last: int) -> None:
        y = out[0]
        for i in range(first, last):
            for j in range(y.shape[1]):
                acc = start(i, j, x, p)
                for k in range(size):
                    acc = step(acc, i, j, k, x, p)
                y[i, j] = finish(acc, i, j, x, p)

    return kernel(rows, name)

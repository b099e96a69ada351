"""Iteration patterns on the CPU. No arithmetic lives here.

Kernels are serial over a range of rows and release the GIL; threads take the ranges. (Numba's
``parallel=True`` cannot take a named tuple inside a named tuple, and compiles more slowly.)
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from functools import cache
from queue import SimpleQueue
from typing import Any

from intsim.backends.widening import is_small, widened
from intsim.compiling import kernel
from intsim.op import Contraction, Elementwise, Program, Rowwise

THREADS = os.cpu_count() or 1
WORTH_A_THREAD = 1 << 15  # steps: below this, handing work to a thread costs more than the work
PARTS_A_THREAD = 2  # more than one, so that a thread that comes late, or is held up, takes less

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

    Inside a part it is the part's own thread alone: the others are busy with the rest, and tasks that
    wait for them would pile up with all their arrays.
    """
    threads = 1 if getattr(_here, "in_a_part", False) else min(THREADS, count, 1 + work // WORTH_A_THREAD)
    if threads <= 1:
        part(0, count)
        return
    task = _Task(part, count, min(count, PARTS_A_THREAD * threads))
    for _ in range(threads - 1):
        _helpers(THREADS).put(task)
    task.help()
    task.finish()


_here = threading.local()  # in_a_part: whether this thread runs a part of a task


class _Task:
    """Parts that whoever has time takes, one by one.

    The caller takes parts too and waits only for those that a helper has begun: a machine so busy that
    no helper runs costs nothing, and several callers at once cannot block each other.
    """

    def __init__(self, part: Callable[[int, int], None], count: int, parts: int) -> None:
        self._part, self._count, self._parts = part, count, parts
        self._lock, self._all_done = threading.Lock(), threading.Event()
        self._taken = self._done = 0
        self._wrong: BaseException | None = None

    def help(self) -> None:
        while True:
            with self._lock:
                t = self._taken
                if t == self._parts:
                    return
                self._taken += 1
            _here.in_a_part = True
            try:
                self._part(self._count * t // self._parts, self._count * (t + 1) // self._parts)
            except BaseException as wrong:  # raised again where the caller waits
                self._wrong = wrong
            finally:
                _here.in_a_part = False
            with self._lock:
                self._done += 1
                if self._done == self._parts:
                    self._all_done.set()

    def finish(self) -> None:
        self._all_done.wait()
        if self._wrong is not None:
            raise self._wrong


@cache
def _helpers(threads: int) -> SimpleQueue[_Task]:
    """The queue of the threads that help a caller to be ``threads``; they end with the process."""
    tasks: SimpleQueue[_Task] = SimpleQueue()

    def help_forever() -> None:
        while True:
            tasks.get().help()

    for _ in range(threads - 1):
        threading.Thread(target=help_forever, daemon=True).start()
    return tasks


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_helpers.cache_clear)  # a forked child has none of the threads


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

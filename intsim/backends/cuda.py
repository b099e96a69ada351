"""Iteration patterns on the GPU. No arithmetic lives here."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import cache
from typing import Any

from numba import cuda
from numba.cuda.core.errors import NumbaPerformanceWarning  # not the one of numba.core

from intsim.backends.widening import is_small, widened
from intsim.op import Contraction, Elementwise, Program, Rowwise

Kernel = Callable[..., None]


@cache
def compile(name: str, program: Program) -> Kernel:
    """``launch(x, out, p, size)``, as on the CPU."""
    kernel = device_kernel(program)

    def launch(x: Any, out: Any, p: Any, size: int) -> None:
        shape = out[0].shape[:1] if isinstance(program, Rowwise) else out[0].shape
        block = tuple(min(n, 128 if len(shape) == 1 else 16) for n in shape)  # the simulator pays for every thread
        grid = tuple(-(-n // b) for n, b in zip(shape, block, strict=True))
        with warnings.catch_warnings():  # host arrays are copied and small grids idle: known, and no user's doing
            warnings.simplefilter("ignore", NumbaPerformanceWarning)
            if is_small(x, out):
                widened(lambda x, out: kernel[grid, block](x, out, p, size), x, out)
            else:
                kernel[grid, block](x, out, p, size)

    return launch


def device_kernel(program: Program) -> Any:
    """The CUDA kernel of a program, not yet compiled."""
    match program:
        case Elementwise(element):
            return _elementwise(element)
        case Rowwise(row):
            return _rowwise(row)
        case Contraction(_, start, step, finish):
            return _contraction(start, step, finish)
    raise TypeError("a composition has no kernel of its own")


def _elementwise(element: Any) -> Any:
    @cuda.jit  # type: ignore[untyped-decorator]  # Numba has no types
    def kernel(x: Any, out: Any, p: Any, size: int) -> None:
        i, j = cuda.grid(2)
        y = out[0]
        if i < y.shape[0] and j < y.shape[1]:
            y[i, j] = element(i, j, x, p)

    return kernel


def _rowwise(row: Any) -> Any:
    @cuda.jit  # type: ignore[untyped-decorator]  # Numba has no types
    def kernel(x: Any, out: Any, p: Any, size: int) -> None:
        i = cuda.grid(1)
        if i < out[0].shape[0]:
            row(i, x, out, p)

    return kernel


def _contraction(start: Any, step: Any, finish: Any) -> Any:
    @cuda.jit  # type: ignore[untyped-decorator]  # Numba has no types
    def kernel(x: Any, out: Any, p: Any, size: int) -> None:
        i, j = cuda.grid(2)
        y = out[0]
        if i < y.shape[0] and j < y.shape[1]:
            acc = start(i, j, x, p)
            for k in range(size):
                acc = step(acc, i, j, k, x, p)
            y[i, j] = finish(acc, i, j, x, p)

    return kernel

"""Iteration patterns on the GPU. No arithmetic lives here.

Neighbouring threads take neighbouring columns, so that they read and write neighbouring memory; a
thread that is done takes the element a grid further on, so that no shape is beyond the grid.
"""

from __future__ import annotations

from functools import cache
from typing import Any

from numba import cuda

from intsim.backends.cuda_arrays import DeviceArray, Gpu, driver
from intsim.backends.cuda_compile import Kernel
from intsim.backends.cuda_queue import Queue
from intsim.op import Contraction, Elementwise, Program, Rowwise

WIDE = 256  # threads a block, elementwise and contraction
ROWS = (32, 128)  # threads a block, rowwise: few, where that spreads the rows over more multiprocessors
MOST_ROWS_OF_BLOCKS = 65535
SIMULATED = 16  # the simulator starts a Python thread for each


def run(name: str, program: Program, queue: Queue, x: Any, out: Any, size: int) -> None:
    """Launches the program of an op; x, out: named tuples of device arrays; size: of the contracted dimension."""
    grid, block = spread(program, out[0], queue.gpu)
    queue.launch(device_kernel(name, program), grid, block, x, out, queue.record, size)


def spread(program: Program, out: DeviceArray, gpu: Gpu) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """(grid, block) for an output of this shape; not for an empty one."""
    rows = out.shape[0]
    if isinstance(program, Rowwise):
        few, many = ROWS
        threads = many if rows >= many * 8 * gpu.multiprocessors else few
        threads = min(rows, SIMULATED if gpu.simulated else threads)
        return (-(-rows // threads),), (threads,)
    columns = out.shape[1]
    wide = min(SIMULATED if gpu.simulated else WIDE, 1 << (columns - 1).bit_length())
    high = max(1, min(rows, (SIMULATED if gpu.simulated else WIDE) // wide))
    return (-(-columns // wide), min(-(-rows // high), MOST_ROWS_OF_BLOCKS)), (wide, high)


@cache
def device_kernel(name: str, program: Program) -> Kernel:
    """The kernel of the op called ``name``: ``kernel(x, out, p, size)``."""
    match program:
        case Elementwise(element):
            return Kernel(_elementwise(element), f"elementwise of {name}")
        case Rowwise(row):
            return Kernel(_rowwise(row), f"rowwise of {name}")
        case Contraction(_, start, step, finish):
            return Kernel(_contraction(start, step, finish), f"contraction of {name}")
    raise TypeError(f"{name} is a composition: its stages have kernels, it has none")


def _elementwise(element: Any) -> Any:
    def kernel(x: Any, out: Any, p: Any, size: int) -> None:
        j, i = cuda.grid(2)
        y = out[0]
        if j < y.shape[1]:
            while i < y.shape[0]:
                y[i, j] = element(i, j, x, p)
                i += cuda.gridDim.y * cuda.blockDim.y

    return kernel


def _rowwise(row: Any) -> Any:
    def kernel(x: Any, out: Any, p: Any, size: int) -> None:
        i = cuda.grid(1)
        if i < out[0].shape[0]:
            row(i, x, out, p)

    return kernel


def _contraction(start: Any, step: Any, finish: Any) -> Any:
    def kernel(x: Any, out: Any, p: Any, size: int) -> None:
        j, i = cuda.grid(2)
        y = out[0]
        if j < y.shape[1]:
            while i < y.shape[0]:
                acc = start(i, j, x, p)
                for k in range(size):
                    acc = step(acc, i, j, k, x, p)
                y[i, j] = finish(acc, i, j, x, p)
                i += cuda.gridDim.y * cuda.blockDim.y

    return kernel


# -- is there a GPU ----------------------------------------------------------------------------------


def missing() -> str:
    """Why no CUDA kernel can run here, in one sentence; empty where one can."""
    if not cuda.is_available():
        return "the cuda backend needs an NVIDIA GPU and its driver: none was found (nvidia-smi shows both)"
    try:
        driver().current()
    except Exception as refused:  # a GPU that is too old, a driver that is too old, a GPU in exclusive use
        return f"the cuda backend cannot use the GPU: {refused}"
    return ""

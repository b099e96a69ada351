"""Iteration patterns on the GPU. No arithmetic lives here.

Neighbouring threads take neighbouring columns, so that they read and write neighbouring memory; a
thread that is done takes the element a grid further on, so that no shape is beyond the grid. A short
row is a thread's, a longer one a warp's, a long one among few a block's (``cuda_lanes``).
"""

from __future__ import annotations

from functools import cache
from typing import Any

from numba import cuda

from intsim.backends.cuda_arrays import DeviceArray, Gpu, driver
from intsim.backends.cuda_compile import Kernel
from intsim.backends.cuda_intrinsics import wait_for_kernels_before
from intsim.backends.cuda_joins import BLOCK, WARP, of_block, of_warp, rows_of
from intsim.backends.cuda_lanes import shared_out
from intsim.backends.cuda_queue import Queue
from intsim.op import Contraction, Elementwise, Program, Rowwise

WIDE = 256  # threads a block, elementwise and contraction
ROWS = (32, 128)  # threads a block, rowwise: few, where that spreads the rows over more multiprocessors
MOST_ROWS_OF_BLOCKS = 65535
SIMULATED = 16  # the simulator starts a Python thread for each
FOR_A_WARP = 32  # elements of a row from which on it is a warp's, where the program can be shared out
FOR_A_BLOCK = 2048  # and a block's, where the rows are fewer than FEW_ROWS a multiprocessor
FEW_ROWS = 16
WARPS = 4  # rows a block, a warp each


def run(name: str, program: Program, queue: Queue, x: Any, out: Any, size: int) -> None:
    """Launches the program of an op; x, out: named tuples of device arrays; size: of the contracted dimension."""
    lanes = lanes_a_row(program, x, out, queue.gpu)
    grid, block = by_lanes(out[0], lanes) if lanes > 1 else spread(program, out[0], queue.gpu)
    walks = len(grid) > 1 and grid[1] * block[1] < out[0].shape[0]
    kernel = device_kernel(name, program, lanes, walks, queue.gpu.early)
    queue.launch(kernel, grid, block, x, out, queue.record, size)


def lanes_a_row(program: Program, x: Any, out: Any, gpu: Gpu) -> int:
    """How many threads go through a row together: 1, those of a warp, or those of a block."""
    if not isinstance(program, Rowwise) or gpu.simulated:  # a warp of Python threads takes longer than one
        return 1
    rows = out[0].shape[0]
    longest = max((a.shape[1] for a in (*x, *out) if len(a.shape) > 1 and a.shape[0] == rows), default=1)
    if longest < FOR_A_WARP or _shared(program, WARP) is None:
        return 1
    return BLOCK if longest >= FOR_A_BLOCK and rows < FEW_ROWS * gpu.multiprocessors else WARP


def by_lanes(out: DeviceArray, lanes: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """(grid, block) for rows that are a warp's or a block's."""
    rows_a_block = WARPS if lanes == WARP else 1
    return (-(-out.shape[0] // rows_a_block),), (lanes * rows_a_block,)


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
def device_kernel(name: str, program: Program, lanes: int = 1, walks: bool = False, early: bool = False) -> Kernel:
    """The kernel of the op called ``name``: ``kernel(x, out, p, size)``.

    lanes: how many threads go through a row together; the kernel for 1 where the program cannot be shared out.
    walks: threads go on to rows beyond the grid. early: it is started while the kernel before it may still run,
    and waits for it itself.
    """
    how = f"{', walks' * walks}{', early' * early}"
    if lanes > 1 and (shared := _shared(program, lanes)) is not None:
        made = rows_of(shared, lanes, early)
        return Kernel(made, f"rowwise of {name}, {lanes} lanes a row{how}", launch_bounds=BLOCK, early=early)
    match program:
        case Elementwise(element):
            return Kernel(_elementwise(element, walks, early), f"elementwise of {name}{how}", early=early)
        case Rowwise(row):
            return Kernel(_rowwise(row, early), f"rowwise of {name}{how}", early=early)
        case Contraction(_, start, step, finish):
            made = _contraction(start, step, finish, walks, early)
            return Kernel(made, f"contraction of {name}{how}", early=early)
    raise TypeError(f"{name} is a composition: its stages have kernels, it has none")


@cache
def _shared(program: Program, lanes: int) -> Any:
    """The row of a program for so many lanes; None where it cannot be shared out."""
    assert isinstance(program, Rowwise)
    return shared_out(program.row, of_warp() if lanes == WARP else of_block())


def _elementwise(element: Any, walks: bool, early: bool) -> Any:
    def kernel(x: Any, out: Any, p: Any, size: int) -> None:
        if early:
            wait_for_kernels_before()
        j, i = cuda.grid(2)
        y = out[0]
        if j < y.shape[1]:
            while i < y.shape[0]:
                y[i, j] = element(i, j, x, p)
                if not walks:  # the compiler unrolls a loop, and divides to know its length
                    break
                i += cuda.gridDim.y * cuda.blockDim.y

    return kernel


def _rowwise(row: Any, early: bool) -> Any:
    def kernel(x: Any, out: Any, p: Any, size: int) -> None:
        if early:
            wait_for_kernels_before()
        i = cuda.grid(1)
        if i < out[0].shape[0]:
            row(i, x, out, p)

    return kernel


def _contraction(start: Any, step: Any, finish: Any, walks: bool, early: bool) -> Any:
    def kernel(x: Any, out: Any, p: Any, size: int) -> None:
        if early:
            wait_for_kernels_before()
        j, i = cuda.grid(2)
        y = out[0]
        if j < y.shape[1]:
            while i < y.shape[0]:
                acc = start(i, j, x, p)
                for k in range(size):
                    acc = step(acc, i, j, k, x, p)
                y[i, j] = finish(acc, i, j, x, p)
                if not walks:
                    break
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

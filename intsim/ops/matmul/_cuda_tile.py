"""Matrix product by tiles in shared memory: any types, any accumulator, any GPU. Written to be read.

A block computes 16 by 16 results, a thread one of them. All load a 16 by 16 piece of each operand, centred,
and go through it with k ascending, as the program does: so a saturating accumulator is right too.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from intsim.backends.cuda_compile import Kernel
from intsim.backends.cuda_intrinsics import cuda, int64
from intsim.ops.matmul.integer import finish, start
from intsim.scalar.packing import load
from intsim.scalar.rounding import fit


def _tile(x: Any, out: Any, p: Any, depth: int) -> None:
    a_piece = cuda.shared.array((16, 17), int64)  # 17: the columns of a piece lie in different banks
    b_piece = cuda.shared.array((16, 17), int64)
    across, down = cuda.threadIdx.x, cuda.threadIdx.y
    tiles_across = (out.acc.shape[1] + 15) // 16
    left, top = 16 * (cuda.blockIdx.x % tiles_across), 16 * (cuda.blockIdx.x // tiles_across)
    i, j = top + down, left + across
    inside = i < out.acc.shape[0] and j < out.acc.shape[1]
    acc = start(i, j, x, p) if inside else np.int64(0)
    for first in range(0, depth, 16):
        k = first + across
        row = left + down  # of B
        a_piece[down, across] = (
            load(x.a, i, k, p.a, p.nibbles) - p.a_zero_point if i < x.a.shape[0] and k < depth else 0
        )
        b_piece[down, across] = (
            load(x.b, row, k, p.b, p.nibbles) - p.b_zero_point[row] if row < x.b.shape[0] and k < depth else 0
        )
        cuda.syncthreads()
        for step in range(min(16, depth - first)):
            acc = fit(acc + a_piece[down, step] * b_piece[across, step], p.acc, p.overflow)
        cuda.syncthreads()
    if inside:
        out.acc[i, j] = finish(acc, i, j, x, p)


_kernel = Kernel(_tile, launch_bounds=256)


def matmul(x: Any, out: Any, p: Any, queue: Any) -> None:
    """Fills ``out.acc``."""
    m, n = out.acc.shape
    depth = min(array.shape[1] * (2 if t.bits == 4 else 1) for array, t in ((x.a, p.a), (x.b, p.b)))
    queue.launch(_kernel, -(-n // 16) * -(-m // 16), (16, 16), x, out, queue.record, depth)

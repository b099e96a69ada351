"""Matrix product whose accumulator saturates after every term: k in order for each result, many results a thread.

Operands of at most 8 bits and at most 31 bits of accumulator: a term below 2**17 cannot carry a sum past int32, so
that a step is a 32-bit multiply-add, a minimum and a maximum. A block of 16 by 16 threads stages a piece of both
operands in shared memory, centred and with k first; a thread takes ``fours`` times four rows by as many columns,
whose sums stay in its registers. What lies beyond the operands is staged as 0, which changes no sum.
"""

from __future__ import annotations

from functools import cache
from typing import Any

from intsim.backends.cuda_compile import Kernel
from intsim.backends.cuda_intrinsics import MOVE, SATURATED, cuda, int32, int64, shared_address, shared_store_4
from intsim.ops.matmul.integer import finish, start
from intsim.scalar.packing import load

STEPS = 32


@cache
def kernel(fours: int, steps: int = STEPS) -> Kernel:
    """``f(x, out, p, depth)``: blocks of 64 ``fours`` results each way, row after row; ``steps`` of k a piece."""
    tile, side = 64 * fours, 4 * fours
    room, sums, step, move = tile * steps, side * side, SATURATED(fours), MOVE(side * side)

    def saturating(x: Any, out: Any, p: Any, depth: int) -> None:
        a_lies = shared_address(cuda.shared.array(room, int32))
        b_lies = shared_address(cuda.shared.array(room, int32))
        acc = cuda.local.array(sums, int32)  # in registers: every index is constant
        edge = cuda.local.array(sums, int32)  # what they begin with, and end with
        thread = int32(cuda.threadIdx.x)
        m, n = x.a.shape[0], x.b.shape[0]
        across = (n + tile - 1) // tile
        top, left = int64(cuda.blockIdx.x // across * tile), int64(cuda.blockIdx.x % across * tile)
        down, right = int32(thread >> 4) * 4, int32(thread & 15) * 4  # of each 64, the first of this thread's four
        for r in range(side):
            i = top + 64 * (r >> 2) + down + (r & 3)
            for c in range(side):
                j = left + 64 * (c >> 2) + right + (c & 3)
                edge[side * r + c] = start(i, j, x, p) if i < m and j < n else 0
        move(acc, edge)
        low, high = int32(p.acc.qmin), int32(p.acc.qmax)
        i, j = top + thread % tile, left + thread % tile  # what this thread stages, of each operand
        b_zero_point = p.b_zero_point[j] if j < n else 0
        first = int64(0)
        while first < depth:
            at, k = thread, first + thread // tile
            while at < room:
                a = load(x.a, i, k, p.a, p.nibbles) - p.a_zero_point if i < m and k < depth else 0
                b = load(x.b, j, k, p.b, p.nibbles) - b_zero_point if j < n and k < depth else 0
                shared_store_4(int32(a_lies + 4 * at), int32(a))
                shared_store_4(int32(b_lies + 4 * at), int32(b))
                at, k = int32(at + 256), k + 256 // tile
            cuda.syncthreads()
            for k in range(steps):
                step(acc, int32(a_lies + 4 * (tile * k + down)), int32(b_lies + 4 * (tile * k + right)), low, high)
            cuda.syncthreads()
            first += steps
        move(edge, acc)
        for r in range(side):
            i = top + 64 * (r >> 2) + down + (r & 3)
            for c in range(side):
                j = left + 64 * (c >> 2) + right + (c & 3)
                if i < m and j < n:
                    out.acc[i, j] = finish(int64(edge[side * r + c]), i, j, x, p)

    saturating.__name__ = saturating.__qualname__ = f"matmul_saturating_{tile}x{tile}x{steps}"
    return Kernel(saturating, launch_bounds=256)


def matmul(x: Any, out: Any, p: Any, queue: Any) -> None:
    """Fills ``out.acc``; serves overflow = SATURATE."""
    m, n = out.acc.shape
    depth = min(array.shape[1] * (2 if t.bits == 4 else 1) for array, t in ((x.a, p.a), (x.b, p.b)))
    fours = fours_of(m, n, queue.multiprocessors)
    tile = 64 * fours
    queue.launch(kernel(fours), -(-n // tile) * -(-m // tile), 256, x, out, queue.record, depth)


def fours_of(m: int, n: int, multiprocessors: int) -> int:
    """The larger tile where its blocks occupy every multiprocessor."""
    return 2 if -(-n // 128) * -(-m // 128) >= multiprocessors else 1

"""layernorm.ibert at the speed of memory: a warp a row, the row in registers.

The square root is found by all lanes at once: 32 candidates a round, five bits of the root; the number of
candidates whose square is not too large is the next digit.
"""

from __future__ import annotations

from functools import cache
from typing import Any

from intsim.backends.cuda_aligned import aligned, fill
from intsim.backends.cuda_compile import Kernel
from intsim.backends.cuda_intrinsics import (
    LOAD_FOUR,
    count_lanes,
    cuda,
    int32,
    int64,
    load_16,
    on_device,
    store_16,
    unsigned_div,
    warp_sum_64,
)
from intsim.scalar.rounding import divide

WARPS = 8


@on_device
def _root(x: int, lane: int) -> int:
    """The integer part of the square root of x below 2**62, the same in all lanes."""
    root = int64(0)
    for shift in (30, 25, 20, 15, 10, 5, 0):
        candidate = root + (int64(lane) << shift)
        fits = candidate < int64(2147483648) and candidate * candidate <= x  # of lane 0 always
        root = root + (int64(count_lanes(int32(1) if fits else int32(0)) - 1) << shift)
    return root


@cache
def _kernel(pieces: int, bits: int, rounding: int) -> Kernel:
    """``f(x, bias, out, m, n, k)``: rows of up to 128 ``pieces``, n a multiple of 4."""
    count, load = 4 * pieces, LOAD_FOUR(bits)
    width, warps = bits // 8, WARPS

    @on_device
    def scaled(y: int, factor: int, bias: int) -> int:
        wide = ((int64(y) * factor) >> 1) + int64(bias)
        return int32(min(max(wide, int64(-2147483648)), int64(2147483647)))

    def layernorm(x: int, bias: int, out: int, m: int, n: int, k: int) -> None:
        thread = int32(cuda.threadIdx.x)
        lane = int32(thread & 31)
        row, columns = int64(cuda.blockIdx.x) * warps + (thread >> 5), int32(n)
        if row < m:
            y = cuda.local.array(count, int32)
            for i in range(pieces):
                first = int32(128 * i + 4 * lane)
                y[4 * i], y[4 * i + 1], y[4 * i + 2], y[4 * i + 3] = 0, 0, 0, 0
                if first < columns:
                    y[4 * i], y[4 * i + 1], y[4 * i + 2], y[4 * i + 3] = load(x + (row * n + first) * width)
            total = int64(0)
            for i in range(count):
                total += int64(y[i])
            mean = int32(divide(warp_sum_64(total), n, rounding))
            squares, cut = int64(0), int32(k)
            for i in range(pieces):
                if int32(128 * i + 4 * lane) < columns:
                    for j in range(4 * i, 4 * i + 4):
                        y[j] = int32(int64(y[j]) - mean)
                        d = int64(int32(y[j]) >> cut)
                        squares += d * d
            # |y| < 2**24 and n <= 2**10: the root is below 2**29, and 2**31 fits an unsigned word
            std = int32(max(_root(warp_sum_64(squares), lane) << k, int64(1)))
            factor = int64(unsigned_div(int32(-2147483648), std)) & 0xFFFFFFFF
            for i in range(pieces):
                first = int32(128 * i + 4 * lane)
                if first < columns:
                    b0, b1, b2, b3 = load_16(bias + 4 * int64(first))
                    store_16(
                        out + (row * n + first) * 4,
                        scaled(y[4 * i], factor, b0),
                        scaled(y[4 * i + 1], factor, b1),
                        scaled(y[4 * i + 2], factor, b2),
                        scaled(y[4 * i + 3], factor, b3),
                    )

    layernorm.__name__ = layernorm.__qualname__ = f"layernorm_ibert_{bits}_{pieces}_{rounding}"
    return Kernel(layernorm, launch_bounds=32 * warps)


def layernorm(x: Any, out: Any, p: Any, queue: Any) -> None:
    """Fills ``out.y``; serves int32 results."""
    m, n = x.x.shape
    given, bias = aligned(x.x), aligned(x.bias)
    kernel = _kernel(-(-n // 128), 8 * x.x.dtype.itemsize, int(p.mean_rounding))

    def work(y: Any) -> None:
        queue.launch(kernel, -(-m // WARPS), 32 * WARPS, given.pointer, bias.pointer, y.pointer, m, n, p.k)

    fill(queue, out.y, work)

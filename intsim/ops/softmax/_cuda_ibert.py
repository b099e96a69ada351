"""softmax.ibert at the speed of memory: a warp a row, the row in registers, 32-bit arithmetic.

Exact where ``serves`` holds, by three facts:

    z = floor(d / ln2) = d * ceil(2**32 / ln2) >> 32      while d (ln2 - 1) < 2**32; d is cut at 31 ln2, where
        the exponential is 0 already, since all are below 2**31
    floor(x / total) = x * floor((2**32 - 1) / total) >> 32, or one more, while x < 2**31
    a masked value is the lowest, and its exponential is set to 0
"""

from __future__ import annotations

from functools import cache
from typing import Any

from intsim.backends.cuda_aligned import aligned, fill
from intsim.backends.cuda_compile import Kernel
from intsim.backends.cuda_intrinsics import (
    LOAD_FOUR,
    PACK4,
    cuda,
    int32,
    int64,
    load_4,
    store_4,
    unsigned_div,
    unsigned_high_product,
    unsigned_min,
    unsigned_shift,
    warp_max,
    warp_sum,
)

WARPS = 8


@cache
def _kernel(pieces: int, bits: int) -> Kernel:
    """``f(q, stop, out, m, n, ln2, inverse, b, c, out_bits)``: rows of up to 128 ``pieces``, n a multiple of 4."""
    count, lowest, load, pack4 = 4 * pieces, -(2**31), LOAD_FOUR(bits), PACK4(False)
    width, warps = bits // 8, WARPS

    def softmax(
        q: int, stop: int, out: int, m: int, n: int, ln2: int, inverse: int, b: int, c: int, out_bits: int
    ) -> None:
        thread = int32(cuda.threadIdx.x)
        row, lane = int64(cuda.blockIdx.x) * warps + (thread >> 5), int32((thread & 31) * 4)
        if row < m:
            columns, seen = int32(n), load_4(stop + 4 * row)
            x = cuda.local.array(count, int32)
            for i in range(pieces):
                first = int32(128 * i + lane)
                x[4 * i], x[4 * i + 1], x[4 * i + 2], x[4 * i + 3] = lowest, lowest, lowest, lowest
                if first < columns:
                    x[4 * i], x[4 * i + 1], x[4 * i + 2], x[4 * i + 3] = load(q + (row * n + first) * width)
            if seen < 128 * pieces:
                for i in range(count):
                    if (i >> 2) * 128 + lane + (i & 3) >= seen:
                        x[i] = lowest
            top = int32(x[0])
            for i in range(1, count):
                top = int32(max(top, x[i]))
            top = warp_max(top)
            step, by, base, extra = int32(ln2), int32(inverse), int32(b), int32(c)
            farthest = int32(31 * step)
            total = int32(0)
            for i in range(count):
                d = unsigned_min(int32(top - int64(x[i])), farthest)
                z = unsigned_high_product(d, by)
                r = int32(int32(z * step) - d + base)
                x[i] = unsigned_shift(int32(int32(r * r) + extra), z)
            if seen < 128 * pieces:
                for i in range(count):
                    if (i >> 2) * 128 + lane + (i & 3) >= seen:
                        x[i] = 0
            for i in range(count):
                total = int32(total + x[i])
            total = warp_sum(total)
            reciprocal = unsigned_div(int32(-1), total)
            shift, most = int32(out_bits), int32((1 << out_bits) - 1)
            for i in range(pieces):
                for j in range(4 * i, 4 * i + 4):
                    scaled = int32(int32(x[j]) << shift)
                    quotient = unsigned_high_product(scaled, reciprocal)
                    rest = int32(scaled - int32(quotient * total))
                    x[j] = min(int32(quotient + 1) if rest >= total else quotient, most)
                first = int32(128 * i + lane)
                if first < columns:
                    store_4(out + row * n + first, pack4(x[4 * i], x[4 * i + 1], x[4 * i + 2], x[4 * i + 3]))

    softmax.__name__ = softmax.__qualname__ = f"softmax_ibert_{bits}_{pieces}"
    return Kernel(softmax, launch_bounds=32 * warps)


def softmax(x: Any, out: Any, p: Any, queue: Any) -> None:
    """Fills ``out.probability``."""
    m, n = x.q.shape
    q, kernel = aligned(x.q), _kernel(-(-n // 128), 8 * x.q.dtype.itemsize)
    inverse = -(-(2**32) // p.ln2)

    def work(probability: Any) -> None:
        where = q.pointer, x.stop.pointer, probability.pointer, m, n
        queue.launch(kernel, -(-m // WARPS), 32 * WARPS, *where, p.ln2, inverse, p.b, p.c, p.out_bits)

    fill(queue, out.probability, work)

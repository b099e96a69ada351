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


def rows_a_warp(pieces: int) -> int:
    return max(1, 4 // pieces)


@cache
def _kernel(pieces: int, bits: int) -> Kernel:
    """``f(q, stop, out, m, n, ln2, inverse, b, c, out_bits)``: rows of up to 128 ``pieces``, n a multiple of 4.

    A warp has several short rows, so that it has as much under way as with one long row.
    """
    rows = rows_a_warp(pieces)
    count, lowest, load, pack4 = 4 * pieces, -(2**31), LOAD_FOUR(bits), PACK4(False)
    width, warps, held = bits // 8, WARPS, count * rows

    def softmax(
        q: int, stop: int, out: int, m: int, n: int, ln2: int, inverse: int, b: int, c: int, out_bits: int
    ) -> None:
        thread = int32(cuda.threadIdx.x)
        top_row = (int64(cuda.blockIdx.x) * warps + (thread >> 5)) * rows
        lane, columns = int32((thread & 31) * 4), int32(n)
        x = cuda.local.array(held, int32)
        if top_row < m:
            for r in range(rows):
                row = min(top_row + r, m - 1)  # the last one may be done more than once
                for i in range(r * pieces, (r + 1) * pieces):
                    first = int32(128 * (i - r * pieces) + lane)
                    x[4 * i], x[4 * i + 1], x[4 * i + 2], x[4 * i + 3] = lowest, lowest, lowest, lowest
                    if first < columns:
                        x[4 * i], x[4 * i + 1], x[4 * i + 2], x[4 * i + 3] = load(q + (row * n + first) * width)
            step, by, base, extra = int32(ln2), int32(inverse), int32(b), int32(c)
            farthest, shift, most = int32(31 * step), int32(out_bits), int32((1 << out_bits) - 1)
            for r in range(rows):
                row, start = min(top_row + r, m - 1), r * count
                seen = load_4(stop + 4 * row)
                if seen < 128 * pieces:
                    for i in range(count):
                        if (i >> 2) * 128 + lane + (i & 3) >= seen:
                            x[start + i] = lowest
                top = int32(x[start])
                for i in range(start + 1, start + count):
                    top = int32(max(top, x[i]))
                top = warp_max(top)
                for i in range(start, start + count):
                    d = unsigned_min(int32(top - int64(x[i])), farthest)
                    z = unsigned_high_product(d, by)
                    s = int32(int32(z * step) - d + base)
                    x[i] = unsigned_shift(int32(int32(s * s) + extra), z)
                if seen < 128 * pieces:
                    for i in range(count):
                        if (i >> 2) * 128 + lane + (i & 3) >= seen:
                            x[start + i] = 0
                total = int32(0)
                for i in range(start, start + count):
                    total = int32(total + x[i])
                total = warp_sum(total)
                reciprocal = unsigned_div(int32(-1), total)
                for i in range(start, start + count):
                    scaled = int32(int32(x[i]) << shift)
                    quotient = unsigned_high_product(scaled, reciprocal)
                    rest = int32(scaled - int32(quotient * total))
                    x[i] = min(int32(quotient + 1) if rest >= total else quotient, most)
                for i in range(pieces):
                    first, at = int32(128 * i + lane), start + 4 * i
                    if first < columns:
                        store_4(out + row * n + first, pack4(x[at], x[at + 1], x[at + 2], x[at + 3]))

    softmax.__name__ = softmax.__qualname__ = f"softmax_ibert_{bits}_{pieces}"
    return Kernel(softmax, launch_bounds=32 * warps)


def softmax(x: Any, out: Any, p: Any, queue: Any) -> None:
    """Fills ``out.probability``."""
    m, n = x.q.shape
    q, kernel = aligned(x.q), _kernel(-(-n // 128), 8 * x.q.dtype.itemsize)
    blocks = -(-m // (WARPS * rows_a_warp(-(-n // 128))))
    inverse = -(-(2**32) // p.ln2)

    def work(probability: Any) -> None:
        where = q.pointer, x.stop.pointer, probability.pointer, m, n
        queue.launch(kernel, blocks, 32 * WARPS, *where, p.ln2, inverse, p.b, p.c, p.out_bits)

    fill(queue, out.probability, work)

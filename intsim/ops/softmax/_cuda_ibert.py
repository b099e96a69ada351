"""softmax.ibert at the speed of memory: a warp a row, the row in registers, 32-bit arithmetic.

Exact where ``serves`` holds, by three facts:

    z = floor(d / ln2) = d * ceil(2**32 / ln2) >> 32      while d (ln2 - 1) < 2**32; d is cut at 31 ln2, where
        the exponential is 0 already, since all are below 2**31
    floor(x / total) = x * floor((2**32 - 1) / total) >> 32, or one more, while x < 2**31
    a masked value is the lowest, and its exponential is set to 0 where the largest may be the lowest too

Time is that of memory only while the arithmetic takes less, so there is a kernel for rows that fill their pieces
and one for rows without a mask.
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
    on_device,
    store_4,
    unsigned_div,
    unsigned_high_product,
    unsigned_min,
    unsigned_shift,
    warp_max,
    warp_sum,
)
from intsim.ops.softmax import Steps

WARPS = 8


def rows_a_warp(pieces: int, m: int) -> int:
    """Several short rows, so that a warp has as much under way as with one long row; 1 where there are few."""
    rows = max(1, 4 // pieces)
    return rows if m >= rows else 1


# -- a number at a time, where all are int32: see ``ibert.in_int32`` -----------------------------------


@on_device
def exponential(d: int, z: int, step: int, base: int, extra: int) -> Any:
    """Of d below the top, 31 steps at most; z = d // step."""
    s = int32(int32(z * step) - d + base)
    return unsigned_shift(int32(int32(s * s) + extra), z)


@on_device
def rounded_down(exp: int, total: int, reciprocal: int, out_bits: int) -> Any:
    """The probability; reciprocal: (2**32 - 1) // total."""
    scaled = int32(int32(exp) << out_bits)
    quotient = unsigned_high_product(scaled, reciprocal)
    rest = int32(scaled + int32(quotient * int32(-total)))  # one instruction: a product and a sum
    return min(int32(quotient + 1) if rest >= total else quotient, int32((1 << out_bits) - 1))


@on_device
def _term(q: int, top: int, p: Any) -> Any:
    step = int32(p.ln2)
    d = unsigned_min(int32(int32(top) - int32(q)), int32(31 * step))
    return exponential(d, unsigned_div(d, step), step, int32(p.b), int32(p.c))


@on_device
def _added(exp: int, p: Any) -> int:
    return exp


@on_device
def _settled(total: int, seen: int, p: Any) -> tuple[int, int]:
    return int32(total), unsigned_div(int32(-1), int32(total))


@on_device
def _share(exp: int, of: tuple[int, int], p: Any) -> Any:
    return rounded_down(int32(exp), of[0], of[1], int32(p.out_bits))


STEPS = Steps(_term, _added, _settled, _share)


@cache
def _kernel(pieces: int, bits: int, rows: int, whole: bool, masked: bool) -> Kernel:
    """``f(q, stop, out, m, n, ln2, inverse, b, c, out_bits)``: rows of up to 128 ``pieces``, n a multiple of 4.

    rows: how many a warp has; at most m. whole: n = 128 pieces. masked: not every ``stop`` is n.
    """
    count, lowest, load, pack4 = 4 * pieces, -(2**31), LOAD_FOUR(bits), PACK4(False)
    width, warps, held = bits // 8, WARPS, count * rows

    def softmax(
        q: int, stop: int, out: int, m: int, n: int, ln2: int, inverse: int, b: int, c: int, out_bits: int
    ) -> None:
        thread = int32(cuda.threadIdx.x)
        top_row = (int64(cuda.blockIdx.x) * warps + (thread >> 5)) * rows
        lane = int32((thread & 31) * 4)
        here = int32(int32(n) - lane)  # columns from this lane's first on
        x = cuda.local.array(held, int32)
        if top_row < m:
            top_row = min(top_row, m - rows)  # the last rows may be done twice
            start = top_row * n + lane
            for r in range(rows):
                for piece in range(pieces):
                    i, at = r * count + 4 * piece, int32(128 * piece)
                    x[i], x[i + 1], x[i + 2], x[i + 3] = lowest, lowest, lowest, lowest
                    if whole or at < here:
                        x[i], x[i + 1], x[i + 2], x[i + 3] = load(q + (start + r * n + at) * width)
            step, by, base, extra = int32(ln2), int32(inverse), int32(b), int32(c)
            farthest, shift = int32(31 * step), int32(out_bits)
            for r in range(rows):
                first, seen = r * count, here
                if masked:
                    seen = int32(load_4(stop + 4 * (top_row + r)) - lane)
                    for i in range(count):
                        if int32((i >> 2) * 128 + (i & 3)) >= seen:
                            x[first + i] = lowest
                top = int32(x[first])
                for i in range(first + 1, first + count):
                    top = int32(max(top, x[i]))
                top = warp_max(top)
                for i in range(first, first + count):
                    d = unsigned_min(int32(top - int64(x[i])), farthest)
                    x[i] = exponential(d, unsigned_high_product(d, by), step, base, extra)
                if bits == 32 and (masked or not whole):
                    for i in range(count):
                        if int32((i >> 2) * 128 + (i & 3)) >= seen:
                            x[first + i] = 0
                total = int32(0)
                for i in range(first, first + count):
                    total = int32(total + x[i])
                total = warp_sum(total)
                reciprocal = unsigned_div(int32(-1), total)
                for i in range(first, first + count):
                    x[i] = rounded_down(x[i], total, reciprocal, shift)
                for piece in range(pieces):
                    i, at = first + 4 * piece, int32(128 * piece)
                    if whole or at < here:
                        store_4(out + start + r * n + at, pack4(x[i], x[i + 1], x[i + 2], x[i + 3]))

    said = f"{bits}_{pieces}x{rows}{'_whole' * whole}{'_masked' * masked}"
    softmax.__name__ = softmax.__qualname__ = f"softmax_ibert_{said}"
    return Kernel(softmax, launch_bounds=32 * warps)


def softmax(x: Any, out: Any, p: Any, queue: Any) -> None:
    """Fills ``out.probability``."""
    m, n = x.q.shape
    pieces = -(-n // 128)
    rows = rows_a_warp(pieces, m)
    kernel = _kernel(pieces, 8 * x.q.dtype.itemsize, rows, n == 128 * pieces, x.stop.holds != (n, n))
    q, inverse = aligned(x.q), -(-(2**32) // p.ln2)

    def work(probability: Any) -> None:
        where = q.pointer, x.stop.pointer, probability.pointer, m, n
        queue.launch(kernel, -(-m // (WARPS * rows)), 32 * WARPS, *where, p.ln2, inverse, p.b, p.c, p.out_bits)

    fill(queue, out.probability, work)

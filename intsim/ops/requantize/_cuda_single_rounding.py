"""requantize.single_rounding to 8 bits at the speed of memory: 16 values a thread, 32-bit arithmetic.

Ties go to positive and the shift is 33 or more, so of the product the high word is enough:

    (acc * multiplier + 2**(shift - 1) + zero_point * 2**shift) >> shift = ((acc * multiplier >> 32) + constant) >> s,
    s = shift - 32,   constant = (2 zero_point + 1) << (s - 1)

since the floor drops the low word. The high word is at most 2**30, and ``constant`` is below that.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np

from intsim.backends.cuda_aligned import aligned, fill
from intsim.backends.cuda_compile import Kernel
from intsim.backends.cuda_intrinsics import (
    PACK4,
    cuda,
    high_product,
    int32,
    int64,
    load_4,
    load_16,
    load_u8,
    on_device,
    store_1,
    store_16,
    unsigned_rem,
)
from intsim.ops.requantize.single_rounding import Params
from intsim.params import kinds
from intsim.records import fields_class


def fields(p: Any, queue: Any) -> tuple[Any, Any]:
    """Multipliers as int32 and s as bytes, on the GPU."""
    return queue.upload(p.multiplier.astype(np.int32)), queue.upload((p.shift - 32).astype(np.uint8))


@cache
def with_rules(rounding: int, zero_point_added: int) -> Any:
    """``f(p)``: the record with these rules as constants, so that a kernel has no branch for the others."""
    made = fields_class(*kinds(Params))

    @on_device
    def ruled(p: Any) -> Any:
        return made(p.multiplier, p.shift, p.zero_point, p.dtype, rounding, zero_point_added)

    return ruled


@cache
def _kernel(signed: bool) -> Kernel:
    pack4 = PACK4(signed)

    @on_device
    def one(acc: int, multiplier: int, s: int, twice: int) -> int:
        return int32((high_product(acc, multiplier) + int32(twice << (s - 1))) >> s)

    @on_device
    def four(x0: int, x1: int, x2: int, x3: int, multiplier: int, shifts: int, twice: int) -> Any:
        m0, m1, m2, m3 = load_16(multiplier)
        return pack4(
            one(x0, m0, shifts & 255, twice),
            one(x1, m1, (shifts >> 8) & 255, twice),
            one(x2, m2, (shifts >> 16) & 255, twice),
            one(x3, m3, (shifts >> 24) & 255, twice),
        )

    def requantize(acc: int, out: int, multiplier: int, shift: int, zero: int, count: int, n: int) -> None:
        """count values in rows of n; n a multiple of 16 or done one by one."""
        index = int64(cuda.blockIdx.x) * 256 + cuda.threadIdx.x
        first = index * 16
        twice = int32(zero)
        if n % 16 == 0:
            if first < count:
                column = int64(unsigned_rem(int32(index), int32(n // 16))) * 16
                s0, s1, s2, s3 = load_16(shift + column)
                a0, a1, a2, a3 = load_16(acc + first * 4)
                b0, b1, b2, b3 = load_16(acc + first * 4 + 16)
                c0, c1, c2, c3 = load_16(acc + first * 4 + 32)
                d0, d1, d2, d3 = load_16(acc + first * 4 + 48)
                store_16(
                    out + first,
                    four(a0, a1, a2, a3, multiplier + column * 4, s0, twice),
                    four(b0, b1, b2, b3, multiplier + column * 4 + 16, s1, twice),
                    four(c0, c1, c2, c3, multiplier + column * 4 + 32, s2, twice),
                    four(d0, d1, d2, d3, multiplier + column * 4 + 48, s3, twice),
                )
        else:
            for i in range(16):
                if first + i < count:
                    column = (first + i) % n
                    s = load_u8(shift + column)
                    q = one(load_4(acc + 4 * (first + i)), load_4(multiplier + 4 * column), s, twice)
                    store_1(out + first + i, pack4(q, q, q, q))

    requantize.__name__ = requantize.__qualname__ = f"requantize_to_{'int8' if signed else 'uint8'}"
    return Kernel(requantize, launch_bounds=256)


def requantize(x: Any, out: Any, p: Any, queue: Any) -> None:
    """Fills ``out.q``."""
    multiplier, shift = queue.once("fields", lambda: fields(p, queue))
    count, n = x.acc.size, x.acc.shape[1]
    zero = 2 * int(p.zero_point[0]) + 1
    acc = aligned(x.acc)

    def work(q: Any) -> None:
        where = acc.pointer, q.pointer, multiplier.pointer, shift.pointer
        queue.launch(_kernel(p.dtype.qmin < 0), -(-count // 4096), 256, *where, zero, count, n)

    fill(queue, out.q, work)

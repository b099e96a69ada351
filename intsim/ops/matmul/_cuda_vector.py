"""int8 vector times matrix: one row of A, where the time is that of reading B once.

A warp computes one column at a time: its lanes read a row of B in pieces of 16 bytes, multiply four bytes an
instruction (dp4a), and add up.
"""

from __future__ import annotations

from functools import cache

from intsim.backends.cuda_compile import Kernel
from intsim.backends.cuda_intrinsics import DOT4, cuda, int32, int64, load_4, load_16, shuffle_xor, store_4

WARPS = 4


@cache
def kernel(a_signed: bool, b_signed: bool) -> Kernel:
    """``f(a, b, out, n, k, added)``, all int64: out[j] = added[j] + sum_k a[k] b[j, k]; k a multiple of 16."""
    dot4, warps = DOT4(a_signed, b_signed), WARPS

    def gemv(a: int, b: int, out: int, n: int, k: int, added: int) -> None:
        thread = int32(cuda.threadIdx.x)
        column = int64(cuda.blockIdx.x) * warps + (thread >> 5)
        here = int64(thread & 31) * 16
        row = b + min(column, n - 1) * k
        total, other = int32(0), int32(0)
        while here + 1536 < k:  # four pieces in flight
            p0, p1, p2, p3 = load_16(row + here)
            q0, q1, q2, q3 = load_16(row + here + 512)
            r0, r1, r2, r3 = load_16(row + here + 1024)
            s0, s1, s2, s3 = load_16(row + here + 1536)
            x0, x1, x2, x3 = load_16(a + here)
            total = dot4(x0, p0, dot4(x1, p1, dot4(x2, p2, dot4(x3, p3, total))))
            x0, x1, x2, x3 = load_16(a + here + 512)
            other = dot4(x0, q0, dot4(x1, q1, dot4(x2, q2, dot4(x3, q3, other))))
            x0, x1, x2, x3 = load_16(a + here + 1024)
            total = dot4(x0, r0, dot4(x1, r1, dot4(x2, r2, dot4(x3, r3, total))))
            x0, x1, x2, x3 = load_16(a + here + 1536)
            other = dot4(x0, s0, dot4(x1, s1, dot4(x2, s2, dot4(x3, s3, other))))
            here += 2048
        while here < k:
            p0, p1, p2, p3 = load_16(row + here)
            x0, x1, x2, x3 = load_16(a + here)
            total = dot4(x0, p0, dot4(x1, p1, dot4(x2, p2, dot4(x3, p3, total))))
            here += 512
        total = int32(total + other)
        for step in (16, 8, 4, 2, 1):
            total = int32(total + shuffle_xor(total, int32(step)))
        if (thread & 31) == 0 and column < n:
            store_4(out + 4 * column, int32(total + load_4(added + 4 * column)))

    gemv.__name__ = gemv.__qualname__ = f"gemv_{'s' if a_signed else 'u'}8{'s' if b_signed else 'u'}8"
    return Kernel(gemv, launch_bounds=(32 * warps, 5))

"""``matmul.counted`` on the CPU: the plain product in int32, which holds the exact sums, and one pass over it."""

from __future__ import annotations

from typing import Any

import numpy as np

from intsim.backends.cpu import compile, shared_out
from intsim.compiling import Int, kernel
from intsim.ops.matmul import _cpu_integer as integer
from intsim.ops.matmul.counted import OP

LARGEST = 2**30  # of a bias: below it, nothing leaves int32

i32, u32 = np.int32, np.uint32


def matmul(x: Any, out: Any, p: Any, kept: Any) -> None:
    """Fills ``out.acc`` and ``out.wrapped``; serves operands of 8 bits, at most 32 bits of sum and short rows."""
    if x.bias.max() > LARGEST or x.bias.min() < -LARGEST:
        compile(OP.name, OP.program)(x, out, p, 0)
        return
    exact = out.acc if out.acc.dtype == np.int32 else np.empty(out.acc.shape, np.int32)
    integer.exact(x, exact, p, kept)
    shared_out(
        lambda first, last: _wrap(exact, p.acc.qmin, p.acc.qmax, out.acc, out.wrapped, first, last),
        out.acc.shape[0],
        out.acc.size,
    )


def _wrap_rows(exact: Any, qmin: int, qmax: int, acc: Any, wrapped: Any, first: Int, last: Int) -> None:
    low, mask = i32(qmin), u32(qmax - qmin)
    for i in range(first, last):
        sums, made, count = exact[i], acc[i], i32(0)
        for j in range(sums.shape[0]):
            s = sums[j]
            inside = i32(i32(u32(u32(s) - u32(low)) & mask) + low)
            count = i32(count + (i32(1) if inside != s else i32(0)))
            made[j] = inside
        wrapped[i] = count


_wrap = kernel(_wrap_rows, "matmul.counted.rows")

"""``matmul.counted`` on the CPU: the plain product in int32, which holds the exact sums, and one pass over it."""

from __future__ import annotations

from typing import Any

import numpy as np

from intsim.backends.cpu import compile
from intsim.ops.matmul import _cpu_integer as integer
from intsim.ops.matmul._cpu_wrapped import wrap
from intsim.ops.matmul.counted import OP

LARGEST = 2**30  # of a bias: below it, nothing leaves int32


def matmul(x: Any, out: Any, p: Any, kept: Any) -> None:
    """Fills ``out.acc`` and ``out.wrapped``; serves operands of 8 bits, at most 32 bits of sum and short rows."""
    if x.bias.max() > LARGEST or x.bias.min() < -LARGEST:
        compile(OP.name, OP.program)(x, out, p, 0)
        return
    exact = out.acc if out.acc.dtype == np.int32 else np.empty(out.acc.shape, np.int32)
    integer.exact(x, exact, p, kept)
    wrap(exact, p.acc.bits, out.acc, out.wrapped)

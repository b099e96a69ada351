"""linear.single_rounding in one kernel: the accumulators are requantized in registers.

Ties go to positive and the shift is 33 or more, so the low word of the product decides nothing but a carry
that the floor drops:

    (acc * multiplier + 2**(shift - 1) + zero_point * 2**shift) >> shift
        = ((acc * multiplier >> 32) + constant) >> (shift - 32),
    constant = 2**(shift - 33) + zero_point * 2**(shift - 32)

which is 32-bit arithmetic where constant is below 2**30: the high word of the product is at most 2**30.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from intsim.ops.matmul._cuda_gemm import operands, product
from intsim.ops.matmul._cuda_result import Result


def linear(x: Any, out: Any, p: Any, queue: Any) -> None:
    """Fills ``out.q``."""
    a, b, bias = operands(x, p.matmul, queue)
    fields = queue.once("fields", lambda: _fields(p.requantize, queue))
    signed = p.requantize.dtype.qmin < 0
    zero = 2 * int(p.requantize.zero_point[0]) + 1
    where = bias.pointer, fields[0].pointer, fields[1].pointer, zero
    product(queue, a, b, out.q, where, Result(8, signed))


def _fields(p: Any, queue: Any) -> tuple[Any, Any]:
    """Multipliers as int32 and shifts behind the high word as bytes, on the GPU."""
    return queue.upload(p.multiplier.astype(np.int32)), queue.upload((p.shift - 32).astype(np.uint8))

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
    table = queue.once("table", lambda: queue.upload(_table(p.requantize)))
    signed = p.requantize.dtype.qmin < 0
    product(queue, a, b, out.q, bias.pointer, table.pointer, Result(8, signed))


def _table(p: Any) -> Any:
    """For each four columns: four multipliers, four constants, four shifts (``STORE_QUANTIZED``)."""
    fields = np.stack([p.multiplier, (2 * p.zero_point + 1) << (p.shift - 33), p.shift - 32]).astype(np.int32)
    return np.ascontiguousarray(fields.reshape(3, -1, 4).swapaxes(0, 1))

"""linear.single_rounding in one kernel: the accumulators are requantized in registers, in 32-bit arithmetic.

``intsim.ops.requantize._cuda_single_rounding`` shows why that is exact.
"""

from __future__ import annotations

from typing import Any

from intsim.backends.cuda_aligned import fill
from intsim.ops.matmul._cuda_gemm import operands, product
from intsim.ops.matmul._cuda_result import Result
from intsim.ops.requantize._cuda_single_rounding import fields


def linear(x: Any, out: Any, p: Any, queue: Any) -> None:
    """Fills ``out.q``."""
    a, b, bias = operands(x, p.matmul, queue)
    multiplier, shift = queue.once("fields", lambda: fields(p.requantize, queue))
    where = bias.pointer, multiplier.pointer, shift.pointer, 2 * int(p.requantize.zero_point[0]) + 1
    result = Result(8, p.requantize.dtype.qmin < 0)
    fill(queue, out.q, lambda q: product(queue, a, b, q, where, result))

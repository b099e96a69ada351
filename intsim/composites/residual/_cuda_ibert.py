"""residual.ibert in one kernel: a warp a row, which lies in shared memory from the sum to the last quantization.

What a column goes through are the programs of the stages, linked; sums and largest elements are the warp's.
"""

from __future__ import annotations

from functools import cache
from typing import Any

from intsim.backends.cuda_compile import Kernel
from intsim.backends.cuda_intrinsics import (
    OneElement,
    cuda,
    int8,
    int32,
    int64,
    shared_address,
    shared_load_4,
    shared_store_4,
    warp_max,
    warp_sum_64,
)
from intsim.numerics import Order
from intsim.op import Elementwise
from intsim.ops.add import matched
from intsim.ops.layernorm.ibert import deviation, normalised
from intsim.ops.quantize import dynamic_token
from intsim.ops.quantize.dynamic_token import quantized
from intsim.ops.requantize import single_rounding
from intsim.ops.requantize._cuda_single_rounding import with_rules
from intsim.params import kinds
from intsim.records import fields_class
from intsim.scalar.rounding import divide

WARPS = 4

assert isinstance(matched.OP.program, Elementwise)
sum_of, requantized, acc_of = matched.OP.program.element, single_rounding.element, fields_class("acc")


@cache
def kernel(rules: tuple[int, ...]) -> Kernel:
    """``f(x, out, p, m, n)``. rules: roundings of the mean, of the requantization, of the last quantization."""
    mean_rounding, rounding, last_rounding = rules
    of_y, of_q = with_rules(rounding, int(Order.LAST)), fields_class(*kinds(dynamic_token.Params))

    def residual(x: Any, out: Any, p: Any, m: int, n: int) -> None:
        thread = int32(cuda.threadIdx.x)
        lane, row = int32(thread & 31), int64(cuda.blockIdx.x) * 4 + (thread >> 5)
        here = int32(shared_address(cuda.shared.array(0, int8)) + (thread >> 5) * (4 * n))
        if row < m:
            columns = int32(n)
            total = int64(0)
            j = lane
            while j < columns:
                h = int32(sum_of(row, j, x, p.add))
                total += int64(h)
                shared_store_4(int32(here + 4 * j), h)
                j = int32(j + 32)
            mean = int64(divide(warp_sum_64(total), n, mean_rounding))
            squares = int64(0)
            j = lane
            while j < columns:
                d = (int64(shared_load_4(int32(here + 4 * j))) - mean) >> p.layernorm.k
                squares += d * d
                j = int32(j + 32)
            factor = int64(2147483648) // int64(deviation(warp_sum_64(squares), p.layernorm))
            top, requantize = int32(1), of_y(p.requantize)
            j = lane
            while j < columns:
                y = normalised(int64(shared_load_4(int32(here + 4 * j))) - mean, factor, int64(x.bias[j]), p.layernorm)
                r = int32(requantized(row, j, acc_of(OneElement(int64(y))), requantize))
                out.y[row, j] = r
                shared_store_4(int32(here + 4 * j), r)
                top = int32(max(top, abs(r)))
                j = int32(j + 32)
            top = warp_max(top)
            quantize = of_q(p.quantize.dtype, last_rounding)
            j = lane
            while j < columns:
                out.q[row, j] = quantized(int64(shared_load_4(int32(here + 4 * j))), int64(top), quantize)
                j = int32(j + 32)
            if lane == 0:
                out.top[row] = top

    residual.__name__ = residual.__qualname__ = f"residual_ibert_{rules}"
    return Kernel(residual, launch_bounds=32 * WARPS)


def residual(x: Any, out: Any, p: Any, queue: Any) -> None:
    """Fills ``out.y``, ``out.q`` and ``out.top``."""
    m, n = x.a.shape
    rules = int(p.layernorm.mean_rounding), int(p.requantize.rounding), int(p.quantize.rounding)
    queue.launch(kernel(rules), -(-m // WARPS), 32 * WARPS, x, out, queue.record, m, n, shared=4 * WARPS * n)

"""Linear layers in one kernel: the sums pass through the programs of the stages while they are in registers.

The entries are called after the variants. A layer whose requantization fits 32 bits has a faster one:
``_cuda_single_rounding``.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np

from intsim.backends.cuda_aligned import fill
from intsim.backends.cuda_intrinsics import OneElement, on_device
from intsim.op import Elementwise, Op
from intsim.ops.activation import table as tables
from intsim.ops.dequantize import product as dequantize
from intsim.ops.matmul._cuda_gemm import operands, product
from intsim.ops.matmul._cuda_result import Finish, Result
from intsim.ops.requantize import (
    double_rounding as double,
    float32_bias as biased,
    float32_ties_even as even32,
    float64_ties_away as away64,
    float64_ties_even as even64,
    single_rounding as single,
    two_half_ups as half_ups,
)
from intsim.ops.requantize._cuda_single_rounding import with_rules
from intsim.records import fields_class


class _Layer:
    """An entry ``f(x, out, record, queue)``.

    finish(p): by the record. integer_bias: the input ``bias``, where there is one, joins the sum.
    """

    def __init__(self, finish: Callable[[Any], Finish], *, integer_bias: bool = True) -> None:
        self.finish, self._integer_bias = finish, integer_bias

    def __call__(self, x: Any, out: Any, p: Any, queue: Any) -> None:
        n, joined = x.b.shape[0], x
        if not (self._integer_bias and hasattr(x, "bias")):
            none = queue.once(("no bias", n), lambda: queue.upload(np.zeros(n, np.int32)))
            joined = fields_class("a", "b", "bias")(x.a, x.b, none)
        a, b, bias = operands(joined, p.matmul, queue)
        result = Result(8 * out[0].dtype.itemsize, finish=self.finish(p))

        def work(made: Any) -> None:
            product(queue, a, b, made, (bias.pointer, 0, 0, 0), result, more=(x, queue.record))

        fill(queue, out[0], work)


def _element(op: Op) -> Any:
    assert isinstance(op.program, Elementwise)
    return op.program.element


def _requantized(op: Op) -> Callable[[Any], Finish]:
    element, acc_of = _element(op), fields_class("acc")

    @on_device
    def apply(acc: int, i: int, j: int, x: Any, p: Any) -> Any:
        return element(i, j, acc_of(OneElement(acc)), p.requantize)

    made = Finish(op.name, apply)
    return lambda p: made


def _rounded_once(p: Any) -> Finish:
    return _ruled(int(p.requantize.rounding), int(p.requantize.zero_point_added), False)


def _looked_up(p: Any) -> Finish:
    return _ruled(int(p.requantize.rounding), int(p.requantize.zero_point_added), True)


@cache
def _ruled(rounding: int, zero_point_added: int, tabulated: bool) -> Finish:
    """requantize.single_rounding by these rules alone; tabulated: and activation.table."""
    element, acc_of, rules = _element(single.OP), fields_class("acc"), with_rules(rounding, zero_point_added)
    entry, byte_of = _element(tables.OP), fields_class("x", "table")

    @on_device
    def requantized(acc: int, i: int, j: int, x: Any, p: Any) -> Any:
        return element(i, j, acc_of(OneElement(acc)), rules(p.requantize))

    @on_device
    def looked_up(acc: int, i: int, j: int, x: Any, p: Any) -> Any:
        return entry(i, j, byte_of(OneElement(requantized(acc, i, j, x, p)), x.table), p.table)

    name = f"{single.OP.name}_{rounding}_{zero_point_added}" + f"_{tables.OP.name}" * tabulated
    return Finish(name, looked_up if tabulated else requantized)


def _requantized_with_bias() -> Callable[[Any], Finish]:
    element, given = _element(biased.OP), fields_class("acc", "bias")

    @on_device
    def apply(acc: int, i: int, j: int, x: Any, p: Any) -> Any:
        return element(i, j, given(OneElement(acc), x.bias), p.requantize)

    made = Finish(biased.OP.name, apply)
    return lambda p: made


def _dequantized() -> Callable[[Any], Finish]:
    element, given = _element(dequantize.OP), fields_class(*(port.name for port in dequantize.OP.inputs))

    @on_device
    def apply(acc: int, i: int, j: int, x: Any, p: Any) -> Any:
        return element(i, j, given(OneElement(acc), x.a_scale, x.b_scale, x.real_bias), p.dequantize)

    made = Finish(dequantize.OP.name, apply)
    return lambda p: made


single_rounding = _Layer(_rounded_once)
double_rounding = _Layer(_requantized(double.OP))
two_half_ups = _Layer(_requantized(half_ups.OP))
float32_ties_even = qlinear_matmul = _Layer(_requantized(even32.OP))
float64_ties_even = _Layer(_requantized(even64.OP))
float64_ties_away = _Layer(_requantized(away64.OP))
float32_bias = _Layer(_requantized_with_bias(), integer_bias=False)
float32_result = _Layer(_dequantized())
tabulated = _Layer(_looked_up)

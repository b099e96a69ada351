"""Every tuned kernel that ships compiles for real GPUs, without one, and keeps its registers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from conftest import SIMULATED, UNCOMPILED

if UNCOMPILED or SIMULATED:
    pytest.skip("the simulator compiles nothing; the compiled job runs this", allow_module_level=True)

from intsim.backends.cuda_compile import build
from intsim.binding import bind, kernel_view
from intsim.composites.attention import _cuda_fused as attention
from intsim.composites.linear import _cuda_programs as programs
from intsim.composites.residual import _cuda_ibert as residual
from intsim.ops.activation import _cuda_table as table
from intsim.ops.layernorm import _cuda_ibert as layernorm
from intsim.ops.matmul import (
    _cuda_gemm as gemm,
    _cuda_mma as mma,
    _cuda_operands as operands,
    _cuda_vector as vector,
    _cuda_wgmma as wgmma,
)
from intsim.ops.matmul._cuda_result import Result
from intsim.ops.requantize import _cuda_single_rounding as requantize
from intsim.ops.softmax import _cuda_ibert as softmax
from intsim.params import record
from intsim.records import fields_class
from intsim.registry import get

HOPPER, AMPERE = (9, 0), (8, 0)


def as_kernels_take_it(name: str) -> tuple[Any, Any, Any]:
    """(x, out, p) of the first example of an op."""
    op = get(name)
    arrays, p = next(iter(op.examples().values()))
    bound = bind(op, arrays, p)
    made = [np.empty(port.shape(p, bound.size), port.storage(p)) for port in op.outputs]
    x = fields_class(*(port.name for port in op.inputs))(*map(kernel_view, bound.arrays))
    return x, fields_class(*(port.name for port in op.outputs))(*made), record(p, bound.size)


def shipped() -> Iterator[tuple[Any, Any, tuple[int, int]]]:
    """(kernel, its arguments or the number of int64s that they are, compute capability)."""
    for tile in (*gemm.WGMMA_TILES, gemm.WIDE):
        for result in (Result(fours=True), Result(8)):
            yield wgmma.kernel(tile, True, True, result), (*(0,) * 10, ()), HOPPER
    yield wgmma.kernel(gemm.WGMMA_TILES[0], True, True, Result()), (*(0,) * 10, ()), HOPPER
    yield wgmma.kernel(gemm.WGMMA_TILES[0], False, True, Result(8, False)), (*(0,) * 10, ()), HOPPER
    for tile in gemm.MMA_TILES:
        for result in (Result(), Result(8), Result(adds=True)):
            yield mma.kernel(tile, True, True, result), (*(0,) * 11, ()), AMPERE
    yield mma.kernel(gemm.MMA_TILES[0], False, False, Result(paired=False)), (*(0,) * 11, ()), HOPPER
    for layer in ("double_rounding", "float32_bias", "float32_result", "tabulated"):
        x, _, p = as_kernels_take_it(f"linear.{layer}")
        result = Result(32 if layer == "float32_result" else 8, finish=getattr(programs, layer).finish(p))
        if layer in ("double_rounding", "float32_bias"):
            yield wgmma.kernel(gemm.FINISHED, True, True, result), (*(0,) * 10, (x, p)), HOPPER
        else:
            yield mma.kernel(gemm.MMA_TILES[0], True, True, result), (*(0,) * 11, (x, p)), AMPERE
    yield vector.kernel(True, True), 6, HOPPER
    yield operands._unpacked_rows(True, False), 4, AMPERE
    yield requantize._kernel(True), 7, AMPERE
    yield table._kernel, 5, AMPERE
    for pieces, rows, whole, masked in (
        (1, 4, True, False),
        (1, 4, False, True),
        (4, 1, True, True),
        (8, 1, False, False),
    ):
        yield softmax._kernel(pieces, 32, rows, whole, masked), 10, AMPERE
    for bits in (16, 32):
        yield layernorm._kernel(8, bits, 4), 6, AMPERE

    yield residual.kernel((4, 4, 4)), (*as_kernels_take_it("residual.ibert"), 0, 0), AMPERE
    for name, constant, shape, capability in (
        ("ibert", (8, 0), (1, 2, 2, False), HOPPER),
        ("gemmlowp", (), (2, 2, 2, False), AMPERE),
        ("polynomial", (3, 8, 4), (2, 4, 4, True), HOPPER),
    ):
        made = attention.kernel(attention.Variant(name, constant, name == "ibert"), (4, 1, 4, 1), *shape)
        of_place = ((0,) * attention.AXES,) * 6
        yield made, (*(0,) * 10, *of_place, as_kernels_take_it(f"attention.{name}")[2]), capability


@pytest.mark.parametrize(("kernel", "arguments", "capability"), list(shipped()), ids=lambda x: getattr(x, "name", None))
def test_no_register_is_spilled_and_no_product_waits(kernel: Any, arguments: Any, capability: tuple[int, int]) -> None:
    made = build(kernel, (0,) * arguments if isinstance(arguments, int) else arguments, capability)
    assert made.spilled == 0, made.log
    assert made.stack == 0, made.log
    assert "C75" not in made.log  # the linker's notes that wgmma is done one after the other: C7509, C7515
    assert "wgmma" not in kernel.name or "wgmma.mma_async" in made.ptx


@pytest.mark.parametrize("fours", [1, 2])
def test_sums_that_saturate_stay_in_registers(fours: int) -> None:
    from intsim.numerics import IntType, Overflow
    from intsim.ops.matmul import _cuda_saturating as saturating
    from intsim.ops.matmul.integer import Params
    from intsim.params import record
    from intsim.records import fields_class

    x = fields_class("a", "b", "bias")(np.zeros((1, 1), np.int8), np.zeros((1, 1), np.int8), np.zeros(1, np.int32))
    out = fields_class("acc")(np.zeros((1, 1), np.int16))
    p = record(Params(acc=IntType(16), overflow=Overflow.SATURATE), {"m": 1, "n": 1, "k": 1})
    made = build(saturating.kernel(fours), (x, out, p, 0), HOPPER)
    assert made.spilled == 0, made.log
    assert made.stack <= 4 * 16 * fours**2, made.log  # what they begin and end with, and not the sums themselves


def test_two_forms_on_one_accumulator_stay_in_registers() -> None:
    from intsim.analysis import exhaustive
    from intsim.analysis._cuda_exhaustive import comparison
    from intsim.numerics import Rounding
    from intsim.ops.requantize import double_rounding, single_rounding

    away = "requantize.single_rounding", single_rounding.Params(3, 40, rounding=Rounding.TIES_TO_AWAY)
    double = "requantize.double_rounding", double_rounding.Params(3, 40)
    for one, other in ((away, double), (away, away)):
        forms = exhaustive._form(*one, False), exhaustive._form(*other, True)
        said = f"{forms[0][1]} {forms[1][1]}"
        made = build(comparison(forms[0][0], forms[1][0], said, least=False), (np.zeros(2, np.int64), 0, 0), HOPPER)
        assert (made.spilled, made.stack) == (0, 0), made.log


def test_a_serialised_product_is_noted() -> None:
    """What the test above looks for exists: registers that are touched before the wait."""
    from intsim.backends.cuda_compile import Kernel
    from intsim.backends.cuda_intrinsics import (
        GROUP_PRODUCT,
        GROUPS_LEFT,
        ZERO,
        cuda,
        group_commit,
        group_fence,
        int32,
        store_4,
    )

    zero, product, wait = ZERO(32), GROUP_PRODUCT(64, True, True), GROUPS_LEFT(0)

    def hasty(out: int) -> None:
        acc = cuda.local.array(32, int32)
        zero(acc)
        group_fence()
        product(acc, int32(1024), int32(65536))
        group_commit()
        store_4(out, acc[0])
        wait()

    assert "C75" in build(Kernel(hasty, "hasty", launch_bounds=128), (0,), HOPPER).log

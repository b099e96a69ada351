"""Linear layers in one kernel, by the programs of their stages, on the simulator's threads, against the spec."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from conftest import SIMULATED
from intsim.execute import NotServed, prepare, run
from intsim.numerics import Rounding, int8, int16, uint8
from intsim.ops.activation import table
from intsim.ops.matmul import integer as matmul
from intsim.registry import get

if not SIMULATED:
    pytest.skip("runs kernels on the simulator; the uncompiled job does", allow_module_level=True)

from intsim.ops.matmul import _cuda_gemm as gemm, _cuda_mma as mma, _cuda_wgmma as wgmma

VARIANTS = (
    "single_rounding",
    "double_rounding",
    "two_half_ups",
    "float32_ties_even",
    "float64_ties_even",
    "float64_ties_away",
    "qlinear_matmul",
    "float32_bias",
)


def drawn(shape: tuple[int, ...], seed: int = 0, dtype: Any = np.int8) -> Any:
    t = np.iinfo(dtype)
    made = np.random.default_rng(seed).integers(t.min, t.max + 1, shape).astype(dtype)
    made.reshape(-1)[::7], made.reshape(-1)[3::11] = t.min, t.max
    return made


def params(name: str, n: int, **fields: Any) -> Any:
    """A scale a channel; results that reach all over 8 bits; a zero point of ``a``."""
    cls: Any = get(name).params
    scale = np.random.default_rng(7).uniform(0.002, 0.02, n)
    operands = matmul.Params(-5)
    if name == "linear.qlinear_matmul":
        requantize = type(next(iter(get(name).examples().values()))[1].requantize)
        return cls(operands, requantize.from_scales(0.1, scale, 0.5, zero_point=3, **fields))
    return cls.from_scales(0.1, scale, 0.5, operands, zero_point=3, **fields)


def equal(name: str, p: Any, *given: Any) -> Any:
    where = f"intsim.composites.linear._cuda_programs:{name.partition('.')[2]}"
    wanted = run(name, *given, p=p, backend="reference")
    got = prepare(name, p=p, backend="cuda", tuned=where)(*given)
    assert got.dtype == wanted.dtype
    assert np.array_equal(got.view(np.uint8), wanted.view(np.uint8))
    return wanted


@pytest.mark.parametrize("variant", VARIANTS)
def test_requantized_by_the_program_of_the_stage(variant: str) -> None:
    name, (m, n, k) = f"linear.{variant}", (3, 9, 40)
    bias: tuple[Any, ...] = (np.random.default_rng(3).integers(-3000, 3000, n).astype(np.int32),)
    if variant == "float32_bias":
        bias = (np.linspace(-9, 9, n).astype(np.float32),)
    if variant == "qlinear_matmul":
        bias = ()
    wanted = equal(name, params(name, n), drawn((m, k)), drawn((n, k), 1), *bias)
    assert len(np.unique(wanted)) > 15


@pytest.mark.parametrize(("m", "n", "unit"), [(65, 22, "mma"), (70, 68, "wgmma")])
def test_tails_and_several_tiles(m: int, n: int, unit: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gemm, "_unit", lambda *_: unit)
    monkeypatch.setattr(gemm, "FINISHED", wgmma.Tile(1, 64, 2))
    monkeypatch.setattr(gemm, "mma_tile", lambda *_: (mma.Tile(64, 64, 2, 2, 1, 4), 1))
    p = params("linear.double_rounding", n, dtype=uint8)
    wanted = equal("linear.double_rounding", p, drawn((m, 272)), drawn((n, 272), 1), drawn((n,), 2, np.int32) >> 16)
    assert len(np.unique(wanted)) > 100


def test_a_table_behind_the_requantization() -> None:
    cls: Any = get("linear.tabulated").params
    inner = params("linear.single_rounding", 12, rounding=Rounding.TIES_TO_AWAY)
    p = cls(inner.matmul, inner.requantize, table.Params(int8, int8))
    equal("linear.tabulated", p, drawn((4, 32)), drawn((12, 32), 1), None, drawn((256,), 2))


def test_float32_results() -> None:
    op = get("linear.float32_result")
    p = type(next(iter(op.examples().values()))[1])(
        matmul.Params(7, a=uint8), next(iter(op.examples().values()))[1].dequantize
    )
    scales = np.linspace(0.1, 2, 5).astype(np.float32), np.linspace(1e-3, 1, 6).astype(np.float32)
    bias, real_bias = drawn((6,), 3, np.int32) >> 8, np.linspace(-5, 5, 6).astype(np.float32)
    equal("linear.float32_result", p, drawn((5, 33), 0, np.uint8), drawn((6, 33), 1), *scales, bias, real_bias)


def test_what_it_does_not_serve_is_left_to_the_stages() -> None:
    p, given = params("linear.double_rounding", 3), (drawn((2, 8)), drawn((3, 8), 1))
    where = "intsim.composites.linear._cuda_programs:double_rounding"
    for other in (replace(p, matmul=matmul.Params(0, 1)), replace(p, requantize=replace(p.requantize, dtype=int16))):
        with pytest.raises(NotServed):
            prepare("linear.double_rounding", p=other, backend="cuda", tuned=where)(*given)

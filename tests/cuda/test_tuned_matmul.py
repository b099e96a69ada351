"""The tensor-core kernels as they run on a GPU, on the simulator's threads, against the spec."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import numpy as np
import pytest

from conftest import SIMULATED
from intsim.composites.linear import single_rounding as linear
from intsim.execute import prepare, run
from intsim.numerics import IntType, Nibbles, Order, Overflow, Rounding, int4, int8, uint4, uint8
from intsim.ops.matmul import integer as matmul
from intsim.ops.requantize import single_rounding as requantize

if not SIMULATED:
    pytest.skip("runs kernels on the simulator; the uncompiled job does", allow_module_level=True)

from intsim.ops.matmul import _cuda_gemm as gemm, _cuda_mma as mma, _cuda_saturating as saturating, _cuda_wgmma as wgmma

GEMM = "intsim.ops.matmul._cuda_gemm:"
FUSED = "intsim.composites.linear._cuda_single_rounding:linear"


def drawn(t: IntType, shape: tuple[int, ...], seed: int = 0) -> Any:
    """Uniform, with both ends in every few elements; packed where the type has 4 bits."""
    rng = np.random.default_rng(seed)
    if t.bits == 4:
        return rng.integers(0, 256, (*shape[:-1], (shape[-1] + 1) // 2)).astype(np.uint8)
    made = rng.integers(t.qmin, t.qmax + 1, shape).astype(t.storage)
    made.reshape(-1)[::7], made.reshape(-1)[3::11] = t.qmin, t.qmax
    return made


def bias_of(n: int, reach: int = 2**31) -> Any:
    return np.random.default_rng(5).integers(-reach, reach, n).astype(np.int32)


def equal(where: str, p: matmul.Params, m: int, n: int, k: int) -> None:
    given = drawn(p.a, (m, k)), drawn(p.b, (n, k), 1), bias_of(n)
    wanted = run("matmul.integer", *given, p=p, backend="reference")
    got = prepare("matmul.integer", p=p, backend="cuda", tuned=where)(*given)
    assert got.dtype == wanted.dtype
    assert np.array_equal(got, wanted)


SIGNS = [(int8, int8), (uint8, int8), (int8, uint8), (uint8, uint8)]


# The ring has three stages: eight pieces of 128 bytes wrap it more than twice.
@pytest.mark.parametrize(
    ("tile", "m", "n", "k"),
    [
        pytest.param(mma.Tile(32, 32, 1, 1, 4, 3), 33, 45, 1040, id="slices, odd columns, a tail of K"),
        pytest.param(mma.Tile(32, 64, 1, 2, 2, 6), 20, 66, 272, id="two slices, even columns"),
        pytest.param(mma.Tile(64, 64, 2, 2, 1, 4), 65, 40, 48, id="K shorter than a piece"),
    ],
)
def test_mma(tile: mma.Tile, m: int, n: int, k: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gemm, "mma_tile", lambda *_: (tile, 1))
    equal(GEMM + "by_mma", matmul.Params(), m, n, k)


@pytest.mark.parametrize(("a", "b"), SIGNS, ids=str)
def test_mma_signs(a: IntType, b: IntType) -> None:
    equal(GEMM + "by_mma", matmul.Params(a=a, b=b), 3, 9, 64)


def test_mma_splits_k_among_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gemm, "mma_tile", lambda *_: (gemm.MMA_TILES[-1], 3))
    equal(GEMM + "by_mma", matmul.Params(), 5, 33, 400)


@pytest.mark.parametrize(
    ("tile", "m", "n", "k"),
    [
        pytest.param(wgmma.Tile(1, 24, 3), 100, 72, 1040, id="six tiles, a ring that wraps, a tail of K"),
        pytest.param(wgmma.Tile(2, 64, 4), 140, 68, 144, id="two groups, tails of M and N"),
        pytest.param(wgmma.Tile(1, 64, 2), 70, 80, 144, id="four sums at once, tails of M and N"),
    ],
)
def test_wgmma(tile: wgmma.Tile, m: int, n: int, k: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gemm, "wgmma_tile", lambda *_: tile)
    equal(GEMM + "by_wgmma", matmul.Params(), m, n, k)


@pytest.mark.parametrize(("a", "b"), SIGNS[1:], ids=str)
def test_wgmma_signs(a: IntType, b: IntType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gemm, "wgmma_tile", lambda *_: wgmma.Tile(1, 8, 2))
    equal(GEMM + "by_wgmma", matmul.Params(a=a, b=b), 2, 8, 16)


@pytest.mark.parametrize(("a", "b"), SIGNS, ids=str)
def test_a_row_times_a_matrix(a: IntType, b: IntType) -> None:
    equal(GEMM + "by_vector", matmul.Params(a=a, b=b), 1, 5, 2640)


def test_extremes_of_the_sum() -> None:
    """Every product is the largest, and the bias makes the sum wrap."""
    a, b = np.full((2, 256), -128, np.int8), np.full((4, 256), -128, np.int8)
    bias = np.array([2**31 - 1, -(2**31), 2**31 - 256 * 2**14, 0], np.int32)
    wanted = run("matmul.integer", a, b, bias, p=matmul.Params(), backend="reference")
    assert (wanted[:, 0] < 0).all()
    for where in ("by_mma", "by_wgmma"):
        got = prepare("matmul.integer", p=matmul.Params(), backend="cuda", tuned=GEMM + where)(a, b, bias)
        assert np.array_equal(got, wanted)


@pytest.mark.parametrize(
    ("p", "k"),
    [
        pytest.param(matmul.Params(-128, 0), 33, id="of a"),
        pytest.param(matmul.Params(200, [3, -5, 0, 127, -128], a=uint8), 50, id="of both, and K no multiple of 16"),
    ],
)
def test_zero_points(p: matmul.Params, k: int) -> None:
    equal(GEMM + "best", p, 3, 5, k)


@pytest.mark.parametrize("nibbles", Nibbles)
@pytest.mark.parametrize(
    ("a", "b", "k"), [(int8, int4, 33), (uint8, uint4, 32), (int4, int4, 18), (uint4, int4, 7)], ids=str
)
def test_four_bits(a: IntType, b: IntType, k: int, nibbles: Nibbles) -> None:
    equal(GEMM + "best", matmul.Params(1, -2 if b == int4 else 2, a=a, b=b, nibbles=nibbles), 2, 4, k)


@pytest.mark.parametrize("added", Order)
def test_the_plain_tile_saturates_in_order(added: Order) -> None:
    p = matmul.Params(acc=IntType(16), overflow=Overflow.SATURATE, bias_added=added)
    given = drawn(int8, (18, 40)), drawn(int8, (17, 40), 1), bias_of(17, 2**14)
    wanted = run("matmul.integer", *given, p=p, backend="reference")
    assert (abs(wanted.astype(int)) >= 2**15 - 1).any()
    where = "intsim.ops.matmul._cuda_tile:matmul"
    assert np.array_equal(prepare("matmul.integer", p=p, backend="cuda", tuned=where)(*given), wanted)


@pytest.mark.parametrize(
    ("fours", "p", "m", "n", "k"),
    [
        pytest.param(1, matmul.Params(acc=IntType(16)), 66, 3, 19, id="two blocks, int16"),
        pytest.param(2, matmul.Params(3, [-5, 7], acc=IntType(16), bias_added=Order.LAST), 35, 2, 16, id="bias last"),
        pytest.param(1, matmul.Params(255, acc=IntType(16), a=uint8, b=int4), 5, 20, 31, id="nibbles, odd K"),
    ],
)
def test_the_saturating_tile_keeps_the_order(
    fours: int, p: matmul.Params, m: int, n: int, k: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(saturating, "fours_of", lambda *_: fours)
    monkeypatch.setattr(saturating, "kernel", functools.partial(saturating.kernel, steps=8))  # two or more pieces
    p = dataclasses.replace(p, overflow=Overflow.SATURATE)
    given = drawn(p.a, (m, k)), drawn(p.b, (n, k), 1), bias_of(n, 2**15)
    wanted = run("matmul.integer", *given, p=p, backend="reference")
    plain = run("matmul.integer", *given, p=dataclasses.replace(p, overflow=Overflow.WRAP), backend="reference")
    ends = (wanted == p.acc.qmin) | (wanted == p.acc.qmax)
    assert ends.any()
    assert ((wanted != plain) & ~ends).any()  # saturated on the way, and came back
    where = "intsim.ops.matmul._cuda_saturating:matmul"
    assert np.array_equal(prepare("matmul.integer", p=p, backend="cuda", tuned=where)(*given), wanted)


@pytest.mark.parametrize(
    ("dtype", "a_zero_point", "m", "n", "k", "tile"),
    [
        pytest.param(int8, 0, 40, 128, 272, wgmma.Tile(1, 64, 2), id="int8"),
        pytest.param(uint8, 7, 3, 64, 40, wgmma.Tile(1, 128, 2), id="uint8, a zero point of a, half a tile"),
        pytest.param(int8, 0, 3, 64, 48, None, id="by mma"),
    ],
)
def test_requantized_in_one_kernel(
    dtype: IntType, a_zero_point: int, m: int, n: int, k: int, tile: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gemm, "wgmma_tile", lambda *_: tile)
    monkeypatch.setattr(gemm, "_unit", lambda *_: "wgmma" if tile else "mma")
    rng = np.random.default_rng(3)
    multiplier = rng.integers(-(2**31) + 1, 2**31, n)
    p = linear.Params(
        matmul.Params(a_zero_point),
        requantize.Params(multiplier, rng.integers(33, 50, n), 11, dtype, Rounding.TIES_TO_POSITIVE),
    )
    given = drawn(int8, (m, k)), drawn(int8, (n, k), 1), bias_of(n, 2**18)
    wanted = run("linear.single_rounding", *given, p=p, backend="reference")
    assert len(np.unique(wanted)) > 40
    got = prepare("linear.single_rounding", p=p, backend="cuda", tuned=FUSED)(*given)
    assert got.dtype == wanted.dtype
    assert np.array_equal(got, wanted)


@pytest.mark.parametrize("shift", [32, 63 - 1])
def test_what_does_not_fit_32_bits_is_left_to_the_stages(shift: int) -> None:
    """At shift 32 the rounding's half lies in the low word; at 62 a zero point of 2 is beyond 2**30."""
    p = requantize.Params(2**30, shift, 2, int8, Rounding.TIES_TO_POSITIVE)
    assert not requantize.in_32_bits(p)
    assert requantize.in_32_bits(requantize.Params(2**30, 40, 2, int8, Rounding.TIES_TO_POSITIVE))
    assert not requantize.in_32_bits(requantize.Params(2**30, 40, [2, 3], int8, Rounding.TIES_TO_POSITIVE))
    assert not requantize.in_32_bits(requantize.Params(2**30, 40, 2, int8, Rounding.TIES_TO_EVEN))


def test_tiles_are_chosen_for_the_shape() -> None:
    chosen = {shape: gemm.wgmma_tile(*shape, 132) for shape in ((4096, 4096, 4096), (4096, 768, 768), (128, 3072, 768))}
    assert [t.columns for t in chosen.values()] == [256, 192, 64]
    assert gemm.mma_tile(16, 4096, 4096, gemm.INT32, 132) == (gemm.MMA_TILES[-1], 1)
    assert gemm.mma_tile(16, 32, 8192, gemm.INT32, 132)[1] == 8

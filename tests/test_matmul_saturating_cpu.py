"""The saturating matrix product by micro-kernels: proved tiles, and tiles summed in order."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from intsim.compiling import native, this_machine
from intsim.execute import reference, run
from intsim.numerics import IntType, Order, Overflow, int4, int8, uint8
from intsim.ops.matmul import _cpu_saturating as saturating, _cpu_tile as tiles, integer
from intsim.ops.matmul._cpu_saturating import laid_out, ordered


def wanted(a: Any, b: Any, zero_points: tuple[Any, Any], start: Any, low: int, high: int) -> Any:
    left, right = a.astype(np.int64) - zero_points[0], b.astype(np.int64) - np.reshape(zero_points[1], (-1, 1))
    acc = np.broadcast_to(start, (len(a), len(b))).astype(np.int64)
    for k in range(a.shape[1]):
        acc = np.clip(acc + left[:, k, None] * right[:, k], low, high)
    return acc


@settings(max_examples=60)
@given(
    st.tuples(st.integers(1, 13), st.sampled_from([1, 2, 63, 64, 65, 130, 200]), st.integers(1, 35)),
    st.integers(9, 31),
    st.sampled_from([3, 30, 90, 400]),
    st.sampled_from([np.int8, np.uint8]),
    st.integers(0, 2**31),
)
def test_equals_one_term_at_a_time(size: tuple[int, int, int], bits: int, spread: int, t: Any, seed: int) -> None:
    (m, k, n), generator = size, np.random.default_rng(seed)
    a, b = (np.clip(generator.normal(0, spread, s), -128, 127).astype(np.int8) for s in ((m, k), (n, k)))
    high = 2 ** (bits - 1) - 1
    start = generator.integers(-high - 1, high + 1, n).astype(np.int32) // generator.choice([1, 16, 10**9])
    zero_points = int(generator.choice([0, 127])), generator.integers(-128, 128, n)
    got, _ = ordered(a.view(t), laid_out(b, zero_points[1]), zero_points[0], start, -high - 1, high)
    assert (got == wanted(a.view(t), b, zero_points, start, -high - 1, high)).all()


def test_tiles_are_proved_and_only_the_others_are_summed_in_order() -> None:
    a, b = np.full((6, 256), 3, np.int8), np.full((1, 256), 5, np.int8)
    high = 3 * 5 * 256
    assert ordered(a, laid_out(b, 0), 0, np.zeros(1, np.int32), -high - 1, high)[1] == 0
    got, again = ordered(a, laid_out(b, 0), 0, np.zeros(1, np.int32), -high, high - 1)
    assert again == 1
    assert (got == high - 1).all()
    start = np.full(1, -high - 1, np.int32)  # the start alone leaves no room to prove anything
    got, again = ordered(a, laid_out(b, 0), 0, start, -high - 1, high)
    assert again == 1
    assert (got == -1).all()


def test_the_proof_counts_what_happens_between_two_stops() -> None:
    a = np.ones((6, 64), np.int8)
    b = np.concatenate([np.full(32, 100), np.full(32, -100)]).astype(np.int8)[None]  # up to 3200, and back to 0
    got, again = ordered(a, laid_out(b, 0), 0, np.zeros(1, np.int32), -3000, 2999)
    assert again == 1
    assert (got == 2999 - 3200).all()


@pytest.mark.parametrize("low", [-(2**30), -1000])
def test_the_largest_of_a_tile_is_found_at_both_ends(low: int) -> None:
    columns = tiles.columns(saturating.rung(this_machine()))
    rows = tiles.shape(saturating.rung(this_machine()), False)[0]
    find = native(saturating.farthest, 1, this_machine())
    for at in range(0, rows * columns - 1, 5):
        tile = np.full((rows, columns), 7, np.int32)
        tile.flat[at] = low
        tile.flat[-1] = -low - 1
        assert find(tile.ctypes.data) == -low


@pytest.mark.compiled  # large enough for the tuned kernel
@pytest.mark.parametrize("order", Order)
@pytest.mark.parametrize("types", [(int8, int8), (uint8, int8), (int8, int4), (int4, int4)])
@pytest.mark.parametrize("bits", [16, 20, 28])
def test_the_operation_uses_them(order: Order, types: tuple[IntType, IntType], bits: int) -> None:
    generator = np.random.default_rng(bits)
    m, k, n = 40, 700, 50

    def draw(t: IntType, rows: int) -> Any:
        if t.bits == 4:
            return generator.integers(0, 256, (rows, k // 2)).astype(np.uint8)
        return np.clip(generator.normal((t.qmin + t.qmax) / 2, 40, (rows, k)), t.qmin, t.qmax).astype(t.storage)

    p = integer.Params(
        types[0].qmax // 2,
        [-1, 0, 2, 7, -8] * 10,
        a=types[0],
        b=types[1],
        acc=IntType(bits),
        overflow=Overflow.SATURATE,
        bias_added=order,
    )
    bias = generator.integers(-(2**31), 2**31, n).astype(np.int32) // 2 ** (33 - bits)
    x = draw(types[0], m), draw(types[1], n), bias
    assert m * k * n > 2**20
    assert (run("matmul.integer", *x, p=p) == reference("matmul.integer", *x, p=p, exact=False)[0]).all()

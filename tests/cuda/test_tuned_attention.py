"""Attention in one kernel as it runs on a GPU, on the simulator's threads, against the spec."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from conftest import SIMULATED
from intsim.composites import attention
from intsim.execute import NotServed, prepare, run
from intsim.numerics import Rounding
from intsim.registry import get

if not SIMULATED:
    pytest.skip("runs kernels on the simulator; the uncompiled job does", allow_module_level=True)

from intsim.composites.attention import _cuda_fused as fused
from intsim.graphs import capture, to_device

VARIANTS = ["ibert", "gemmlowp", "polynomial"]


def drawn(*shape: int, seed: int = 0) -> Any:
    made = np.random.default_rng(seed).integers(-128, 128, shape).astype(np.int8)
    made.reshape(-1)[::7], made.reshape(-1)[3::11] = -128, 127
    return made


def params(variant: str, t: int, d: int, zero_points: bool) -> Any:
    """Scales a key and a channel; results that reach all over int8."""
    p = get(f"attention.{variant}").params.from_scales(0.03, 0.03, 0.05, 0.02, 16)
    if not zero_points:
        return p
    rng, parts = np.random.default_rng(9), type(p)
    logit, out = type(p.logit), type(p.out)
    return parts(
        type(p.score)(3, rng.integers(-128, 128, t)),
        logit(p.logit.multiplier, p.logit.shift + rng.integers(0, 2, t), 5, p.logit.dtype, Rounding.TIES_TO_AWAY),
        p.softmax,
        type(p.mix)(p.mix.a_zero_point, rng.integers(-128, 128, d), a=p.mix.a),
        out(p.out.multiplier, p.out.shift, rng.integers(-9, 9, d), rounding=Rounding.TIES_TO_EVEN),
    )


def equal(variant: str, p: Any, *given: Any) -> Any:
    name, where = f"attention.{variant}", f"intsim.composites.attention._cuda_fused:with_{variant}"
    where += "_stacked" * (given[0].ndim > 2)
    wanted = run(name, *given, p=p, backend="reference")
    got = prepare(name, p=p, backend="cuda", tuned=where)(*(None if a is None else to_device(a) for a in given))
    assert got.dtype == wanted.dtype
    assert np.array_equal(np.asarray(got), wanted)
    return wanted


@pytest.mark.parametrize("variant", VARIANTS)
def test_grouped_queries_masked(variant: str) -> None:
    """Zero points of all; 2 heads of keys with 2 of queries each; a row that sees nothing."""
    q, k, v = drawn(2, 2, 4, 16), drawn(2, 1, 7, 16, seed=1), drawn(2, 1, 7, 32, seed=2)
    stop = np.array([2, 7, 5, 3], np.int32)
    mask = (np.random.default_rng(4).random((2, 1, 4, 7)) < 0.7).astype(np.uint8) * 255
    mask[0, 0, 3] = 0
    wanted = equal(variant, params(variant, 7, 32, True), q, k, v, stop, mask)
    assert len(np.unique(wanted)) > 60


@pytest.mark.parametrize("variant", VARIANTS)
def test_more_keys_than_a_piece_holds(variant: str) -> None:
    given = drawn(17 if variant == "ibert" else 2, 48), drawn(150, 48, seed=1), drawn(150, 16, seed=2)
    wanted = equal(variant, params(variant, 150, 16, False), *given)
    assert len(np.unique(wanted)) > 5


def test_two_blocks_of_rows_and_wide_heads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fused, "row_blocks", lambda *_: 2)
    p = params("ibert", 2, 80, True)
    p = replace(p, softmax=replace(p.softmax, rounding=Rounding.TIES_TO_EVEN))  # not in 32 bits
    equal("ibert", p, drawn(17, 128), drawn(2, 128, seed=1), drawn(2, 80, seed=2))


@pytest.mark.parametrize("variant", VARIANTS)
def test_extremes(variant: str) -> None:
    """The largest products of either sign, and all logits equal."""
    q = np.repeat(np.array([[-128], [127], [0]], np.int8), 32, axis=1)
    k, v = np.full((3, 32), -128, np.int8), np.repeat(np.array([[-128], [-128], [127]], np.int8), 16, axis=1)
    equal(variant, params(variant, 3, 16, False), q, k, v)


def test_it_is_one_launch_for_all_heads() -> None:
    """A mask and a stop that every head shares are read where they lie: nothing is copied."""
    p, q, k, v = params("ibert", 3, 16, False), drawn(2, 2, 16), drawn(2, 3, 16, seed=1), drawn(2, 3, 16, seed=2)
    where = "intsim.composites.attention._cuda_fused:with_ibert_stacked"
    again = capture(prepare("attention.ibert", p=p, backend="cuda", tuned=where), *map(to_device, (q, k, v)))
    assert again.launches == 1
    assert np.array_equal(np.asarray(again()), run("attention.ibert", q, k, v, p=p))


def test_what_does_not_fit_is_left_to_the_stages() -> None:
    one = get("attention.ibert")
    serves = one.tuned[0].serves
    p, size = params("ibert", 1, 1, False), {"m": 4, "t": 8, "c": 64, "d": 64}
    assert serves(p, size)
    assert fused.shared_bytes(1, attention.KEYS_OF_ONE_KERNEL) <= 99 * 1024
    for wrong in ({"c": 72}, {"d": 8}, {"c": 144}, {"t": attention.KEYS_OF_ONE_KERNEL + 1}):
        assert not serves(p, size | wrong)
    large = type(p.softmax)(2**16, 2**16, 2**31)
    assert not serves(type(p)(p.score, p.logit, large, p.mix, p.out), size)
    with pytest.raises(NotServed):
        prepare(one, p=p, backend="cuda", tuned="intsim.composites.attention._cuda_fused:with_ibert")(
            drawn(2, 8), drawn(3, 8), drawn(3, 8)
        )


def test_leading_dimensions_are_joined() -> None:
    a, b = to_device(drawn(2, 3, 4, 5)), to_device(drawn(4, 5)).broadcast_to((2, 3, 4, 5))
    assert fused.walk([a, a], (2, 3)) == ((1, 1, 1, 6), ((0, 0, 0, 20), (0, 0, 0, 20)))
    assert fused.walk([a, b], (2, 3)) == ((1, 1, 1, 6), ((0, 0, 0, 20), (0, 0, 0, 0)))
    grouped = to_device(drawn(2, 1, 4, 5)).broadcast_to((2, 3, 4, 5))
    assert fused.walk([a, grouped], (2, 3)) == ((1, 1, 2, 3), ((0, 0, 60, 20), (0, 0, 20, 0)))
    one, other = to_device(drawn(2, 1, 2, 1, 2, 3)), to_device(drawn(1, 2, 1, 2, 1, 3))
    crossed = [array.broadcast_to((2, 2, 2, 2, 2, 3)) for array in (one, other)]
    with pytest.raises(ValueError, match="walks 4 leading dimensions"):
        fused.walk(crossed, (2, 2, 2, 2, 2))

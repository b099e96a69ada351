"""Constant inputs: what tuned kernels make of them is made once, and nothing that is written later gets into it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import intsim
from intsim.kept import Kept, frozen
from intsim.ops.matmul import _cpu_integer, _cpu_panels
from intsim.registry import get

MATMUL, LINEAR = get("matmul.integer"), get("linear.single_rounding")
DRAW = np.random.default_rng(8)
A, B = (DRAW.integers(-128, 128, shape).astype(np.int8) for shape in ((60, 70), (33, 70)))
WANTED = A.astype(np.int64) @ B.astype(np.int64).T


def test_frozen_is_a_copy_but_for_what_is_frozen_already() -> None:
    a = np.arange(6, dtype=np.int8).reshape(2, 3)
    copy = frozen(a)
    a[0, 0] = 9
    assert copy[0, 0] == 0
    assert not copy.flags.writeable
    assert frozen(copy) is copy
    view = a[:]
    view.flags.writeable = False  # someone else can write to its memory
    assert frozen(view) is not view
    turned = frozen(copy.T)
    assert turned.flags.c_contiguous
    assert (turned == copy.T).all()
    assert frozen(None) is None


def test_once_is_once_for_constants_alone() -> None:
    made: list[int] = []

    def make() -> int:
        made.append(1)
        return len(made)

    kept = Kept(frozenset({"b"}), {})
    assert [kept.once("x", make, of=("b",)) for _ in range(3)] == [1, 1, 1]
    assert [kept.once("x", make, of=("b", "bias")) for _ in range(2)] == [2, 3]
    assert Kept(frozenset(), {}).once("x", make, of=("b",)) == 4


@pytest.fixture
def packings(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The kernels are ready; the calls that lay weights out are counted."""
    counted: list[Any] = []
    real = _cpu_panels.pack

    def pack(b: Any, *zero_point: Any, **fields: Any) -> Any:
        counted.append(b.shape)
        return real(b, *zero_point, **fields)

    monkeypatch.setattr(_cpu_integer, "_ready", lambda products: True)
    monkeypatch.setattr(_cpu_panels, "pack", pack)
    return counted


def test_constant_weights_are_laid_out_once_and_never_go_stale(packings: list[Any]) -> None:
    weights = B.copy()
    product = intsim.prepare("matmul.integer", p=MATMUL.params(), constant={"b": weights})
    weights[...] = 1
    assert (product(A) == WANTED).all()
    assert (product(A[::-1]) == WANTED[::-1]).all()
    assert (product(np.stack([A, A])) == WANTED).all()
    assert packings == [B.shape]
    for w in (B, B[::-1].copy()):  # not constant: laid out for each call
        assert (intsim.run("matmul.integer", A, w, p=MATMUL.params()) == A.astype(np.int64) @ w.T.astype(int)).all()
    assert len(packings) == 3


def test_a_constant_with_leading_dimensions_is_no_constant_of_a_slice(packings: list[Any]) -> None:
    many = np.stack([B, B[::-1]])
    product = intsim.prepare(
        "matmul.integer", p=MATMUL.params(), constant={"b": many}, tuned="intsim.ops.matmul._cpu_integer:matmul"
    )
    got = product(A)
    assert (got[0] == WANTED).all()
    assert (got[1] == WANTED[:, ::-1]).all()


def test_stages_of_a_composition_keep_the_constants_too(packings: list[Any]) -> None:
    p = LINEAR.params.from_scales(0.02, 0.01, 0.3)
    bias = np.arange(33, dtype=np.int32) * 1000
    layer = intsim.prepare("linear.single_rounding", p=p, constant={"b": B, "bias": bias}, tuned=True)
    wanted = intsim.run("linear.single_rounding", A, B, bias, p=p, backend="reference")
    for _ in range(2):
        assert (layer(A) == wanted).all()
    assert packings == [B.shape]


def test_nibbles_and_zero_points_of_rows(packings: list[Any]) -> None:
    packed, zero_points = B[:, :35].copy().view(np.uint8), DRAW.integers(0, 256, 60).astype(np.uint8)
    for name, p, a, b, rest in (
        ("matmul.integer", MATMUL.params(b=intsim.int4), A, packed, ()),
        ("matmul.row_zero_points", get("matmul.row_zero_points").params(), A.view(np.uint8), B, (zero_points,)),
    ):
        wanted = intsim.run(name, a, b, *rest, p=p, backend="reference")
        product = intsim.prepare(name, p=p, constant={"b": b})
        before = len(packings)
        for _ in range(2):
            assert (product(a, *rest) == wanted).all()
        assert len(packings) == before + 1

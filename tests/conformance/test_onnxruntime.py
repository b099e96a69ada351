"""ONNX Runtime, and the ONNX reference evaluator where it agrees, against the variants that claim to be them."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any

import numpy as np
import pytest

import intsim
from intsim import registry
from intsim.numerics import Overflow, Rounding, int4, int8, int16, uint8
from intsim.ops.matmul import integer
from intsim.ops.quantize import affine, dynamic_asymmetric
from intsim.ops.requantize import float32_ties_even
from intsim.oracle import cases
from intsim.oracle.adapter import Unsupported, load
from intsim.oracle.adapters import onnxruntime as adapter
from intsim.oracle.adapters.onnxruntime import Backend
from intsim.oracle.cases import Case, make
from intsim.spec import ieee, rounding

pytest.importorskip("onnx", reason="builds the models")
pytest.importorskip("onnxruntime", reason="the system that is judged")

Array = np.ndarray[Any, Any]
# Cases and output elements that must have been judged; fewer where a processor refuses some, see pairs_saturate
FLOORS = {
    "matmul.integer": (60, 20_000),
    "linear.qlinear_matmul": (50, 30_000),
    "quantize.affine": (70, 50_000),
    "dequantize.affine": (100, 80_000),
    "quantize.dynamic_asymmetric": (40, 20_000),
}


@cache
def all_cases(op: str) -> tuple[Case, ...]:
    """The variant's own cases, pseudorandom ones and those of the adapter."""
    made = list(cases.directed(registry.get(op)))
    for c in Backend().capabilities():
        if c.op == op:
            made += [*cases.random(registry.get(op), c.cases, longest=c.longest, only=c.only), *c.directed()]
    return tuple(made)


def served(backend: Backend, op: str) -> Iterator[tuple[Case, tuple[Array, ...]]]:
    for case in all_cases(op):
        try:
            got = backend.run(case)
        except Unsupported:
            continue
        yield case, got if isinstance(got, tuple) else (got,)


def differing(got: tuple[Array, ...], wanted: tuple[Array, ...]) -> int:
    """Elements that differ in any bit; all of them where a type or a shape does."""
    count = 0
    for g, w in zip(got, wanted, strict=True):
        if (g.dtype, g.shape) != (w.dtype, w.shape):
            return sum(a.size for a in wanted)
        bits = f"u{w.dtype.itemsize}"
        count += int((np.ascontiguousarray(g).view(bits) != np.ascontiguousarray(w).view(bits)).sum())
    return count


@pytest.mark.parametrize("constant_weights", [True, False], ids=["packed weights", "weights as inputs"])
@pytest.mark.parametrize("op", FLOORS)
def test_every_element_is_equal(op: str, constant_weights: bool) -> None:
    judged = elements = 0
    for case, got in served(Backend(constant_weights=constant_weights), op):
        assert differing(got, case.wanted) == 0, case.id
        judged += 1
        elements += sum(a.size for a in case.wanted)
    least_cases, least_elements = FLOORS[op]
    assert judged >= least_cases
    assert elements >= least_elements


def test_the_command_line_finds_it() -> None:
    backend = load("onnxruntime")
    assert isinstance(backend, Backend)
    assert {c.op for c in backend.capabilities()} == set(FLOORS)
    assert set(backend.versions()) == {"onnxruntime", "onnx"}


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    adapter._packages.cache_clear()
    with pytest.raises(ValueError, match=r"needs the package onnxruntime: pip install 'intsim\[onnxruntime\]'"):
        Backend().versions()
    adapter._packages.cache_clear()


# -- the judge is awake: deviations are found by the directed cases -----------------------------------


@pytest.mark.parametrize("op", ["quantize.affine", "quantize.dynamic_asymmetric"])
def test_ties_away_is_found(op: str) -> None:
    found = 0
    for case, got in served(Backend(), op):
        if "ties" in case.id:
            away = dataclasses.replace(case.params, rounding=Rounding.TIES_TO_AWAY)
            found += differing(got, intsim.reference(op, *case.inputs, p=away, exact=False))
    assert found > 100


def away(acc: Any, p: Any) -> Any:
    product = ieee.float32(acc) * ieee.from_bits32(p.multiplier_bits)
    return rounding.saturate(ieee.to_integer(product, Rounding.TIES_TO_AWAY) + p.zero_point, p.dtype)


def zero_point_first(acc: Any, p: Any) -> Any:
    product = ieee.float32(acc) * ieee.from_bits32(p.multiplier_bits)
    return rounding.saturate(ieee.to_integer(product.astype(np.float64) + p.zero_point, Rounding.TIES_TO_EVEN), p.dtype)


def wide_accumulator(acc: Any, p: Any) -> Any:
    product = np.asarray(acc, np.float64) * ieee.from_bits32(p.multiplier_bits)
    return rounding.saturate(ieee.to_integer(product, Rounding.TIES_TO_EVEN) + p.zero_point, p.dtype)


@pytest.mark.parametrize(
    ("spec", "where"), [(away, "-ties-"), (zero_point_first, "-ties-"), (wide_accumulator, "-beyond-float32")]
)
def test_another_requantize_is_found(spec: Callable[..., Any], where: str, monkeypatch: pytest.MonkeyPatch) -> None:
    op = float32_ties_even.OP
    monkeypatch.setitem(registry._OPS, op.name, dataclasses.replace(op, spec=spec))
    found = 0
    for case, got in served(Backend(), "linear.qlinear_matmul"):
        if where in case.id:
            found += differing(got, intsim.reference(case.op, *case.inputs, p=case.params, exact=False))
    assert found > 10


# -- what it does not serve, and why ------------------------------------------------------------------


def test_what_onnx_cannot_say_is_unsupported() -> None:
    a = np.ones((2, 3), np.int8)
    x, one = np.ones((1, 4), np.float32), np.ones((1, 1), np.float32)
    refused = {
        "has no bias": (integer.OP, (a, a, np.array([1, 0], np.int32)), integer.Params()),
        "wraps": (integer.OP, (a, a), integer.Params(overflow=Overflow.SATURATE)),
        "operands of 8 bits": (integer.OP, (a.astype(np.int16), a), integer.Params(a=int16)),
        "rounds ties to even": (affine.OP, (x, one), affine.Params(rounding=Rounding.TIES_TO_AWAY)),
        "value of the quantized type": (affine.OP, (x, one, np.array([[200]], np.int32)), affine.Params()),
        "int32": (affine.OP, (x * np.float32(2**31), one), affine.Params(dtype=int4)),
        "below 2[*][*]-142": (dynamic_asymmetric.OP, (x * np.float32(1e-45),), dynamic_asymmetric.Params()),
    }
    for reason, (op, arrays, p) in refused.items():
        with pytest.raises(Unsupported, match=reason):
            Backend().run(make(op, "refused", reason, arrays, p))


def test_pairs_of_products_saturate_where_the_adapter_says_so() -> None:
    """uint8 times int8 of the whole range: the exact product, or on x86 without VNNI every pair saturated at int16."""
    rng = np.random.default_rng(0)
    a = rng.integers(0, 256, (9, 131)).astype(np.uint8)
    b = rng.integers(-128, 128, (50, 131)).astype(np.int8)
    za, zb = 3, -7
    operands = [
        adapter.Operand.of(a, uint8),
        adapter.Operand.of(b.T, int8, constant=True),
        adapter.Operand.of(np.uint8(za), uint8),
        adapter.Operand.of(np.int8(zb), int8),
    ]
    got = Backend().node("MatMulInteger", operands, "INT32")[0]
    products = np.pad(a[:, None].astype(np.int64) * b, ((0, 0), (0, 0), (0, 1)))
    pairs = products[..., 0::2] + products[..., 1::2]
    if adapter.pairs_saturate():
        pairs = np.clip(pairs, -(2**15), 2**15 - 1)
    corrections = za * b.sum(1, dtype=np.int64) + zb * a.sum(1, dtype=np.int64)[:, None] - 131 * za * zb
    np.testing.assert_array_equal(got, pairs.sum(-1) - corrections)


# -- the ONNX reference evaluator ---------------------------------------------------------------------


class Evaluator(Backend):
    """The same nodes in ``onnx.reference``."""

    def node(self, kind: str, operands: Any, *results: str, **attributes: Any) -> list[Array]:
        from onnx.reference import ReferenceEvaluator

        feeds = {f"x{i}": o.values for i, o in enumerate(operands) if o is not None and not o.constant}
        return [
            np.asarray(a)
            for a in ReferenceEvaluator(adapter.model(kind, operands, results, **attributes)).run(None, feeds)
        ]


def quotient_fits_int32(case: Case) -> bool:
    """Beyond, the evaluator casts to int32 before it saturates, whatever the result's type."""
    return case.op.name != "quantize.affine" or not adapter.quotient_leaves_int32(case)


@pytest.mark.filterwarnings(
    "ignore:overflow encountered in multiply:RuntimeWarning"
)  # its DequantizeLinear; infinity is right
@pytest.mark.parametrize("op", ["matmul.integer", "quantize.affine", "dequantize.affine"])
def test_the_reference_evaluator_agrees(op: str) -> None:
    judged = 0
    for case in all_cases(op):
        if not quotient_fits_int32(case):
            continue
        try:
            got = Evaluator().run(case)
        except Unsupported:
            continue
        assert differing((got,), case.wanted) == 0, case.id
        judged += 1
    assert judged >= 40

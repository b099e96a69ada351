"""What is peculiar to the ONNX reference evaluator: what is refused, and deviations that must be found."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import intsim
from intsim import registry
from intsim.composites.linear import float64_ties_even as linear
from intsim.numerics import Order, Overflow, Rounding, int8, int16, uint8
from intsim.ops.matmul import integer
from intsim.ops.quantize import affine, affine_through_int32, dynamic_asymmetric_unguarded
from intsim.ops.requantize import float64_ties_even as requantize
from intsim.oracle.adapter import Unsupported, load
from intsim.oracle.adapters import _onnx_nodes as nodes
from intsim.oracle.adapters.onnx_reference import Backend
from intsim.oracle.cases import make
from intsim.spec import ieee, rounding

pytest.importorskip("onnx", reason="the system that is judged")


def differing(got: Any, wanted: Any) -> int:
    made = got if isinstance(got, tuple) else (got,)
    return sum(int((a != b).sum()) for a, b in zip(made, wanted, strict=True))


def found_with(op: str, spec: Callable[..., Any], where: str, monkeypatch: pytest.MonkeyPatch, judged: str = "") -> int:
    """Elements in which the evaluator differs, were ``spec`` the text of ``op``; judged: a composite of it."""
    listed = []
    for capability in Backend().capabilities():
        if capability.op == (judged or op):
            listed += [(case, Backend().run(case)) for case in capability.directed() if where in case.id]
    assert listed
    assert sum(differing(got, case.wanted) for case, got in listed) == 0
    monkeypatch.setitem(registry._OPS, op, dataclasses.replace(registry.get(op), spec=spec))
    found = 0
    for case, got in listed:
        other = intsim.reference(registry.get(case.op.name), *case.inputs, p=case.params, exact=False)
        found += differing(got, other)
    return found


def zero_point_last(acc: Any, p: Any) -> Any:
    return requantize.spec(acc, dataclasses.replace(p, zero_point_added=Order.LAST))


def in_float32(acc: Any, p: Any) -> Any:
    product = ieee.float32(acc) * ieee.from_bits64(p.multiplier_bits).astype(np.float32)
    total = product + ieee.float32(p.zero_point)
    return rounding.saturate(ieee.to_integer(total, Rounding.TIES_TO_EVEN), p.dtype)


@pytest.mark.parametrize(("spec", "where"), [(zero_point_last, "-ties-"), (in_float32, "-beyond-float32")])
def test_another_requantize_is_found(spec: Callable[..., Any], where: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert found_with(requantize.OP.name, spec, where, monkeypatch, "linear.float64_ties_even") > 10


def test_saturating_the_quotient_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    def saturating(x: Any, scale: Any, zero_point: Any, p: Any) -> Any:
        wide = dataclasses.replace(affine.Params(p.group_size), dtype=p.dtype)
        return affine.spec(x, scale, zero_point, wide)

    assert found_with(affine_through_int32.OP.name, saturating, "beyond-int32", monkeypatch) > 10


def test_a_scale_of_1_for_nothing_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    def one(x: Any, p: Any) -> Any:
        return dynamic_asymmetric_unguarded.spec(x, dynamic_asymmetric_unguarded.Params())

    assert found_with(dynamic_asymmetric_unguarded.OP.name, one, "onnx-constant", monkeypatch) > 1


def test_what_it_does_not_serve_is_unsupported() -> None:
    a = np.ones((2, 3), np.int8)
    x, one = np.ones((1, 4), np.float32), np.ones((1, 1), np.float32)
    plain = integer.Params(a=int8, b=int8)

    def to(**fields: Any) -> Any:
        return linear.Params(plain, requantize.Params.from_scale(0.25, **fields))

    refused = {
        "MatMulInteger has no bias": (integer.OP, (a, a, np.array([1, 0], np.int32)), integer.Params()),
        "wraps": (integer.OP, (a, a), integer.Params(overflow=Overflow.SATURATE)),
        "operands of 8 bits": (integer.OP, (a.astype(np.int16), a), integer.Params(a=int16)),
        "QLinearMatMul has no bias": (linear.OP, (a, a, np.array([1, 0], np.int32)), to()),
        "before the rounding": (linear.OP, (a, a), to(zero_point_added=Order.LAST)),
        "results of 8 bits": (linear.OP, (a, a), to(dtype=int16)),
        "multiplier is a float32": (linear.OP, (a, a), linear.Params(plain, requantize.Params.from_scale(0.1))),
        "value of the quantized type": (
            affine_through_int32.OP,
            (x, one, np.array([[200]], np.int32)),
            affine_through_int32.Params(dtype=int8),
        ),
        "where the range is 0": (dynamic_asymmetric_unguarded.OP, (x,), dynamic_asymmetric_unguarded.Params()),
        "no ONNX node": (affine.OP, (x, one), affine.Params(dtype=uint8)),
    }
    for reason, (op, arrays, p) in refused.items():
        with pytest.raises(Unsupported, match=reason):
            Backend().run(make(op, "refused", reason, arrays, p))


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    assert isinstance(load("onnx_reference"), Backend)
    monkeypatch.setitem(sys.modules, "onnx", None)
    nodes.package.cache_clear()
    with pytest.raises(ValueError, match=r"needs the package onnx: pip install 'intsim\[onnxruntime\]'"):
        Backend().versions()
    nodes.package.cache_clear()

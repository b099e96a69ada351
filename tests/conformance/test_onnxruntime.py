"""What is peculiar to ONNX Runtime: weights that are inputs, what is refused, and deviations that must be found."""

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
from intsim.ops.activation import _float32, logistic_float32_rational as logistic
from intsim.ops.matmul import int16_pairs_saturating, integer
from intsim.ops.quantize import affine, affine_through_int32, dynamic_asymmetric
from intsim.ops.requantize import float32_ties_even
from intsim.ops.softmax import float32_levels
from intsim.oracle import cases
from intsim.oracle.adapter import Unsupported, load
from intsim.oracle.adapters import _onnx_nodes as nodes, _onnxruntime_session as session
from intsim.oracle.adapters.onnxruntime import Backend
from intsim.oracle.cases import Case, make
from intsim.spec import ieee, rounding

pytest.importorskip("onnx", reason="builds the models")
pytest.importorskip("onnxruntime", reason="the system that is judged")

Array = np.ndarray[Any, Any]
EVEN = Rounding.TIES_TO_EVEN


@cache
def all_cases(op: str) -> tuple[Case, ...]:
    """The variant's own cases, pseudorandom ones and those of the adapter."""
    made = list(cases.directed(registry.get(op)))
    for c in Backend().capabilities():
        if c.op == op:
            made += [*cases.random(registry.get(op), c.cases, longest=c.longest, only=c.only), *c.directed()]
    return tuple(made)


def served(backend: Backend, op: str, where: str = "") -> Iterator[tuple[Case, tuple[Array, ...]]]:
    for case in all_cases(op):
        if where not in case.id:
            continue
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


@pytest.mark.parametrize(
    ("op", "least"),
    [
        ("matmul.integer", 150_000),
        ("linear.qlinear_matmul", 150_000),
        ("linear.float32_ties_even", 240_000),
        ("linear.float32_result", 800_000),
        ("linear.dynamic_asymmetric", 400_000),
    ],
)
def test_weights_that_are_inputs_give_the_same(op: str, least: int) -> None:
    elements = 0
    for case, got in served(Backend(constant_weights=False), op):
        assert differing(got, case.wanted) == 0, case.id
        elements += sum(a.size for a in case.wanted)
    assert elements >= least


def test_the_command_line_finds_it() -> None:
    backend = load("onnxruntime")
    assert isinstance(backend, Backend)
    assert set(backend.versions()) == {"onnxruntime", "onnx"}


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    nodes.package.cache_clear()
    with pytest.raises(ValueError, match=r"needs the package onnxruntime: pip install 'intsim\[onnxruntime\]'"):
        Backend().versions()
    nodes.package.cache_clear()


# -- the judge is awake: deviations are found by the directed cases -----------------------------------


def found_with(op: str, spec: Callable[..., Any], where: str, monkeypatch: pytest.MonkeyPatch, judged: str = "") -> int:
    """Elements in which the runtime differs, were ``spec`` the text of ``op``; judged: a composite of it."""
    original = registry.get(op)
    listed = list(served(Backend(), judged or op, where))
    assert listed
    assert sum(differing(got, case.wanted) for case, got in listed) == 0
    monkeypatch.setitem(registry._OPS, op, dataclasses.replace(original, spec=spec))
    return sum(
        differing(got, intsim.reference(registry.get(case.op.name), *case.inputs, p=case.params, exact=False))
        for case, got in listed
    )


def test_ties_away_is_found() -> None:
    found = 0
    for case, got in served(Backend(), "quantize.affine", "ties"):
        away = dataclasses.replace(case.params, rounding=Rounding.TIES_TO_AWAY)
        found += differing(got, intsim.reference(case.op, *case.inputs, p=away, exact=False))
    assert found > 100


def away(acc: Any, p: Any) -> Any:
    product = ieee.float32(acc) * ieee.from_bits32(p.multiplier_bits)
    return rounding.saturate(ieee.to_integer(product, Rounding.TIES_TO_AWAY) + p.zero_point, p.dtype)


def zero_point_first(acc: Any, p: Any) -> Any:
    product = ieee.float32(acc) * ieee.from_bits32(p.multiplier_bits)
    return rounding.saturate(ieee.to_integer(product.astype(np.float64) + p.zero_point, EVEN), p.dtype)


def wide_accumulator(acc: Any, p: Any) -> Any:
    product = np.asarray(acc, np.float64) * ieee.from_bits32(p.multiplier_bits)
    return rounding.saturate(ieee.to_integer(product, EVEN) + p.zero_point, p.dtype)


@pytest.mark.parametrize(
    ("spec", "where", "judged"),
    [
        (away, "-ties-", "linear.qlinear_matmul"),
        (zero_point_first, "-ties-", "linear.qlinear_matmul"),
        (wide_accumulator, "-beyond-float32", "linear.qlinear_matmul"),
        (away, "-gemm-ties-", "linear.float32_ties_even"),
        (zero_point_first, "-gemm-ties-", "linear.float32_ties_even"),
    ],
)
def test_another_requantize_is_found(
    spec: Callable[..., Any], where: str, judged: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert found_with(float32_ties_even.OP.name, spec, where, monkeypatch, judged) > 10


def _ratios(p: Any) -> tuple[Any, Any]:
    return ieee.from_bits32(p.a_ratio_bits), ieee.from_bits32(p.b_ratio_bits)


def _fused_fixed(p: Any) -> Any:
    a_ratio, b_ratio = _ratios(p)
    za, zb, z = (ieee.float32(v) for v in (p.a_zero_point, p.b_zero_point, p.zero_point))
    return z - ieee.fused_multiply_add32(a_ratio, za, b_ratio * zb)


def _sum(total: Any, p: Any) -> Any:
    return rounding.saturate(ieee.to_integer(total, EVEN), p.dtype)


def add_unfused(a: Any, b: Any, p: Any) -> Any:
    a_ratio, b_ratio = _ratios(p)
    return _sum(_fused_fixed(p) + ieee.float32(b) * b_ratio + ieee.float32(a) * a_ratio, p)


def add_a_first(a: Any, b: Any, p: Any) -> Any:
    a_ratio, b_ratio = _ratios(p)
    total = ieee.fused_multiply_add32(ieee.float32(a), a_ratio, _fused_fixed(p))
    return _sum(ieee.fused_multiply_add32(ieee.float32(b), b_ratio, total), p)


def add_fixed_unfused(a: Any, b: Any, p: Any) -> Any:
    a_ratio, b_ratio = _ratios(p)
    fixed = ieee.float32(p.zero_point) - (
        a_ratio * ieee.float32(p.a_zero_point) + b_ratio * ieee.float32(p.b_zero_point)
    )
    total = ieee.fused_multiply_add32(ieee.float32(b), b_ratio, fixed)
    return _sum(ieee.fused_multiply_add32(ieee.float32(a), a_ratio, total), p)


@pytest.mark.parametrize("spec", [add_unfused, add_a_first, add_fixed_unfused])
def test_another_order_or_fusing_of_qlinearadd_is_found(
    spec: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert found_with("add.float32_fused", spec, "ort-", monkeypatch) > 10


def _whole(a: Any, b: Any, p: Any) -> Any:
    return ieee.float32((a - p.a_zero_point) * (b - p.b_zero_point))


def mul_fused(a: Any, b: Any, p: Any) -> Any:
    z = ieee.float32(p.zero_point)
    return _sum(ieee.fused_multiply_add32(_whole(a, b, p), ieee.from_bits32(p.multiplier_bits), z), p)


def mul_zero_point_last(a: Any, b: Any, p: Any) -> Any:
    whole = ieee.to_integer(_whole(a, b, p) * ieee.from_bits32(p.multiplier_bits), EVEN)
    return rounding.saturate(whole + p.zero_point, p.dtype)


@pytest.mark.parametrize("spec", [mul_fused, mul_zero_point_last])
def test_a_fused_product_or_a_late_zero_point_of_qlinearmul_is_found(
    spec: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert found_with("mul.float32_zero_point_first", spec, "ort-", monkeypatch) > 10


def logistic_unfused(x: Any, p: Any) -> Any:
    v = np.clip(_float32.real(x, p), np.float32(-18), np.float32(18))
    s = v * v
    above, below = (np.float32(c[0]) for c in (logistic.ALPHA, logistic.BETA))
    for c in logistic.ALPHA[1:]:
        above = above * s + np.float32(c)
    for c in logistic.BETA[1:]:
        below = below * s + np.float32(c)
    return _float32.quantized(np.maximum(v * above / below + np.float32(0.5), np.float32(0)), p)


def logistic_exact(x: Any, p: Any) -> Any:
    v = np.asarray(_float32.real(x, p), np.float64)
    return _float32.quantized((1 / (1 + np.exp(-v))).astype(np.float32), p)


@pytest.mark.parametrize("spec", [logistic_unfused, logistic_exact])
def test_another_logistic_is_found(spec: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    assert found_with("activation.logistic_float32_rational", spec, "ort-", monkeypatch) > 10


def leaky_relu_in_float64(x: Any, p: Any) -> Any:
    v = _float32.real(x, p)
    wide = np.where(v >= 0, v, ieee.from_bits32(p.alpha_bits) * v.astype(np.float64))
    whole = ieee.to_integer(wide * (1 / np.float64(ieee.from_bits32(p.scale_bits))), EVEN)
    return rounding.saturate(whole + p.zero_point, p.dtype)


def leaky_relu_zero_point_first(x: Any, p: Any) -> Any:
    v = _float32.real(x, p)
    y = np.where(v >= 0, v, ieee.from_bits32(p.alpha_bits) * v) / ieee.from_bits32(p.scale_bits)
    return rounding.saturate(ieee.to_integer(y + ieee.float32(p.zero_point), EVEN), p.dtype)


@pytest.mark.parametrize("spec", [leaky_relu_in_float64, leaky_relu_zero_point_first])
def test_another_leaky_relu_is_found(spec: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    assert found_with("activation.leaky_relu_float32", spec, "ort-", monkeypatch) > 0


def softmax_without_floor(q: Any, table: Any, stop: Any, p: Any) -> Any:
    e = table[(255 + q - q.max(axis=-1, keepdims=True)).astype(int)]
    share = e * np.float32(p.levels + 0.99) / e.cumsum(axis=-1)[:, -1:]
    return rounding.saturate(ieee.to_integer(share, EVEN) + p.zero_point, p.dtype)


def softmax_from_the_end(q: Any, table: Any, stop: Any, p: Any) -> Any:
    return float32_levels.spec(q[:, ::-1], table, stop, p)[:, ::-1]


@pytest.mark.parametrize(("spec", "where"), [(softmax_without_floor, "000-columns-"), (softmax_from_the_end, "-ulps-")])
def test_another_softmax_is_found(spec: Callable[..., Any], where: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert found_with("softmax.float32_levels", spec, where, monkeypatch) > 0


def test_the_float32_logarithm_of_the_softmax_table_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a float64 logarithm the table's entries differ by a common factor: a few totals round otherwise."""
    listed = list(served(Backend(), "softmax.float32_levels", "ort-uint8-equal"))
    assert sum(differing(got, case.wanted) for case, got in listed) == 0
    largest = np.finfo(np.float32).max
    found = 0
    for case, got in listed:
        scale = case.params.x_scale
        headroom = (np.log(np.float64(largest / np.float32(case.q.shape[1]))) - 5) / scale
        table = np.exp((np.arange(-255, 1) + headroom) * scale).astype(np.float32)
        found += differing(got, intsim.reference(case.op, case.q, table, p=case.params, exact=False))
    assert found > 0


def scales_last(acc: Any, a_scale: Any, b_scale: Any, bias: Any, p: Any) -> Any:
    return ieee.float32(acc) * a_scale[:, None] * b_scale + bias


def bias_fused(acc: Any, a_scale: Any, b_scale: Any, bias: Any, p: Any) -> Any:
    return ieee.fused_multiply_add32(ieee.float32(acc), a_scale[:, None] * b_scale, bias)


@pytest.mark.parametrize("spec", [scales_last, bias_fused])
def test_another_float_result_is_found(spec: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    where = "real-bias-columns-131"
    assert found_with("dequantize.product", spec, where, monkeypatch, "linear.float32_result") > 10


def test_saturating_the_quotient_of_2_and_4_bits_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    def saturating(x: Any, scale: Any, zero_point: Any, p: Any) -> Any:
        return affine.spec(x, scale, zero_point, affine.Params(p.group_size, int8)).clip(p.dtype.qmin, p.dtype.qmax)

    op = affine_through_int32.OP
    assert found_with(op.name, saturating, "ort-int4-scalar-wild", monkeypatch) > 1
    assert found_with(op.name, saturating, "ort-int2-scalar-wild", monkeypatch) > 1


def test_a_guarded_scale_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    def guarded(x: Any, p: Any) -> Any:
        return dynamic_asymmetric.spec(x, dynamic_asymmetric.Params())

    name = "quantize.dynamic_asymmetric_unguarded"
    assert found_with(name, guarded, "ort-underflow", monkeypatch) > 10


def test_an_exact_product_is_found_where_pairs_saturate(monkeypatch: pytest.MonkeyPatch) -> None:
    if not session.pairs_saturate():
        pytest.skip("a processor with VNNI: the product is exact")

    def exact(a: Any, b: Any, p: Any) -> Any:
        return integer.spec(a, b, 0, integer.Params(p.a_zero_point, p.b_zero_point, uint8, int8))

    assert found_with(int16_pairs_saturating.OP.name, exact, "ort-", monkeypatch) > 1000


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
        "differ by position": (affine.OP, (x * np.float32(2**31), one), affine.Params(dtype=int4)),
        "vector code": (affine_through_int32.OP, (x, one), affine_through_int32.Params()),
        "a scale of 0": (dynamic_asymmetric.OP, (x * np.float32(1e-45),), dynamic_asymmetric.Params()),
        "sees every column": (
            float32_levels.OP,
            (a, float32_levels.table(0.1, 3), np.array([1, 2], np.int32)),
            float32_levels.Params(x_scale=0.1),
        ),
        "fills its table": (float32_levels.OP, (a, float32_levels.table(0.2, 3)), float32_levels.Params(x_scale=0.1)),
    }
    for reason, (op, arrays, p) in refused.items():
        with pytest.raises(Unsupported, match=reason):
            Backend().run(make(op, "refused", reason, arrays, p))

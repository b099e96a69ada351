"""What is peculiar to PyTorch; that its rows are equal is tested with all systems (test_systems)."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from intsim.composites.linear import float32_bias, float32_ties_even
from intsim.numerics import Overflow, Rounding, int8, int16, uint8
from intsim.ops.dequantize import affine as to_real
from intsim.ops.matmul import integer as product
from intsim.ops.quantize import reciprocal
from intsim.ops.quantize.reciprocal import ZeroPoint
from intsim.oracle.adapter import Capability, Unsupported
from intsim.oracle.adapters import torch as adapter
from intsim.oracle.cases import Case, make
from intsim.spec import ieee, rounding

pytest.importorskip("torch", reason="the system that is judged")

ONE = np.ones((1, 1), np.float32)


def row(serves: str, profile: str = "fbgemm") -> tuple[adapter.Backend, Capability]:
    backend = adapter.Backend(profile)
    return backend, next(c for c in backend.capabilities() if c.serves == serves)


def served(serves: str, profile: str = "fbgemm") -> Iterator[tuple[Case, np.ndarray[Any, Any]]]:
    """The adapter's own cases, and what PyTorch gave."""
    backend, capability = row(serves, profile)
    for case in capability.directed():
        case.serves = serves
        try:
            got = backend.run(case)
        except Unsupported:
            continue
        yield case, got


# -- the place of the zero point is found ------------------------------------------------------------


@pytest.mark.parametrize("serves", adapter.QUANTIZERS)
def test_another_place_of_the_zero_point_is_found(serves: str) -> None:
    differ = dict.fromkeys(ZeroPoint, 0)
    for case, got in served(serves):
        for added in ZeroPoint:
            p = reciprocal.Params(case.params.group_size, case.params.dtype, zero_point_added=added)
            made = reciprocal.spec(case.x, case.scale, case.zero_point.astype(np.int64), p)
            differ[added] += int((made != got).sum())
    right = adapter.QUANTIZERS[serves][0]
    assert differ.pop(right) == 0
    assert min(differ.values()) > 100, differ


def divides(case: Case) -> Any:
    total = case.x / case.scale
    return rounding.saturate(ieee.to_integer(total, Rounding.TIES_TO_EVEN) + case.zero_point, case.params.dtype)


def away(case: Case) -> Any:
    total = case.x * (np.float32(1) / case.scale)
    return rounding.saturate(ieee.to_integer(total, Rounding.TIES_TO_AWAY) + case.zero_point, case.params.dtype)


@pytest.mark.parametrize("deviation", [divides, away])
def test_another_quantizer_is_found(deviation: Any) -> None:
    with np.errstate(over="ignore"):
        differ = sum(int((deviation(c) != got).sum()) for c, got in served("fake_quantize_per_tensor_affine"))
    assert differ > 100


# -- quantized.linear -----------------------------------------------------------------------------------


def linear(case: Case, sums: Any, *, zero_point_first: bool = False) -> Any:
    r = case.params.requantize
    steps = sums.astype(np.float32) * ieee.from_bits32(r.multiplier_bits)
    if zero_point_first:
        return np.clip(np.rint(steps + np.float32(r.zero_point[0])), 0, 255).astype(np.uint8)
    return np.clip(np.rint(steps) + r.zero_point, 0, 255).astype(np.uint8)


def test_how_fbgemm_adds_the_bias() -> None:
    """Rounded first, rounded as a product, or the zero point before the rounding: all are found."""
    differ = {"as stated": 0, "an integer bias": 0, "two roundings": 0, "zero point first": 0}
    for case, got in served("quantized.linear"):
        acc = adapter._accumulators(case)
        inverse = ieee.from_bits32(case.params.requantize.inverse_bits)
        grid = case.bias * inverse
        fused = ieee.fused_multiply_add32(case.bias, inverse, acc.astype(np.float32))
        made = {
            "as stated": linear(case, fused),
            "an integer bias": linear(case, acc + np.rint(grid).astype(np.int64)),
            "two roundings": linear(case, acc.astype(np.float32) + grid),
            "zero point first": linear(case, fused, zero_point_first=True),
        }
        for name, value in made.items():
            differ[name] += int((value != got).sum())
    assert differ.pop("as stated") == 0
    assert min(differ.values()) > 20, differ


def test_qnnpack_adds_an_integer_bias() -> None:
    differ = {"as stated": 0, "a wide accumulator": 0, "zero point first": 0}
    for case, got in served("quantized.linear", "qnnpack"):
        acc = adapter._accumulators(case) + case.bias
        wide = acc * ieee.from_bits32(case.params.requantize.multiplier_bits).astype(np.float64)
        differ["as stated"] += int((linear(case, acc) != got).sum())
        differ["zero point first"] += int((linear(case, acc, zero_point_first=True) != got).sum())
        z = case.params.requantize.zero_point
        differ["a wide accumulator"] += int((np.clip(np.rint(wide) + z, 0, 255) != got).sum())
    assert differ.pop("as stated") == 0
    assert min(differ.values()) > 5, differ


def operands() -> tuple[Any, Any]:
    rng = np.random.default_rng(0)
    return rng.integers(0, 256, (9, 64)).astype(np.uint8), rng.integers(-128, 128, (50, 64)).astype(np.int8)


@pytest.mark.filterwarnings("ignore:.*quantized tensor.*:UserWarning")
def test_pairs_of_products_saturate_where_the_adapter_says_so() -> None:
    a, b = operands()
    p = float32_bias.Params.from_scales(1.0, 1.0, 2.0**10, product.Params(a=uint8, b=int8), zero_point=128, dtype=uint8)
    case = make(float32_bias.OP, "here", "", (a, b), p)
    got = adapter.linear("fbgemm", case, 1.0, 2.0**10, np.zeros(50, np.float32))
    pairs = (a[:, None].astype(np.int64) * b).reshape(9, 50, 32, 2).sum(-1)
    clipped = np.clip(pairs, -(2**15), 2**15 - 1)
    assert (pairs != clipped).any()
    assert (got == linear(case, (clipped if adapter.pairs_saturate() else pairs).sum(-1))).all()


def test_engines_x86_and_fbgemm_are_the_same_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = adapter.linear
    monkeypatch.setattr(adapter, "linear", lambda engine, *rest: plain("x86", *rest))
    made = [(case, got) for case, got in served("quantized.linear")]
    assert len(made) > 10
    assert all((case.wanted[0] == got).all() for case, got in made)


# -- what it does not serve, and why --------------------------------------------------------------------


def quantize_case(x: float = 1.0, scale: float = 1.0, zero_point: int = 0, serves: str = "", **fields: Any) -> Case:
    arrays = (ONE * np.float32(x), ONE * np.float32(scale), np.array([[zero_point]], np.int32))
    case = make(reciprocal.OP, "here", "", arrays, reciprocal.Params(**fields))
    case.serves = serves
    return case


def linear_case(op: Any = float32_bias, profile: str = "fbgemm", **fields: Any) -> Case:
    plain = {"a": uint8, "b": int8} | {k: fields.pop(k) for k in ("a", "b") if k in fields}
    held: dict[str, Any] = {"zero_point": 1, "dtype": uint8} | fields
    bias = held.pop("bias", None)
    p = op.Params.from_scales(1.0, held.pop("scale", 1.0), held.pop("result", 1.0), product.Params(**plain), **held)
    a = np.ones((1, 2), p.matmul.a.storage)
    return make(op.OP, "here", "", (a, np.ones((1, 2), np.int8), bias), p)


def test_what_pytorch_cannot_say_is_unsupported() -> None:
    a = np.ones((2, 3), np.int8)
    third = np.array([2**24 + 1], np.int32)
    refused = {
        "rounds ties to even": quantize_case(rounding=Rounding.TOWARD_ZERO),
        "adds the zero point LAST": quantize_case(serves="fake_quantize_per_tensor_affine", zero_point_added=1),
        "gives int8, uint8 and": quantize_case(dtype=int16, zero_point_added=ZeroPoint.FUSED),
        "value of the quantized type": quantize_case(zero_point=128),
        "is infinite: 0 times it": quantize_case(scale=1e-42),
        "converts to int64": quantize_case(2.0**63, serves="fake_quantize_per_channel_affine"),
        "int8 or uint8, not int16": make(
            to_real.OP, "here", "", (a[:1].astype(np.int16), ONE), to_real.Params(q=int16)
        ),
        "to an int32 that wraps": make(product.OP, "here", "", (a, a), product.Params(overflow=Overflow.SATURATE)),
        "no zero points and no bias": make(product.OP, "here", "", (a, a), product.Params(1)),
        "uint8 times int8": linear_case(a=int8),
        "one zero point for the result": linear_case(zero_point=256),
        "lowest value for either sign": linear_case(result=1e-9),
        "the profile is fbgemm": linear_case(float32_ties_even),
    }
    for reason, case in refused.items():
        with pytest.raises(Unsupported, match=reason):
            adapter.Backend().run(case)
    for reason, case in {
        "the profile is qnnpack": linear_case(),
        "none stands for the integer": linear_case(float32_ties_even, bias=third, scale=0.3, result=1000.0),
    }.items():
        with pytest.raises(Unsupported, match=reason):
            adapter.Backend("qnnpack").run(case)


def test_scales_are_found_or_refused() -> None:
    for scale, result in ((0.1, 3.0), (1.0, 0.25), (3e-5, 7e-3)):
        inverse = np.float32(1) / np.float32(scale)
        multiplier = np.float32(scale) / np.float32(result)
        b, y = (np.float32(v) for v in adapter._scales(float(inverse), float(multiplier)))
        assert (np.float32(1) / b, b / y) == (inverse, multiplier)
    with pytest.raises(Unsupported, match="no float32 scales"):
        adapter._scales(
            float(np.nextafter(np.float32(1), np.float32(0))), float(np.nextafter(np.float32(2), np.float32(0)))
        )


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    adapter._torch.cache_clear()
    with pytest.raises(ValueError, match=r"needs the package torch: pip install 'intsim\[torch\]'"):
        adapter.Backend().versions()
    adapter._torch.cache_clear()

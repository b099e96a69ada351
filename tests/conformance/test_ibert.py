"""What is peculiar to I-BERT's modules; that their rows are equal is tested with all systems (test_systems)."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from intsim.numerics import Rounding, int8, int16, int24, int32, unlimited
from intsim.ops.activation import gelu_ibert
from intsim.ops.layernorm import ibert as normalize
from intsim.ops.requantize import dyadic
from intsim.ops.softmax import ibert as paper, ibert_module
from intsim.oracle.adapter import Unsupported
from intsim.oracle.adapters import _ibert_cases as own, ibert as adapter
from intsim.oracle.cases import Case, make
from intsim.spec import functions, rounding

pytest.importorskip("transformers", reason="the system that is judged")
pytest.importorskip("torch", reason="what it computes with")


def served(cases: Iterator[Case]) -> Iterator[tuple[Case, Any]]:
    backend = adapter.Backend()
    for case in cases:
        yield case, backend.run(case)


def differing(cases: Iterator[Case], deviation: Callable[[Case], Any]) -> int:
    return sum(int((deviation(case) != got).sum()) for case, got in served(cases))


# -- deviations are found by the directed cases --------------------------------------------------------


def test_a_gelu_that_truncates_is_found() -> None:
    def deviation(case: Case) -> Any:
        x, p = case.x.astype(np.int64), case.params
        wide = np.sign(x) * ((np.minimum(abs(x), -p.b) + p.b) ** 2 + p.c)
        return x * (np.sign(wide) * (abs(wide) >> 14) + p.one)

    assert differing(own.gelu(), deviation) > 1000


def test_the_softmax_of_the_paper_is_found() -> None:
    def deviation(case: Case) -> Any:
        q, p = case.q.astype(np.int64), case.params
        scale = next(s for s in adapter.SOFTMAX_SCALES if ibert_module.Params.from_scale(s).c_over_a == p.c_over_a)
        other = paper.Params.from_scale(scale, out_bits=p.out_bits)
        return paper.OP.spec(q, case.stop.astype(np.int64), other)

    cases = (c for c in own.softmax() if c.params.out_bits == 8)
    assert differing(cases, deviation) > 1000


@pytest.mark.parametrize("rule", [Rounding.TOWARD_NEGATIVE, Rounding.TIES_TO_AWAY, Rounding.TIES_TO_POSITIVE])
def test_another_rounding_of_the_mean_is_found(rule: Rounding) -> None:
    def deviation(case: Case) -> Any:
        p = normalize.Params(case.params.k, case.params.x, unlimited, rule)
        return normalize.spec(case.x.astype(np.int64), case.bias.astype(np.int64), p)

    assert differing(own.layernorm(), deviation) > 1000


def test_a_shift_by_k_that_truncates_is_found() -> None:
    def deviation(case: Case) -> Any:
        x, k = case.x.astype(np.int64), case.params.k
        y = x - rounding.divide(x.sum(1, keepdims=True), x.shape[1], Rounding.TIES_TO_EVEN)
        std = np.maximum(functions.isqrt(((np.sign(y) * (abs(y) >> k)) ** 2).sum(1, keepdims=True)) << k, 1)
        return (y * (2**31 // std) >> 1) + case.bias

    assert differing(own.layernorm(), deviation) > 1000


@pytest.mark.parametrize("rule", [Rounding.TIES_TO_POSITIVE, Rounding.TIES_TO_AWAY, Rounding.TOWARD_ZERO])
def test_another_rounding_of_a_dyadic_product_is_found(rule: Rounding) -> None:
    def deviation(case: Case) -> Any:
        p = case.params
        product = case.acc.astype(np.int64) * p.multiplier
        return rounding.saturate(rounding.shift_right(product, p.shift, rule), p.dtype)

    assert differing(own.dyadic(), deviation) > 100


# -- what the module does elsewhere ----------------------------------------------------------------------


def test_in_float32_the_gelu_leaves_the_integers() -> None:
    """Why the adapter runs float64."""
    torch = adapter._packages().torch
    scale = torch.tensor([2.0**-12])
    q = np.arange(-(2**14), 2**14)
    out, size = adapter._packages().modules.IntGELU(quant_mode=True)(torch.from_numpy(q).float() * scale, scale)
    p = gelu_ibert.Params.from_scale(2.0**-12, dtype=unlimited)
    wanted = gelu_ibert.spec(q, p)
    assert (np.rint((out / size).double().numpy()) != wanted).sum() > 1000


def test_an_exponential_beside_a_tie_is_not_served() -> None:
    """A step of a power of two makes ties, which the error of QuantAct's float64 steps decides."""
    q = np.arange(-128, 128).astype(np.int8)[None]
    p = ibert_module.Params.from_scale(2.0**-6, q=int8, most=32767 * 2.0**33)
    case = make(ibert_module.OP, "here", "", (q,), p)
    with pytest.raises(Unsupported, match="beside a tie"):
        adapter.Backend().run(case)


def test_a_result_that_is_no_integer_is_an_error() -> None:
    torch = adapter._packages().torch
    half = torch.tensor([0.5], dtype=torch.float64)
    with pytest.raises(ValueError, match="no integer times the scale"):
        adapter.integers(half, half * 4)


def test_what_the_modules_cannot_say_is_unsupported() -> None:
    x = np.array([[3, 1]], np.int16)
    acc = x.astype(np.int32)
    soft = ibert_module.Params.from_scale(2.0**-4)
    wide = np.array([[2**23 - 1, -(2**23)] * 2**12], np.int32)
    for reason, op, arrays, p in (
        ("b, c and one", gelu_ibert.OP, (x,), gelu_ibert.Params.from_scale(0.3)),
        ("does not saturate", gelu_ibert.OP, (x * 10_000,), gelu_ibert.Params.from_scale(2.0**-15, dtype=int32)),
        ("no mask", ibert_module.OP, (x, np.array([1], np.int32)), soft),
        ("ln2, b_over_a and c_over_a", ibert_module.OP, (x,), ibert_module.Params.from_scale(0.3)),
        ("ties to even", normalize.OP, (x, None), normalize.Params(mean_rounding=Rounding.TOWARD_ZERO)),
        ("divided by 0", normalize.OP, (x * 0, None), normalize.Params()),
        ("not exact in float64", normalize.OP, (wide, None), normalize.Params(x=int24)),
        ("8 or 16 bits", dyadic.OP, (acc,), dyadic.Params(1, 1, dtype=int32)),
        ("no zero point", dyadic.OP, (acc,), dyadic.Params(1, 1, 1, dtype=int16)),
        ("scale of 0", dyadic.OP, (acc,), dyadic.Params(0, 1, dtype=int16)),
        (r"computes softmax\.ibert$", paper.OP, (x,), paper.Params.from_scale(0.1)),
    ):
        with pytest.raises(Unsupported, match=reason):
            adapter.Backend().run(make(op, "here", "", arrays, p))


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    adapter._packages.cache_clear()
    with pytest.raises(ValueError, match=r"needs the package torch: pip install 'intsim\[ibert\]'"):
        adapter.Backend().versions()
    adapter._packages.cache_clear()

"""What is peculiar to QONNX and Brevitas; that their rows are equal is tested with all systems (test_systems)."""

from __future__ import annotations

import dataclasses
import sys
from typing import Any

import numpy as np
import pytest

from intsim import registry
from intsim.numerics import Rounding, int8, int32, uint8
from intsim.ops.quantize import affine, qonnx as variant
from intsim.ops.quantize.qonnx import BelowZero
from intsim.ops.requantize import power_of_two
from intsim.oracle import judge
from intsim.oracle.adapter import Unsupported, load
from intsim.oracle.adapters import brevitas as brevitas_adapter, qonnx as adapter
from intsim.oracle.adapters._dequantized import codes
from intsim.oracle.cases import make
from intsim.spec import ieee, rounding

pytest.importorskip("qonnx", reason="the system that is judged")

ONE = np.ones((1, 1), np.float32)


def quant(x: Any, zero_point: int = 0, **fields: Any) -> Any:
    arrays = (np.array([x], np.float32), ONE, np.array([[zero_point]], np.int32))
    return adapter.Backend().run(make(variant.OP, "here", "", arrays, variant.Params(**fields)))[0].tolist()


def test_the_seven_rounding_modes() -> None:
    x = [-2.5, -1.75, -1.5, -0.5, 0.25, 0.5, 1.5, 1.75, 2.5]
    given = {r: quant(x, rounding=r) for r in adapter.MODES}
    assert given == {
        Rounding.TIES_TO_EVEN: [-2, -2, -2, 0, 0, 0, 2, 2, 2],
        Rounding.TOWARD_POSITIVE: [-2, -1, -1, 0, 1, 1, 2, 2, 3],
        Rounding.TOWARD_NEGATIVE: [-3, -2, -2, -1, 0, 0, 1, 1, 2],
        Rounding.AWAY_FROM_ZERO: [-3, -2, -2, -1, 1, 1, 2, 2, 3],
        Rounding.TOWARD_ZERO: [-2, -1, -1, 0, 0, 0, 1, 1, 2],
        Rounding.TIES_TO_AWAY: [-3, -2, -2, -1, 0, 1, 2, 2, 3],
        Rounding.TIES_TO_ZERO: [-2, -2, -1, 0, 0, 0, 1, 2, 2],
    }


def test_the_float_that_it_hands_out_may_be_minus_zero() -> None:
    out = adapter.Backend().node("Quant", ([-0.25, 0.25], 1, 0, 8), signed=1, narrow=0, rounding_mode="ROUND")
    assert np.signbit(out).tolist() == [True, False]
    assert codes(out, np.float32([1]), np.zeros(1, np.int64)).tolist() == [0, 0]


def test_half_up_of_the_last_number_below_a_half_is_one() -> None:
    """Why the adapter does not serve it: the sum with a half rounds to 1 in float32."""
    below = float(adapter.BELOW_HALF)
    out = adapter.Backend().node("Quant", ([below, -below], 1, 0, 8), signed=1, narrow=0, rounding_mode="HALF_UP")
    assert out.tolist() == [1, -1]
    with pytest.raises(Unsupported, match="adds a half in float32"):
        quant([below], rounding=Rounding.TIES_TO_AWAY)


def test_a_float_that_no_code_gives_is_an_error() -> None:
    with pytest.raises(ValueError, match="for any integer q"):
        codes(np.float32([0.5]), np.float32([1]), np.zeros(1, np.int64))


# -- deviations are found by the directed cases --------------------------------------------------------


def outside(x: Any, scale: Any, zero_point: Any, p: Any) -> Any:
    p = affine.Params(p.group_size, variant.unlimited, p.rounding)
    return rounding.saturate(affine.OP.spec(x, scale, zero_point, p), int8)


def fused(x: Any, scale: Any, zero_point: Any, p: Any) -> Any:
    y = ieee.fused_multiply_add32(x, np.float32(1) / scale, ieee.float32(zero_point))
    return rounding.saturate(ieee.to_integer(y, p.rounding), int8)


def away(x: Any, scale: Any, zero_point: Any, p: Any) -> Any:
    return variant.spec(x, scale, zero_point, dataclasses.replace(p, rounding=Rounding.TIES_TO_AWAY))


@pytest.mark.parametrize("system", ["qonnx", "brevitas"])
@pytest.mark.parametrize("spec", [outside, fused, away])
def test_another_quantizer_is_found(system: str, spec: Any) -> None:
    backend = load(system)
    backend.versions()  # asks for the package
    capability = next(c for c in backend.capabilities() if c.only["rounding"] == (Rounding.TIES_TO_EVEN,))
    cases = [c for c in capability.directed() if c.params.dtype == int8 and "ties" in c.id and c.scale.size == 1]
    op = dataclasses.replace(registry.get("quantize.qonnx"), spec=spec)
    differ = 0
    for case in cases:
        with np.errstate(all="ignore"):
            wanted = op.spec(case.x, case.scale, case.zero_point.astype(np.int64), case.params).astype(np.int8)
        differ += int((backend.run(case) != wanted).sum())
    assert differ > 5


def test_the_judge_finds_another_rounding_of_negative_ties(monkeypatch: pytest.MonkeyPatch) -> None:
    """DPURoundSte served by RoundSte is a mismatch."""
    pytest.importorskip("brevitas", reason="the system that is judged")
    key = (Rounding.TIES_TO_EVEN, BelowZero.TIES_TO_POSITIVE)
    monkeypatch.setitem(brevitas_adapter.FUNCTIONS, key, "RoundSte")
    report = judge.check(load("brevitas"))
    assert report.exit_code == judge.MISMATCH
    assert {j.case.params.below_zero for j in report.failures} == {BelowZero.TIES_TO_POSITIVE}


# -- what is not served, and why -----------------------------------------------------------------------


def test_what_the_node_cannot_say_is_unsupported() -> None:
    backend = adapter.Backend()
    for reason, fields in {
        "no rounding mode TIES_TO_POSITIVE": {"rounding": Rounding.TIES_TO_POSITIVE},
        "by the same rule": {"below_zero": BelowZero.TIES_TO_POSITIVE},
        "both ends of int64": {"dtype": variant.unlimited},
    }.items():
        with pytest.raises(Unsupported, match=reason):
            quant([0.5], **fields)
    infinite = make(variant.OP, "here", "", (np.float32([[np.inf]]), ONE * np.float32(3e38)), variant.Params())
    with pytest.raises(Unsupported, match="infinite"):
        backend.run(infinite)
    for reason, acc, p in (
        ("subtracts a fraction", 1, power_of_two.Params(1, zero_point=1, rounding=Rounding.TOWARD_ZERO)),
        ("more than 23 bits", 2**24, power_of_two.Params(1, rounding=Rounding.TOWARD_ZERO)),
        ("both ends of int32", 1, power_of_two.Params(1, dtype=int32, rounding=Rounding.TOWARD_ZERO)),
    ):
        with pytest.raises(Unsupported, match=reason):
            backend.run(make(power_of_two.OP, "here", "", (np.array([[acc]], np.int32),), p))


def test_brevitas_refuses_what_it_has_not() -> None:
    pytest.importorskip("brevitas", reason="the system that is judged")
    for p in (variant.Params(rounding=Rounding.TIES_TO_AWAY), variant.Params(dtype=variant.unlimited)):
        with pytest.raises(Unsupported):
            brevitas_adapter.Backend().run(make(variant.OP, "here", "", (ONE, ONE), p))
    case = make(affine.OP, "here", "", (ONE, ONE), affine.Params(dtype=uint8))
    for backend in (brevitas_adapter.Backend(), adapter.Backend()):
        with pytest.raises(Unsupported, match=r"computes quantize\.affine"):
            backend.run(case)


@pytest.mark.parametrize(("module", "package"), [(adapter, "qonnx"), (brevitas_adapter, "brevitas")])
def test_a_missing_package_is_named(module: Any, package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [n for n in sys.modules if n.split(".")[0] == package]:
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.setitem(sys.modules, package, None)
    module._packages.cache_clear()
    with pytest.raises(ValueError, match=rf"pip install 'intsim\[{package}\]'"):
        module.Backend().versions()
    module._packages.cache_clear()

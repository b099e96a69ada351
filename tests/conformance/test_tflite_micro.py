"""What is peculiar to tflite-micro: cases that find each neighbour of its arithmetic, and what it does not serve."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import numpy as np
import pytest

import intsim
from intsim import registry
from intsim.composites.layernorm import tflite_decomposed
from intsim.numerics import Rounding, int8, int16, int32, int48, uint8
from intsim.ops.activation import logistic_gemmlowp, logistic_s16, rsqrt_tflite, tanh_gemmlowp, tanh_s16
from intsim.ops.add import rescaled as add
from intsim.ops.matmul import integer
from intsim.ops.mul import rescaled, squared_difference
from intsim.ops.quantize import affine
from intsim.ops.reduce import mean, mean_tflite, sum_tflite
from intsim.ops.requantize import double_rounding
from intsim.ops.softmax import gemmlowp, tflite_s16
from intsim.oracle.adapter import Unsupported, load
from intsim.oracle.adapters import _tflite_micro_cases as own
from intsim.oracle.adapters import _tflite_micro_scales as scales
from intsim.oracle.adapters import _tflite_model as models
from intsim.oracle.adapters import tflite_micro as adapter
from intsim.oracle.cases import Case, make
from intsim.spec import fixed_point, tflite
from intsim.spec.rounding import shift_right

pytest.importorskip("flatbuffers", reason="writes the models")
pytest.importorskip("tflite_micro", reason="the system that is judged (its wheel is for Linux)")

Array = np.ndarray[Any, Any]
BACKEND = adapter.Backend()
LINEAR = own.Linear(int8, int8, "fc", channels=True)


def differing(listed: Iterable[Case], other: Callable[[Case], Any] = lambda case: case.wanted[0]) -> int:
    """Elements in which tflite-micro differs from ``other``."""
    count = 0
    for case in listed:
        got, want = BACKEND.run(case), np.asarray(other(case))
        assert (got.shape, got.dtype) == (want.shape, want.dtype), case.id
        count += int((got != want).sum())
    return count


def changed(case: Case, **fields: Any) -> Any:
    """The spec's result of a case with other parameters."""
    return intsim.run(case.op, *case.inputs, p=dataclasses.replace(case.params, **fields), backend="reference")


def named(listed: Iterable[Case], *parts: str) -> list[Case]:
    made = [case for case in listed if any(part in case.id for part in parts)]
    assert made, f"no case is called {parts}"
    return made


@pytest.fixture
def other_rounding(monkeypatch: pytest.MonkeyPatch) -> None:
    """The second rounding of gemmlowp with ties to positive, as ``two_half_ups`` has it."""
    monkeypatch.setattr(
        fixed_point, "rounding_shift", lambda x, shift: shift_right(x, shift, Rounding.TIES_TO_POSITIVE)
    )


# -- deviations are found ------------------------------------------------------------------------------

GEMMLOWP: dict[str, Callable[[], Iterable[Case]]] = {
    "FULLY_CONNECTED s8": LINEAR,
    "BATCH_MATMUL s8": own.Linear(int8, int8, "bmm", bias=False),
    "QUANTIZE s16": partial(own.requantize, int16, (int8,)),
    "SOFTMAX s16": own.softmax16,
    **{f"{o} s8": partial(own.rescaled, o, int8) for o in ("ADD", "SUB", "MUL", "SQUARED_DIFFERENCE")},
    "MEAN s8": partial(own.reduce, "MEAN", int8),
    "SUM s16": partial(own.reduce, "SUM", int16),
}


@pytest.mark.parametrize("serves", GEMMLOWP)
@pytest.mark.usefixtures("other_rounding")
def test_another_second_rounding_is_found(serves: str) -> None:
    assert differing(as_judged(serves, GEMMLOWP[serves]())) > 50


def as_judged(serves: str, listed: Iterable[Case]) -> Iterable[Case]:
    """The cases as the judge hands them over."""
    for case in listed:
        case.serves = serves
        yield case


def other_requantize(variant: str, case: Case, **fields: Any) -> Any:
    op, r = registry.get(f"linear.{variant}"), case.params.requantize
    requantize: Any = registry.get(f"requantize.{variant}").params
    p = requantize(r.multiplier, r.shift, r.zero_point, r.dtype, **fields)
    made: Any = op.params
    acc = int48 if variant == "multiplier16" else int32
    return intsim.run(
        op, *case.inputs, p=made(dataclasses.replace(case.params.matmul, acc=acc), p), backend="reference"
    )


def test_ties_tell_double_rounding_from_its_neighbours() -> None:
    ties = named(LINEAR(), "biases-4")
    for rounding in (Rounding.TIES_TO_POSITIVE, Rounding.TIES_TO_AWAY, Rounding.TIES_TO_EVEN):
        assert differing(ties, partial(other_requantize, "single_rounding", rounding=rounding)) > 100, rounding
    assert differing(ties, partial(other_requantize, "two_half_ups")) > 100


def test_the_cut_multiplier_shows() -> None:
    """Results of int16 with the accumulator of 64 bits, and with that of 32."""
    wide, narrow = own.Linear(int16, int8, "fc"), own.Linear(int16, int8, "fc", narrow=True)
    whole = partial(other_requantize, "double_rounding")
    assert differing(named(wide(), "ordinary-0", "ordinary-2"), whole) > 100
    assert differing(named(narrow(), "ordinary"), partial(other_requantize, "multiplier16")) > 100


def test_a_scaled_value_beyond_int32_wraps(monkeypatch: pytest.MonkeyPatch) -> None:
    corners = named(own.Linear(int16, int8, "fc", channels=True)(), "corners")
    assert differing(corners) == 0
    monkeypatch.setattr("intsim.ops.requantize.multiplier16.rounding.wrap", lambda x, t: x)
    corners = named(own.Linear(int16, int8, "fc", channels=True)(), "corners")
    assert differing(corners) > 100, "a result that saturates instead"


def test_scales_are_multiplied_in_float64() -> None:
    """Of one scale of weights too, where the published source has a float32 product: biases beside ties tell."""
    sx, sw = np.float32(0.0123), np.float32(0.00713)
    so = np.float32(float(sx) * float(sw) * 2.0**30 / 100)
    ties = (np.arange(-99, 99) + 0.5) * float(so) / (float(sx) * float(sw))
    bias = (ties[:, None] + np.arange(-200, 201, 4)).reshape(-1).astype(np.int32)
    x, w = np.zeros((1, 1), np.int8), np.zeros((len(bias), 1), np.int8)
    made: Any = registry.get("linear.double_rounding").params
    for weights in (sw, np.full(len(w), sw)):
        given = (sx, weights, so)
        got = models.fully_connected(
            x, w, bias, scales=given, zero_points=(0, 0, 0), result="int8", run=adapter.interpret
        )
        wrong = []
        for single in (False, True):
            p = made.from_scales(sx, sw, so, integer.Params(), single=single, dtype=int8)
            wanted = intsim.run("linear.double_rounding", x, w, bias, p=p, backend="reference")
            wrong.append(int((got != wanted).sum()))
        assert wrong[0] == 0
        assert wrong[1] > 0


def test_mul_multiplies_scales_in_float64() -> None:
    """The float32 steps of LiteRT give other multipliers."""
    a, b, result = 0.11, 0.0071, 0.39
    p, q = (rescaled.Params.from_scales(a, b, result, single=single) for single in (False, True))
    assert (p.multiplier, p.shift) != (q.multiplier, q.shift)
    assert scales.quotient(p.multiplier, p.shift)


def test_another_left_shift_is_found() -> None:
    listed = named(own.rescaled("SQUARED_DIFFERENCE", int8), "-1", "-2")
    assert differing(listed, lambda case: changed(case, left_shift=6)) > 100


@pytest.mark.parametrize("function", ["logistic", "tanh"])
def test_a_coarser_multiplier_or_another_zero_point_is_found(function: str) -> None:
    listed = list(own.curve(function))[:40]
    assert differing(listed, lambda case: changed(case, multiplier=case.params.multiplier & -(2**22))) > 0
    shifted = [c for c in listed if c.params.a_zero_point < 127]
    assert differing(shifted, lambda case: changed(case, a_zero_point=case.params.a_zero_point + 1)) > 100


@pytest.mark.parametrize("function", ["logistic", "tanh"])
def test_a_table_rounded_to_nearest_is_found(function: str) -> None:
    nearest = np.rint(65536 / (1 + np.exp(-np.arange(256) / 24))).astype(np.uint16)
    assert (nearest != tflite.sigmoid_table()).sum() == 44

    def other(case: Case) -> Any:
        return intsim.run(case.op, case.x, nearest, p=case.params, backend="reference")

    assert differing(list(own.curve16(function))[:3], other) > 100


def test_a_mean_that_divides_exactly_is_found() -> None:
    """Six elements: the multiplier is 4 / 6, cut to 31 bits, and a tie falls below."""
    x = np.random.default_rng(7).integers(-128, 128, (20_000, 6)).astype(np.int8)
    case = make(mean_tflite.OP, "six", "ties", (x,), mean_tflite.Params.from_scales(1.0, 1.0))
    exact = mean.Params(x=int8, dtype=int8, rounding=Rounding.TIES_TO_AWAY)
    assert differing([case]) == 0
    assert differing([case], lambda c: intsim.run(mean.OP, c.x[:, :, None], p=exact, backend="reference")[:, 0]) > 100


def test_rsqrt_tells_its_intermediate_rounding() -> None:
    """An exact root, rounded once, is another number here and there."""

    def exact(case: Case) -> Any:
        p = case.params
        v = np.maximum(case.x.astype(np.float64) - p.a_zero_point, 1e-30)
        real = p.multiplier / 2.0**p.shift * 2.0**20 / np.sqrt(v)
        return np.clip(np.floor(real + 0.5) + p.zero_point, -128, 127).astype(np.int8)

    assert differing(list(own.rsqrt())[:200], exact) > 0


def test_the_tables_of_float64_are_found() -> None:
    tables, rivals = tflite_s16.tables(), tflite_s16.tables(np.float64)
    assert [int((a != b).sum()) for a, b in zip(tables, rivals, strict=True)] == [0, 2]

    def other(case: Case) -> Any:
        return intsim.run(case.op, case.q, *rivals, p=case.params, backend="reference")

    assert differing(own.softmax16(), other) > 0


def test_quantize_rounds_ties_away() -> None:
    assert differing(named(own.quantize(), "ties"), lambda case: changed(case, rounding=Rounding.TIES_TO_EVEN)) > 100


# -- the way back from a multiplier to scales ----------------------------------------------------------


def test_scales_are_found_for_any_multiplier() -> None:
    drawn = np.random.default_rng(5).integers(2**30, 2**31, 200).tolist()
    for multiplier in (2**30, 2**31 - 128, *drawn):
        for shift in (1, 17, 31, 62):
            x, y = scales.quotient(multiplier, shift)
            assert (x, y) == (np.float32(x), np.float32(y))
            assert tflite.quantize_multiplier(x / y) == (multiplier, shift)
        p = add.Params(2**30, 31, multiplier, 33, multiplier, 35)
        assert add.Params.from_scales(*scales.sides(p, scales.added(20))) == p
        p = dataclasses.replace(p, a_multiplier=multiplier, a_shift=33, b_multiplier=2**30, b_shift=31)
        assert add.Params.from_scales(*scales.sides(p, scales.added(20))) == p
        s = squared_difference.Params(2**30, 31, multiplier, 33, multiplier, 35)
        assert squared_difference.Params.from_scales(*scales.sides(s, scales.squared(7))) == s
        root = rsqrt_tflite.Params(multiplier, 45)
        assert rsqrt_tflite.Params.from_scales(*scales.root(multiplier, 25)) == root


# -- what it does not serve, and why --------------------------------------------------------------------


def test_the_command_line_finds_it() -> None:
    backend = load("tflite_micro")
    assert isinstance(backend, adapter.Backend)
    assert set(backend.versions()) == {"tflite_micro", "tflite", "flatbuffers"}
    with pytest.raises(ValueError, match="TensorFlow Lite Micro has no profile 'optimized': it has none"):
        load("tflite_micro", "optimized")


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tflite_micro.python.tflite_micro", None)
    adapter._packages.cache_clear()
    with pytest.raises(ValueError, match=r"needs the package tflite_micro.*: pip install 'intsim\[tflite-micro\]'"):
        BACKEND.versions()
    adapter._packages.cache_clear()


def test_what_tflite_micro_cannot_do_is_unsupported() -> None:
    a = np.ones((2, 3), np.int8)
    x = np.zeros((1, 600), np.int8)
    linear: Any = registry.get("linear.double_rounding")
    made = linear.params
    tenth = double_rounding.Params.from_scale(0.1)
    many = double_rounding.Params([2**30 + 1, 2**30 + 3], 35)
    one = np.ones((1, 1), np.float32)
    refused: dict[str, Case] = {
        "from 2[*][*]30 on": make(
            double_rounding.OP, "small", "", (np.ones((1, 1), np.int32),), double_rounding.Params(5, 31)
        ),
        "do not fit int16": make(double_rounding.OP, "far", "", (np.array([[0, 2**17]], np.int32),), tenth),
        "one multiplier": make(double_rounding.OP, "many", "", (np.ones((1, 2), np.int32),), many),
        "no float32 scales of the weights": make(
            linear, "rows", "", (a, a[:, ::-1].copy()), made(integer.Params(), many)
        ),
        "one zero point of the weights": make(linear, "zero", "", (a, a), made(integer.Params(0, [1, 2]), tenth)),
        "no kernel for uint8": make(linear, "type", "", (a.view(np.uint8), a), made(integer.Params(a=uint8), tenth)),
        "multiplier 1/2": make(add.OP, "sides", "", (a, a), add.Params(2**30, 32, 2**30, 32, 2**30, 32)),
        "shifts int8 operands left by 20": make(
            add.OP, "shift", "", (a, a), add.Params(2**30, 31, 2**30, 31, 2**30, 32, left_shift=19)
        ),
        "sum to 512": make(gemmlowp.OP, "long", "", (x,), gemmlowp.Params.from_scale(0.1)),
        "not above 2[*][*]-26": make(gemmlowp.OP, "fine", "", (a,), gemmlowp.Params(2**30, 30)),
        "no mask": make(gemmlowp.OP, "mask", "", (a, np.array([1, 2], np.int32)), gemmlowp.Params.from_scale(0.1)),
        "below the zero point": make(
            rsqrt_tflite.OP, "low", "", (a,), rsqrt_tflite.Params.from_scales(1, 1, a_zero_point=9)
        ),
        "rounds ties away": make(affine.OP, "even", "", (one, one), affine.Params()),
        "casts the quotient": make(
            affine.OP, "huge", "", (one * 3e9, one), affine.Params(rounding=Rounding.TIES_TO_AWAY)
        ),
        "lowest 7 bits": make(logistic_gemmlowp.OP, "fine", "", (a,), logistic_gemmlowp.Params(2**30 + 1, 9)),
        "no tflite-micro kernel": make(mean.OP, "none", "", (a[:, :, None],), mean.Params(x=int8)),
    }
    for reason, case in refused.items():
        case.serves = "QUANTIZE s16" if case.op is double_rounding.OP else ""
        with pytest.raises(Unsupported, match=reason):
            BACKEND.run(case)


@pytest.mark.parametrize("variant", [logistic_gemmlowp, tanh_gemmlowp, logistic_s16, tanh_s16, tflite_s16])
@pytest.mark.parametrize("scale", [0.0, -1.0, float("nan"), float("inf")])
def test_a_scale_that_is_not_positive_is_refused(variant: Any, scale: float) -> None:
    with pytest.raises(ValueError, match=r"(scale|multiplier) is"):
        variant.Params.from_scale(scale)


@pytest.mark.parametrize("variant", [rescaled, squared_difference, mean_tflite, sum_tflite, rsqrt_tflite])
@pytest.mark.parametrize("scale", [0.0, -1.0, float("nan"), float("inf")])
def test_scales_that_are_not_positive_are_refused(variant: Any, scale: float) -> None:
    given = (1.0, 1.0, scale) if variant in (rescaled, squared_difference) else (1.0, scale)
    with pytest.raises(ValueError, match="scales are positive and finite"):
        variant.Params.from_scales(*given)


@pytest.mark.parametrize("scale", [0.0, -1.0, float("nan"), float("inf")])
def test_a_product_of_scales_that_are_not_positive_is_refused(scale: float) -> None:
    with pytest.raises(ValueError, match="scales are positive and finite"):
        tflite.product_scale(1.0, np.array([0.5, scale]), 1.0)


def test_multipliers_beyond_the_shifts() -> None:
    assert tflite.quantize_multiplier(1 - 2.0**-40) == (2**30, 30)  # the rounding carries
    assert tflite.quantize_multiplier(2.0**-40) == (0, 31)
    with pytest.raises(ValueError, match="below"):
        tflite.quantize_multiplier(2.0**31)
    with pytest.raises(ValueError, match="too large"):
        rsqrt_tflite.Params.from_scales(1.0, 1e6)


# -- LayerNorm as one model ------------------------------------------------------------------------------

NINE = (
    ("MEAN", ("x", "axis"), "mean", ("ReducerOptions", {"KeepDims": True})),
    ("SQUARED_DIFFERENCE", ("x", "mean"), "square", ("SquaredDifferenceOptions", {})),
    ("MEAN", ("square", "axis"), "variance", ("ReducerOptions", {"KeepDims": True})),
    ("ADD", ("variance", "epsilon"), "shifted", ("AddOptions", {"PotScaleInt16": False})),
    ("RSQRT", ("shifted",), "root", None),
    ("MUL", ("root", "gamma"), "factor", ("MulOptions", {})),
    ("SUB", ("x", "mean"), "centred", ("SubOptions", {"PotScaleInt16": False})),
    ("MUL", ("centred", "factor"), "product", ("MulOptions", {})),
    ("ADD", ("product", "beta"), "q", ("AddOptions", {"PotScaleInt16": False})),
)


def normalized(x: Array, gamma: Array, beta: Array, tensors: dict[str, tuple[float, int]]) -> Array:
    """LayerNorm in tflite-micro, as an exporter writes it: one model of nine operators that broadcast."""
    m, n = x.shape
    shapes = {"x": (m, n), "gamma": (1, n), "beta": (1, n), "epsilon": (1, 1), "axis": (1,)}
    shapes |= dict.fromkeys(("mean", "variance", "shifted", "root"), (m, 1))
    shapes |= dict.fromkeys(("square", "factor", "centred", "product", "q"), (m, n))
    held = {"gamma": gamma[None], "beta": beta[None], "epsilon": np.array([[127]], np.int8)}
    names = list(tflite_decomposed.TENSORS)
    listed = [models.Tensor(shapes[t], "int8", *tensors[t], held.get(t)) for t in names]
    listed.append(models.Tensor((1,), "int32", None, 0, np.array([1], np.int32)))
    names.append("axis")
    calls = [
        models.Call(o, [names.index(t) for t in given], names.index(y), options, 2) for o, given, y, options in NINE
    ]
    return adapter.interpret(models.graph(listed, calls), x)


def test_layernorm_as_one_model() -> None:
    rng = np.random.default_rng(9)
    elements = 0
    for scale, zero_point, n, m in (
        (0.05, 3, 384, 64),
        (0.013, -20, 77, 200),
        (0.0625, 0, 128, 300),
        (0.2, 17, 64, 500),
    ):
        x = np.clip(rng.normal(0, rng.uniform(5, 80, (m, 1)), (m, n)), -128, 127).astype(np.int8)
        gamma, beta = rng.integers(-128, 128, (2, n)).astype(np.int8)
        tensors = tflite_decomposed.calibrated(scale, zero_point, 80.0)
        got = normalized(x, gamma, beta, tensors)
        p = tflite_decomposed.Params.from_quantization(tensors)
        assert np.array_equal(got, intsim.run(tflite_decomposed.OP, x, gamma, beta, p=p, backend="reference"))
        other = tensors | {"root": (tensors["root"][0] * 1.001, -128)}
        p = tflite_decomposed.Params.from_quantization(other)
        assert not np.array_equal(got, intsim.run(tflite_decomposed.OP, x, gamma, beta, p=p, backend="reference"))
        elements += got.size
    assert elements > 100_000

"""tflite-micro's activations, products, reductions and 16-bit softmax against the variants that claim to be them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pytest

import intsim
from intsim.numerics import IntType, Rounding, int8, int16
from intsim.ops.activation import logistic_gemmlowp, logistic_s16, rsqrt_tflite, tanh_gemmlowp, tanh_s16
from intsim.ops.mul import rescaled, squared_difference
from intsim.ops.reduce import mean, mean_tflite, sum_tflite
from intsim.ops.softmax import tflite_s16
from intsim.spec import fixed_point, tflite
from intsim.spec.rounding import shift_right

pytest.importorskip("flatbuffers", reason="writes the models")
pytest.importorskip("tflite_micro", reason="the system that is judged (its wheel is for Linux)")

from intsim.oracle.adapters import _tflite_model as tflite_model

Array = np.ndarray[Any, Any]

EVERY_INT8 = np.arange(-128, 128, dtype=np.int8).reshape(1, -1)
EVERY_INT16 = np.arange(-(2**15), 2**15).astype(np.int16).reshape(64, -1)
EVERY_PAIR = tuple(np.ascontiguousarray(a) for a in np.broadcast_arrays(EVERY_INT8, EVERY_INT8.T))


def equal(got: Array, wanted: Array) -> bool:
    return got.dtype == wanted.dtype and got.shape == wanted.shape and got.tobytes() == wanted.tobytes()


def differing(got: Array, wanted: Array) -> int:
    return int((got != wanted).sum())


def ours(variant: Any, *arrays: Array, p: Any) -> Array:
    return np.asarray(intsim.run(variant.OP, *arrays, p=p, backend="reference"))


def float32(value: float) -> float:
    return float(np.float32(value))


@pytest.fixture
def other_rounding(monkeypatch: pytest.MonkeyPatch) -> None:
    """The second rounding of gemmlowp with ties to positive, as ``two_half_ups`` has it."""
    monkeypatch.setattr(
        fixed_point, "rounding_shift", lambda x, shift: shift_right(x, shift, Rounding.TIES_TO_POSITIVE)
    )


# -- LOGISTIC and TANH -----------------------------------------------------------------------------

CURVES = {
    "LOGISTIC": (logistic_gemmlowp, (2.0**-8, -128)),
    "TANH": (tanh_gemmlowp, (2.0**-7, 0)),
}
WIDE_CURVES = {"LOGISTIC": logistic_s16, "TANH": tanh_s16}


def curve_scales() -> list[float]:
    """Any scale that a model has, powers of two, and those at which the radius is 1 or 0."""
    rng = np.random.default_rng(4)
    return [float32(s) for s in (*np.exp(rng.uniform(np.log(1e-4), np.log(15), 400)), *2.0 ** np.arange(-10, 4), 1e-7)]


@pytest.mark.parametrize("operator", CURVES)
def test_curves_of_every_int8(operator: str) -> None:
    variant, result = CURVES[operator]
    elements = 0
    for index, scale in enumerate(curve_scales()):
        zero_point = index * 37 % 256 - 128
        got = tflite_model.activation(operator, EVERY_INT8, scale=scale, zero_point=zero_point, result=result)
        p = variant.Params.from_scale(scale, a_zero_point=zero_point)
        assert equal(got, ours(variant, EVERY_INT8, p=p)), (scale, zero_point)
        elements += got.size
    assert elements > 100_000


@pytest.mark.parametrize("operator", CURVES)
def test_a_coarser_multiplier_or_another_zero_point_is_found(operator: str) -> None:
    variant, result = CURVES[operator]
    got = tflite_model.activation(operator, EVERY_INT8, scale=0.02, zero_point=0, result=result)
    p = variant.Params.from_scale(0.02)
    coarse = variant.Params(p.multiplier & -(2**22), p.shift)
    assert differing(got, ours(variant, EVERY_INT8, p=coarse)) > 0
    assert differing(got, ours(variant, EVERY_INT8, p=variant.Params.from_scale(0.02, a_zero_point=1))) > 100


@pytest.mark.parametrize("operator", WIDE_CURVES)
def test_curves_of_every_int16(operator: str) -> None:
    """Powers of two that the kernel singles out, scales that its logarithm takes for them, and any others."""
    variant, table = WIDE_CURVES[operator], tflite.sigmoid_table()
    rng = np.random.default_rng(16)
    beside = [2.0**-12 * 1.0003, 2.0**-12 * 0.9995, 2.0**-11 * 1.0005, 2.0**-12 * 1.0008]
    for scale in (2.0**-13, 2.0**-12, 2.0**-11, *beside, 1e-9, 2.6, *np.exp(rng.uniform(-14, -3, 5))):
        scale = float32(scale)
        got = tflite_model.activation(operator, EVERY_INT16, scale=scale, zero_point=0, result=(2.0**-15, 0))
        assert equal(got, ours(variant, EVERY_INT16, table, p=variant.Params.from_scale(scale))), scale


@pytest.mark.parametrize("operator", WIDE_CURVES)
def test_a_table_rounded_to_nearest_is_found(operator: str) -> None:
    variant = WIDE_CURVES[operator]
    nearest = np.rint(65536 / (1 + np.exp(-np.arange(256) / 24))).astype(np.uint16)
    assert differing(nearest, tflite.sigmoid_table()) == 44
    got = tflite_model.activation(operator, EVERY_INT16, scale=2.0**-12, zero_point=0, result=(2.0**-15, 0))
    assert differing(got, ours(variant, EVERY_INT16, nearest, p=variant.Params.from_scale(2.0**-12))) > 100


# -- MUL and SQUARED_DIFFERENCE --------------------------------------------------------------------

PRODUCTS = {"MUL": rescaled, "SQUARED_DIFFERENCE": squared_difference}


def products(operator: str, t: IntType) -> Iterator[tuple[list[float], list[int]]]:
    """Scales (of a, b, the result) at which results fill the type, every third powers of two; zero points."""
    rng = np.random.default_rng(t.bits)
    reach = {"MUL": 2.0 ** (t.bits - 1), "SQUARED_DIFFERENCE": 2.0 ** (t.bits + 1)}[operator]
    for index in range(12):
        scales = np.exp(rng.uniform(np.log(1e-3), 0, 2))
        factor = rng.uniform(0.3, 2)
        if index % 3 == 0:
            scales, factor = 2.0 ** np.round(np.log2(scales)), 2.0 ** rng.integers(-1, 2)
        whole = scales[0] * scales[1] if operator == "MUL" else max(scales) ** 2
        listed = [float32(s) for s in (*scales, whole * reach * factor)]
        yield listed, [int(z) for z in rng.integers(-128, 128, 3)] if t == int8 else [0, 0, 0]


def pairs(t: IntType) -> tuple[Array, ...]:
    """Every pair of int8; of int16, pairs of random values."""
    if t == int8:
        return EVERY_PAIR
    return tuple(np.random.default_rng(2).integers(-(2**15), 2**15, (2, 128, 256)).astype(np.int16))


def product_params(operator: str, t: IntType, scales: Sequence[float], zero_points: Sequence[int]) -> Any:
    fields = dict(zip(("a_zero_point", "b_zero_point", "zero_point"), zero_points, strict=True))
    shift = {} if operator == "MUL" else {"left_shift": 7 if t == int8 else 0}
    return PRODUCTS[operator].Params.from_scales(*scales, a=t, b=t, dtype=t, **fields, **shift)


@pytest.mark.parametrize("t", [int8, int16], ids=str)
@pytest.mark.parametrize("operator", PRODUCTS)
def test_products(operator: str, t: IntType) -> None:
    elements = 0
    for scales, zero_points in products(operator, t):
        got = tflite_model.binary(operator, *pairs(t), scales=scales, zero_points=zero_points)
        p = product_params(operator, t, scales, zero_points)
        assert equal(got, ours(PRODUCTS[operator], *pairs(t), p=p)), (scales, zero_points)
        elements += got.size
    assert elements > 100_000


@pytest.mark.usefixtures("other_rounding")
def test_mul_with_another_rounding_is_found() -> None:
    scales, zero_points = (0.5, 0.25, 4.0), (3, -5, 7)
    got = tflite_model.binary("MUL", *EVERY_PAIR, scales=scales, zero_points=zero_points)
    p = product_params("MUL", int8, scales, zero_points)
    assert differing(got, ours(rescaled, *EVERY_PAIR, p=p)) > 100


def test_squared_difference_with_another_left_shift_is_found() -> None:
    scales, zero_points = (0.11, 0.07, 0.6), (3, -5, -128)
    got = tflite_model.binary("SQUARED_DIFFERENCE", *EVERY_PAIR, scales=scales, zero_points=zero_points)
    fields = {"a_zero_point": 3, "b_zero_point": -5, "zero_point": -128}
    for left_shift, found in ((7, False), (6, True), (4, True)):
        p = squared_difference.Params.from_scales(*scales, left_shift=left_shift, **fields)
        assert (differing(got, ours(squared_difference, *EVERY_PAIR, p=p)) > 100) == found


def test_mul_multiplies_scales_in_float64() -> None:
    """The float32 steps of LiteRT give other multipliers, which show in int16."""
    found = 0
    for scales, zero_points in products("MUL", int16):
        got = tflite_model.binary("MUL", *pairs(int16), scales=scales, zero_points=zero_points)
        p = rescaled.Params.from_scales(*scales, single=True, a=int16, b=int16, dtype=int16)
        found += differing(got, ours(rescaled, *pairs(int16), p=p))
    assert found > 0


# -- MEAN and SUM ----------------------------------------------------------------------------------

REDUCTIONS = {"MEAN": mean_tflite, "SUM": sum_tflite}


def rows(rng: np.random.Generator, t: IntType, n: int) -> Array:
    """Any values, values of one sign, and rows near the ends of the type."""
    x = rng.integers(t.qmin, t.qmax + 1, (2400, n))
    x[:600] = abs(x[:600])
    x[600:900] = np.clip(x[600:900] // 2 + t.qmax // 2, t.qmin, t.qmax)
    return np.clip(x, t.qmin, t.qmax).astype(t.storage)


@pytest.mark.parametrize("t", [int8, int16], ids=str)
@pytest.mark.parametrize("operator", REDUCTIONS)
def test_reductions(operator: str, t: IntType) -> None:
    variant, rng, elements = REDUCTIONS[operator], np.random.default_rng(t.bits), 0
    for index in range(44):
        n = (1, 2, 3, 7, 8, 64, 77, 384, 500, 1024, 1000)[index % 11]
        scale = np.exp(rng.uniform(np.log(1e-3), 0))
        ratio = 2.0 ** rng.integers(-2, 3) if index % 3 == 0 else rng.uniform(0.2, 2)
        most = n**0.5 if operator == "SUM" else 1
        scales = [float32(scale), float32(scale * ratio * (2.0 ** np.round(np.log2(most)) if index % 3 == 0 else most))]
        zero_points = [int(z) for z in rng.integers(-128, 128, 2)]
        x = rows(rng, t, n)
        got = tflite_model.reduction(operator, x, scales=scales, zero_points=zero_points)
        fields = {"a_zero_point": zero_points[0], "zero_point": zero_points[1], "x": t, "dtype": t}
        assert equal(got, ours(variant, x, p=variant.Params.from_scales(*scales, **fields))), (n, scales, zero_points)
        elements += got.size
    assert elements > 100_000


@pytest.mark.parametrize("operator", REDUCTIONS)
@pytest.mark.usefixtures("other_rounding")
def test_reductions_with_another_rounding_are_found(operator: str) -> None:
    variant = REDUCTIONS[operator]
    x = np.random.default_rng(1).integers(-128, 128, (4000, 2)).astype(np.int8)
    got = tflite_model.reduction(operator, x, scales=(1.0, 4.0), zero_points=(0, 0))
    assert differing(got, ours(variant, x, p=variant.Params.from_scales(1.0, 4.0))) > 100


def test_a_mean_that_divides_exactly_is_found() -> None:
    """Six elements: the multiplier is 4 / 6, cut to 31 bits, and a tie falls below."""
    x = np.random.default_rng(7).integers(-128, 128, (20_000, 6)).astype(np.int8)
    got = tflite_model.reduction("MEAN", x, scales=(1.0, 1.0), zero_points=(0, 0))
    assert equal(got, ours(mean_tflite, x, p=mean_tflite.Params.from_scales(1.0, 1.0)))
    exact = mean.Params(x=int8, dtype=int8, rounding=Rounding.TIES_TO_AWAY)
    assert differing(got, ours(mean, x[:, :, None], p=exact)[:, 0]) > 100


# -- RSQRT -----------------------------------------------------------------------------------------


def roots(seed: int) -> tuple[float, float, int, int]:
    """Scales of the input and the result, at which results fill int8 or leave it, and zero points."""
    rng = np.random.default_rng(seed)
    scale = 4.0 ** rng.integers(-5, 2) if seed % 5 == 0 else float32(np.exp(rng.uniform(-9, 1)))
    step = rng.uniform(0.2, 2) / scale**0.5 / 2.0 ** rng.integers(0, 9)
    result = 2.0 ** np.round(np.log2(step)) if seed % 5 == 0 else float32(step)
    return scale, float(result), -128 if seed % 2 else int(rng.integers(-128, 120)), int(rng.integers(-128, 128))


def test_rsqrt_of_every_int8() -> None:
    elements = 0
    for seed in range(600):
        scale, result, zero_point, out = roots(seed)
        x = np.arange(zero_point, 128, dtype=np.int8).reshape(1, -1)  # below its zero point the kernel refuses
        got = tflite_model.activation("RSQRT", x, scale=scale, zero_point=zero_point, result=(result, out))
        p = rsqrt_tflite.Params.from_scales(scale, result, a_zero_point=zero_point, zero_point=out)
        assert equal(got, ours(rsqrt_tflite, x, p=p)), seed
        elements += got.size
    assert elements > 100_000


def test_rsqrt_tells_its_intermediate_rounding_and_the_value_at_zero() -> None:
    """An exact root, rounded once, is another number here and there, and infinity is the largest int8."""
    found = 0
    for seed in range(600):
        scale, result, zero_point, out = roots(seed)
        v = np.arange(1, 128 - zero_point)
        x = (v + zero_point).astype(np.int8).reshape(1, -1)
        got = tflite_model.activation("RSQRT", x, scale=scale, zero_point=zero_point, result=(result, out))
        exact = np.clip(np.floor(1 / (np.sqrt(v * scale) * result) + 0.5) + out, -128, 127)
        found += differing(got[0], exact)
    assert found > 0
    zero = np.zeros((1, 1), np.int8)
    assert tflite_model.activation("RSQRT", zero, scale=1.0, zero_point=0, result=(1.0, -100))[0, 0] == 127


# -- SOFTMAX of int16 ------------------------------------------------------------------------------


def wide_rows(seed: int) -> tuple[Array, float, float]:
    rng = np.random.default_rng(seed)
    n, spread = (1, 2, 7, 64, 77, 300)[seed % 6], (50, 1000, 9000, 30000)[seed % 4]
    q = np.clip(rng.normal(rng.integers(-9000, 9000), spread, (60, n)), -(2**15), 2**15 - 1).astype(np.int16)
    q[:2], q[2:4, 0] = q[0, 0], 2**15 - 1
    return q, float32(np.exp(rng.uniform(np.log(1e-6), np.log(0.05)))), (1.0, 1.0, 0.5, 1.75, 0.3)[seed % 5]


def wide_softmax(q: Array, scale: float, beta: float) -> Array:
    return tflite_model.softmax(q, scale=scale, beta=beta, result="int16")


def test_softmax_of_int16_is_two_tables_of_float32() -> None:
    elements = others = 0
    tables, rivals = tflite_s16.tables(), tflite_s16.tables(np.float64)
    assert [differing(*pair) for pair in zip(tables, rivals, strict=True)] == [0, 2]
    for seed in range(60):
        q, scale, beta = wide_rows(seed)
        got, p = wide_softmax(q, scale, beta), tflite_s16.Params.from_scale(scale, beta)
        assert equal(got, ours(tflite_s16, q, *tables, p=p)), (scale, beta)
        others += differing(got, ours(tflite_s16, q, *rivals, p=p))
        elements += got.size
    assert elements > 100_000
    assert others > 0, "the tables of float64 give other results"


@pytest.mark.usefixtures("other_rounding")
def test_softmax_of_int16_with_another_rounding_is_found() -> None:
    """At a quarter of the table's step, every fourth difference is a tie of the second rounding."""
    q = np.zeros((6000, 2), np.int16)
    q[:, 1] = -np.arange(6000)
    scale = float32(2.5 / 65535)
    wanted = ours(tflite_s16, q, *tflite_s16.tables(), p=tflite_s16.Params.from_scale(scale))
    assert differing(wide_softmax(q, scale, 1.0), wanted) > 100


# -- what no model can hold ------------------------------------------------------------------------


@pytest.mark.parametrize("variant", [logistic_gemmlowp, tanh_gemmlowp, logistic_s16, tanh_s16, tflite_s16])
@pytest.mark.parametrize("scale", [0.0, -1.0, float("nan"), float("inf")])
def test_a_scale_that_is_not_positive_is_refused(variant: Any, scale: float) -> None:
    with pytest.raises(ValueError, match=r"(scale|multiplier) is"):
        variant.Params.from_scale(scale)


@pytest.mark.parametrize("variant", [rescaled, squared_difference, mean_tflite, sum_tflite, rsqrt_tflite])
@pytest.mark.parametrize("scale", [0.0, -1.0, float("nan"), float("inf")])
def test_scales_that_are_not_positive_are_refused(variant: Any, scale: float) -> None:
    scales = (1.0, 1.0, scale) if variant in PRODUCTS.values() else (1.0, scale)
    with pytest.raises(ValueError, match="scales are positive and finite"):
        variant.Params.from_scales(*scales)


def test_multipliers_beyond_the_shifts() -> None:
    assert tflite.quantize_multiplier(1 - 2.0**-40) == (2**30, 30)  # the rounding carries
    assert tflite.quantize_multiplier(2.0**-40) == (0, 31)
    with pytest.raises(ValueError, match="below"):
        tflite.quantize_multiplier(2.0**31)
    with pytest.raises(ValueError, match="too large"):
        rsqrt_tflite.Params.from_scales(1.0, 1e6)

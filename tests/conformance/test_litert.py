"""LiteRT: what is peculiar to it. That each row of each profile is equal to the bit is tested in test_systems."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import pytest

import intsim
from intsim import registry
from intsim.numerics import Rounding, int8, int16, uint8
from intsim.ops.add import rescaled, shift_first, xnnpack as add_xnnpack
from intsim.ops.dequantize import affine as to_real, scaled_zero_point
from intsim.ops.mul import rescaled as product
from intsim.ops.quantize import affine as to_integer, reciprocal
from intsim.ops.reduce import float32_bias, mean_tflite, sum_tflite
from intsim.ops.requantize import double_rounding, float32_ties_even, float64_ties_away, two_half_ups, xnnpack_8bit
from intsim.ops.softmax import float32_table, gemmlowp, tflite_s16
from intsim.oracle import cases
from intsim.oracle.adapter import Unsupported
from intsim.spec import tflite
from intsim.spec.tflite import product_scale

pytest.importorskip("flatbuffers", reason="writes the models")
pytest.importorskip("ai_edge_litert", reason="the system that is judged")

from intsim.oracle.adapters import _tflite_model as models, litert

Array = np.ndarray[Any, Any]

pytestmark = pytest.mark.compiled  # what is judged is not intsim's kernels: once is enough

PROFILES = tuple(litert.SYSTEM.profiles)
RUN = {profile: partial(litert.interpret, profile) for profile in PROFILES}
EVERY_INT8 = np.arange(-128, 128, dtype=np.int8).reshape(1, -1)
SQUARE = tuple(np.ascontiguousarray(a) for a in np.broadcast_arrays(EVERY_INT8, EVERY_INT8.T))


def ours(variant: Any, *arrays: Array, p: Any) -> Array:
    return np.asarray(intsim.run(variant.OP, *arrays, p=p, backend="reference"))


def differing(got: Array, wanted: Array) -> int:
    return int((got != wanted).sum())


def test_ties_tell_the_three_profiles_apart() -> None:
    """One model, three results, each of them its own variant; none is double rounding, which tflite-micro has."""
    bias = np.arange(-192 << 4, 192 << 4, dtype=np.int32)
    x, w = np.zeros((1, 1), np.int8), np.zeros((len(bias), 1), np.int8)
    call: dict[str, Any] = {"scales": (1.0, 1.0, 16.0), "zero_points": (0, 0, 3), "result": "int8"}
    got = {profile: models.fully_connected(x, w, bias, run=RUN[profile], **call) for profile in PROFILES}
    variants = dict(zip(PROFILES, (float64_ties_away, two_half_ups, float32_ties_even), strict=True))
    for profile, variant in [*variants.items(), ("double rounding", double_rounding)]:
        wanted = ours(variant, bias[None], p=variant.Params.from_scale(1 / 16, zero_point=3))
        for other in PROFILES:
            assert (differing(got[other], wanted) == 0) == (other == profile), (profile, other)
            assert other == profile or differing(got[other], wanted) > 30


def test_two_half_ups_is_not_the_nearest_integer() -> None:
    x, w, bias = np.zeros((1, 1), np.int8), np.zeros((1, 1), np.int8), np.array([-505], np.int32)
    call: dict[str, Any] = {"scales": (1.0, 1.0, 16.0), "zero_points": (0, 0, 0), "result": "int8"}
    assert models.fully_connected(x, w, bias, run=RUN["optimized"], **call)[0, 0] == -31  # of -31.5625
    assert models.fully_connected(x, w, bias, run=RUN["builtin_ref"], **call)[0, 0] == -32


@pytest.mark.parametrize("profile", PROFILES)
def test_scales_of_fully_connected(profile: str) -> None:
    """Accumulators beside the steps of a multiplier of 2**-24: the reference kernel multiplies scales in float64."""
    scales = (np.float32(0.0213), np.float32(0.0113), np.float32(0.0213 * 0.0113 * 2**24))
    exact = float(scales[0]) * float(scales[1]) / float(scales[2])
    steps = np.arange(-118, 118)[:, None] + 0.5
    bias = (steps / exact + np.arange(-300, 300)).reshape(-1).astype(np.int32)
    x, w = np.zeros((1, 1), np.int8), np.zeros((len(bias), 1), np.int8)
    got = models.fully_connected(x, w, bias, scales=scales, zero_points=(0, 0, 0), result="int8", run=RUN[profile])
    single = product_scale(*scales)
    assert single != exact
    stated = {
        "builtin_ref": (float64_ties_away, float64_ties_away.Params.from_scales(*scales)),
        "optimized": (two_half_ups, two_half_ups.Params.from_scale(single)),
        "xnnpack": (float32_ties_even, float32_ties_even.Params.from_scales(*scales)),
    }
    rivals = {
        "builtin_ref": (float64_ties_away, float64_ties_away.Params.from_scale(single)),
        "optimized": (two_half_ups, two_half_ups.Params.from_scale(exact)),
        "xnnpack": (float32_ties_even, float32_ties_even.Params.from_scale(exact)),
    }
    assert differing(got, ours(stated[profile][0], bias[None], p=stated[profile][1])) == 0
    if stated[profile][1] != rivals[profile][1]:
        assert differing(got, ours(rivals[profile][0], bias[None], p=rivals[profile][1])) > 100


def test_the_reference_sum_reads_int8_as_unsigned() -> None:
    x = np.random.default_rng(7).integers(-128, 128, (2000, 7)).astype(np.int8)
    call: dict[str, Any] = {"scales": (0.25, 1.0), "zero_points": (0, 0)}
    got = {profile: models.reduction("SUM", x, run=RUN[profile], **call) for profile in PROFILES}
    documented = ours(sum_tflite, x, p=sum_tflite.Params.from_scales(0.25, 1.0))
    bytes_ = sum_tflite.Params.from_scales(0.25, 1.0, x=uint8, dtype=uint8)
    assert differing(got["builtin_ref"], documented) > 1500
    assert differing(got["builtin_ref"].view(np.uint8), ours(sum_tflite, x.view(np.uint8), p=bytes_)) == 0
    for profile, rule in (("optimized", Rounding.TIES_TO_AWAY), ("xnnpack", Rounding.TIES_TO_EVEN)):
        assert differing(got[profile], documented) > 100  # on ties alone
        for rounding in (Rounding.TIES_TO_AWAY, Rounding.TIES_TO_EVEN):
            p = float32_bias.Params(0x3E80_0000, rounding=rounding)
            assert (differing(got[profile], ours(float32_bias, x, p=p)) == 0) == (rounding == rule)


def test_zero_points_of_xnnpack_are_added_before_the_rounding() -> None:
    """Ties go to even after an odd zero point, and MEAN is not the TFLite formula."""
    x = np.random.default_rng(8).integers(-128, 128, (4000, 2)).astype(np.int8)
    got = models.reduction("MEAN", x, scales=(0.25, 1.0), zero_points=(5, -11), run=RUN["xnnpack"])
    named: dict[str, Any] = {"a_zero_point": 5, "zero_point": -11}
    p = float32_bias.Params.of_xnnpack(0.25, 1.0, 2, mean=True, **named)
    assert differing(got, ours(float32_bias, x, p=p)) == 0
    later = float32_bias.Params.of_xnnpack(0.25, 1.0, 2, mean=True, a_zero_point=5)
    assert differing(got, ours(float32_bias, x, p=later) - 11) > 100
    assert differing(got, ours(mean_tflite, x, p=mean_tflite.Params.from_scales(0.25, 1.0, **named))) > 100
    for profile in ("builtin_ref", "optimized"):
        got = models.reduction("MEAN", x, scales=(0.25, 1.0), zero_points=(5, -11), run=RUN[profile])
        assert differing(got, ours(mean_tflite, x, p=mean_tflite.Params.from_scales(0.25, 1.0, **named))) == 0


def test_the_multiplier_of_8_bits_misses_the_nearest_integer() -> None:
    p = xnnpack_8bit.Params.from_scales(0.02, 0.9)
    acc = np.arange(-128, 128, dtype=np.int32)[None]
    call: dict[str, Any] = {"operand": (0.02, 0), "made": (0.9, 0)}
    got = models.conversion("QUANTIZE", EVERY_INT8, "int8", run=RUN["xnnpack"], **call)
    assert differing(got, ours(xnnpack_8bit, acc, p=p)) == 0
    assert differing(got, np.rint(acc * 0.02 / 0.9)) == 21


@pytest.mark.parametrize("profile", ["optimized", "xnnpack"])
def test_the_last_elements_go_another_way(profile: str) -> None:
    """To int16, elements after the last full vector round ties away, as the reference kernel does."""
    x = np.full((1, 37), 0.5, np.float32)
    got = models.conversion("QUANTIZE", x, "int16", operand=(None, 0), made=(1.0, 0), run=RUN[profile])[0]
    assert (got[:32] == 0).all()
    assert (got[-5:] == 1).all()
    p = reciprocal.Params(dtype=int16)
    case = cases.make(reciprocal.OP, "tail", "37 elements", (x, np.ones((1, 1), np.float32), None), p)
    with pytest.raises(Unsupported, match="last full vector"):
        litert.Backend(profile).run(case)


def test_quantize_divides_or_multiplies() -> None:
    x = (np.arange(-3008, 3008).astype(np.float32) * np.float32(0.0125))[None]
    scale = np.array([[0.025]], np.float32)
    division = ours(to_integer, x, scale, p=to_integer.Params(rounding=Rounding.TIES_TO_AWAY))
    multiplied = ours(reciprocal, x, scale, p=reciprocal.Params())
    for profile, wanted, other in zip(
        PROFILES, (division, multiplied, multiplied), (multiplied, division, division), strict=True
    ):
        got = models.conversion("QUANTIZE", x, "int8", operand=(None, 0), made=(0.025, 0), run=RUN[profile])
        assert differing(got, wanted) == 0
        assert differing(got, other) > 50


def test_dequantize_in_two_products() -> None:
    p = scaled_zero_point.Params.from_scale(0.013, zero_point=100)
    two = ours(scaled_zero_point, EVERY_INT8, p=p)
    one = ours(to_real, EVERY_INT8, np.array([[0.013]], np.float32), np.array([[100]], np.int32), p=to_real.Params())
    assert differing(one, two) > 100
    for profile, wanted in zip(PROFILES, (one, two, one), strict=True):
        got = models.conversion(
            "DEQUANTIZE", EVERY_INT8, "float32", operand=(0.013, 100), made=(None, 0), run=RUN[profile]
        )
        assert got.tobytes() == wanted.tobytes()


def test_add_of_xnnpack_and_what_it_leaves_to_the_other_kernel() -> None:
    for scales, taken in (((0.25, 0.5, 1.0), True), ((0.9, 1.0 / 1200, 1.0), False)):
        got = models.add(*SQUARE, scales=scales, zero_points=(0, 0, 0), run=RUN["xnnpack"])
        fixed = ours(rescaled, *SQUARE, p=rescaled.Params.from_scales(*scales))
        assert (differing(got, fixed) == 0) != taken
        if taken:
            assert differing(got, ours(add_xnnpack, *SQUARE, p=add_xnnpack.Params.from_scales(*scales))) == 0
        else:
            with pytest.raises(ValueError, match="2\\*\\*-10"):
                add_xnnpack.Params.from_scales(*scales)


@pytest.mark.parametrize("profile", ["optimized", "xnnpack"])
@pytest.mark.parametrize(
    "scales",
    [(0.6595816612243652, 0.2272840291261673, 0.9453684091567993), (1.0, 2.0**-19, 2.0)],
    ids=["ordinary", "a term cut before the product"],
)
def test_add_of_int16_shifts_first(profile: str, scales: tuple[float, ...]) -> None:
    """One or two of 32768 results tell."""
    a, b = np.random.default_rng(16).integers(-32768, 32768, (2, 64, 512)).astype(np.int16)
    p = rescaled.Params.from_scales(*scales, left_shift=15, a=int16, b=int16, dtype=int16)
    fixed, shifted = ours(rescaled, a, b, p=p), ours(shift_first, a, b, p=p)
    assert 0 < differing(fixed, shifted) <= 2
    assert differing(models.add(a, b, scales=scales, zero_points=(0, 0, 0), run=RUN[profile]), shifted) == 0
    assert differing(models.add(a, b, scales=scales, zero_points=(0, 0, 0), run=RUN["builtin_ref"]), fixed) == 0


def test_mul_multiplies_scales_in_float32() -> None:
    a, b = np.random.default_rng(2).integers(-32768, 32768, (2, 128, 512)).astype(np.int16)
    scales, types = (0.001, 0.002, 0.05), {"a": int16, "b": int16, "dtype": int16}
    got = models.binary("MUL", a, b, scales=scales, zero_points=(0, 0, 0), run=RUN["builtin_ref"])
    assert differing(got, ours(product, a, b, p=product.Params.from_scales(*scales, single=True, **types))) == 0  # type: ignore[arg-type]  # types alone
    assert differing(got, ours(product, a, b, p=product.Params.from_scales(*scales, **types))) > 0  # type: ignore[arg-type]  # types alone


def test_batch_matmul_with_a_zero_point_of_b_leaves_xnnpack() -> None:
    rng = np.random.default_rng(5)
    a, b = rng.integers(-128, 128, (256, 8)).astype(np.int8), rng.integers(-128, 128, (8, 64)).astype(np.int8)
    for zero_point in (0, 3):
        acc = ((a.astype(np.int32) - 7) @ (b.astype(np.int32) - zero_point)).astype(np.int32)
        call: dict[str, Any] = {"scales": (1.0, 1.0, 256.0), "zero_points": (7, zero_point, -5)}
        got = models.batch_matmul(a, b, run=RUN["xnnpack"], **call)
        for variant, taken in ((float32_ties_even, zero_point == 0), (double_rounding, zero_point != 0)):
            wanted = ours(variant, acc, p=variant.Params.from_scale(1 / 256, zero_point=-5))
            assert (differing(got, wanted) == 0) == taken


def test_an_odd_number_of_int4_terms_leaves_xnnpack() -> None:
    x, w = EVERY_INT8.T.copy(), np.arange(-8, 8, dtype=np.int8)[:, None]
    acc = x.astype(np.int32) @ w.T.astype(np.int32)
    call: dict[str, Any] = {"scales": (1.0, 1.0, 4.0), "zero_points": (0, 0, 0), "result": "int8", "weights": "int4"}
    for terms, variant in ((1, two_half_ups), (2, float32_ties_even)):
        wide = [np.pad(v, ((0, 0), (0, terms - 1))) for v in (x, w)]
        got = models.fully_connected(*wide, np.zeros(16, np.int32), run=RUN["xnnpack"], **call)
        assert differing(got, ours(variant, acc, p=variant.Params.from_scale(0.25))) == 0


def test_softmax_of_int8_is_another_in_float32() -> None:
    q = np.clip(np.random.default_rng(3).normal(0, 25, (3000, 300)), -128, 127).astype(np.int8)
    fixed = ours(gemmlowp, q, p=gemmlowp.Params.from_scale(0.3))
    floats = ours(float32_table, q, float32_table.table(0.3), p=float32_table.Params())
    assert 0 < differing(fixed, floats) < 50
    for profile, wanted in zip(PROFILES, (fixed, floats, floats), strict=True):
        assert differing(models.softmax(q, scale=0.3, beta=1.0, result="int8", run=RUN[profile]), wanted) == 0


@pytest.mark.parametrize("profile", PROFILES)
def test_softmax_of_int16_has_tables_of_float64(profile: str) -> None:
    q = np.clip(np.random.default_rng(9).normal(0, 9000, (400, 64)), -(2**15), 2**15 - 1).astype(np.int16)
    got = models.softmax(q, scale=0.0003, beta=1.0, result="int16", run=RUN[profile])
    p = tflite_s16.Params.from_scale(0.0003, single=True)
    assert differing(got, ours(tflite_s16, q, *tflite_s16.tables(np.float64), p=p)) == 0
    assert differing(got, ours(tflite_s16, q, *tflite_s16.tables(np.float32), p=p)) > 0


@pytest.mark.parametrize(
    ("operator", "scale", "count"),
    [("LOGISTIC", 2.0**-12, 56761), ("TANH", 2.0**-12, 41116), ("TANH", 2.0**-11, 20576)],
)
def test_curves_of_int16_at_powers_of_two(operator: str, scale: float, count: int) -> None:
    """The optimised kernel is another one there, also just beside the power, and the adapter tells them apart."""
    table: Any = registry.get(f"activation.{operator.lower()}_s16")
    fixed: Any = registry.get(f"activation.{operator.lower()}_gemmlowp16")
    x = np.arange(-(2**15), 2**15).astype(np.int16)[None]
    lines = table.params.from_scale(scale)
    wanted = np.asarray(intsim.run(table, x, tflite.sigmoid_table(), p=lines, backend="reference"))
    other = np.asarray(intsim.run(fixed, x, p=fixed.params(int(scale == 2.0**-11)), backend="reference"))
    assert differing(wanted, other) == count
    case = cases.make(table, "table", "a power of two", (x, tflite.sigmoid_table()), lines)
    for profile in PROFILES:
        for beside in (scale, scale * 1.0003):
            named: dict[str, Any] = {"scale": beside, "zero_point": 0, "result": (2.0**-15, 0)}
            got = models.activation(operator, x, run=RUN[profile], **named)
            assert differing(got, wanted if profile == "builtin_ref" else other) == 0
        if profile != "builtin_ref":
            with pytest.raises(Unsupported, match="power of two"):
                litert.Backend(profile).run(case)


def test_the_table_of_logistic_rounds_each_step() -> None:
    """1 / (1 + exp(-x)) of one rounding has other ties at 1 / 2."""
    scale, zero_point = 2.0**-10, 37
    x = np.float32(scale) * (np.arange(-128, 128) - zero_point)
    once = np.floor((1 / (1 + np.exp(-x))).astype(np.float32) * 256 + 0.5) - 128
    table = tflite.float_table("LOGISTIC", scale, zero_point, 2.0**-8, -128)
    got = models.activation(
        "LOGISTIC", EVERY_INT8, scale=scale, zero_point=zero_point, result=(2.0**-8, -128), run=RUN["builtin_ref"]
    )
    assert differing(got[0], table) == 0
    assert differing(table, once) == 1


def test_a_planted_scale_is_found() -> None:
    """The rows of test_systems depend on the scales that the adapter finds for given multipliers."""
    p = double_rounding.Params.from_scale(0.3, dtype=int8)
    case = cases.make(double_rounding.OP, "scale", "every int8", (EVERY_INT8.astype(np.int32),), p)
    case.serves = "QUANTIZE s8"
    assert differing(litert.Backend("builtin_ref").run(case), case.wanted[0]) == 0
    other = double_rounding.Params(p.multiplier + 2**22, p.shift)
    moved = cases.make(double_rounding.OP, "scale", "every int8", (EVERY_INT8.astype(np.int32),), other)
    moved.serves = "QUANTIZE s8"
    assert differing(litert.Backend("builtin_ref").run(moved), case.wanted[0]) > 0

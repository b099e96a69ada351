"""tflite-micro against the variants that claim to be it: equal to the bit, on ties and at the corners too."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

import intsim
from intsim.numerics import IntType, Rounding, int8, int16, int32, int48
from intsim.ops.add import rescaled
from intsim.ops.matmul import integer
from intsim.ops.requantize import double_rounding, multiplier16, single_rounding, two_half_ups
from intsim.ops.softmax import gemmlowp
from intsim.spec import fixed_point
from intsim.spec.rounding import shift_right

pytest.importorskip("flatbuffers", reason="writes the models")
pytest.importorskip("tflite_micro", reason="the system that is judged (its wheel is for Linux)")

from intsim.oracle.adapters import _tflite_model as tflite_model

Array = np.ndarray[Any, Any]
Call = tuple[tuple[Array, Array, Array], tuple[Any, Any, Any], tuple[int, int, int]]  # arrays, scales, zero points


def equal(got: Array, wanted: Array) -> bool:
    return got.dtype == wanted.dtype and got.shape == wanted.shape and got.tobytes() == wanted.tobytes()


def differing(got: Array, wanted: Array) -> int:
    return int((got != wanted).sum())


def real_multiplier(scales: Sequence[Any]) -> Any:
    """What the kernel passes to QuantizeMultiplier: the product of scales in float32 per tensor, in float64 per row.

    Source: tensorflow/tflite-micro tensorflow/lite/kernels/kernel_util.cc.
    """
    x, w, out = (np.asarray(s, np.float32) for s in scales)
    if w.ndim:
        return x.astype(np.float64) * w.astype(np.float64) / out.astype(np.float64)
    return (x * w).astype(np.float64) / out.astype(np.float64)


def linear(call: Call, variant: Any, acc: IntType = int32, dtype: IntType = int8, **fields: Any) -> Array:
    """FULLY_CONNECTED as a product and one variant of requantize."""
    (x, w, bias), scales, (zx, zw, zo) = call
    p = integer.Params(zx, zw, a=IntType(x.dtype.itemsize * 8), b=int8, acc=acc)
    total = intsim.run(integer.OP, x, w, bias.astype(np.int32), p=p, backend="reference")
    q = variant.Params.from_scale(real_multiplier(scales), zero_point=zo, dtype=dtype, **fields)
    return np.asarray(intsim.run(variant.OP, total, p=q, backend="reference"))


def micro(call: Call, result: str = "int8") -> Array:
    (x, w, bias), scales, zero_points = call
    return tflite_model.fully_connected(x, w, bias, scales=scales, zero_points=zero_points, result=result)


def any_int8(rng: np.random.Generator, *shape: int) -> Array:
    return rng.integers(-128, 128, shape).astype(np.int8)


# -- FULLY_CONNECTED -------------------------------------------------------------------------------


def ties(exponent: int, zero_points: tuple[int, int, int]) -> Call:
    """Every accumulator whose result lies in int8, and half as many beyond, divided by 2**exponent."""
    bias = np.arange(-192 << exponent, 192 << exponent, dtype=np.int32)
    w = np.resize(np.arange(-128, 128), (len(bias), 1)).astype(np.int8)
    x = np.array([[zero_points[0]], [zero_points[0] + 1]], np.int8)  # differences of 0 and 1: bias, bias + w
    return (x, w, bias), (1.0, 1.0, 2.0**exponent), zero_points


def ordinary(seed: int, *, per_row: bool) -> Call:
    """Random operands and biases, and scales for which results fill int8 and leave it now and then."""
    rng = np.random.default_rng(seed)
    n, reach = 3000, 1 << int(rng.integers(12, 31))
    bias = rng.integers(-reach, reach, n).astype(np.int32)
    sx, sw = np.float32(rng.uniform(0.001, 0.05)), rng.uniform(0.001, 0.02, n if per_row else ()).astype(np.float32)
    so = np.float32(sx * sw.max() * (reach + 2**17) / rng.uniform(90, 160))
    arrays = (any_int8(rng, 6, 24), any_int8(rng, n, 24), bias)
    return arrays, (sx, sw, so), (int(rng.integers(-128, 128)), 0, int(rng.integers(-128, 128)))


def corners() -> Call:
    """Multipliers a row from 2**-62 to 2**8 and beside powers of two; accumulators up to the ends of int32.

    One multiplier is 1 - 2**-34, whose 31 bits round up to 2**31: QuantizeMultiplier carries it.
    """
    rng = np.random.default_rng(34)
    end = 2**31 - 2**16  # one product is below 2**15 and must not leave int32: that is undefined in C++
    bias = np.tile([-end, -(2**30), -(2**24) - 1, -505, -1, 0, 1, 3, 504, 2**24 + 1, 2**29 + 7, end], 213).astype(
        np.int32
    )
    w = np.repeat([2.0**e * f for e in range(-62, 9) for f in (1, 1 + 2.0**-17, 4 / 3)], 12).astype(np.float32)
    return (any_int8(rng, 4, 1), any_int8(rng, len(bias), 1), bias), (1 - 2.0**-17, w, 1.0), (7, 0, -5)


def extremes() -> Call:
    """The largest products of all signs, 1100 of them."""
    x = np.repeat([[-128], [127], [0]], 1100, axis=1).astype(np.int8)
    return (x, x[:2], np.array([-7, 9], np.int32)), (0.5, 0.25, 2.0**17), (-128, 127, 3)


def test_linear_is_double_rounding() -> None:
    calls = {
        **{f"ties 2**-{e}": ties(e, z) for e in (1, 4, 7) for z in ((0, 0, 0), (-5, 0, 3), (7, 33, -11))},
        **{f"ordinary {seed}": ordinary(seed, per_row=False) for seed in range(8)},
        **{f"ordinary, a scale a row {seed}": ordinary(seed, per_row=True) for seed in range(8)},
        "corners": corners(),
        "extremes": extremes(),
    }
    elements = 0
    for name, call in calls.items():
        got = micro(call)
        assert equal(got, linear(call, double_rounding)), name
        elements += got.size
    assert elements > 400_000


def test_ties_tell_double_rounding_from_its_neighbours() -> None:
    call = ties(4, (-5, 0, 3))
    got = micro(call)
    for rule in (Rounding.TIES_TO_POSITIVE, Rounding.TIES_TO_AWAY, Rounding.TIES_TO_EVEN):
        assert differing(got, linear(call, single_rounding, rounding=rule)) > 100, rule
    assert differing(got, linear(call, two_half_ups)) > 100


def test_scales_are_multiplied_in_float32_per_tensor_and_in_float64_per_row() -> None:
    """A scale a row, all of them equal, is another multiplier than the same scale given once."""
    arrays, (sx, sw, so), zero_points = ordinary(3, per_row=False)
    once, each = (sx, sw, so), (sx, np.full(len(arrays[1]), sw), so)
    assert real_multiplier(once) != real_multiplier(each)[0]
    for scales in (once, each):
        call = (arrays, scales, zero_points)
        assert equal(micro(call), linear(call, double_rounding))


def wide(seed: int) -> Call:
    """int16 activations with int64 biases; accumulators up to 2**41."""
    rng = np.random.default_rng(seed)
    k, n = (512, 200) if seed % 2 else (3, 3000)
    x = rng.integers(-32768, 32768, (16, k)).astype(np.int16)
    bias = rng.integers(-(2**31), 2**31, n).astype(np.int64)
    sx, sw = np.float32(rng.uniform(1e-5, 1e-4)), np.float32(rng.uniform(0.001, 0.02))
    reach = 2.0**32 + (2**15 * 2**7 * 2 * k**0.5)
    return (x, any_int8(rng, n, k), bias), (sx, sw, np.float32(sx * sw * reach / rng.uniform(9e3, 6e4))), (0, 0, 0)


def wide_ties(exponent: int) -> Call:
    """Accumulators beside every tie of 2**-exponent in a range of int16."""
    bias = (np.arange(-1500, 1500)[:, None] * 2**exponent + 2 ** (exponent - 1) + np.array([-1, 0, 1])).reshape(-1)
    zeros = np.zeros((1, 1), np.int16), np.zeros((len(bias), 1), np.int8)
    return (*zeros, bias.astype(np.int64)), (1.0, 1.0, 2.0**exponent), (0, 0, 0)


def test_linear_of_int16_is_multiplier16() -> None:
    elements = 0
    for call in [*map(wide, range(8)), *map(wide_ties, (1, 5, 16))]:
        got = micro(call, "int16")
        assert equal(got, linear(call, multiplier16, acc=int48, dtype=int16))
        elements += got.size
    assert elements > 200_000


def test_the_cut_multiplier_shows() -> None:
    (x, w, _), scales, zero_points = wide(2)
    call = ((x, w, np.zeros(len(w), np.int64)), (*scales[:2], scales[2] / 2**8), zero_points)  # |acc| < 2**31
    assert differing(micro(call, "int16"), linear(call, single_rounding, dtype=int16)) > 100
    assert equal(micro(call, "int16"), linear(call, multiplier16, acc=int48, dtype=int16))


# -- SOFTMAX ---------------------------------------------------------------------------------------


def rows(seed: int, n: int = 77) -> Array:
    """Rows of any int8, rows near one value, rows whose largest element leads by far, constant rows."""
    rng = np.random.default_rng(seed)
    near = np.clip(rng.normal(rng.integers(-100, 100), 12, (16, n)), -128, 127)
    led = np.where(np.arange(n) == rng.integers(n), 127, rng.integers(-128, 0, (4, n)))
    return np.vstack([rng.integers(-128, 128, (16, n)), near, led, np.full((1, n), rng.integers(-128, 128))]).astype(
        np.int8
    )


def probabilities(q: Array, scale: float, beta: float, dtype: IntType) -> Array:
    p = gemmlowp.Params.from_scale(scale, beta, dtype=dtype)
    return np.asarray(intsim.run(gemmlowp.OP, q, p=p, backend="reference"))


@pytest.mark.parametrize("dtype", [int8, int16], ids=str)
def test_softmax_is_gemmlowp(dtype: IntType) -> None:
    rng = np.random.default_rng(8)
    scales = [*np.exp(rng.uniform(np.log(1e-5), np.log(40), 32)), *2.0 ** np.arange(-10, 6), 1e-7, 31.9, 32.0, 100.0]
    elements = 0
    for seed, scale in enumerate(scales):
        scale, beta = float(np.float32(scale)), (1.0, 1.0, 0.5, 1.75)[seed % 4]
        q = rows(seed, (77, 1, 2, 77, 300)[seed % 5])
        got = tflite_model.softmax(q, scale=scale, beta=beta, result=str(dtype))
        assert equal(got, probabilities(q, scale, beta, dtype)), (scale, beta)
        elements += got.size
    assert elements > 100_000


def test_a_long_row_of_equal_elements() -> None:
    """The most terms that the int32 total holds."""
    q = np.full((1, gemmlowp.MOST), 5, np.int8)
    got = tflite_model.softmax(q, scale=0.1, beta=1.0, result="int16")
    assert equal(got, probabilities(q, 0.1, 1.0, int16))


def test_softmax_with_another_rounding_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fixed_point, "rounding_shift", lambda x, shift: x >> shift)
    q = rows(0)
    assert (
        differing(tflite_model.softmax(q, scale=0.05, beta=1.0, result="int8"), probabilities(q, 0.05, 1.0, int8)) > 10
    )


# -- ADD -------------------------------------------------------------------------------------------


def total(a: Array, b: Array, scales: Sequence[float], zero_points: Sequence[int]) -> Array:
    t = IntType(a.dtype.itemsize * 8)
    za, zb, zo = zero_points
    fields = {"a_zero_point": za, "b_zero_point": zb, "zero_point": zo, "left_shift": 20 if t == int8 else 15}
    p = rescaled.Params.from_scales(*scales, a=t, b=t, dtype=t, **fields)
    return np.asarray(intsim.run(rescaled.OP, a, b, p=p, backend="reference"))


EVERY_PAIR = tuple(x.astype(np.int8) for x in np.meshgrid(np.arange(-128, 128), np.arange(-128, 128), indexing="ij"))
ADD_CALLS = {
    "ties": ((0.25, 0.5, 1.0), (0, 0, 0)),
    "ties, odd zero points": ((1.0, 0.125, 2.0), (-5, 3, 7)),
    "ordinary": ((0.1, 0.07, 0.13), (-5, 3, -7)),
    "one scale far below the other": ((0.9, 1e-6, 1.1), (127, -128, 0)),
    "saturates": ((1.0, 0.7, 0.3), (1, -1, 100)),
}


@pytest.mark.parametrize("call", ADD_CALLS.values(), ids=ADD_CALLS)
def test_add_is_rescaled(call: tuple[tuple[float, ...], tuple[int, ...]]) -> None:
    scales, zero_points = call
    got = tflite_model.add(*EVERY_PAIR, scales=scales, zero_points=zero_points)
    assert equal(got, total(*EVERY_PAIR, scales, zero_points))


def test_add_of_int16_is_rescaled() -> None:
    rng = np.random.default_rng(16)
    for scales in ((0.25, 0.5, 1.0), (0.001, 0.002, 0.003), (0.3, 0.007, 0.2)):
        a, b = rng.integers(-32768, 32768, (2, 64, 512)).astype(np.int16)
        got = tflite_model.add(a, b, scales=scales, zero_points=(0, 0, 0))
        assert equal(got, total(a, b, scales, (0, 0, 0))), scales


def test_add_with_another_rounding_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    scales, zero_points = ADD_CALLS["ties"]
    got = tflite_model.add(*EVERY_PAIR, scales=scales, zero_points=zero_points)
    monkeypatch.setattr(
        fixed_point, "rounding_shift", lambda x, shift: shift_right(x, shift, Rounding.TIES_TO_POSITIVE)
    )
    assert differing(got, total(*EVERY_PAIR, scales, zero_points)) > 100

"""Tuned kernels are equal to the program, on random and extreme rows, in whole tiles and in tails."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from intsim.execute import prepare
from intsim.numerics import IntType, Order, Rounding, int8, int16, int32, uint8
from intsim.ops.requantize._cpu_columns import _exact_in_float64
from intsim.registry import get

DRAW = np.random.default_rng(20)


def equal(name: str, p: Any, *arrays: Any) -> None:
    """The tuned kernel serves the call, and every output is that of the spec."""
    fast = prepare(name, p=p)
    found = {
        d: n for port, a in zip(fast.op.inputs, arrays, strict=False) for d, n in zip(port.core, a.shape, strict=True)
    }
    assert fast._fast(found) is not None, "no tuned kernel serves this: the comparison would be empty"
    got, want = fast.outputs(*arrays), prepare(name, p=p, backend="reference").outputs(*arrays)
    for a, b in zip(got, want, strict=True):
        assert a.dtype == b.dtype
        np.testing.assert_array_equal(a, b)


def accumulators(m: int, n: int) -> Any:
    """Random, small, and both ends of an int32."""
    acc = DRAW.integers(-(2**31), 2**31, (m, n))
    acc[: m // 2] >>= DRAW.integers(0, 31, (m // 2, n))
    acc[0], acc[-1] = -(2**31), 2**31 - 1
    return acc.astype(np.int32)


SHAPES = [(16, 1030), (300, 65), (20_001, 1)]  # one tile and a tail; less than a tile; one column, flattened


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("rounding", Rounding)
def test_single_rounding(shape: tuple[int, int], rounding: Rounding) -> None:
    acc, params = accumulators(*shape), get("requantize.single_rounding").params
    multiplier = DRAW.integers(-(2**31) + 1, 2**31, shape[1])
    multiplier[0] = 2**31 - 1
    shift = DRAW.integers(32, 63, shape[1])
    equal("requantize.single_rounding", params(multiplier, shift, -5, int16, rounding), acc)
    # a power of two and a shift that leaves few bits: ties everywhere
    small = DRAW.integers(-64, 64, shape).astype(np.int32)
    equal("requantize.single_rounding", params(2**30, 32, 100, uint8, rounding), small)
    equal("requantize.single_rounding", params(-(2**30), 33, 0, int8, rounding), small)


@pytest.mark.parametrize("rounding", Rounding)
def test_single_rounding_of_ties_in_integers(rounding: Rounding) -> None:
    shift = DRAW.integers(33, 38, 400)
    shift[7] = 62  # keeps all of them from float64
    p = get("requantize.single_rounding").params(2**30, shift, 0, int16, rounding)
    assert not _exact_in_float64(p, int16)
    equal("requantize.single_rounding", p, DRAW.integers(-64, 64, (60, 400)).astype(np.int32))


@pytest.mark.parametrize("zero_point", [-128, 127])
def test_single_rounding_through_float64_up_to_its_limit(zero_point: int) -> None:
    """Products about 2**53, which float64 no longer holds, saturate at a shift of 45; at 46 they need not."""
    params, multiplier = get("requantize.single_rounding").params, DRAW.integers(2**30, 2**31, 256) | 1
    acc, k = accumulators(100, 256), DRAW.integers(-300, 300, (60, 256))
    acc[20:40] = np.sign(acc[20:40]) * (2**53 // multiplier + DRAW.integers(-2, 3, (20, 256)))
    acc[40:] = np.rint((k + 0.5) * 2.0**45 / multiplier)  # the nearest to ties
    for shift, through_float64 in ((45, True), (46, False)):
        p = params(multiplier, shift, zero_point)
        assert _exact_in_float64(p, p.dtype) == through_float64
        equal("requantize.single_rounding", p, acc)
        equal("requantize.single_rounding", params(-multiplier, shift, zero_point), acc)


def test_single_rounding_of_what_float64_takes_for_a_tie() -> None:
    multiplier = 2**30 + 1 + np.arange(2**22)
    acc = (2**61 + multiplier // 2) // multiplier
    above = acc * multiplier - 2**61
    multiplier, acc = (v[(above > 0) & (above < 128)] for v in (multiplier, acc))
    assert acc.size
    params, column = get("requantize.single_rounding").params, np.full((20_000, 1), acc[0], np.int32)
    equal("requantize.single_rounding", params(int(multiplier[0]), 62), column)
    assert prepare("requantize.single_rounding", p=params(int(multiplier[0]), 62))(column)[0, 0] == 1
    assert prepare("requantize.dyadic", p=get("requantize.dyadic").params(int(multiplier[0]), 62))(column)[0, 0] == 0


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("name", ["double_rounding", "two_half_ups"])
def test_two_roundings(name: str, shape: tuple[int, int]) -> None:
    acc, params = accumulators(*shape), get(f"requantize.{name}").params
    multiplier = DRAW.integers(0, 2**31, shape[1])
    multiplier[0] = 2**31 - 1
    shift = DRAW.integers(32, 63, shape[1])
    shift[-1], shift[0] = 62, 32
    equal(f"requantize.{name}", params(multiplier, shift, 7, int16), acc)
    small = DRAW.integers(-64, 64, shape).astype(np.int32)
    for k in (30, 12):  # ties of the second rounding, and of the first
        equal(f"requantize.{name}", params(2**k, 33, 0), small << (31 - k if k < 30 else 0))


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("scale", [1e-5, 0.5, 1e27, 2e-38])
def test_float32_ties_even(shape: tuple[int, int], scale: float) -> None:
    params = get("requantize.float32_ties_even").params
    scales = np.full(shape[1], scale, np.float32)
    scales[1:] *= DRAW.uniform(0.6, 1.0, shape[1] - 1).astype(np.float32)
    equal("requantize.float32_ties_even", params.from_scale(scales, zero_point=-9, dtype=int16), accumulators(*shape))


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("scale", [2.0**-4, 0.3, 3.0, 1e15, 2.0**-50])
def test_float64_ties_away(shape: tuple[int, int], scale: float) -> None:
    params = get("requantize.float64_ties_away").params
    scales = np.full(shape[1], scale)
    scales[1::2] *= DRAW.uniform(0.6, 1.0, scales[1::2].size)
    p = params.from_scale(scales, zero_point=-9, dtype=int16)
    equal("requantize.float64_ties_away", p, accumulators(*shape))
    equal("requantize.float64_ties_away", p, DRAW.integers(-300, 300, shape).astype(np.int32))
    near = np.rint((DRAW.integers(-300, 300, shape) + 0.5) / scales)  # the nearest to ties
    equal("requantize.float64_ties_away", p, np.clip(near, -(2**31), 2**31 - 1).astype(np.int32))


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_dyadic(shape: tuple[int, int]) -> None:
    acc, params = accumulators(*shape), get("requantize.dyadic").params
    shift = DRAW.integers(0, 63, shape[1])
    multiplier = DRAW.integers(0, 2**31, shape[1])
    equal("requantize.dyadic", params(multiplier, shift, 11, int16), acc)
    equal("requantize.dyadic", params(2**30, 34), DRAW.integers(-64, 64, shape).astype(np.int32))
    # the accumulators nearest to a tie of the product, of more than 53 bits
    multiplier = DRAW.integers(2**30, 2**31, shape[1])
    near = np.rint((DRAW.integers(-(2**14), 2**14, shape) + 0.5) * 2.0**46 / multiplier).astype(np.int32)
    equal("requantize.dyadic", params(multiplier, 46, dtype=int16), near)


def test_what_the_tuned_kernels_do_not_serve_runs_on_the_program() -> None:
    params = get("requantize.single_rounding").params
    for p in (
        params(2**30, 31),
        params(2**30, 40, zero_point=2**23),
        params(2**30, 40, zero_point_added=Order.FIRST),
    ):
        assert prepare("requantize.single_rounding", p=p)._fast({"m": 1000, "n": 100}) is None


def test_double_rounding_by_nearly_one_with_a_zero_point() -> None:
    """The result leaves int32 before it saturates: no tuned kernel may take it for one that fits."""
    p = get("requantize.double_rounding").params(2**31 - 1, 31, 7)
    acc = accumulators(300, 100)
    got, wanted = (prepare("requantize.double_rounding", p=p, backend=b)(acc) for b in ("cpu", "reference"))
    np.testing.assert_array_equal(got, wanted)
    assert (got[-1] == 127).all()


def logits(m: int, n: int, t: IntType) -> Any:
    """Rows of every spread: equal, narrow, wide, extreme."""
    spread = np.geomspace(1, t.qmax, m)[:, None]
    q = np.clip(np.rint(DRAW.standard_normal((m, n)) * spread), t.qmin, t.qmax)
    q[0], q[1], q[2] = t.qmin, t.qmax, 0
    q[3], q[4, 0] = t.qmin, t.qmax
    q[3, -1] = t.qmax
    q[4, 1:] = t.qmin
    return q.astype(t.storage)


@pytest.mark.parametrize("t", [int8, int16, int32], ids=str)
@pytest.mark.parametrize(("ln2", "b", "c"), [(1, 16, 0), (14, 27, 383), (354, 692, 251558), (2048, 2048, 2**21)])
def test_softmax_ibert(t: IntType, ln2: int, b: int, c: int) -> None:
    m, n = 61, 271
    q, p = logits(m, n, t), get("softmax.ibert").params(ln2, b, max(c, 1), q=t)
    equal("softmax.ibert", p, q)
    stop = DRAW.integers(1, n + 1, m).astype(np.int32)
    equal("softmax.ibert", p, q, stop)
    if max(b, ln2) ** 2 * n < 2**30:
        equal("softmax.ibert", replace(p, rounding=Rounding.TIES_TO_EVEN), q, stop)


def test_softmax_ibert_total_of_more_than_31_bits() -> None:
    """1000 exponentials of 2**22: every probability rounds down to 0."""
    equal("softmax.ibert", get("softmax.ibert").params(1000, 2000, 2**21, q=int8), np.zeros((20, 1000), np.int8))


@pytest.mark.parametrize("rounding", [Rounding.TIES_TO_EVEN, Rounding.TOWARD_NEGATIVE])
def test_softmax_ibert_one_visible_exponential_of_few_bits(rounding: Rounding) -> None:
    """257 is the least total whose reciprocal fits 32 bits; 256 is not served."""
    q, params = np.full((300, 100), -3000, np.int16), get("softmax.ibert").params
    q[:, 3] = 0
    equal("softmax.ibert", params(14, 15, 32, rounding=rounding), q)
    few = prepare("softmax.ibert", p=params(14, 15, 31, rounding=rounding))
    assert few._fast({"m": 300, "n": 100}) is None
    assert (few(q)[:, 3] == 255).all()


def test_softmax_ibert_ties() -> None:
    """Exponentials of 384 >> z with a total of 2**15: 192 is a share of 1.5."""
    row = np.repeat(np.array([0, -14, -28, -56, -84, -112], np.int16), [84, 2, 1, 1, 1, 2])
    p = get("softmax.ibert").params(14, 16, 128, rounding=Rounding.TIES_TO_EVEN)
    equal("softmax.ibert", p, np.tile(row, (300, 1)))
    shares = prepare("softmax.ibert", p=p)(np.tile(row, (300, 1)))[9]
    assert (shares[0], shares[85], shares[86]) == (3, 2, 1)


@pytest.mark.parametrize("ln2", [1, 3, 7, 100, 2047, 2048])
def test_softmax_ibert_division_by_ln2(ln2: int) -> None:
    """Pairs of 0 and every difference that leaves a probability, with a curve that jumps from one z to the next."""
    q = np.zeros((max(9 * ln2, 2**13 + 1), 2), np.int16)
    q[:, 1] = -np.arange(len(q))
    equal("softmax.ibert", get("softmax.ibert").params(ln2, 2048, 1), q)


@pytest.mark.parametrize("t", [int8, int16], ids=str)
@pytest.mark.parametrize("rounding", [Rounding.TIES_TO_EVEN, Rounding.TOWARD_ZERO])
def test_layernorm_ibert(t: IntType, rounding: Rounding) -> None:
    m, n = 61, 270
    x, p = logits(m, n, t), get("layernorm.ibert").params(x=t, mean_rounding=rounding)
    x[5:8] = 7  # constant rows but for a spike: the least deviations
    x[6, 0], x[7, -1] = 8, 6
    bias = DRAW.integers(-(2**30) + 1, 2**30, n).astype(np.int32)
    bias[:2] = 2**30 - 1, -(2**30) + 1
    equal("layernorm.ibert", p, x, bias)
    bias[0] = -(2**31)
    equal("layernorm.ibert", p, x, bias)
    bias[0] = 2**31 - 1
    equal("layernorm.ibert", p, x, bias)


def test_layernorm_ibert_in_the_longest_rows() -> None:
    """Every square is the largest, or their sum is a square or one less."""
    x = np.full((3, 2**13), 2**15 - 1, np.int16)
    x[0, ::2] = -(2**15)
    x[1:] = 0
    x[1, :2] = 3, -3  # a sum of squares of 18
    x[2, :8] = 1, -1, 1, -1, 1, -1, 1, -1
    equal("layernorm.ibert", get("layernorm.ibert").params(), x)


@pytest.mark.parametrize("t", [int8, int16, uint8], ids=str)
@pytest.mark.parametrize("shift", [0, 17, 31])
@pytest.mark.parametrize("eps", [1, 2**45])
def test_rmsnorm(t: IntType, shift: int, eps: int) -> None:
    m, n = 61, 270
    x = logits(m, n, t)
    x[5:8], x[6, 0], x[7, -1] = 7, 8, 6
    multiplier = DRAW.integers(-(2**31) + 1, 2**31, n) >> DRAW.integers(0, 32, n)
    multiplier[:2] = 2**31 - 1, -(2**31) + 1
    params = get("layernorm.rmsnorm").params
    for zero_point, dtype in ((0, int8), (-9, int16), (128, uint8)):
        equal("layernorm.rmsnorm", params(multiplier, shift, eps, 3, zero_point, t, dtype), x)


@pytest.mark.parametrize("shift", [1, 5, 31])
@pytest.mark.parametrize("root", [5, 49])  # 49 times the float64 next to 1 / 49 is not 1
def test_rmsnorm_of_ties_and_their_neighbours(root: int, shift: int) -> None:
    """Quotients d * multiplier / (root * 2**shift), at ties and a step of the multiplier beside them."""
    n, params = 64, get("layernorm.rmsnorm").params
    x = np.zeros((40, n), np.int16)
    x[:, ::2] = DRAW.integers(1 - root, root, (40, n // 2)) | 1  # at most ``root``: the squares are below root**2 n
    tie = root << (shift - 1)
    for row in x:
        eps = root**2 * n - int((row.astype(np.int64) ** 2).sum())
        for multiplier in (tie, tie + 1, tie - 1):
            if multiplier < 2**31:
                equal("layernorm.rmsnorm", params(multiplier, shift, eps), row[None])


def test_rmsnorm_in_the_longest_rows() -> None:
    x = np.full((3, 2**13), -(2**15), np.int16)
    x[1] = 2**15 - 1
    x[2, 1:] = 0
    for zero_point in (-(2**15), 2**15 - 1, 0):
        equal("layernorm.rmsnorm", get("layernorm.rmsnorm").params(2**29, 30, 1, zero_point), x)


@pytest.mark.parametrize("t", [int8, uint8], ids=str)
@pytest.mark.parametrize("result", [int8, uint8, int16, int32], ids=str)
def test_table(t: IntType, result: IntType) -> None:
    x = DRAW.integers(t.qmin, t.qmax + 1, (129, 130)).astype(t.storage)
    table = DRAW.integers(result.qmin, result.qmax + 1, 256).astype(result.storage)
    equal("activation.table", get("activation.table").params(t, result), x, table)


@pytest.mark.parametrize("t", [int8, uint8], ids=str)
@pytest.mark.parametrize("result", [int8, uint8, int16], ids=str)
@pytest.mark.parametrize("scale", [0.003, 0.1, 3.0])
def test_softmax_gemmlowp(t: IntType, result: IntType, scale: float) -> None:
    m, n = 61, 271
    q = (logits(m, n, int8).astype(np.int64) - int8.qmin + t.qmin).astype(t.storage)
    p = get("softmax.gemmlowp").params.from_scale(scale, q=t, dtype=result)
    equal("softmax.gemmlowp", p, q, DRAW.integers(1, n + 1, m).astype(np.int32))


def test_softmax_gemmlowp_in_the_longest_rows() -> None:
    """Totals up to 2**31 less one term: the last shift of an 8-bit result passes 32 bits."""
    p = get("softmax.gemmlowp").params.from_scale(0.1)
    equal("softmax.gemmlowp", p, np.zeros((5, 4095), np.int8), np.array([4095, 512, 511, 4094, 1], np.int32))

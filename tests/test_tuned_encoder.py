"""The tuned row kernels that an encoder runs on are equal to the spec: random rows, extremes and ties."""

from __future__ import annotations

import numpy as np
import pytest

from intsim.execute import prepare
from intsim.numerics import IntType, Rounding, int4, int8, int16, int24, int32, uint8
from intsim.registry import get
from tests.test_tuned import DRAW, accumulators, equal

EVEN, POSITIVE, AWAY = Rounding.TIES_TO_EVEN, Rounding.TIES_TO_POSITIVE, Rounding.TIES_TO_AWAY


@pytest.mark.parametrize("dtype", [int8, int4], ids=str)
def test_dynamic_token(dtype: IntType) -> None:
    n = 271
    tops = np.concatenate([np.arange(0, 300), [2**15 - 1, 2**15 - 2, 254 * 64, 127 * 128, 30_000]])
    x = (DRAW.integers(-(2**15), 2**15, (len(tops), n)) * tops[:, None] >> 15).astype(np.int16)
    x[:, 0] = tops  # the largest is known: quotients fall on ties wherever it is even
    x[::2, 1] = -tops[::2]
    equal("quantize.dynamic_token", get("quantize.dynamic_token").params(dtype), x)


@pytest.mark.compiled  # millions of elements
def test_dynamic_token_for_every_element_of_some_rows() -> None:
    """All int16 beside the largest one, and beside tops whose ties lie close to other quotients."""
    for top in (2**15 - 1, 2**15 - 2, 32512, 254, 255):
        x = np.arange(-top, top + 1, max(1, top // 16_000)).astype(np.int16)[None].repeat(40, axis=0)
        equal("quantize.dynamic_token", get("quantize.dynamic_token").params(), np.ascontiguousarray(x))


@pytest.mark.parametrize(
    ("rounding", "shift", "dtype"),
    [
        (EVEN, 1, int16), (POSITIVE, 9, uint8), (EVEN, 26, int16), (AWAY, 31, int8), (EVEN, 31, int16),
        (EVEN, 32, int32), (POSITIVE, 33, int8), (EVEN, 45, int32), (AWAY, 62, int16),
    ],
    ids=str,
)  # fmt: skip
def test_row_column(rounding: Rounding, shift: int, dtype: IntType) -> None:
    m, n = 130, 131
    acc, p = accumulators(m, n), get("requantize.row_column").params(shift, dtype, rounding)
    row, column = (DRAW.integers(-(2**15), 2**15, k).astype(np.int16) for k in (m, n))
    row[::3], column[::3] = 1 << DRAW.integers(0, 15, row[::3].size), 1 << DRAW.integers(0, 15, column[::3].size)
    row[-1], column[-1], row[1], column[1] = -(2**15), -(2**15), 2**15 - 1, 2**15 - 1
    bias = DRAW.integers(-300, 300, n).astype(np.int32)
    equal("requantize.row_column", p, acc, row, column, bias)
    equal("requantize.row_column", p, acc, row, column)
    for largest in (2**29 - 1, 2**31 - 1):  # as large as the kernel takes, and as large as it leaves to the program
        bias[:2] = largest, -largest
        equal("requantize.row_column", p, acc, row, column, bias)
    # a small accumulator on a tie, and beside one
    step = 2.0 ** np.clip(shift - 20, 0, 24)  # rows and columns of 2**10
    near = np.rint((DRAW.integers(-40, 40, (m, n)) + 0.5) * step) + DRAW.integers(-1, 2, (m, n))
    ones = np.full(m, 2**10, np.int16), np.full(n, 2**10, np.int16)
    equal("requantize.row_column", p, near.astype(np.int32), *ones, np.zeros(n, np.int32))


def test_what_row_column_leaves_to_the_program() -> None:
    params = get("requantize.row_column").params
    size = {"m": 500, "n": 500}
    for p in (params(0), params(31, int32), params(40, rounding=Rounding.TOWARD_NEGATIVE)):
        assert prepare("requantize.row_column", p=p)._fast(size) is None


@pytest.mark.parametrize("scale", [2e-4, 2.0**-10, 2.0**-4])
def test_gelu_of_every_input(scale: float) -> None:
    x = np.arange(-(2**15), 2**15).astype(np.int16).reshape(256, 256)
    equal("activation.gelu_ibert", get("activation.gelu_ibert").params.from_scale(scale), x)


def test_gelu_whose_steps_leave_32_bits_runs_on_the_program() -> None:
    p = get("activation.gelu_ibert").params.from_scale(3e-5)
    assert prepare("activation.gelu_ibert", p=p)._fast({"m": 500, "n": 500}) is None


@pytest.mark.parametrize("t", [int8, int16], ids=str)
@pytest.mark.parametrize("scale", [0.003, 0.0011, 0.05])
def test_softmax_to_even(t: IntType, scale: float) -> None:
    m, n = 70, 263
    q = np.clip(np.rint(DRAW.normal(0, 2 / scale, (m, n))), t.qmin, t.qmax).astype(t.storage)
    q[0], q[1], q[2] = 0, t.qmin, t.qmax
    q[3, 1:] = t.qmin  # one probability of 1
    q[4, 2:] = t.qmin
    p = get("softmax.ibert").params.from_scale(scale, q=t, rounding=EVEN)
    equal("softmax.ibert", p, q, DRAW.integers(1, n + 1, m).astype(np.int32))


def test_softmax_ties() -> None:
    """Exponentials 2c, c, c, ...: quotients of 256 by any total, of which some are ties."""
    p = get("softmax.ibert").params(1, 0, 512, rounding=EVEN)
    q = -DRAW.integers(0, 4, (600, 40)).astype(np.int16)
    q[:, 0] = 0
    q[300:, 9:] = -2000
    equal("softmax.ibert", p, q, DRAW.integers(1, 41, 600).astype(np.int32))


@pytest.mark.parametrize("rounding", [EVEN, Rounding.TOWARD_NEGATIVE])
def test_layernorm_of_24_bits(rounding: Rounding) -> None:
    m, n = 30, 601
    x = (DRAW.normal(0, 1, (m, n)) * 10.0 ** DRAW.uniform(0, 6.5, (m, 1))).clip(int24.qmin, int24.qmax).astype(np.int32)
    x[0], x[1, ::2], x[1, 1::2], x[2], x[3, 0] = 0, int24.qmin, int24.qmax, int24.qmin, int24.qmax
    bias = DRAW.integers(-(2**29), 2**29, n).astype(np.int32)
    p = get("layernorm.ibert").params(x=int24, mean_rounding=rounding)
    equal("layernorm.ibert", p, x, bias)
    bias[:2] = 2**31 - 1, -(2**31)
    equal("layernorm.ibert", p, x, bias)

"""Arm's Ethos-U compiler: its scales beside ours, its 16-bit tables, and that its adapter finds deviations."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from unittest import mock

import numpy as np
import pytest
from ethosu.vela import fp_math, scaling
from ethosu.vela.softmax import SoftMax

from intsim.ops.add import rescaled as add_rescaled
from intsim.ops.mul import rescaled as mul_rescaled
from intsim.ops.requantize import double_rounding, multiplier16
from intsim.ops.softmax import tflite_s16
from intsim.oracle.adapter import Unsupported, load
from intsim.oracle.cases import make
from intsim.execute import reference
from intsim.spec.tflite import quantize_multiplier


@dataclass
class Stream:
    """Real scales: mantissas of 52 bits, exponents over a range."""

    seed: int

    def scales(self, count: int, low: int, high: int) -> np.ndarray[Any, Any]:
        generator = np.random.default_rng(self.seed)
        return np.ldexp(1 + generator.random(count), generator.integers(low, high, count))


def test_quantise_scale_is_quantize_multiplier() -> None:
    for scale in Stream(1).scales(100_000, -32, 31).tolist():
        assert scaling.quantise_scale(scale) == quantize_multiplier(scale)
    for power in range(-32, 31):
        assert scaling.quantise_scale(2.0**power) == quantize_multiplier(2.0**power)


@pytest.mark.parametrize(
    ("scale", "theirs", "ours"),
    [
        pytest.param(1 - 2.0**-33, (2**31, 31), (2**30, 30), id="a mantissa that rounds up to 1 keeps 32 bits"),
        pytest.param(2.0**-33, (2**30, 63), (0, 31), id="a shift of 63 is left"),
        pytest.param(2.0**-34, (0, 16), (0, 31), id="below that a multiplier of 0, with another shift"),
    ],
)
def test_where_quantise_scale_is_another(scale: float, theirs: tuple[int, int], ours: tuple[int, int]) -> None:
    assert (scaling.quantise_scale(scale), quantize_multiplier(scale)) == (theirs, ours)


def test_a_multiplier_of_sixteen_bits() -> None:
    """requantize.multiplier16 gives the reduced multiplier itself for an accumulator of 2**(shift - 16)."""
    for scale in [*Stream(2).scales(2_000, -16, 12).tolist(), 1 - 2.0**-16, 1 - 2.0**-17, 0.5 + 2.0**-17]:
        p = multiplier16.Params.from_scale(scale)
        reduced, shift = scaling.reduced_quantise_scale(scale)
        assert shift == p.shift[0] - 16
        assert reduced == fp_math.downscale_multiplier_int32_to_int16(int(p.multiplier[0]))
        if shift <= 46:
            p = multiplier16.Params(p.multiplier, p.shift, dtype=multiplier16.RESULTS[3])
            got = reference("requantize.multiplier16", np.array([[1 << int(shift)]], np.int64), p=p)[0]
            assert got[0, 0] == reduced


def test_scales_of_mul_and_add() -> None:
    a, b, out = (Stream(s).scales(10_000, -12, 1).astype(np.float32) for s in (3, 4, 5))
    added = 0
    for x, y, z in zip(a, b, out, strict=True):
        for single in (True, False):
            p = mul_rescaled.Params.from_scales(float(x), float(y), float(z), single=single)
            assert scaling.elementwise_mul_scale(x, y, z, use_double=not single) == (p.multiplier, p.shift)
        try:
            q = add_rescaled.Params.from_scales(float(x), float(y), float(z))
        except ValueError:  # the result's scale is too small beside the others
            continue
        # the smaller input is scaled; the larger is half of twice itself
        multiplier, shift, *result, which = scaling.advanced_elementwise_add_sub_scale(x, y, z, 8)
        small, large = ((q.a_multiplier, q.a_shift), (q.b_multiplier, q.b_shift))[:: 1 if which == 1 else -1]
        assert (result, large) == ([q.multiplier, q.shift], (2**30, 31))
        assert (multiplier, shift + 20) == small
        added += 1
    assert added > 9_000


def test_tables_of_the_16_bit_softmax_are_those_of_float64() -> None:
    """Each entry holds a base and the slope to the next one; LiteRT's tables, not tflite-micro's."""
    for packed, table in zip(
        (SoftMax.EXP_LUT, SoftMax.ONE_OVER_ONE_PLUS_X_LUT), tflite_s16.tables(np.float64), strict=True
    ):
        base, slope = (np.array(packed, np.uint32).view(np.int16).reshape(-1, 2).T).astype(int)
        assert (base == table[:512]).all()
        assert (slope == np.diff(table.astype(int))).all()
    assert (tflite_s16.tables(np.float32)[1] != table).sum() == 2


def test_a_rounding_that_is_another_is_found() -> None:
    p = double_rounding.Params(2**30, 34)
    case = make(double_rounding.OP, "ties", "", (np.arange(-64, 64, dtype=np.int32)[None],), p)
    backend = load("vela")
    assert (backend.run(case) == case.wanted[0]).all()
    with mock.patch.object(
        fp_math, "rounding_divide_by_pot", lambda x, exponent: (x + (1 << exponent >> 1)) >> exponent
    ):
        assert (backend.run(case) != case.wanted[0]).sum() == 8  # half of the 16 ties are negative


def test_a_left_shift_that_the_compiler_asserts_is_unsupported() -> None:
    p = double_rounding.Params(2**30, 0)
    with pytest.raises(Unsupported, match="a left shift stays an int32"):
        load("vela").run(make(double_rounding.OP, "left", "", (np.array([[2]], np.int32),), p))

"""Published integer operators against what their own code computes, and against the papers' formulas.

The vectors are what the published code gave, once, for the inputs beside them; no code of theirs is
needed here. Sources:

    I-ViT     zkkli/I-ViT 380ba99, models/quantization_utils/quant_modules.py, in float64
    I-BERT    kssteven418/I-BERT 1b09c75, fairseq/quantization/utils/quant_modules.py, in float64
    FQ-ViT    megvii-research/FQ-ViT 5daf591, models/ptq/layers.py, in float64
    Deeploy   pulp-platform/Deeploy bf64cfa, TargetLibraries/Generic/src/*_s8.c, gcc -O2

I-ViT and FQ-ViT are also judged whole, where there is a checkout: ``intsim check ivit:FOLDER``.
"""

from __future__ import annotations

from fractions import Fraction
from math import floor, isqrt, trunc
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from intsim.execute import reference, run
from intsim.numerics import int8, int16, unlimited
from intsim.ops.activation import gelu_deeploy, shiftgelu_ivit
from intsim.ops.layernorm import deeploy as layernorm_deeploy, ivit, rmsnorm_deeploy
from intsim.ops.softmax import deeploy, fqvit, ibert_module, itamax, itapartialmax, shiftmax_ivit

Q = [[127, 100, 64, 3, 0, -1, -40, -128], [-5, -9, -17, -33, -65, -100, -127, -128], [0, 0, 0, 1, 1, 1, 2, 2]]
RISING = [[-128, -113, -98, -83, -67, -51, 0, 127], Q[0], Q[1]]
SPIKES = [[0] * 7 + [1], [0] * 7 + [45], [300, -300] * 4]
WEIGHT = [1000, -1000, 2**20, -(2**20), 2**31 - 1, -(2**31), 7, -77]
SHORT_WEIGHT = [1000, -1000, 2**20, -(2**20), 2**23 - 1, -(2**23), 7, -77]
BIAS = [0, 1, -1, 5, 100, -100, 2**31 - 1, -(2**31)]


def i8(x: Any) -> Any:
    return np.array(x, np.int8)


def i32(x: Any) -> Any:
    return np.array(x, np.int32)


# op, inputs, params, what the published code gave
VECTORS: dict[str, tuple[str, tuple[Any, ...], Any, list[list[int]]]] = {
    "I-ViT IntSoftmax, 8 bits, scale 1/16": (
        "softmax.shiftmax_ivit",
        (i8(Q),),
        shiftmax_ivit.Params.from_scale(2.0**-4, q=int8),
        [[105, 20, 2, 0, 0, 0, 0, 0], [50, 42, 24, 9, 1, 0, 0, 0], [15, 15, 15, 16, 16, 16, 16, 16]],
    ),
    "I-ViT IntSoftmax, 16 bits, scale 1/64": (
        "softmax.shiftmax_ivit",
        (i8(Q),),
        shiftmax_ivit.Params.from_scale(2.0**-6, q=int8, out_bits=15),
        [
            [12480, 8677, 4923, 1901, 1779, 1755, 975, 246],
            [7296, 7011, 6327, 5016, 3021, 1695, 1154, 1125],
            [4063, 4063, 4063, 4095, 4095, 4095, 4128, 4128],
        ],
    ),
    "I-ViT IntGELU, 8 bits, scale 1/16": (
        "activation.shiftgelu_ivit",
        (i8(Q),),
        shiftgelu_ivit.Params.from_scale(2.0**-4),
        [
            [15875, 12700, 8128, 222, 0, -62, -160, -512],
            [-225, -333, -323, -132, 0, 0, 0, 0],
            [0, 0, 0, 61, 61, 61, 130, 130],
        ],
    ),
    "I-ViT IntGELU, 16 bits, scale 1/256": (
        "activation.shiftgelu_ivit",
        (i8(Q),),
        shiftgelu_ivit.Params.from_scale(2.0**-8, out_bits=15),
        [
            [2454656, 1683200, 864256, 26400, 0, -8608, -545280, -970752],
            [-96640, -171072, -310080, -553344, -898560, -1056000, -1129792, -1130496],
            [0, 0, 0, 19264, 19264, 19264, 38656, 38656],
        ],
    ),
    "I-ViT IntLayerNorm": (
        "layernorm.ivit",
        (i8(Q),),
        ivit.Params(x=int8, dtype=unlimited),
        [
            [554350428, 419508432, 239719104, -64923924, -79906368, -84900516, -279672288, -719157312],
            [418835450, 388374690, 327453170, 205610130, -38075950, -304607600, -510217730, -517832920],
            [-16777216, -16777216, -16777216, 0, 0, 0, 16777215, 16777215],
        ],
    ),
    "I-ViT IntLayerNorm, roots that ten steps miss": (
        "layernorm.ivit",
        (np.array(SPIKES, np.int16),),
        ivit.Params(x=int16, dtype=unlimited),
        [
            [0, 0, 0, 0, 0, 0, 0, 16777215],
            [-89478483, -89478483, -89478483, -89478483, -89478483, -89478483, -89478483, 581610139],
            [379861350, -379861350, 379861350, -379861350, 379861350, -379861350, 379861350, -379861350],
        ],
    ),
    "FQ-ViT QIntSoftmax, scale 1/16": (
        "softmax.fqvit",
        (i8(Q),),
        fqvit.Params.from_scale(2.0**-4),
        [
            [32768, 4096, 512, 16, 16, 16, 2, 0],
            [8192, 8192, 8192, 2048, 512, 64, 16, 8],
            [4096, 4096, 4096, 4096, 4096, 4096, 4096, 4096],
        ],
    ),
    "FQ-ViT QIntSoftmax, scale 1/64": (
        "softmax.fqvit",
        (i8(Q),),
        fqvit.Params.from_scale(2.0**-6),
        [
            [8192, 8192, 4096, 2048, 2048, 2048, 1024, 256],
            [8192, 8192, 8192, 4096, 4096, 2048, 1024, 1024],
            [4096, 4096, 4096, 4096, 4096, 4096, 4096, 4096],
        ],
    ),
    "I-BERT IntSoftmax, scale 1/16, e in steps of 2**25": (
        "softmax.ibert_module",
        (i8(Q),),
        ibert_module.Params.from_scale(2.0**-4, q=int8, most=32767 * 2.0**25),
        [[207, 43, 5, 0, 0, 0, 0, 0], [101, 79, 50, 19, 3, 0, 0, 0], [30, 30, 30, 32, 32, 32, 34, 34]],
    ),
    "I-BERT IntSoftmax, scale 1/64, e in steps of 2**30": (
        "softmax.ibert_module",
        (i8(Q),),
        ibert_module.Params.from_scale(2.0**-6, q=int8, most=32767 * 2.0**30),
        [[100, 65, 37, 14, 14, 13, 7, 1], [58, 55, 48, 37, 23, 13, 8, 8], [31, 31, 31, 32, 32, 32, 32, 32]],
    ),
    "Deeploy ITAMax": (
        "softmax.itamax",
        (i8(Q),),
        itamax.Params(),
        [
            [1, -64, -96, -120, -120, -120, -124, -128],
            [-65, -65, -65, -97, -113, -121, -125, -125],
            [-97, -97, -97, -97, -97, -97, -97, -97],
        ],
    ),
    "Deeploy ITAPartialMax, groups of 2": (
        "softmax.itapartialmax",
        (i8(RISING),),
        itapartialmax.Params(group=2),
        [
            [-128, -128, -128, -128, -127, -127, -121, -14],
            [-64, -96, -112, -124, -124, -124, -126, -128],
            [-97, -97, -97, -113, -121, -125, -127, -127],
        ],
    ),
    "Deeploy iSoftmax, log2 = 10": (
        "softmax.deeploy",
        (i8(Q),),
        deeploy.Params(10, 14, 96),
        [
            [96, -101, -126, -128, -128, -128, -128, -128],
            [-13, -51, -81, -115, -127, -128, -128, -128],
            [-99, -99, -99, -96, -96, -96, -93, -93],
        ],
    ),
    "Deeploy iSoftmax, log2 = 33": (
        "softmax.deeploy",
        (i8(Q),),
        deeploy.Params(33, 45, 1066),
        [
            [9, -67, -100, -120, -121, -121, -124, -128],
            [-55, -63, -77, -96, -112, -121, -124, -124],
            [-97, -97, -97, -97, -97, -97, -96, -96],
        ],
    ),
    "Deeploy iSoftmax, z wraps": (
        "softmax.deeploy",
        (i8(Q),),
        deeploy.Params(1, 1, 1),
        [
            [-128, -128, -128, -128, -128, -90, -64, 24],
            [127, -128, -128, -128, -128, -128, -128, -128],
            [-128, -128, -128, -92, -92, -92, -56, -56],
        ],
    ),
    "Deeploy iSoftmax, the product wraps": (
        "softmax.deeploy",
        (i8(Q),),
        deeploy.Params(7143, 9664, 48957642),
        [
            [-127, -127, -127, -127, -127, -127, -127, -128],
            [-127, -127, -127, -127, -127, -127, -127, -127],
            [-127, -127, -127, -127, -127, -127, -127, -127],
        ],
    ),
    "Deeploy iLayerNorm": (
        "layernorm.deeploy",
        (i8(Q), i32(WEIGHT), i32(BIAS)),
        layernorm_deeploy.Params(7),
        [[11, -9, -95, 13, 68, 12, -1, 1], [8, -9, -86, 0, 86, 84, -1, 0], [0, 0, -1, 0, 0, -1, 0, -2]],
    ),
    "Deeploy iLayerNorm, offset -100": (
        "layernorm.deeploy",
        (i8(Q), i32(WEIGHT), i32(BIAS)),
        layernorm_deeploy.Params(0, -100),
        [
            [-76, -80, -15, -90, -88, -60, -6, -111],
            [121, -37, 84, 5, 15, 70, -10, 109],
            [24, -23, -1, 5, 100, -100, 6, -77],
        ],
    ),
    "Deeploy iRMSNorm": (
        "layernorm.rmsnorm_deeploy",
        (i8(Q), i32(SHORT_WEIGHT)),
        rmsnorm_deeploy.Params(7),
        [[12, -11, 127, -128, 0, 127, -1, 1], [-1, 0, -128, 127, -128, 127, -1, 1], [0, 0, 0, -128, 127, -128, 0, -2]],
    ),
    "Deeploy iRMSNorm, a mean square of 3": (
        "layernorm.rmsnorm_deeploy",
        (i8([[1, 1, 1, 3]]), i32([8] * 4)),
        rmsnorm_deeploy.Params(),
        [[4, 4, 4, 12]],
    ),
    "Deeploy iRMSNorm, offset 127": (
        "layernorm.rmsnorm_deeploy",
        (i8(Q), i32(SHORT_WEIGHT)),
        rmsnorm_deeploy.Params(15, 127),
        [[0, -1, 37, -26, 127, -128, 0, 0], [0, -1, 42, -37, 127, -85, 0, 0], [0, -1, 32, -33, 127, -128, 0, -1]],
    ),
    "Deeploy iGELU": (
        "activation.gelu_deeploy",
        (i8(Q),),
        gelu_deeploy.Params(-83, 7694),
        [
            [977138, 769400, 480832, 13482, 0, -3362, -36960, 0],
            [-15210, -24642, -37026, -41250, -10530, 0, 0, 0],
            [0, 0, 0, 4332, 4332, 4332, 8826, 8826],
        ],
    ),
    "Deeploy iGELU, offset 128": (
        "activation.gelu_deeploy",
        (i8(Q),),
        gelu_deeploy.Params(-50, 2770, 128),
        [
            [706350, 631560, 531840, 362870, 354560, 351790, 243760, 0],
            [340710, 329630, 307470, 263150, 174510, 70784, 1569, 0],
            [354560, 354560, 354560, 357330, 357330, 357330, 360100, 360100],
        ],
    ),
}


@pytest.mark.parametrize("name", VECTORS)
@pytest.mark.parametrize("backend", ["reference", "exact", "cpu"])
def test_what_the_published_code_gave(name: str, backend: str) -> None:
    op, inputs, p, want = VECTORS[name]
    assert run(op, *inputs, p=p, backend=backend).tolist() == want


# -- the formulas again, on rationals and one number at a time ----------------------------------------

ROWS = st.lists(st.integers(-128, 127), min_size=1, max_size=12)


def shift_exp(x: int, unit: int, precision: int) -> int:
    """I-ViT's int_exp_shift with its own signs, divisions and powers."""
    x = x + floor(Fraction(x, 2)) - floor(Fraction(x, 16))
    x = max(x, precision * -unit)
    k = floor(Fraction(x, -unit))
    return floor((Fraction(x + unit * k, 2) + unit) * Fraction(2) ** (precision - k))


@given(ROWS, st.integers(1, 255), st.integers(1, 16))
def test_shiftmax_on_rationals(row: list[int], unit: int, precision: int) -> None:
    e = [shift_exp(v - max(row), unit, precision) for v in row]
    factor = floor(Fraction(2**31 - 1, min(sum(e), 2**31 - 1)))
    want = [floor(Fraction(v * factor, 2**24)) for v in e]
    p = shiftmax_ivit.Params(unit, precision, q=int8)
    assert reference("softmax.shiftmax_ivit", i8([row]), p=p)[0].tolist() == [want]


@given(ROWS, st.integers(1, 255))
def test_shiftgelu_on_rationals(row: list[int], unit: int) -> None:
    want = []
    for v in row:
        e = shift_exp(v - max(row), unit, 23)
        total = min(e + shift_exp(-max(row), unit, 23), 2**31 - 1)
        want.append(v * floor(Fraction(e * ((2**31 - 1) // total), 2**24)))
    assert reference("activation.shiftgelu_ivit", i8([row]), p=shiftgelu_ivit.Params(unit))[0].tolist() == [want]


def test_shiftgelu_of_an_element_depends_on_its_neighbours() -> None:
    p = shiftgelu_ivit.Params.from_scale(0.3)
    alone, beside = (reference("activation.shiftgelu_ivit", i8([r]), p=p)[0][0, 0] for r in ([-50, 0], [-50, 127]))
    assert (alone, beside) == (0, -50 * 63)


@pytest.mark.parametrize(("v", "root"), [(0, 64), (1, 64), (1000, 68), (5000, 87), (10**6, 1000), (2**32, 2**16)])
def test_ten_newton_steps_need_not_reach_the_root(v: int, root: int) -> None:
    assert ivit.newton_root(v, 10) == root


@given(ROWS, st.booleans())
def test_one_group_is_itamax_where_the_peak_is_equal(row: list[int], reverse: bool) -> None:
    row = sorted(row, reverse=reverse)
    one = reference("softmax.itapartialmax", i8([row]), p=itapartialmax.Params(peak=255))[0]
    assert (one == reference("softmax.itamax", i8([row]), p=itamax.Params())[0]).all()


@given(ROWS, st.sampled_from([2.0**-2, 2.0**-4, 2.0**-6]))
def test_log_int_softmax_rounds_the_ratio_then_its_logarithm(row: list[int], scale: float) -> None:
    p = fqvit.Params.from_scale(scale)
    want = []
    exp = []
    for v in row:
        x = max(v - max(row), -30 * p.ln2)
        k = floor(Fraction(x, -p.ln2))
        r = x + p.ln2 * k
        exp.append(max(floor((r * (r + p.b_over_a) + p.c_over_a) * Fraction(2) ** (30 - k)), 0))
    for e in exp:
        ratio = round(Fraction(sum(exp), e))
        code = max(k for k in range(70) if 2**k <= ratio)
        code += Fraction(ratio, 2**code) >= Fraction(3, 2)
        want.append(2 ** (15 - code) if code < 16 else 0)
    assert reference("softmax.fqvit", i8([row]), p=p)[0].tolist() == [want]


@given(ROWS, st.sampled_from([0.5, 0.07, 2.0**-6]), st.floats(0.01, 500))
def test_module_softmax_on_rationals(row: list[int], scale: float, wide: float) -> None:
    start = ibert_module.Params.from_scale(scale, q=int8)
    p = ibert_module.Params.from_scale(scale, q=int8, most=start.c_over_a * 2.0**30 * wide)
    e = []
    for v in row:
        x = max(v - max(row), -30 * p.ln2)
        k = floor(Fraction(x, -p.ln2))
        r = x + p.ln2 * k
        exact = max(r * (r + p.b_over_a) + p.c_over_a, 0) * 2 ** (30 - k)
        e.append(min(round(Fraction(exact * p.e_multiplier, 2**p.e_shift)), 32767))
    want = [floor(Fraction(v * (2**32 // sum(e)), 2**24)) for v in e]
    assert reference("softmax.ibert_module", i8([row]), p=p)[0].tolist() == [want]


def test_module_softmax_of_one_column_can_reach_one() -> None:
    p = ibert_module.Params(14, 54, 4, 2**30, 48)  # e = 2**14
    assert reference("softmax.ibert_module", np.array([[3]], np.int16), p=p)[0].tolist() == [[256]]


@given(ROWS, st.integers(-(2**31), 2**31 - 1), st.integers(-300, 300), st.integers(0, 31))
def test_deeploy_norms_with_divisions_of_c(row: list[int], weight: int, offset: int, shift: int) -> None:
    n, x = len(row), [v + offset for v in row]
    mean = trunc(Fraction(sum(x), n))
    std = isqrt(trunc(Fraction(sum((v - mean) ** 2 for v in x), n)) + 1)
    raw = [(trunc(Fraction((v - mean) * weight, std)) + 3) >> shift for v in x]
    p: Any = layernorm_deeploy.Params(shift, offset)
    out = reference("layernorm.deeploy", i8([row]), i32([weight] * n), i32([3] * n), p=p)[0]
    assert out.tolist() == [[(v + 128) % 256 - 128 for v in raw]]
    offset, weight = offset % 255 - 127, weight >> 8
    x = [v + offset for v in row]
    rms = isqrt(sum(v * v for v in x) // n + 1)
    p = rmsnorm_deeploy.Params(shift, offset)
    out = reference("layernorm.rmsnorm_deeploy", i8([row]), i32([weight] * n), p=p)[0]
    assert out.tolist() == [[min(max(trunc(Fraction(v * weight, rms)) >> shift, -128), 127) for v in x]]


def test_deeploy_softmax_is_not_monotone_at_a_halving() -> None:
    p = deeploy.Params.from_scale(0.1)
    out = reference("softmax.deeploy", i8([[0, -9, -10]]), p=p)[0][0]
    assert out[2] > out[1]

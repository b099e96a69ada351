"""Cases for quantlib's integer modules: rows of attention scores, ties of the shifts, every int8."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from intsim.numerics import Overflow, Rounding, int8, int16, int32, uint8
from intsim.ops.activation import gelu_deeploy
from intsim.ops.layernorm import deeploy as layernorm_deeploy
from intsim.ops.requantize import single_rounding
from intsim.ops.softmax import deeploy as softmax_deeploy, itamax as softmax_itamax, itapartialmax as partial
from intsim.oracle.adapters._research_cases import attention_rows, every_difference, pseudorandom
from intsim.oracle.cases import Case, make


def softmax() -> Iterator[Case]:
    op = softmax_deeploy.OP
    for scale in (0.011, 0.02, 0.031, 0.05, 0.07, 0.1, 0.12):
        p = softmax_deeploy.Params.from_scale(scale)
        rows = attention_rows(f"quantlib {scale}", int8, 108, 150)
        yield make(op, f"quantlib-rows-{scale}", "rows of an attention layer", (rows,), p)
        yield make(op, f"quantlib-pairs-{scale}", "every difference of two int8", (every_difference(),), p)
    p = softmax_deeploy.Params.from_scale(0.05, levels=16)
    rows = attention_rows("quantlib levels", int8, 12, 150)
    yield make(op, "quantlib-levels", "16 levels", (rows,), p)


def itamax() -> Iterator[Case]:
    op, p = softmax_itamax.OP, softmax_itamax.Params()
    for n in (7, 32, 64, 192, 256):
        rows = attention_rows(f"quantlib itamax {n}", int8, 200, n)
        yield make(op, f"quantlib-rows-{n}", "rows of an attention layer", (rows,), p)
    yield make(op, "quantlib-pairs", "every difference: ties of the shift", (every_difference(),), p)


def itapartialmax() -> Iterator[Case]:
    op = partial.OP
    for group, n in ((16, 64), (16, 192), (8, 128), (4, 128), (1, 48)):
        p = partial.Params(group=group, peak=255)
        rows = attention_rows(f"quantlib partial {n}", int8, 200, n).copy()
        rows[:, 0] = np.maximum(rows[:, 0], -126)  # a first maximum that the module counts from
        yield make(op, f"quantlib-rows-{group}-{n}", "rows of an attention layer", (rows,), p)
    stairs = np.repeat(np.arange(-126, 128, 8), 4).astype(np.int8)[None]
    both = np.concatenate([stairs, stairs[:, ::-1]])
    yield make(op, "quantlib-stairs", "the maximum rises by quarter steps", (both,), partial.Params(group=4, peak=255))


def gelu() -> Iterator[Case]:
    op = gelu_deeploy.OP
    every = np.arange(-128, 128, dtype=np.int8).reshape(1, 256)
    for k in range(400):
        p = gelu_deeploy.Params.from_scale(0.0196 * (1 / 0.0196) ** (k / 399))
        yield make(op, f"quantlib-scale-{k}", "every int8, at scales from 0.0196 to 1", (every,), p)


def layernorm() -> Iterator[Case]:
    op = layernorm_deeploy.OP
    for n in (48, 192, 197):
        for shift in (5, 8, 10):
            p = layernorm_deeploy.Params(shift, overflow=Overflow.SATURATE)
            rows = attention_rows(f"quantlib layernorm {n}", int8, 96, n)
            weight = pseudorandom(f"quantlib weight {n}", int32, n) >> 16
            bias = pseudorandom(f"quantlib bias {n}", int32, n) >> (26 - shift)
            yield make(
                op, f"quantlib-{n}-{shift}", "rows of a hidden layer, weights of both signs", (rows, weight, bias), p
            )


def requantize() -> Iterator[Case]:
    op = single_rounding.OP
    every = np.arange(-6000, 6000, dtype=np.int32).reshape(12, 1000)
    wide = pseudorandom("quantlib requantize", int32, 12, 300)
    columns = 1000 + np.arange(300) * 37
    for t in (int8, uint8, int16):
        for multiplier, shift, zero_point in ((1, 5, 0), (3, 7, -5), (77, 13, 17)):
            p = single_rounding.Params(multiplier, shift, zero_point, dtype=t, rounding=Rounding.TIES_TO_POSITIVE)
            yield make(op, f"quantlib-{t}-{shift}", "ties of both signs", (every,), p)
        p = single_rounding.Params(columns, 24 + 16 - t.bits, 3, dtype=t, rounding=Rounding.TIES_TO_POSITIVE)
        yield make(op, f"quantlib-{t}-columns", "any int32, a multiplier a column", (wide,), p)

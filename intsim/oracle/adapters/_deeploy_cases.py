"""Cases for Deeploy's kernels: every pair of int8, the scales that quantlib gives, words that wrap, ends."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from intsim.numerics import Rounding
from intsim.ops.activation import gelu_deeploy
from intsim.ops.layernorm import deeploy as layernorm_deeploy, rmsnorm_deeploy
from intsim.ops.matmul import integer as product
from intsim.ops.requantize import multiply_add_shift
from intsim.ops.softmax import deeploy, itamax as ita, itapartialmax as itapartial
from intsim.oracle.adapters._drawn import PAIRS, drawn
from intsim.oracle.cases import Case, make

EVERY = np.stack(PAIRS, axis=-1).reshape(-1, 2)  # every row of two int8


def _softmaxes(op: Any, name: str, p: Any, lengths: tuple[int, ...]) -> Iterator[Case]:
    for n in lengths:
        q = drawn(f"{name} {n}", "int8", 6000 // n, n)
        yield make(op, f"c-{name}-{n}", f"rows of {n}", (q,), p)
        near = q // 8
        yield make(op, f"c-{name}-{n}-near", f"rows of {n}, near each other", (near,), p)


def softmax() -> Iterator[Case]:
    for scale in (1.0, 0.3, 0.1, 0.03, 0.01, 0.003):
        p = deeploy.Params.from_scale(scale)
        yield make(deeploy.OP, f"c-pairs-{scale}", f"every row of two, scale {scale}", (EVERY,), p)
        yield from _softmaxes(deeploy.OP, f"{scale}", p, (3, 16, 61, 197))
    for levels in (2, 16, 255):
        p = deeploy.Params(33, 45, 1066, levels=levels)
        yield make(deeploy.OP, f"c-levels-{levels}", f"{levels} levels", (EVERY,), p)
    fine = deeploy.Params.from_scale(0.00025)
    yield make(deeploy.OP, "c-wraps", "a scale so fine that the product leaves 32 bits", (EVERY,), fine)


def itamax() -> Iterator[Case]:
    for levels in (256, 16, 128):
        p = ita.Params(peak=levels - 1, levels=levels)
        yield make(ita.OP, f"c-pairs-{levels}", f"every row of two, {levels} levels", (EVERY,), p)
        yield from _softmaxes(ita.OP, f"{levels}", p, (3, 16, 61, 500))


def itapartialmax() -> Iterator[Case]:
    for group in (1, 2, 16, 5):
        p = itapartial.Params(group)
        yield from _softmaxes(itapartial.OP, f"{group}", p, (10 * group, group, 30 * group))
        q = np.sort(drawn(f"rising {group}", "int8", 40, 20 * group), axis=1)
        yield make(itapartial.OP, f"c-rising-{group}", "the maximum rises again and again", (q,), p)
        q = np.ascontiguousarray(q[:, ::-1])
        yield make(itapartial.OP, f"c-falling-{group}", "the first group has the maximum", (q,), p)
    for group in (1, 2):
        for levels in (256, 16):
            p = itapartial.Params(group, peak=levels // 2 - 1, levels=levels)
            why = f"every row of two, {levels} levels, groups of {group}"
            yield make(itapartial.OP, f"c-pairs-{group}-{levels}", why, (EVERY,), p)


def layernorm() -> Iterator[Case]:
    for n in (1, 2, 3, 7, 64, 384, 1000):
        x = drawn(f"layernorm {n}", "int8", 12000 // n + 1, n)
        small = drawn(f"layernorm weight {n}", "int32", n) >> 20
        bias = drawn(f"layernorm bias {n}", "int32", n) >> 18
        for offset, shift in ((0, 7), (-100, 0), (128, 3)):
            p, slug = layernorm_deeploy.Params(shift, offset), f"{n}-{offset % 512}-{shift}"
            yield make(layernorm_deeploy.OP, f"c-{slug}", "random rows and weights", (x, small, bias), p)
            near = (x // 32, small, bias)
            yield make(layernorm_deeploy.OP, f"c-{slug}-near", "a small variance", near, p)
    ends = drawn("layernorm ends", "int32", 384) | np.int32(2**30)
    x = drawn("layernorm wide", "int8", 20, 384)
    p = layernorm_deeploy.Params(31)
    yield make(layernorm_deeploy.OP, "c-wide", "weights of 32 bits", (x, ends, -ends), p)


def rmsnorm() -> Iterator[Case]:
    for n in (1, 2, 3, 7, 64, 384, 1000):
        x = drawn(f"rmsnorm {n}", "int8", 12000 // n + 1, n)
        weight = drawn(f"rmsnorm weight {n}", "int32", n) >> 8  # 24 bits
        for offset, shift in ((0, 17), (-100, 15), (127, 23)):
            p, slug = rmsnorm_deeploy.Params(shift, offset), f"{n}-{offset % 512}-{shift}"
            yield make(rmsnorm_deeploy.OP, f"c-{slug}", "random rows and weights", (x, weight), p)
            near = (x // 32, weight >> 10)
            yield make(rmsnorm_deeploy.OP, f"c-{slug}-near", "a small mean square", near, p)


def gelu() -> Iterator[Case]:
    every = np.arange(-128, 128, dtype=np.int8).reshape(16, 16)
    for i, scale in enumerate(np.geomspace(0.0196, 1.0, 150)):
        for offset in (0, 128, -37):
            p = gelu_deeploy.Params.from_scale(float(scale), offset=offset)
            slug = f"c-every-{i}-{offset % 512}"
            yield make(gelu_deeploy.OP, slug, f"every int8 at scale {scale:.4f}, offset {offset}", (every,), p)


def requantize(bits: int, layout: str) -> Iterator[Case]:
    op, name = multiply_add_shift.OP, f"s{bits}-{layout.lower()}"
    acc = drawn(f"requantize {bits}", f"int{bits}", 257, 24).astype(np.int32)
    multiplier = drawn(f"requantize multiplier {bits}", "int32", 24)
    bias = drawn(f"requantize bias {bits}", "int32", 24)
    for rule in (Rounding.TIES_TO_POSITIVE, Rounding.TOWARD_NEGATIVE):
        for shift in (0, 1, 7, 16, 31):
            # products that fill a result of 8 bits at that shift; at 31 every step wraps
            narrow = min(31, max(0, 24 + bits - shift)) if shift < 31 else 0
            for zero_point in (0, -5):
                p = multiply_add_shift.Params(
                    multiplier >> narrow, bias >> max(0, 24 - shift), shift, 3, zero_point, rounding=rule
                )
                slug = f"c-{name}-{shift}-{zero_point % 256}-{rule.value}"
                yield make(op, slug, f"a channel a column, shift {shift}, {rule.name}", (acc,), p)
    ties = np.resize(np.arange(-128, 128), (16, 16)).astype(np.int32)
    p = multiply_add_shift.Params(1, 0, 2)
    yield make(op, f"c-{name}-ties", "every tie at 1/4", (ties,), p)


def matmul(biased: bool) -> Iterator[Case]:
    for m, k, n in (
        (1, 1, 1),
        (2, 2, 2),
        (3, 2, 4),
        (2, 3, 5),
        (7, 5, 6),
        (64, 65, 63),
        (200, 96, 200),
        (151, 33, 200),
    ):
        text = f"product {m} {k} {n}"
        a, b = drawn(text + "a", "int8", m, k), drawn(text + "b", "int8", n, k)
        bias = drawn(text + "c", "int32", n) if biased else None
        for zeros in ((0, 0), (-77, 31), (127, -128)):
            slug = f"c-{biased:d}-{m}-{k}-{n}-{zeros[0] % 256}"
            why = "lengths beside the unrolled ones, zero points"
            yield make(product.OP, slug, why, (a, b, bias), product.Params(*zeros))
    ends = np.repeat(np.array([[-128], [127]], np.int8), 2**17 + 3, axis=1)
    bias = np.array([2**31 - 1, -(2**31)], np.int32) if biased else None
    why = "sums that leave int32 wrap"
    yield make(product.OP, f"c-{biased:d}-wraps", why, (ends, ends, bias), product.Params())

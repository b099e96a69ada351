"""Cases for published research code: rows as an attention layer has them, ties, extremes, odd scales."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

import numpy as np

from intsim.binding import Array
from intsim.numerics import IntType, Rounding, int8, int16, int32, uint8, unlimited
from intsim.ops.activation import gelu_ita as activation_gelu_ita, shiftgelu_ivit
from intsim.ops.add import dyadic as add_dyadic
from intsim.ops.layernorm import ivit as layernorm_ivit
from intsim.ops.requantize import dyadic as requantize_dyadic, single_rounding
from intsim.ops.softmax import fqvit as softmax_fqvit, itapartialmax, shiftmax_ivit
from intsim.oracle.cases import Case, make

NO_ZERO_POINT = (np.array([0]),)
SYMMETRIC = (int8, int16)
TOKENS = 197  # of a vision transformer: 14 by 14 patches and one more


def pseudorandom(text: str, t: IntType, *shape: int) -> Array:
    """Pseudorandom values of ``t``, the same on every machine."""
    stored = np.dtype(t.storage)
    made = hashlib.shake_256(text.encode()).digest(int(np.prod(shape)) * stored.itemsize)
    return np.frombuffer(made, stored.newbyteorder("<")).astype(stored).reshape(shape)


def attention_rows(text: str, t: IntType, m: int, n: int) -> Array:
    """Rows of scores: over the whole type, near zero, one far above, all equal, rising, falling."""
    q = pseudorandom(text, t, m, n).astype(np.int64)
    q[1::6] >>= 3  # most near zero
    q[2::6] >>= 4
    q[2::6, ::31] = t.qmax  # a few peaks
    q[3::6] = q[3::6, :1]  # equal
    q[4::6].sort(axis=-1)
    q[5::6] = -np.sort(-(q[5::6] >> 1), axis=-1)
    return q.astype(t.storage)


def every_difference(t: IntType = int8) -> Array:
    """The maximum of an 8-bit type, and beside it each of its values: one pair a row."""
    values = np.arange(t.qmin, t.qmax + 1)
    return np.stack([np.full(values.size, t.qmax), values], axis=1).astype(t.storage)


def shiftmax() -> Iterator[Case]:
    op = shiftmax_ivit.OP
    for scale in (2.0**-4, 2.0**-6, 0.05, 0.11, 1 / 7, 0.9):
        for bits in (7, 15):
            p = shiftmax_ivit.Params.from_scale(scale, q=int8, out_bits=bits)
            rows = attention_rows(f"shiftmax {scale}", int8, 48, TOKENS)
            yield make(op, f"ivit-rows-{scale:.4g}-{bits}", "rows of an attention layer", (rows,), p)
            pairs = every_difference()
            yield make(op, f"ivit-pairs-{scale:.4g}-{bits}", "every difference of two int8", (pairs,), p)
    for scale in (2.0**-9, 0.00137):
        p = shiftmax_ivit.Params.from_scale(scale, out_bits=15)
        rows = attention_rows(f"shiftmax {scale}", int16, 24, TOKENS)
        yield make(op, f"ivit-rows16-{scale:.4g}", "16-bit scores at a fine scale", (rows,), p)
    p = shiftmax_ivit.Params.from_scale(2.0**-12, q=int8)
    yield make(op, "ivit-capped", "the total reaches its cap", (np.zeros((2, 4097), np.int8),), p)


def shiftgelu() -> Iterator[Case]:
    op = shiftgelu_ivit.OP
    for scale in (2.0**-4, 2.0**-6, 2.0**-8, 0.03, 0.07, 0.29):
        for bits in (7, 15):
            p = shiftgelu_ivit.Params.from_scale(scale, out_bits=bits)
            rows = attention_rows(f"shiftgelu {scale}", int8, 36, 384)
            yield make(op, f"ivit-rows-{scale:.4g}-{bits}", "rows of a hidden layer", (rows,), p)
    p = shiftgelu_ivit.Params.from_scale(0.0071, x=int16, out_bits=15)
    rows = attention_rows("shiftgelu 16", int16, 24, 384)
    yield make(op, "ivit-rows16", "16-bit inputs", (rows,), p)
    low = (-1 - (pseudorandom("shiftgelu low", uint8, 24, 384).astype(np.int64) >> 1)).astype(np.int8)
    p = shiftgelu_ivit.Params.from_scale(2.0**-5)
    yield make(op, "ivit-negative", "the maximum of every row is negative", (low,), p)


def layernorm() -> Iterator[Case]:
    op = layernorm_ivit.OP
    for t in (int8, int16):
        p = layernorm_ivit.Params(x=t, dtype=unlimited)
        for n in (192, 384, 197):
            rows = attention_rows(f"layernorm {t} {n}", t, 96, n)
            bias = pseudorandom(f"layernorm bias {n}", int32, n)
            yield make(op, f"ivit-{t}-{n}", "rows of a hidden layer, any bias", (rows, bias), p)
        spikes = np.zeros((128, 8), t.storage)
        spikes[:, -1] = np.arange(128)
        yield make(op, f"ivit-{t}-spikes", "variances of which ten steps miss the root", (spikes, None), p)
        ties = np.zeros((64, 2), t.storage)
        ties[:, 0] = np.arange(-32, 32)
        yield make(op, f"ivit-{t}-ties", "means that are ties", (ties, None), p)


def dyadic() -> Iterator[Case]:
    op, params = requantize_dyadic.OP, requantize_dyadic.Params
    every = np.arange(-(2**15), 2**15, dtype=np.int32).reshape(256, 256)
    for t in SYMMETRIC:
        p = params(2**30, 30 + t.bits - 4, dtype=t)
        yield make(op, f"published-{t}-ties", "a power of two: ties of both signs", (every,), p)
        p = params.from_scale(0.0137 * 2.0 ** (t.bits - 8), dtype=t)
        yield make(op, f"published-{t}-scale", "an ordinary scale", (every,), p)
        acc = pseudorandom(f"dyadic {t}", int32, 64, TOKENS)
        scales = (1 + np.arange(TOKENS) / TOKENS) * 2.0 ** (t.bits - 32)
        p = params.from_scale(scales, dtype=t)
        yield make(op, f"published-{t}-columns", "products of more than 53 bits, a multiplier a column", (acc,), p)
        p = params.from_scale(scales * 2.0**20, dtype=t)
        yield make(op, f"published-{t}-large", "nearly all saturate", (acc >> 9,), p)


def residual() -> Iterator[Case]:
    op, params = add_dyadic.OP, add_dyadic.Params
    halves = np.arange(-128, 128, dtype=np.int32)
    a, b = (np.ascontiguousarray(side) for side in np.broadcast_arrays(halves[:, None], halves))
    for t in SYMMETRIC:
        for shift in (33, 35):
            p = params(2**30, shift, 2**30, 33, dtype=t)
            yield make(op, f"published-{t}-ties-{shift}", "every pair of two int8: ties on both sides", (a, b), p)
        acc = pseudorandom(f"residual {t}", int32, 96, 384)
        other = pseudorandom(f"residual b {t}", t, 96, 384).astype(np.int32)
        columns = (1 + np.arange(384) / 384) * 2.0 ** (t.bits - 33)
        p = params.from_scales(columns, 0.71, 1.0, dtype=t)
        yield make(op, f"published-{t}-columns", "an accumulator with a scale a column, a residual", (acc, other), p)


def log_int_softmax(scale: float) -> Iterator[Case]:
    op, p = softmax_fqvit.OP, softmax_fqvit.Params.from_scale(scale)
    rows = attention_rows(f"fqvit {scale}", int8, 108, TOKENS)
    yield make(op, f"fqvit-rows-{scale:.4g}", "rows of an attention layer", (rows,), p)
    yield make(op, f"fqvit-pairs-{scale:.4g}", "every difference of two int8", (every_difference(),), p)
    for n in (2, 3, 5, 6, 7, 11, 12, 23, 24):
        equal = np.zeros((1, n), np.int8)
        yield make(op, f"fqvit-equal-{n}-{scale:.4g}", "a ratio of n: at 1.5 * 2**k or beside", (equal,), p)
    for bits in (2, 3, 5):
        other = softmax_fqvit.Params.from_scale(scale, code_bits=bits)
        yield make(op, f"fqvit-codes-{bits}-{scale:.4g}", "codes of other widths", (rows[:12],), other)


def dyadic_unsigned() -> Iterator[Case]:
    yield from dyadic()
    op, params = requantize_dyadic.OP, requantize_dyadic.Params
    every = np.arange(-(2**12), 2**15, dtype=np.int32).reshape(-1, 256)
    for scale in (2.0**-6, 0.0137, 0.99):
        p = params.from_scale(scale, dtype=uint8)
        yield make(op, f"published-uint8-{scale:.4g}", "after a ReLU: negatives become 0", (every,), p)


def streamed() -> Iterator[Case]:
    op, p = itapartialmax.OP, itapartialmax.Params(group=16, step_bits=0, peak=255)
    for n in (16, 32, 64, 128, 256):
        rows = attention_rows(f"ita {n}", int8, 128, n)
        yield make(op, f"ita-rows-{n}", "rows of an attention layer", (rows,), p)
        near = (rows >> 5).astype(np.int8)
        yield make(op, f"ita-near-{n}", "differences of a few steps: every shift that leaves something", (near,), p)
    steps = np.repeat(np.arange(-8, 8, dtype=np.int8), 16)[None]
    rising = np.concatenate([steps * k for k in (1, 2, 3, 5, 9, 15)])
    both = np.concatenate([rising, rising[:, ::-1]])
    yield make(op, "ita-stairs", "the maximum rises at every group, or never", (both,), p)


def gelu_ita() -> Iterator[Case]:
    op, params = activation_gelu_ita.OP, activation_gelu_ita.Params
    every = np.arange(-128, 128, dtype=np.int8).reshape(1, 256)
    for k in range(400):
        p = params.from_scale(0.0146 * (1 / 0.0146) ** (k / 399))
        yield make(op, f"ita-scale-{k}", "every int8, at scales from 0.0146 to 1", (every,), p)


def requantize_ita() -> Iterator[Case]:
    op = single_rounding.OP
    every = np.arange(-6144, 6144, dtype=np.int32).reshape(12, 1024)
    wide = pseudorandom("ita requantize", int32, 5, 1024)
    for multiplier, shift, zero_point in (
        (1, 5, 0),
        (1, 1, 3),
        (3, 7, -5),
        (127, 13, 0),
        (128, 12, 17),
        (255, 14, -128),
    ):
        p = single_rounding.Params(multiplier, shift, zero_point, rounding=Rounding.TIES_TO_POSITIVE)
        why = "ties of both signs" if shift < 10 else "an ordinary scale"
        yield make(op, f"ita-{multiplier}-{shift}", why, (every,), p)
        p = single_rounding.Params(multiplier, 22, zero_point, rounding=Rounding.TIES_TO_POSITIVE)
        why = "accumulators of 24 bits, the longest shift that is exact"
        yield make(op, f"ita-{multiplier}-long", why, (wide >> 7,), p)
    ties = ((2 * np.arange(-64, 64, dtype=np.int64) + 1) << 21).astype(np.int32)[:, None] + np.arange(
        -2, 3, dtype=np.int32
    )
    p = single_rounding.Params(1, 22, 1, rounding=Rounding.TIES_TO_POSITIVE)
    yield make(op, "ita-beside-ties", "at ties and one step beside them", (ties,), p)

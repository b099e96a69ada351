"""Cases for I-BERT's modules: scales that are powers of two, whole domains, ties."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

import numpy as np

from intsim.binding import Array
from intsim.numerics import int8, int16, unlimited
from intsim.ops.activation import gelu_ibert
from intsim.ops.layernorm import ibert as normalize
from intsim.ops.requantize import dyadic as result
from intsim.ops.softmax import ibert_module
from intsim.oracle.cases import Case, make


def _shorts(text: str, *shape: int) -> Array:
    """Pseudorandom int16, the same on every machine."""
    size = 2 * int(np.prod(shape))
    return np.frombuffer(hashlib.shake_256(text.encode()).digest(size), np.int16).reshape(shape)


def gelu() -> Iterator[Case]:
    every = np.arange(-(2**15), 2**15).astype(np.int16)[None]
    for k in range(16):
        p = gelu_ibert.Params.from_scale(2.0**-k, dtype=unlimited)
        yield make(gelu_ibert.OP, f"ibert-scale-{k}", f"every int16, scale 2**-{k}", (every,), p)
    for k in (2, 4, 6):
        p = gelu_ibert.Params.from_scale(2.0**-k, x=int8, dtype=unlimited)
        eight = np.arange(-128, 128).astype(np.int8)[None]
        yield make(gelu_ibert.OP, f"ibert-int8-scale-{k}", f"every int8, scale 2**-{k}", (eight,), p)


def softmax() -> Iterator[Case]:
    op = ibert_module.OP
    for k in range(2, 13):
        start = ibert_module.Params.from_scale(2.0**-k)
        step = np.float32(start.c_over_a * 2.0**30 / ibert_module.MOST * 1.0371)  # no power of two: no ties
        name, t, bits, wide = (("int16", int16, 8, 1), ("int8", int8, 8, 1), ("fine", int16, 16, 0.25))[k % 3]
        size = np.float32(step * wide)
        p = ibert_module.Params.from_scale(2.0**-k, q=t, out_bits=bits, most=float(size) * ibert_module.MOST)
        reach = min(2 ** (k + 3), t.qmax)  # most exponentials are not 0
        rows = (_shorts(f"softmax {k}", 160, 129).astype(np.int32) % (2 * reach + 1) - reach).astype(t.storage)
        rows[0], rows[1, 1:] = 7, -reach
        why = f"scale 2**-{k}: equal elements, one peak, ordinary rows"
        yield make(op, f"ibert-{name}-scale-{k}", why, (rows,), p)


def layernorm() -> Iterator[Case]:
    op = normalize.OP
    bias = _shorts("bias", 768).astype(np.int32) << 12
    for n in (1, 2, 3, 64, 384, 768):
        for k in (0, 3, 6):
            p = normalize.Params(k, dtype=unlimited)
            x = _shorts(f"layernorm {n} {k}", 20, n).copy()
            x[0] = np.where(np.arange(n) % 2, 32767, -32768)
            x[1], x[1, 0] = 0, 2 ** (k + 2)
            if n > 1:
                why = f"n = {n}, k = {k}: ordinary, extreme, one spike"
                yield make(op, f"ibert-{n}-by-{k}", why, (x, bias[:n]), p)
    halves = np.concatenate([_shorts("ties", 200, 64) >> 4, np.zeros((200, 64), np.int16)], axis=1)
    halves[:, -1] = 64 - halves.sum(1) % 128  # the sum is an odd multiple of 64: the mean is a tie
    yield make(op, "ibert-ties", "means that are ties", (halves, None), normalize.Params(dtype=unlimited))
    small = (_shorts("small", 60, 768) >> 8).astype(np.int8)
    yield make(op, "ibert-int8", "int8 rows of 768", (small, bias), normalize.Params(x=int8, dtype=unlimited))


def dyadic() -> Iterator[Case]:
    op = result.OP
    wide = (_shorts("dyadic", 40_000, 2).copy().view(np.int32)).reshape(1, -1)
    line = np.arange(-20_000, 20_001, dtype=np.int32)[None]
    for t in (int8, int16):
        ties = result.Params(2**30, 35, dtype=t)
        yield make(op, f"ibert-{t}-ties", "a step of 1/32: every tie, all between", (line,), ties)
        near = result.Params(2**30 + 1, 35, dtype=t)
        yield make(op, f"ibert-{t}-near", "a multiplier beside a power of two: beside ties", (line,), near)
        for slug, scale in (("ordinary", 3.7e-5 / 2.31), ("small", 2.0**-30), ("wide", 2.0**-17)):
            p = result.Params.from_scale(scale, dtype=t)
            yield make(op, f"ibert-{t}-{slug}", "accumulators of all 32 bits", (wide,), p)
    columns = wide[0, :4096].reshape(64, 64)
    p = result.Params.from_scale(2.0 ** -np.linspace(10, 30, 64), dtype=int8)
    yield make(op, "ibert-channels", "a multiplier a column", (columns,), p)

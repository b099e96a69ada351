"""Cases for the TOSA reference model: ties, the ends of its domains, whole 8- and 16-bit types, bulk."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Any

import numpy as np

from intsim.binding import Array
from intsim.composites.rescale import double_rounding as rescale_double, single_rounding as rescale_single
from intsim.numerics import IntType, Rounding, int8, int16, int32, int48, uint16
from intsim.ops.activation import table, table_interpolated
from intsim.ops.add import matched
from intsim.ops.bits import arithmetic_right_shift, cast, leading_zeros as zeros, left_shift, logical_right_shift
from intsim.ops.dequantize import affine as to_real, centred
from intsim.ops.divide import integer as quotient
from intsim.ops.matmul import integer as product
from intsim.ops.mul import shifted
from intsim.ops.quantize import rounded
from intsim.ops.reduce import argmax as first, sum as total
from intsim.ops.requantize import double_rounding, multiplier16, single_rounding
from intsim.oracle.cases import Case, make

SIDE = 192  # bulk cases have SIDE x SIDE elements: more than the exact spec's limit, so that int64 serves
# Multipliers of every size: powers of two make ties, others do not
MULTIPLIERS = tuple(
    np.array([m])
    for m in (0, 1, 2, 3, 7, 2**15, 2**15 + 1, 2**22 + 5, 2**30 - 1, 2**30, 1518500249, 2**31 - 2, 2**31 - 1)
)
REQUANTIZE: dict[str, Any] = {"double": double_rounding, "single": single_rounding}
RESCALE: dict[str, Any] = {"double": rescale_double, "single": rescale_single}


def ints(text: str, t: str, *shape: int) -> Array:
    """Pseudorandom integers of the whole type, the same on every machine."""
    count = int(np.prod(shape)) * np.dtype(t).itemsize
    raw = np.frombuffer(hashlib.shake_256(text.encode()).digest(count), np.dtype(t).newbyteorder("<"))
    return raw.astype(t).reshape(shape)


def _rules(mode: str, **fields: Any) -> dict[str, Any]:
    return fields | ({"rounding": Rounding.TIES_TO_POSITIVE} if mode == "single" else {})


def _odd(t: IntType) -> int:
    """An odd zero point where RESCALE allows one."""
    return t.qmin + 123 if t.bits == 8 else 0


def rescale32(mode: str, dtype: IntType) -> Iterator[Case]:
    op, variant = REQUANTIZE[mode].OP, REQUANTIZE[mode]
    fields = _rules(mode, dtype=dtype, zero_point=_odd(dtype))
    steps = np.arange(-2100, 2100, dtype=np.int32).reshape(10, -1)
    for shift in (31, 32, 33, 34, 36, 40):
        why = "exact ties of both signs, after one rounding or two; an odd zero point"
        yield make(op, f"tosa-{dtype}-ties-{shift}", why, (steps,), variant.Params(2**30, shift, **fields))
    for shift in (2, 3, 8, 15, 24, 30):
        edge = 2 ** (shift - 1)
        near = np.unique(np.clip(np.arange(-40, 41)[:, None] + np.array([-edge, 0, edge]), -edge, edge - 1))
        why = "a left shift: the ends of TOSA's domain, -2**(shift - 1) to 2**(shift - 1) - 1"
        p = variant.Params(2**31 - 1, shift, **fields)
        yield make(op, f"tosa-{dtype}-domain-{shift}", why, (near[None].astype(np.int32),), p)
    ends = np.concatenate([np.arange(40), -np.arange(40)]) + np.array([[2**31 - 40], [-(2**31) + 40]])
    ends = np.clip(ends, -(2**31), 2**31 - 1).astype(np.int32)
    for shift in (32, 46, 62):
        why = "the ends of int32 by the largest multiplier"
        yield make(op, f"tosa-{dtype}-ends-{shift}", why, (ends,), variant.Params(2**31 - 1, shift, **fields))
    bulk = ints(f"rescale {dtype}", "int32", SIDE, SIDE)
    multipliers = ints(f"multipliers {dtype}", "uint32", SIDE).astype(np.int64) >> 1
    shifts = 32 + np.arange(SIDE) % 31
    why = "a multiplier and a shift a column, any int32"
    yield make(op, f"tosa-{dtype}-columns", why, (bulk,), variant.Params(multipliers, shifts, **fields))
    shift = 32 + 24 - min(dtype.bits, 24)
    p = variant.Params(1518500249, shift, **fields)
    yield make(op, f"tosa-{dtype}-bulk", "results of the whole range and beyond it", (bulk >> 3,), p)


def rescale_narrow(mode: str, x: IntType, dtype: IntType) -> Iterator[Case]:
    op, stage = RESCALE[mode].OP, REQUANTIZE[mode]
    every = np.arange(x.qmin, x.qmax + 1).astype(x.storage)
    every = np.resize(every, (64, 256)) if x.bits == 8 else every.reshape(256, 256)
    points = (x.qmin, x.qmin + 77, x.qmax) if x.bits == 8 else (0, 2**15) if x == uint16 else (0,)
    for zero_point in points:
        before = centred.Params(zero_point, x)
        fields = _rules(mode, dtype=dtype, zero_point=_odd(dtype))
        columns = 2**30 + 4194301 * np.arange(256)
        shifts = 29 + np.arange(256) % 5
        for slug, p in {
            "half": stage.Params(2**30, 31, **fields),
            "eighth": stage.Params(2**30, 33, **fields),
            "columns": stage.Params(columns, shifts, **fields),
        }.items():
            name = f"tosa-{x}-{dtype}-{slug}-{zero_point}"
            yield make(op, name, "every value of the input's type", (every,), RESCALE[mode].Params(before, p))


def scale16(dtype: IntType) -> Iterator[Case]:
    op, point = multiplier16.OP, _odd(dtype)
    steps = np.arange(-600, 600, dtype=np.int64).reshape(4, -1)
    for shift in (2, 3, 8, 15):
        near = steps >> max(0, 12 - shift)
        near = near[:, (near.min(0) >= -(2 ** (shift - 1))) & (near.max(0) < 2 ** (shift - 1))]
        if near.size:
            p = multiplier16.Params(2**30, shift + 16, point, dtype)
            yield make(op, f"tosa-{dtype}-small-{shift}", "a short shift", (near,), p)
    for shift in (18, 20, 30):
        p = multiplier16.Params(2**30, shift + 16, point, dtype)
        yield make(op, f"tosa-{dtype}-ties-{shift}", "exact ties of both signs", (steps << (shift - 17),), p)
    bulk = ints(f"scale16 {dtype}", "int64", SIDE, SIDE) >> 16
    for shift in (46,):
        p = multiplier16.Params(1518500249, shift + 16, point, dtype)
        yield make(op, f"tosa-{dtype}-bulk-{shift}", "results beyond int8 and int16", (bulk >> 1,), p)
    columns = (ints(f"scale16 multipliers {dtype}", "uint16", SIDE).astype(np.int64) >> 1) << 16
    shifts = 24 + 16 + np.arange(SIDE) % 23
    low = bulk >> np.maximum(0, int48.bits - 1 - (shifts - 16 - 1))  # inside each column's domain
    p = multiplier16.Params(columns, shifts, point, dtype)
    yield make(op, f"tosa-{dtype}-columns", "a multiplier and a shift a column", (low,), p)


def matmul8() -> Iterator[Case]:
    op = product.OP
    p = product.Params(5, -7)
    a, b = ints("matmul a", "int8", 320, 131), ints("matmul b", "int8", 320, 131)
    yield make(op, "tosa-s8-bulk", "odd zero points on both sides", (a, b), p)
    for k in (1, 2, 3, 15, 16, 17, 33):
        yield make(op, f"tosa-s8-{k}-terms", "short sums", (a[:9, :k], b[:17, :k]), p)
    ends = np.repeat(np.array([[-128], [127]], np.int8), 1100, axis=1)
    yield make(op, "tosa-s8-extremes", "the largest products", (ends, ends), product.Params(127, -128))
    plain = product.Params()  # 2**14 * (2**17 + 3) is beyond int32
    wraps = np.full((2, 2**17 + 3), -128, np.int8)
    yield make(op, "tosa-s8-wraps", "sums that leave int32 wrap, and the model calls them valid", (wraps, wraps), plain)


def matmul16() -> Iterator[Case]:
    op, p = product.OP, product.Params(a=int16, b=int16, acc=int48)
    a, b = ints("matmul16 a", "int16", 320, 67), ints("matmul16 b", "int16", 320, 67)
    yield make(op, "tosa-s16-bulk", "int48 sums", (a, b), p)
    for k in (1, 2, 3, 17):
        yield make(op, f"tosa-s16-{k}-terms", "short sums", (a[:9, :k], b[:17, :k]), p)
    ends = np.repeat(np.array([[-(2**15)], [2**15 - 1]], np.int16), 2**17 - 1, axis=1)
    yield make(op, "tosa-s16-extremes", "the longest sums that surely fit int48", (ends, ends), p)


def table8() -> Iterator[Case]:
    every = np.resize(np.arange(-128, 128, dtype=np.int8), (64, 256))
    for n in range(8):
        yield make(
            table.OP,
            f"tosa-every-{n}",
            "every input",
            (every, ints(f"table {n}", "int8", 256)),
            table.Params(int8, int8),
        )


def table16() -> Iterator[Case]:
    every = np.arange(-(2**15), 2**15, dtype=np.int16).reshape(256, 256)
    tanh = np.round(np.tanh(np.linspace(-4, 4, 513)) * 32767).astype(np.int16)
    steep = np.where(np.arange(513) % 2, 16383, -16384).astype(np.int16)
    wild = ints("table16", "int16", 513) >> 1
    p = table_interpolated.Params()
    for slug, made in {"tanh": tanh, "steepest": steep, "wild": wild}.items():
        yield make(table_interpolated.OP, f"tosa-every-{slug}", "every input", (every, made), p)


def leading_zeros() -> Iterator[Case]:
    bulk = ints("clz", "int32", 384, 384) >> (np.arange(384, dtype=np.int32) % 32)
    yield make(zeros.OP, "tosa-bulk", "all lengths, both signs", (bulk,), zeros.Params())


def _amounts(t: IntType) -> Iterator[tuple[str, tuple[Array, Array]]]:
    """Values and shifts: every pair of an 8-bit type, and pseudorandom ones."""
    every = np.arange(t.qmin, t.qmax + 1).astype(t.storage) if t.bits == 8 else ints(f"shift {t}", t.storage, 2048)
    every[-4:] = (t.qmin, t.qmin + 1, -1, t.qmax)
    amounts = np.arange(t.bits).astype(np.uint8)[:, None]
    grid = np.broadcast_arrays(every, amounts)
    yield f"tosa-{t}-every-shift", (np.ascontiguousarray(grid[0]), np.ascontiguousarray(grid[1]))
    shift = (ints(f"amount {t}", "uint8", 256, 256) % t.bits).astype(np.uint8)
    yield f"tosa-{t}-bulk", (ints(f"value {t}", t.storage, 256, 256), shift)


def arithmetic(rule: Rounding) -> Iterator[Case]:
    for t in (int32, int16, int8):
        for slug, arrays in _amounts(t):
            p = arithmetic_right_shift.Params(t, rule)
            yield make(arithmetic_right_shift.OP, f"{slug}-{rule.name.lower()}", "each shift", arrays, p)


def left() -> Iterator[Case]:
    for t in (int32, int16, int8):
        for slug, arrays in _amounts(t):
            yield make(left_shift.OP, slug, "each shift; bits are lost", arrays, left_shift.Params(t))


def logical() -> Iterator[Case]:
    for t in (int32, int16, int8):
        for slug, arrays in _amounts(t):
            yield make(logical_right_shift.OP, slug, "each shift", arrays, logical_right_shift.Params(t))


def products() -> Iterator[Case]:
    a, b = ints("mul a", "int32", 160, 160), ints("mul b", "int32", 160, 160)
    yield make(shifted.OP, "tosa-low-bits", "without a shift the low 32 bits stay", (a, b), shifted.Params(0))
    for shift in (1, 2, 8, 15, 16, 30, 31, 32, 40, 62):
        # |a b| < 2**(shift + 30), so that the result is an int32, as TOSA demands
        cut = max(0, 32 - shift)
        factors = (a >> (cut + 1) // 2 + 1, b >> cut // 2)
        why = "ties and results of the whole range"
        yield make(shifted.OP, f"tosa-shift-{shift}", why, factors, shifted.Params(shift))
    steps = np.arange(-1030, 1030, dtype=np.int32)[None]
    for shift in (1, 4, 7):
        yield make(shifted.OP, f"tosa-ties-{shift}", "every tie", (steps, steps * 0 + 1), shifted.Params(shift))
    top = np.array([[-(2**31), -(2**31), 2**31 - 1]], np.int32)
    ends = (top, np.array([[-(2**31), 2**31 - 1, 2**31 - 1]], np.int32))
    yield make(shifted.OP, "tosa-ends", "the largest products", ends, shifted.Params(62))


def narrow_products(t: IntType) -> Iterator[Case]:
    every = np.arange(-128, 128, dtype=np.int8)
    grid = (
        np.broadcast_arrays(every[:, None], every) if t == int8 else [ints(f"mul {n}", "int16", 256, 256) for n in "ab"]
    )
    arrays = tuple(np.ascontiguousarray(g) for g in grid)
    yield make(shifted.OP, f"tosa-{t}-bulk", "every pair of int8, many of int16", arrays, shifted.Params(0, t, t))


def quotients() -> Iterator[Case]:
    a, b = ints("div a", "int32", 256, 256), ints("div b", "int32", 256, 256)
    for cut in (0, 14, 28):
        divisor = b >> cut
        divisor = np.where(divisor == 0, 3, divisor).astype(np.int32)
        numerator = np.where(divisor == -1, a >> 1, a).astype(np.int32)  # -2**31 / -1 is unpredictable
        why = "both signs; quotients of one digit to all"
        yield make(quotient.OP, f"tosa-bulk-{cut}", why, (numerator, divisor), quotient.Params())
    steps = np.arange(-400, 400, dtype=np.int32)[None]
    for d in (1, -1, 2, -2, 7, -7):
        yield make(quotient.OP, f"tosa-by-{d}", "ties of both signs", (steps, steps * 0 + d), quotient.Params())


def additions() -> Iterator[Case]:
    p = matched.Params(a=int32, b=int32, dtype=int32)
    half = [ints(f"add {n}", "int32", 192, 192) >> 1 for n in "ab"]
    yield make(matched.OP, "tosa-bulk", "sums of the whole range of int32", tuple(half), p)
    opposite = [ints(f"opposite {n}", "int32", 256, 256) for n in "ab"]
    opposite[1] = np.where((opposite[0] < 0) == (opposite[1] < 0), ~opposite[1], opposite[1])
    yield make(matched.OP, "tosa-signs", "operands of the whole range, of opposite signs", tuple(opposite), p)
    for slug, pair in {"top": (2**31 - 5, 4), "bottom": (-(2**31) + 5, -5), "both": (2**31 - 1, -(2**31))}.items():
        ends = tuple(np.array([[v]], np.int32) for v in pair)
        yield make(matched.OP, f"tosa-{slug}", "the ends of int32", ends, p)


def argmax() -> Iterator[Case]:
    for t in (int8, int16):
        bulk = ints(f"argmax {t}", t.storage, 60000, 3) >> (t.bits - 3)  # few values: many ties
        yield make(first.OP, f"tosa-{t}-ties", "many ties: the first one", (bulk,), first.Params(t))
        wide = ints(f"argmax wide {t}", t.storage, 50, 1031)
        yield make(first.OP, f"tosa-{t}-long", "long rows", (wide,), first.Params(t))


def sums() -> Iterator[Case]:
    bulk = ints("sum", "int32", 60000, 5) >> 3
    yield make(total.OP, "tosa-short", "sums of the whole range of int32", (bulk,), total.Params())
    yield make(total.OP, "tosa-pairs", "two elements", (ints("pairs", "int32", 50000, 2) >> 1,), total.Params())
    yield make(total.OP, "tosa-one", "one element", (ints("one", "int32", 100, 1),), total.Params())
    yield make(total.OP, "tosa-long", "long rows", (ints("long", "int32", 20, 4096) >> 12,), total.Params())
    edge = np.array([[2**31 - 3, 1, 1], [-(2**31) + 2, -1, -1], [2**31 - 1, -(2**31), 1]], np.int32)
    yield make(total.OP, "tosa-ends", "sums at the ends of int32", (edge,), total.Params())


def to_integers() -> Iterator[Case]:
    halves = (np.arange(-70000, 70000, dtype=np.int64) / 2).astype(np.float32).reshape(100, -1)
    patterns = ints("floats", "int32", 256, 256)
    patterns[(patterns >> 23) & 255 == 255] &= 0x3FFFFFFF  # no NaN: TOSA gives no result for one
    for t in (int8, int16, int32):
        p = rounded.Params(t)
        yield make(rounded.OP, f"tosa-{t}-halves", "every tie of int16", (halves,), p)
        yield make(rounded.OP, f"tosa-{t}-any", "any float32 but NaN", (patterns.view(np.float32),), p)
        edge = np.array([t.qmin, t.qmax, 2.0**23 + 0.5, 2.0**24 + 1], np.float32)
        near = np.concatenate(
            [np.nextafter(edge, np.float32(s * np.inf)) for s in (-1, 1)] + [edge, edge + 0.5, edge - 0.5]
        )
        wild = np.array([np.inf, -np.inf, 3e38, -3e38, 1e-45, -1e-45, 0.0, -0.0], np.float32)
        yield make(rounded.OP, f"tosa-{t}-ends", "the ends, infinities", (np.concatenate([near, wild])[None],), p)


def between_integers() -> Iterator[Case]:
    for before in (int8, int16, int32):
        for after in (int8, int16, int32):
            if before != after:
                x = ints(f"cast {before}", before.storage, 192, 192)
                p = cast.Params(before, after)
                yield make(cast.OP, f"tosa-{before}-{after}", "values of the whole type", (x,), p)


def to_floats() -> Iterator[Case]:
    one = np.ones((1, 1), np.float32)
    for t in (int8, int16, int32):
        x = ints(f"to float {t}", t.storage, 1, 192 * 256)
        x[0, :2] = (t.qmin, t.qmax)
        yield make(to_real.OP, f"tosa-{t}-any", "values of the whole type", (x, one), to_real.Params(q=t))
    step = np.arange(-300, 300)
    for power in (24, 25, 30):
        beside = np.concatenate([2**power + step, -(2**power) + step])[None].astype(np.int32)
        why = "float32 rounds beyond 24 bits: ties to even"
        yield make(to_real.OP, f"tosa-int32-ties-{power}", why, (beside, one), to_real.Params(q=int32))

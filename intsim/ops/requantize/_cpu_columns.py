"""Requantize with parameters a column, in vector instructions.

What the parameters come to lies ready for a register of columns at a time. Columns are taken in stretches whose
parameters a second-level cache of 256 KiB holds beside the accumulators, and each stretch in all rows.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import numpy as np
from llvmlite import ir

from intsim.backends.cpu import shared_out
from intsim.backends.vectors import rung
from intsim.compiling import Int, kernel, this_machine
from intsim.numerics import IntType, Rounding
from intsim.ops.requantize import _cpu_vectors as vectors

PARAMETERS = 1 << 17  # bytes of a stretch
AT_ONCE = 256  # accumulators that are compared by one set of parameters after the other
FLAT = 1024  # columns of a row where one set of parameters serves all elements

i32, i64 = np.int32, np.int64


@cache
def _kernel(form: vectors.Form, dtype: IntType, name: str) -> Callable[..., None]:
    tile = vectors.tile(form, dtype)
    size = np.dtype(dtype.storage).itemsize

    def rows(acc: Any, parameters: Any, q: Any, first: Int, last: Int) -> None:
        # parameters: int32 [turns of a tile, words]; the last turn may go past the columns
        n, turns = q.shape[1], q.shape[1] // (parameters.shape[2] * vectors.GROUP)
        a_turn = 4 * vectors.GROUP * parameters.shape[1] * parameters.shape[2]
        width = vectors.GROUP * parameters.shape[2]
        stretch = max(PARAMETERS // a_turn, 1)
        of_acc, of_q, source = acc.ctypes.data, q.ctypes.data, parameters.ctypes.data
        for start in range(0, turns, stretch):
            count = min(stretch, turns - start)
            for i in range(first, last):
                at = i * n + start * width
                tile(of_acc + 4 * at, source + start * a_turn, of_q + size * at, count)
        done = turns * width
        if done < n:
            some, made = np.zeros(width, np.int32), np.empty(width, q.dtype)
            for i in range(first, last):
                for j in range(done, n):
                    some[j - done] = acc[i, j]
                tile(some.ctypes.data, source + turns * a_turn, made.ctypes.data, 1)
                for j in range(done, n):
                    q[i, j] = made[j - done]

    return kernel(rows, f"requantize.{name}.{dtype}")


_by_addend, _by_float = cache(vectors.by_addend), cache(vectors.by_float)  # a form's identity finds its kernel
Chosen = tuple[vectors.Form, str, tuple[Any, ...]]  # with its name and its parameters, an array each


def _laid_out(fields: Sequence[Any], n: int) -> Any:
    """Fields of a value a column, as a form reads them: int32 [registers, words a lane, lanes].

    A field in a tuple is read by even and by odd columns. Past the last column lies the last column's value.
    """
    lanes = rung(this_machine()).lanes
    whole = -(-n // (vectors.GROUP * lanes)) * vectors.GROUP * lanes
    parts = []
    for field in fields:
        (value,) = field if isinstance(field, tuple) else (field,)
        value = value[np.minimum(np.arange(whole), len(value) - 1)].reshape(-1, lanes)
        if isinstance(field, tuple):
            value = np.concatenate([value[:, ::2], value[:, 1::2]], axis=1)
        parts.append(np.ascontiguousarray(value).view(np.int32))
    return np.ascontiguousarray(np.concatenate(parts, axis=1)).reshape(whole // lanes, -1, lanes)


def _launch(choose: Callable[[Any, IntType], Chosen], x: Any, out: Any, p: Any, kept: Any) -> None:
    acc, q = x.acc, out.q
    n = q.shape[1]

    def made() -> Any:
        dtype = IntType(p.dtype.bits, signed=p.dtype.qmin < 0)
        form, name, fields = choose(p, dtype)
        return _kernel(form, dtype, name), _laid_out(fields, FLAT if n == 1 else n)

    rows, parameters = kept.once(f"columns {n}", made, of=())
    tail = None
    if n == 1:  # one set of parameters for all elements: rows of FLAT, and what is left
        whole = q.size - q.size % FLAT
        acc, q = acc.reshape(-1), q.reshape(-1)
        tail = acc[None, whole:], q[None, whole:]
        acc, q = acc[:whole].reshape(-1, FLAT), q[:whole].reshape(-1, FLAT)
    shared_out(lambda first, last: rows(acc, parameters, q, first, last), q.shape[0], q.size)
    if tail is not None and tail[0].size:
        rows(tail[0], parameters, tail[1], 0, 1)


def single_rounding(x: Any, out: Any, p: Any, kept: Any) -> None:
    """Fills ``out.q``; serves shifts from 32 on and narrow results."""
    _launch(_of_single, x, out, p, kept)


def _of_single(p: Any, dtype: IntType) -> Chosen:
    faster = p.rounding == Rounding.TIES_TO_EVEN and _exact_in_float64(p, dtype)
    return _of_dyadic(p, dtype) if faster else _in_integers(p, dtype)


# What is added to a product before its floor, of what is shifted out and of half of it: from 0 on, and below 0.
_ADDENDS: dict[int, Callable[[Any, Any], tuple[Any, Any]]] = {
    Rounding.TOWARD_NEGATIVE: lambda whole, half: (0 * whole, 0 * whole),
    Rounding.TOWARD_ZERO: lambda whole, half: (0 * whole, whole - 1),
    Rounding.TOWARD_POSITIVE: lambda whole, half: (whole - 1, whole - 1),
    Rounding.AWAY_FROM_ZERO: lambda whole, half: (whole - 1, 0 * whole),
    Rounding.TIES_TO_POSITIVE: lambda whole, half: (half, half),
    Rounding.TIES_TO_NEGATIVE: lambda whole, half: (half - 1, half - 1),
    Rounding.TIES_TO_AWAY: lambda whole, half: (half, half - 1),
    Rounding.TIES_TO_ZERO: lambda whole, half: (half - 1, half),
}


def _in_integers(p: Any, _dtype: IntType) -> Chosen:
    if p.rounding != Rounding.TIES_TO_EVEN:
        return _by_sign(p, *_ADDENDS[p.rounding](i64(1) << p.shift, i64(1) << (p.shift - 1)))
    multiplier, over, zero_point = (v.astype(i32) for v in (p.multiplier, p.shift - 32, p.zero_point))
    half, rest = i64(1) << (p.shift - 1), ((i64(1) << (p.shift - 32)) - 1).astype(i32)
    return vectors.to_even, "single_rounding.even", (multiplier, (half,), over, rest, zero_point)


def _exact_in_float64(p: Any, dtype: IntType) -> bool:
    """Whether a product of more than 53 bits saturates whatever its last bits are, as it does in ``_of_dyadic``.

    It then is 2**(53 - shift) or more, and a float64's rounding does not take it below that.
    """
    least = 2.0 ** (53 - p.shift)
    return bool(((least + p.zero_point >= dtype.qmax) & (-least + p.zero_point <= dtype.qmin)).all())


def double_rounding(x: Any, out: Any, p: Any, kept: Any) -> None:
    """Fills ``out.q``; serves shifts from 32 on and narrow results."""
    _launch(_of_double, x, out, p, kept)


def _of_double(p: Any, dtype: IntType) -> Chosen:
    # Floor in floor: of the product, 2**30 and half of the rest, at once. Below 0 the second rounding, away, adds one
    # less, in units of 2**31; between -2**30 and 0, where the first gives 0, the result is 0 by either.
    addend = (i64(1) << 30) + (i64(1) << (p.shift - 1))
    return _by_sign(p, addend, addend - 2**31)


def two_half_ups(x: Any, out: Any, p: Any, kept: Any) -> None:
    """Fills ``out.q``; serves shifts from 32 on and narrow results."""
    _launch(_of_two_half_ups, x, out, p, kept)


def _of_two_half_ups(p: Any, dtype: IntType) -> Chosen:
    addend = (i64(1) << 30) + (i64(1) << (p.shift - 1))  # floor in floor
    return _by_sign(p, addend, addend)


def _by_sign(p: Any, addend: Any, below: Any) -> Chosen:
    multiplier, over, zero_point = (v.astype(i32) for v in (p.multiplier, p.shift - 32, p.zero_point))
    signs = 1 if (addend == below).all() else 2
    return _by_addend(signs), f"by_addend.{signs}", (multiplier, *[(addend,), (below,)][:signs], over, zero_point)


# Requantize as the published systems do, in the machine's floats: one conversion, one product, one rounding. The
# programs compute the same IEEE 754 steps in integers. What the machine's floats could do differently is ruled out: no
# addition follows a product but that of ``by_float``, which nothing may fuse with it; operands are normal, and a
# subnormal product rounds to 0 whether or not the processor flushes it.


def float32_ties_even(x: Any, out: Any, p: Any, kept: Any) -> None:
    """Fills ``out.q``; serves narrow results."""
    _launch(_of_float32, x, out, p, kept)


def _of_float32(p: Any, dtype: IntType) -> Chosen:
    return _by_factor(ir.FloatType(), "float32_ties_even", p.multiplier_bits.astype(i32).view(np.float32), p)


def dyadic(x: Any, out: Any, p: Any, kept: Any) -> None:
    """Fills ``out.q``; serves narrow results."""
    _launch(_of_dyadic, x, out, p, kept)


def _of_dyadic(p: Any, dtype: IntType) -> Chosen:
    return _by_factor(ir.DoubleType(), "dyadic", p.multiplier.astype(np.float64) * 2.0**-p.shift, p)  # exact: 31 bits


def float64_ties_away(x: Any, out: Any, p: Any, kept: Any) -> None:
    """Fills ``out.q``; serves narrow results."""
    _launch(_of_float64, x, out, p, kept)


def _of_float64(p: Any, dtype: IntType) -> Chosen:
    return _by_factor(ir.DoubleType(), "float64_ties_away", p.multiplier_bits.view(np.float64), p, away=True)


def _by_factor(element: Any, name: str, factor: Any, p: Any, away: bool = False) -> Chosen:
    far = bool(np.abs(factor).max() > vectors.FAR / 2**31)
    return _by_float(element, far, away), f"{name}.{'far' if far else 'near'}", (factor, p.zero_point.astype(i32))


_BY_NAME: dict[str, Callable[[Any, IntType], Chosen]] = {
    "requantize.single_rounding": _in_integers,
    "requantize.double_rounding": _of_double,
    "requantize.float32_ties_even": _of_float32,
    "requantize.dyadic": _of_dyadic,
    "requantize.two_half_ups": _of_two_half_ups,
    "requantize.float64_ties_away": _of_float64,
}


def difference(one: tuple[str, Any], other: tuple[str, Any]) -> Callable[[int, int], int] | None:
    """``f(low, count)``: on how many of ``count`` accumulators from ``low`` on two ops differ; count: whole AT_ONCE.

    one, other: an op's name and its record for one column, which a kernel of this module serves. No array of
    accumulators or results is made. None where one of them is no op of this module, or the types differ.
    """
    (name, p), (of_other, p_other) = one, other
    if p.dtype != p_other.dtype or name not in _BY_NAME or of_other not in _BY_NAME:
        return None
    dtype = IntType(p.dtype.bits, signed=p.dtype.qmin < 0)
    (form, label, fields), (form_other, label_other, fields_other) = (
        _BY_NAME[name](p, dtype),
        _BY_NAME[of_other](p_other, dtype),
    )
    found = _difference(form, form_other, dtype, f"{label}.{label_other}")
    parameters = _laid_out(fields, AT_ONCE), _laid_out(fields_other, AT_ONCE)
    return lambda low, count: int(found(*parameters, low, count // AT_ONCE))


@cache
def _difference(one: vectors.Form, other: vectors.Form, dtype: IntType, name: str) -> Callable[..., Any]:
    differing = vectors.difference(one, other, dtype)

    def pieces(first: Any, second: Any, low: Int, count: Int) -> Int:
        total = i64(0)
        for i in range(count):
            total += differing(low + i * AT_ONCE, first.ctypes.data, second.ctypes.data, first.shape[0])
        return total

    return kernel(pieces, f"requantize.difference.{name}.{dtype}")

"""Which ways to requantize agree for one real scale, over every int32 accumulator."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from intsim.backends.cpu import shared_out
from intsim.binding import Array
from intsim.execute import Prepared
from intsim.numerics import IntType, Rounding, int8
from intsim.registry import get

LOWEST, HIGHEST = -(2**31), 2**31 - 1
PIECE = 2**18  # accumulators run at a time: enough to hide the cost of a call
WIDEST = 16  # bits of a result: one threshold a value
UNWRAPPED = 31  # from this shift on no variant shifts left first, so none can wrap


@dataclass(frozen=True, slots=True)
class Candidate:
    """A way to requantize: its name and its op with parameters."""

    name: str
    run: Prepared

    def __call__(self, acc: Array) -> Array:
        """The results for int64 accumulators, as int64."""
        column = acc.reshape(-1, 1).astype(self.run.op.inputs[0].storage(self.run.p))
        return np.asarray(self.run(column)).reshape(-1).astype(np.int64)


@dataclass(frozen=True, slots=True)
class Difference:
    """Two candidates that are not equal: on how many accumulators, and the least of them."""

    one: str
    other: str
    count: int
    acc: int
    one_gives: int
    other_gives: int


@dataclass(frozen=True, slots=True)
class Comparison:
    """classes: candidates that are equal on every accumulator, grouped. differences: between the groups."""

    classes: tuple[tuple[str, ...], ...]
    differences: tuple[Difference, ...]


def candidates(multiplier: int, shift: int, zero_point: int = 0, dtype: IntType = int8) -> list[Candidate]:
    """Every variant of the family that can stand for ``multiplier / 2**shift`` and is monotone there.

    Below a shift of 31, ``double_rounding`` and ``two_half_ups`` shift left first and may wrap: they
    are left out. Raises ValueError where the numbers lie outside the limits of
    ``requantize.single_rounding``, the multiplier is not positive, or the type has more than 16 bits.
    """
    if multiplier <= 0:
        raise ValueError(f"the multiplier is positive, got {multiplier}")
    if dtype.bits > WIDEST:
        raise ValueError(f"results of at most {WIDEST} bits are compared, got {dtype}")
    fields: dict[str, Any] = {"zero_point": zero_point, "dtype": dtype}
    made: list[tuple[str, str, Any]] = []
    for rounding in Rounding:
        params: Any = get("requantize.single_rounding").params
        p = params(multiplier, shift, **fields, rounding=rounding)
        made.append((f"single_rounding {rounding.name}", "requantize.single_rounding", p))
    wrapping = ("double_rounding", "two_half_ups") if shift >= UNWRAPPED else ()
    cut = ("multiplier16",) if shift >= 16 else ()
    for variant in (*wrapping, *cut, "dyadic"):
        params = get(f"requantize.{variant}").params
        made.append((variant, f"requantize.{variant}", params(multiplier, shift, **fields)))
    for variant in ("float32_ties_even", "float64_ties_away"):
        params = get(f"requantize.{variant}").params
        made.append((variant, f"requantize.{variant}", params.from_scale(multiplier / 2.0**shift, **fields)))
    return [Candidate(label, Prepared(get(name), p, "cpu", tuned=True)) for label, name, p in made]


def compare(listed: list[Candidate]) -> Comparison:
    """Compares all candidates on every int32 accumulator.

    Each is monotone (a product with a positive number, a rounding, a clamp), so the least accumulator
    that reaches each value of the result type says all of it; bisection finds these thresholds.
    Two candidates differ exactly between their thresholds of some value.
    """
    thresholds = [_thresholds(candidate) for candidate in listed]
    groups: list[list[int]] = []
    for i in range(len(listed)):
        home = next((g for g in groups if (thresholds[g[0]] == thresholds[i]).all()), None)
        if home is None:
            groups.append([i])
        else:
            home.append(i)
    between = [
        _difference(listed[a[0]], listed[b[0]], thresholds[a[0]], thresholds[b[0]])
        for at, a in enumerate(groups)
        for b in groups[at + 1 :]
    ]
    return Comparison(tuple(tuple(listed[i].name for i in group) for group in groups), tuple(between))


def exhaust(
    one: Candidate,
    other: Candidate,
    between: tuple[int, int] = (LOWEST, HIGHEST),
    done: Callable[[int], None] = lambda accumulators: None,
) -> Difference | None:
    """Runs both on every accumulator ``between`` two (both included), and assumes nothing of either.

    Returns the difference between them, or None. done: hears how many more were compared, from several threads.
    """
    low, high = between
    in_registers = _in_registers(one, other)
    found: list[tuple[int, int]] = []  # (where a piece starts, how many differ), a piece that has any

    def accumulators(start: int) -> Array:
        return (np.arange(min(PIECE, high + 1 - start)) + start).astype(np.int32).reshape(-1, 1)

    def part(first: int, last: int) -> None:
        for start in range(low + first * PIECE, min(low + last * PIECE, high + 1), PIECE):
            size = min(PIECE, high + 1 - start)
            if in_registers is not None and size == PIECE:
                count = in_registers(start, size)
            else:
                acc = accumulators(start)
                a, b = one.run(acc), other.run(acc)
                count = 0 if _same(a, b) else int((a != b).sum())
            if count:
                found.append((start, count))
            done(size)

    shared_out(part, -(-(high + 1 - low) // PIECE), high + 1 - low)
    if not found:
        return None
    acc = accumulators(min(found)[0])
    least = int(acc[np.flatnonzero(one.run(acc) != other.run(acc))[0], 0])
    gives = [int(candidate.run(np.array([[least]], np.int32))[0, 0]) for candidate in (one, other)]
    return Difference(one.name, other.name, sum(count for _, count in found), least, *gives)


def _in_registers(one: Candidate, other: Candidate) -> Callable[[int, int], int] | None:
    """Where vector kernels serve both: on how many accumulators they differ, from one on and for as many as a PIECE."""
    a_piece = np.zeros((PIECE, 1), np.int32)
    if not (one.run.serves(a_piece) and other.run.serves(a_piece)):
        return None
    from intsim.ops.requantize._cpu_columns import difference

    a, b = ((candidate.run.op.name, candidate.run.kernel_record(n=1)) for candidate in (one, other))
    return difference(a, b)


def _same(a: Array, b: Array) -> bool:
    """Whether two columns of one type are equal: by words of 8 bytes where they fill them."""
    if a.nbytes % 8:
        return np.array_equal(a, b)
    return np.array_equal(a.reshape(-1).view(np.int64), b.reshape(-1).view(np.int64))


def _thresholds(candidate: Candidate) -> Array:
    """For each value above qmin, the least accumulator whose result is at least that; 2**31 where there is none."""
    dtype = candidate.run.p.dtype
    values = np.arange(dtype.qmin + 1, dtype.qmax + 1)
    low = np.full(values.shape, LOWEST, np.int64)
    high = np.full(values.shape, HIGHEST + 1, np.int64)
    for _ in range(32):  # the range halves; 2**32 + 1 places
        middle = (low + high) >> 1
        reached = candidate(np.minimum(middle, HIGHEST)) >= values
        high = np.where(reached & (middle <= HIGHEST), middle, high)
        low = np.where(reached | (middle > HIGHEST), low, np.minimum(middle + 1, high))
    return high


def _difference(one: Candidate, other: Candidate, a: Array, b: Array) -> Difference:
    start, end = np.minimum(a, b), np.maximum(a, b)  # both ascend with the value
    before = np.concatenate([[LOWEST], end[:-1]])
    count = int(np.maximum(end - np.maximum(start, before), 0).sum())
    acc = int(start[start < end].min())
    gives = [int(candidate(np.array([acc]))[0]) for candidate in (one, other)]
    return Difference(one.name, other.name, count, acc, *gives)

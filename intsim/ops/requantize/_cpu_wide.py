"""Requantizing registers of int32 by products of 64 bits, ties to even: what vector kernels are built of.

    round(p / 2**shift) = (p + 2**(shift - 1) - 1 + bit ``shift`` of p) >> shift

With 2**63 added, p is unsigned, and its shift a logical one, which every vector unit has; what comes of it, 2**(63 -
shift), even for shifts up to 62, is taken from the zero point. Even and odd elements go apart and only their lower
words are joined, so that results must fit int32 before they saturate.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir

from intsim.backends.vectors import I32, Vectors

ABOUT = 6  # registers that tell of a register of columns: see ``about``
LEAST_SHIFT = 1


def lift(shift: Any) -> Any:
    """What is added to a product before the shift, as int64."""
    return np.int64(-(2**63)) + (np.int64(1) << (np.asarray(shift, np.int64) - 1)) - 1


def lowered(zero_point: Any, shift: Any) -> Any:
    """int32: the zero point less what the lift leaves, modulo 2**32."""
    made = np.asarray(zero_point, np.int64) - (np.int64(1) << (63 - np.asarray(shift, np.int64)))
    return made.astype(np.uint64).astype(np.uint32).view(np.int32)


def about(lanes: int, multiplier: Any, shift: Any, zero_point: Any) -> Any:
    """Parameters a column as ``Wide.by_column`` reads them: int64 [turns, ABOUT, lanes / 2].

    A multiplier of 0 may have any shift.
    """
    multiplier = np.asarray(multiplier, np.int64)
    shift = np.where(multiplier == 0, 32, shift).astype(np.int64)
    made = np.empty((multiplier.size // lanes, ABOUT, lanes // 2), np.int64)
    for i, values in enumerate((lift(shift), shift)):
        turns = values.reshape(-1, lanes // 2, 2)
        made[:, 2 * i], made[:, 2 * i + 1] = turns[..., 0], turns[..., 1]
    for i, values in enumerate((multiplier.astype(np.int32), lowered(zero_point, shift))):
        made[:, 4 + i] = values.view(np.int64).reshape(-1, lanes // 2)
    return made


class Wide(Vectors):
    """Signed products of 64 bits."""

    def products(self, a: Any, b: Any) -> list[Any]:
        """Of the even elements, and of the odd ones."""
        build, up, made = self.builder, self.wide_constant(32), []
        x, y = (build.bitcast(each, self.wide) for each in (a, b))
        made.append(build.mul(build.ashr(build.shl(x, up), up), build.ashr(build.shl(y, up), up)))
        made.append(build.mul(build.ashr(x, up), build.ashr(y, up)))
        return made

    def joined(self, even: Any, odd: Any) -> Any:
        """The lower words."""
        low, high = (self.builder.bitcast(each, self.type) for each in (even, odd))
        count = self.rung.lanes
        return self.shuffle(low, high, [at if at % 2 == 0 else count + at - 1 for at in range(count)])

    def nearest(self, products: Any, lifts: Any, shifts: Any) -> Any:
        """int32; less what the lift leaves. lifts, shifts: for the even elements, for the odd ones."""
        build, one, made = self.builder, self.wide_constant(1), []
        for product, up, shift in zip(products, lifts, shifts, strict=True):
            odd = build.and_(build.lshr(product, shift), one)
            made.append(build.lshr(build.add(build.add(product, up), odd), shift))
        return self.joined(*made)

    def by_column(self, x: Any, at: Any) -> Any:
        """A register of int32 by parameters at address ``at``: see ``about``."""
        size = 4 * self.rung.lanes
        lifts, shifts = ([self.load(self.at(at, size * i), self.wide) for i in (first, first + 1)] for first in (0, 2))
        made = self.nearest(self.products(x, self.load(self.at(at, 4 * size))), lifts, shifts)
        return self.builder.add(made, self.load(self.at(at, 5 * size)))

    def by_row(self, x: Any, factor: Any, zero_point: Any, up: Any, shift: Any) -> Any:
        """By factors, with one shift. factor, zero_point: registers, the latter ``lowered``; up: its ``lift``."""
        return self.builder.add(self.nearest(self.products(x, factor), (up, up), (shift, shift)), zero_point)

    def saturated(self, x: Any, bits: int) -> Any:
        """int32, within a signed type of ``bits`` bits."""
        build = self.builder
        for limit, test in ((self.constant(-(2 ** (bits - 1))), ">"), (self.constant(2 ** (bits - 1) - 1), "<")):
            x = build.select(build.icmp_signed(test, x, limit), x, limit)
        return x

    def store_narrow(self, x: Any, bits: int, address: Any) -> None:
        """Saturated."""
        self.store(self.builder.trunc(self.saturated(x, bits), self.narrow(ir.IntType(bits))), address)

    def number_at(self, address: Any, of: Any = I32) -> Any:
        """In all lanes. It stays a load in the loop: known to be 32 bits wide, it is multiplied as such."""
        return self.splat(self.load(address, of))

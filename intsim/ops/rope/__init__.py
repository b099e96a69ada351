"""Rotary position embedding: pairs of elements turned by an angle for each position.

The angle of pair i at position p is ``p * base**(-2 i / width)``. Tables of cosines and sines are
inputs: any system's own can be given. ``tables`` makes exact ones, the same on every machine.

What a rotation keeps, with tables of f fraction bits from ``tables`` (``t = 2**-(f + 1)`` off at
most, 2**-15 for f = 15), rounding to the nearest, nothing saturated, and |x| the length of a row of n:

- its length: ``||q| - |x|| <= sqrt(2) * t * |x| + sqrt(n) / 2``;
- what stands at position 0: q = x for f <= 14; for f = 15 a cosine of 1 is 32767 / 32768, and q is x
  up to one step (exactly x where ``|x| < 2**14``);
- a product of a query and a key depends on the distance of their positions: with e the bound above
  for each, two such products are at most ``2 * (|x| e_y + |y| e_x + e_x e_y)`` apart.
"""

from __future__ import annotations

import math
from enum import IntEnum, unique
from fractions import Fraction
from typing import Any

import numpy as np

LAWS = ()  # they need true tables and two calls: tests/test_rope.py holds them

BITS = 160  # fraction bits while the tables are made


@unique
class Layout(IntEnum):
    """Which two elements of a row are pair i of h."""

    HALVES = 0  #: i and i + h: GPT-NeoX, Llama in Hugging Face's order
    PAIRS = 1  #: 2 i and 2 i + 1: the paper, GPT-J, Llama's own order


def tables(
    positions: int, width: int, *, base: int | Fraction = 10000, fraction_bits: int = 14
) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """(cos, sin) as int16 of shape (positions, width // 2), each the integer nearest to the true value * 2**f.

    width: the number of rotated elements, even; base: rational, at least 1; fraction_bits: f, 1 to 15 (at 15 a
    cosine of 1 saturates to 32767). Integer arithmetic alone, no float. Every value is known to within 2**-100,
    and one that lies nearer than 2**-60 to a tie raises ArithmeticError instead of being rounded on trust. (No true tie
    exists: the angle is algebraic and not 0, so its cosine and sine are transcendental.)
    Raises ValueError for arguments outside the ranges above, or more than 2**20 positions.
    """
    if not (1 <= positions <= 2**20 and width >= 2 and width % 2 == 0 and 1 <= fraction_bits <= 15 and base >= 1):
        raise ValueError(
            "rope.tables: needs 1 <= positions <= 2**20, an even width from 2, 1 <= fraction_bits <= 15 and base >= 1; "
            f"got {positions=} {width=} {fraction_bits=} {base=}"
        )
    columns = [_column(positions, _frequency(Fraction(base), i, width), fraction_bits) for i in range(width // 2)]
    made = np.array(columns, np.int16).transpose(1, 2, 0)  # column, position, cos or sin -> position, which, column
    return np.ascontiguousarray(made[:, 0]), np.ascontiguousarray(made[:, 1])


def _frequency(base: Fraction, i: int, width: int) -> int:
    """floor(base**(-2 i / width) * 2**BITS): an integer root, so less than one unit off."""
    exponent = Fraction(2 * i, width)
    k, d = exponent.numerator, exponent.denominator
    return _root((base.denominator**k << BITS * d) // base.numerator**k, d)


def _root(x: int, degree: int) -> int:
    """The integer part of the root of ``x >= 0``, by Newton's iteration from above."""
    if degree == 1 or x == 0:
        return x
    root = 1 << -(-x.bit_length() // degree)
    while True:
        lower = ((degree - 1) * root + x // root ** (degree - 1)) // degree
        if lower >= root:
            return root
        root = lower


def _column(positions: int, angle: int, fraction_bits: int) -> list[tuple[int, int]]:
    """(cos, sin) at each multiple of ``angle``, which is at most 1 in units of 2**-BITS.

    The series is off by less than a unit a term, 2**6 units in all. Each turn adds that again and two units of its own:
    below 2**7 * 2**20 units, 2**-133, after all positions.
    """
    one = 1 << BITS
    c = s = 0
    term, k = one, 0
    while term:  # alternately the series of cos and sin
        sign = -1 if k & 2 else 1
        c, s = (c, s + sign * term) if k & 1 else (c + sign * term, s)
        k += 1
        term = (term * angle >> BITS) // k
    column, x, y = [], one, 0
    for _ in range(positions):
        column.append((_nearest(x, fraction_bits), _nearest(y, fraction_bits)))
        x, y = (x * c - y * s) >> BITS, (x * s + y * c) >> BITS
    return column


def _nearest(value: int, fraction_bits: int) -> int:
    drop = BITS - fraction_bits
    whole, rest = divmod(value + (1 << (drop - 1)), 1 << drop)
    if min(rest, (1 << drop) - rest) < 1 << (BITS - 60):  # a tie lies at a rest of 0
        raise ArithmeticError("rope.tables: a value is too near a tie for the bits it is computed with; raise BITS")
    return min(whole, 2**15 - 1)


def table_error(fraction_bits: int) -> float:
    """The most by which an entry of ``tables`` is off."""
    return 2.0**-15 if fraction_bits == 15 else 2.0 ** -(fraction_bits + 1)


def rotation_error(length: Any, n: int, fraction_bits: int) -> Any:
    """The most by which a rotated row of this length is off, as a distance in units of q (see above)."""
    return math.sqrt(2) * table_error(fraction_bits) * length + math.sqrt(n) / 2

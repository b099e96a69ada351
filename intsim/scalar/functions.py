"""Integer functions of one int64."""

from __future__ import annotations

from intsim.compiling import Int, portable


@portable
def bit_length(x: Int) -> Int:
    """The number of bits of ``x >= 0``: 0 for 0, 1 for 1, 3 for 5 to 7."""
    bits = 0
    for step in (32, 16, 8, 4, 2, 1):
        if x >> step > 0:
            x >>= step
            bits += step
    return bits + (1 if x > 0 else 0)


@portable
def isqrt(x: Int) -> Int:
    """The integer part of the square root. Domain: ``0 <= x < 2**62``."""
    root = 0
    bit = 1 << 60
    while bit > x:
        bit >>= 2
    while bit != 0:  # one bit of the root a turn, from the top: exact, without a float
        if x >= root + bit:
            x -= root + bit
            root = (root >> 1) + bit
        else:
            root >>= 1
        bit >>= 2
    return root

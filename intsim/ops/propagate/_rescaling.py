"""The ratio that brings a row with a given largest element inside a type: for arrays, and for one row."""

from __future__ import annotations

from typing import Any

import numpy as np

from intsim.compiling import Int, portable
from intsim.ops.propagate import ONE, Policy
from intsim.scalar import scale as program
from intsim.spec import scale

Ratio = tuple[Any, Any]


def ratio(top: Any, qmax: int, policy: Policy) -> Ratio:
    """``1 <= top < 2**31``: qmax / top by the policy. ``top * ratio < qmax + 1/2``, since it is within 2**-31."""
    fits = top <= qmax
    if policy == Policy.POWERS_OF_TWO:
        return ONE[0] + 0 * top, ONE[1] - scale.bit_length((top - 1) // qmax)
    mantissa, exponent = scale.quotient(scale.of_integer(qmax + 0 * top), scale.of_integer(top))
    if policy == Policy.ALWAYS:
        return mantissa, exponent
    return np.where(fits, ONE[0], mantissa), np.where(fits, ONE[1], exponent)


@portable
def ratio_of(top: Int, qmax: Int, policy: Int) -> tuple[Int, Int]:
    if top <= qmax and policy != Policy.ALWAYS:
        return 2**30, -30
    if policy == Policy.POWERS_OF_TWO:
        shift = 0
        while top > qmax << shift:
            shift += 1
        return 2**30, -30 - shift
    whole, whole_exponent = program.of_integer(qmax)
    part, part_exponent = program.of_integer(top)
    return program.quotient(whole, whole_exponent, part, part_exponent)

"""The integers inside dequantized numbers, for systems that hand out nothing else."""

from __future__ import annotations

import numpy as np

from intsim.binding import Array
from intsim.oracle.adapter import Unsupported

EXACT = 2**24  # integers up to it are float32 numbers


def codes(out: Array, scale: Array, zero_point: Array) -> Array:
    """The integers q with ``out = f32((q - zero_point) * scale)``, as int64.

    Raises Unsupported where a product was infinite, ValueError where there is no such integer.
    """
    if not np.isfinite(out).all():
        raise Unsupported("the dequantized result is infinite in float32: it does not tell the integer")
    steps = np.rint(out.astype(np.float64) / scale.astype(np.float64))
    with np.errstate(under="ignore"):
        again = steps.astype(np.float32) * scale.astype(np.float32)
    if (np.abs(steps) >= EXACT // 4).any() or (again != out).any():
        raise ValueError("a result is not f32((q - zero_point) * scale) for any integer q")
    return steps.astype(np.int64) + zero_point

"""Four-bit integers, two a byte, along the last axis."""

from __future__ import annotations

from typing import Any

import numpy as np

from intsim.compiling import Int, portable


@portable
def load(x: Any, i: Int, k: Int, t: Any, nibbles: Int) -> Int:
    """Element ``[i, k]`` of a matrix of ``t``, packed where ``t`` has 4 bits."""
    if t.bits > 4:
        return np.int64(x[i, k])
    nibble = (np.int64(x[i, k >> 1]) >> (4 * ((k & 1) ^ nibbles))) & 15
    return nibble - 16 if nibble > t.qmax else nibble

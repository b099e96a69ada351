"""Integer functions of arrays: int64, or Python integers in an object array."""

from __future__ import annotations

import math
from typing import Any

import numpy as np


def bit_length(x: Any) -> Any:
    """The number of bits of each ``x >= 0``."""
    x = np.asarray(x)
    return np.array([int(v).bit_length() for v in x.flat], dtype=x.dtype).reshape(x.shape)


def isqrt(x: Any) -> Any:
    """The integer part of the square root of each ``x >= 0``."""
    x = np.asarray(x)
    return np.array([math.isqrt(int(v)) for v in x.flat], dtype=x.dtype).reshape(x.shape)

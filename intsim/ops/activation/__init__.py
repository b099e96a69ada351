"""Activation functions, one element at a time. What every variant must keep."""

from __future__ import annotations

import math
from typing import Any

import numpy as np


def real_gelu(x: Any) -> Any:
    """x * Phi(x) in float64."""
    x = np.asarray(x, np.float64)
    return x * 0.5 * (1 + np.vectorize(math.erf, otypes=[float])(x / math.sqrt(2)))


LAWS = ()

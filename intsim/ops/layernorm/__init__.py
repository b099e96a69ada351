"""Layer normalization over the last axis. What every variant must keep."""

from __future__ import annotations

from typing import Any

import numpy as np

LONGEST = 2**13
WORTH_TUNING = 1 << 14  # elements: below, the one kernel of the program, which serves every type, is as good


def centred(x: Any) -> Any:
    """x minus the mean of its row, in float64."""
    x = np.asarray(x, np.float64)
    return x - x.mean(axis=-1, keepdims=True)


LAWS = ()

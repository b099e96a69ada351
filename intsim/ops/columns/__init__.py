"""Moving the columns of a row: no arithmetic, every bit passes.

Row i sees column j where ``j < stop[i]`` and ``mask[i, j]`` is not 0.
"""

from __future__ import annotations

from typing import Any

import numpy as np

LAWS = ()


def seen_first(stop: Any, mask: Any) -> tuple[Any, Any]:
    """(which columns each row sees, the order that puts them in front), of the spec."""
    visible = (mask != 0) & (np.arange(mask.shape[-1]) < stop.reshape(-1, 1))
    return visible, np.argsort(~visible, axis=-1, kind="stable")

"""Arrays that lie on the host or in a GPU's memory: what of them can be asked without knowing which."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np


def resident(a: Any) -> bool:
    """Whether ``a`` is intsim's own array in a GPU's memory: used as it lies there, in C order."""
    return hasattr(a, "to_host")


def broadcast(a: Any, shape: Sequence[int]) -> Any:
    """A view of ``a`` in which axes of length 1, and new leading ones, are repeated without being stored."""
    return a.broadcast_to(shape) if resident(a) else np.broadcast_to(a, shape)

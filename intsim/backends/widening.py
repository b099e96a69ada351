"""One compiled kernel for all storage types: small arrays are widened to int64 around the call.

A kernel is compiled anew for every combination of array types, at about half a second each. Where
the arrays are small, converting them costs microseconds; where they are large, each combination
gets its own kernel.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

SMALL = 1 << 14  # elements


def is_small(x: Any, out: Any) -> bool:
    return all(a.size <= SMALL for a in (*x, *out))


def widened(launch: Callable[[Any, Any], None], x: Any, out: Any) -> None:
    """``launch(x, out)`` on int64 copies; the results come back in the types of ``out``."""
    wide = type(out)(*(np.empty(a.shape, np.int64) for a in out))
    launch(type(x)(*(a.astype(np.int64) for a in x)), wide)
    for narrow, a in zip(out, wide, strict=True):
        narrow[...] = a

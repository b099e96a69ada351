"""Arrays that begin where a line of the cache does: a vector, or a row of a tile, that lies across two takes longer."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

LINE = 64  # bytes that a cache moves at a time
WORTH = 2**17  # bytes: to place a smaller array takes longer than what that saves


def empty(shape: tuple[int, ...], dtype: Any) -> np.ndarray[Any, Any]:
    """``np.empty``; from WORTH bytes on the array begins with a line, and does not own its memory."""
    made = np.dtype(dtype)
    size = math.prod(shape) * made.itemsize
    if size < WORTH:
        return np.empty(shape, made)
    room = np.empty(size + LINE, np.uint8)
    begin = -room.ctypes.data % LINE
    placed: np.ndarray[Any, Any] = room[begin : begin + size].view(made).reshape(shape)
    return placed

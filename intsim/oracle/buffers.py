"""Output buffers for kernels that write where they are told: poisoned, with guard bytes around them."""

from __future__ import annotations

from typing import Any

import numpy as np

from intsim.binding import Array

GUARD = 64  # bytes on either side; also keeps the payload aligned
POISON = 0xA5


class Guarded:
    """A poisoned array with guard bytes before and after it."""

    def __init__(self, shape: tuple[int, ...], dtype: Any) -> None:
        size = int(np.prod(shape)) * np.dtype(dtype).itemsize
        self._whole = np.full(size + 2 * GUARD, POISON, np.uint8)
        self.array: Array = self._whole[GUARD : GUARD + size].view(dtype).reshape(shape)

    @property
    def intact(self) -> bool:
        """Whether every guard byte is as it was."""
        return bool((self._whole[:GUARD] == POISON).all() and (self._whole[-GUARD:] == POISON).all())

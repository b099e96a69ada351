"""The 8-bit table, looked up by the byte as it lies in memory: no index to compute, none that could be out of range."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np

from intsim.backends.cpu import shared_out
from intsim.compiling import Int, kernel


@cache
def _kernel() -> Callable[..., None]:
    def pieces(x: Any, table: Any, q: Any, first: Int, last: Int) -> None:
        piece, entries = x[first:last], q[first:last]
        for j in range(piece.size):
            entries[j] = table[np.int64(piece[j])]  # known not to be negative: nothing but a load

    return kernel(pieces, "activation.table.pieces")


def table(x: Any, out: Any, p: Any) -> None:
    """Fills ``out.q``."""
    by_byte = np.roll(x.table, p.x.qmin)  # a negative value's byte is 256 more
    q, entries = x.x.reshape(-1).view(np.uint8), out.q.reshape(-1)
    pieces = _kernel()
    shared_out(lambda first, last: pieces(q, by_byte, entries, first, last), q.size, q.size)

"""What a product of plain bytes lacks of one of bytes less their zero points."""

from __future__ import annotations

from typing import Any

import numpy as np

from intsim.compiling import Int, portable
from intsim.scalar.fixed_point import wrap32

NONE = np.empty((0, 2), np.int32)


def corrections(b: Any, offsets: Any, start: Any) -> tuple[Any, Any]:
    """What ``sum u s`` lacks of ``sum (u - offset_a) (s - offset_b)``: terms of the column go into ``start``.

    b: ``Panels``, of quads. offsets: int32, one a row of ``a``. The rest is ``left[i, 0] right[j, 0] + left[i, 1]
    right[j, 1]``; ``left[i, 0]``, minus the sum of a row of ``a``, comes with the row.
    """
    if same := bool(offsets.size) and bool((offsets == offsets[0]).all()):
        start[: b.n] -= offsets[0] * b.columns
    if same and not b.shifted:
        return NONE, NONE
    left, right = np.zeros((offsets.size, 2), np.int32), np.empty((b.n, 2), np.int32)
    left[:, 1] = 0 if same else -offsets
    right[:, 0], right[:, 1] = b.offsets, b.columns
    return left, right


@portable
def correct(out: Any, left: Any, right: Any, top: Int, bottom: Int, first: Int, last: Int) -> None:
    """The rest of rows [top, bottom) and columns [first, last), modulo 2**32."""
    for i in range(top, bottom):
        for j in range(first, last):
            # |left| < 2**28 and |right| < 2**9 in the one, the other way round in the other: below 2**41
            more = np.int64(left[i, 0]) * right[j, 0] + np.int64(left[i, 1]) * right[j, 1]
            out[i, j] = wrap32(out[i, j] + more)

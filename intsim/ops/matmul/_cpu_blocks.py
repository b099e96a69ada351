"""Products of a few rows with one panel after the other, for kernels that go on with what a panel gave.

Rows are laid out once (``lay_out``); then each panel's sums fit the first-level cache, where the kernel finishes them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from intsim.compiling import Int, portable
from intsim.ops.matmul import _cpu_outliers as outliers, _cpu_tile as machine
from intsim.ops.matmul._cpu_gemm import DEPTH, lay_out
from intsim.ops.matmul._cpu_panels import SIGN, packed

WHOLE = 12  # rows: whole tiles of quads and of pairs


@dataclass(frozen=True, slots=True)
class Weight:
    """An int8 matrix "n k" for ``multiplied``. arrays: panels, first sums, outliers; quads: as in ``Panels``."""

    n: int
    k: int
    arrays: tuple[Any, ...]
    quads: int


def weight(b: Any) -> Weight:
    """Raises ValueError where ``b``, int8 "n k", does not fill whole panels."""
    made = packed(b, tiles=False)
    columns = made.steps.shape[2]
    if made.n % columns:
        raise ValueError(f"a weight of {made.n} rows does not fill panels of {columns}")
    start = -SIGN * made.columns if made.quads else np.zeros(made.n, np.int32)
    lacks = made.outliers
    arrays = made.steps, start.astype(np.int32), lacks.starts.astype(np.int64), lacks.where, lacks.rest
    return Weight(made.n, made.k, arrays, int(made.quads))


@portable
def room(rows: Int, k: Int) -> tuple[Any, Any, Any, Any, Any]:
    """Scratch for ``rows`` rows of at most ``k`` bytes: laid out, turned, sums of outliers, a panel's sums, and what
    pairs have subtracted of int8 that was made uint8."""
    whole, columns = (rows + WHOLE - 1) // WHOLE * WHOLE, machine.width()
    tall = outliers.room(whole)
    return (
        np.zeros((whole, k + 2), np.int16),
        np.empty((k, tall), np.uint8),
        np.empty((columns, tall), np.int32),
        np.empty((whole, columns), np.int32),
        np.full(whole, SIGN, np.int16),
    )


@portable
def laid_out(q: Any, count: Int, weight: Any, quads: Int, scratch: Any) -> Any:
    """``count`` rows of int8 for ``multiplied``, in ``scratch``. weight: its arrays."""
    words, turned, _, _, centre = scratch
    steps = (q.shape[1] + 3) // 4 if quads else (q.shape[1] + 1) // 2
    block = words.reshape(-1)[: words.shape[0] * 2 * steps].reshape((words.shape[0], 2 * steps))
    block[:, 2 * steps - 2 :] = 0  # the last step may be half empty
    plain, bytes_ = block.view(np.uint8), q.view(np.uint8)
    for i in range(count):
        lay_out(bytes_, i, SIGN, False, quads == 1, False, centre, block, plain, i)
    if weight[2].size:
        outliers.turn(plain, turned[: q.shape[1]], count)
    return block


@portable
def multiplied(block: Any, count: Int, weight: Any, quads: Int, panel: Int, scratch: Any) -> None:
    """Fills the panel's sums in ``scratch``: of row i of the block with column c of a panel, up to whole tiles."""
    panels, start, starts, where, rest = weight
    _, turned, sums, acc, _ = scratch
    columns, steps = machine.width(), block.shape[1] // 2
    rows = machine.rows_of_quads() if quads else machine.rows_of_pairs()
    source = panels.ctypes.data + 4 * columns * panel * panels.shape[1]
    begin = start.ctypes.data + 4 * columns * panel
    for step in range(0, steps, DEPTH):
        turns, right = min(DEPTH, steps - step), source + 4 * columns * step
        for i in range(0, count, rows):
            left, target = block.ctypes.data + 4 * (i * steps + step), acc.ctypes.data + 4 * columns * i
            so_far, apart = (target, 4 * columns) if step else (begin, 0)
            if quads:
                machine.stretch_of_quads(left, 4 * steps, right, target, 4 * columns, turns, so_far, apart)
            else:
                machine.stretch_of_pairs(left, 4 * steps, right, target, 4 * columns, turns, so_far, apart)
    if starts.size:
        outliers.add(turned, starts[panel * columns :], where, rest, sums, acc, 0, count, 0)

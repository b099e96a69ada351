"""A right operand of the matrix product, laid out for the micro-kernels.

Whoever multiplies by the same matrix many times keeps its ``packed`` panels. They hold a copy, so that no
later change of the array can give a stale product, and there is no cache behind anyone's back.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from intsim.backends.cpu import shared_out
from intsim.backends.vectors import rung
from intsim.compiling import kernel, this_machine
from intsim.ops.matmul import _cpu_tile as machine

SIGN = 0x80  # xored to a byte, it turns int8 into uint8 that is 128 more, and back


@dataclass(frozen=True, slots=True)
class Panels:
    """``b``, "n k", ready to be multiplied by.

    source, zero_point: what they were made of.
    steps: int32 (panels, steps, columns of a panel): see ``_cpu_tile``.
    quads: whether a step is four bytes or two int16.
    offsets, columns: of quads, an int32 a column: what each signed byte has too much, and the sum of the
        bytes without it. (Of pairs, nothing.) shifted: whether any offset is not 0.
    """

    n: int
    k: int
    source: Any
    zero_point: Any
    steps: Any
    quads: bool
    offsets: Any
    columns: Any
    shifted: bool


def packed(b: Any, zero_point: Any = 0) -> Panels:
    """The panels of a copy of ``b``, to be kept; see ``pack``."""
    return pack(np.array(b, order="C"), np.array(zero_point))


def pack(b: Any, zero_point: Any = 0, *, quads: bool = True) -> Panels:
    """The panels of ``b`` (int8, uint8 or int16, "n k", C-contiguous), ``zero_point`` subtracted: one, or one per n.

    quads: whether they may be quads. Raises ValueError where ``b - zero_point`` leaves int16.
    """
    n, k = b.shape
    words = b.dtype == np.int16
    zero_points = np.broadcast_to(np.asarray(zero_point, np.int64), n)
    if words and zero_points.any():
        raise ValueError(f"int16 with a zero point of {zero_points[zero_points != 0][0]} leaves int16; widen it")
    bytes_ = b.view(np.uint8)
    quads = quads and not words and _takes_quads(bytes_, SIGN * (b.dtype == np.uint8))
    flip = SIGN * ((b.dtype == np.uint8) if quads else (b.dtype == np.int8))
    offsets = (zero_points - flip if quads else zero_points + flip).astype(np.int32)
    span = 4 if quads or words else 2
    r = rung(this_machine())
    lanes, columns = r.lanes, machine.columns(r)
    steps = -(-b.shape[1] * b.itemsize // span)
    panels = np.empty((-(-n // columns), -(-steps // lanes) * lanes, columns), np.int32)
    centre = np.full(panels.shape[0] * columns, 0 if words else flip, np.int16)  # columns past the last hold 0
    sums = np.zeros(n if quads else 0, np.int32)
    if not (quads or words):
        centre[:n] = offsets
    shared_out(
        lambda first, last: _pack(bytes_, flip, centre, span, quads, panels, sums, first, last),
        panels.shape[0],
        b.nbytes // 8,
    )
    if not quads:
        return Panels(n, k, b, zero_point, panels, False, sums, sums, False)
    return Panels(n, k, b, zero_point, panels, True, offsets, sums - np.int32(k) * offsets, bool(offsets.any()))


def _takes_quads(b: Any, flip: int) -> bool:
    r = rung(this_machine())
    return r.quads is not None or (r.bytes is not None and _neighbours_fit(b, flip))


def _pack_panels(
    b: Any, flip: int, centre: Any, span: int, quads: bool, panels: Any, sums: Any, first: int, last: int
) -> None:
    lanes, columns = machine.lanes(), machine.width()
    n, size = b.shape
    steps = panels.shape[1]
    edge = np.zeros((lanes, 4 * lanes), np.uint8)
    for panel in range(first, last):
        for column in range(panel * columns, (panel + 1) * columns, lanes):
            target = panels.ctypes.data + 4 * (panel * steps * columns + column - panel * columns)
            for step in range(0, steps, lanes):
                whole = column + lanes <= n and (step + lanes) * span <= size
                if whole:
                    source, apart = b.ctypes.data + column * size + step * span, size
                else:
                    source, apart = edge.ctypes.data, 4 * lanes
                    for j in range(lanes):
                        for k in range(lanes * span):
                            inside = column + j < n and step * span + k < size
                            edge[j, k] = b[column + j, step * span + k] if inside else 0
                at = target + 4 * step * columns
                if quads:
                    machine.block_of_quads(source, apart, at, 4 * columns, flip, 0)
                elif span == 2:
                    machine.block_of_pairs(source, apart, at, 4 * columns, flip, centre.ctypes.data + 2 * column)
                else:
                    machine.block_of_words(source, apart, at, 4 * columns, flip, centre.ctypes.data + 2 * column)
        if quads:
            for j in range(panel * columns, min(n, (panel + 1) * columns)):
                total = np.int32(0)
                for k in range(size):
                    total += np.int32(np.int8(b[j, k] ^ flip))
                sums[j] = total


def _neighbours(b: Any, flip: int) -> bool:
    """Whether 255 times two neighbours never leaves int16, so that no sum of two products saturates."""
    n, k = b.shape
    flips = np.uint16(flip * 257)
    for j in range(n):
        row = b[j, : k // 2 * 2].view(np.uint16)
        most = np.int16(0)
        for at in range(row.size):
            pair = row[at] ^ flips
            first, second = np.int16(pair) >> 8, np.int16(pair << 8) >> 8
            most = max(most, np.int16(abs(first) + abs(second)))
        if most > 32767 // 255:
            return False
    return True


_pack = kernel(_pack_panels, "matmul.pack")
_neighbours_fit = kernel(_neighbours, "matmul.neighbours_fit")

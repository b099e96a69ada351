"""A right operand of the matrix product, laid out for the micro-kernels.

An instruction that adds two products of bytes in int16 takes neighbours of which 255 times their sum fits. Of weights
whose large ones are few, these lose what does not fit, and are listed: ``Outliers``. The product adds them again.

Whoever multiplies by the same matrix many times keeps its ``packed`` panels. They hold a copy, so that no
later change of the array can give a stale product, and there is no cache behind anyone's back.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from intsim.backends.cpu import shared_out
from intsim.backends.lines import empty
from intsim.backends.vectors import rung
from intsim.compiling import kernel, this_machine
from intsim.backends.tiles import BYTES
from intsim.ops.matmul import _cpu_amx as tiled, _cpu_tile as machine

MOST = 32767 // 255  # two neighbours whose sum is no larger never saturate: of both signs, each does by itself
SELDOM = 32  # one element of so many may be an outlier: more cost what the quads save
SIGN = 0x80  # xored to a byte, it turns int8 into uint8 that is 128 more, and back


@dataclass(frozen=True, slots=True)
class Outliers:
    """What the panels lack, ordered by column: ``rest[t]`` at place ``where[t]``, starts[j] <= t < starts[j + 1].

    An even number in each column: the last may be 0.
    """

    starts: Any
    where: Any
    rest: Any


_NO_OUTLIERS = Outliers(*(np.zeros(0, np.int32) for _ in range(3)))


@dataclass(frozen=True, slots=True)
class Panels:
    """``b``, "n k", ready to be multiplied by.

    source, zero_point: what they were made of.
    steps: int32 (panels, steps, columns of a panel): see ``_cpu_tile``.
    in_tiles: whether they hold 16 steps of 16 columns after another: see ``_cpu_amx``.
    quads: whether a step is four bytes or two int16.
    offsets, columns: of quads, an int32 a column: what each signed byte has too much, and the sum of the
        bytes without it. (Of pairs, nothing.) shifted: whether any offset is not 0.
    outliers: of quads, what ``steps`` lacks; of no columns where it lacks nothing.
    crossing: of pairs that are crossed, an int32 a column of all panels: what that adds; else None.
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
    outliers: Outliers = _NO_OUTLIERS
    crossing: Any = None
    in_tiles: bool = False


def packed(b: Any, zero_point: Any = 0, *, tiles: bool = True) -> Panels:
    """The panels of a copy of ``b``, to be kept; see ``pack``."""
    return pack(np.array(b, order="C"), np.array(zero_point), outliers=True, tiles=tiles)


def pack(b: Any, zero_point: Any = 0, *, quads: bool = True, outliers: bool = False, tiles: bool = True) -> Panels:
    """The panels of ``b`` (int8, uint8 or int16, "n k", C-contiguous), ``zero_point`` subtracted: one, or one per n.

    quads: whether they may be quads. outliers: whether these may lack something, which takes longer to find out
    and pays where they are kept for many rows. tiles: whether quads may lie in tiles.
    Raises ValueError where ``b - zero_point`` leaves int16.
    """
    n, k = b.shape
    words = b.dtype == np.int16
    zero_points = np.broadcast_to(np.asarray(zero_point, np.int64), n)
    if words and zero_points.any():
        raise ValueError(f"int16 with a zero point of {zero_points[zero_points != 0][0]} leaves int16; widen it")
    bytes_, lacking = b.view(np.uint8), _NO_OUTLIERS
    if quads and not words:
        quads, bytes_, lacking = _as_quads(bytes_, SIGN * (b.dtype == np.uint8), SELDOM if outliers else 0)
    quads = quads and not words
    flip = SIGN * ((b.dtype == np.uint8) if quads else (b.dtype == np.int8))
    offsets = (zero_points - flip if quads else zero_points + flip).astype(np.int32)
    span = 4 if quads or words else 2
    r = rung(this_machine())
    in_tiles = quads and tiles and tiled.serves()
    lanes, columns = r.lanes, tiled.SIDE if in_tiles else machine.columns(r)
    steps = -(-b.shape[1] * b.itemsize // span)
    panels = empty((-(-n // columns), -(-steps // lanes) * lanes, columns), np.int32)
    centre = np.full(panels.shape[0] * columns, 0 if words else flip, np.int16)  # columns past the last hold 0
    crossed = r.crossed and not quads and not words
    sums = np.zeros(n if quads else centre.size if crossed else 0, np.int32)
    if not (quads or words):
        centre[:n] = offsets
    shared_out(
        lambda first, last: _pack(bytes_, flip, centre, span, quads, crossed, in_tiles, panels, sums, first, last),
        panels.shape[0],
        b.nbytes // 8,
    )
    if not quads:
        none = sums[:0]
        return Panels(n, k, b, zero_point, panels, False, none, none, False, crossing=sums if crossed else None)
    if lacking.starts.size:
        before = np.concatenate([[0], np.cumsum(lacking.rest, dtype=np.int64)])
        sums += np.diff(before[lacking.starts]).astype(np.int32)
    less, shifted = sums - np.int32(k) * offsets, bool(offsets.any())
    return Panels(n, k, b, zero_point, panels, True, offsets, less, shifted, lacking, in_tiles=in_tiles)


def _as_quads(b: Any, flip: int, seldom: int) -> tuple[bool, Any, Outliers]:
    """Whether ``b`` goes as quads, its bytes less the outliers, and these. Xored with ``flip`` the bytes are int8.

    seldom: an outlier in so many elements is taken; 0: none.
    """
    r = rung(this_machine())
    if r.quads is not None or r.bytes is None:
        return r.quads is not None, b, _NO_OUTLIERS
    starts = np.zeros(b.shape[0] + 1, np.int64)
    _crowded(b, flip, starts[1:])
    count = int(starts.sum())
    if not count or not seldom or count * seldom > b.size:
        return count == 0, b, _NO_OUTLIERS
    starts = np.cumsum((starts + 1) // 2 * 2)
    mild, where, rest = b.copy(), np.zeros(starts[-1], np.int32), np.zeros(starts[-1], np.int32)
    _tame(mild, flip, starts, where, rest)
    return True, mild, Outliers(starts, where, rest)


def _pack_panels(
    b: Any,
    flip: int,
    centre: Any,
    span: int,
    quads: bool,
    crossed: bool,
    in_tiles: bool,
    panels: Any,
    sums: Any,
    first: int,
    last: int,
) -> None:
    lanes, (_, steps, columns), (n, size) = machine.lanes(), panels.shape, b.shape
    aside, below = (BYTES, BYTES) if in_tiles else (4, 4 * columns)
    beyond = flip if quads else 0  # of quads, bytes past the last step are 0, whatever they meet
    edge = np.zeros((lanes, 4 * lanes), np.uint8)
    for panel in range(first, last):
        for column in range(panel * columns, (panel + 1) * columns, lanes):
            target = panels.ctypes.data + 4 * panel * steps * columns + aside * (column - panel * columns)
            for step in range(0, steps, lanes):
                whole = column + lanes <= n and (step + lanes) * span <= size
                if whole:
                    source, apart = b.ctypes.data + column * size + step * span, size
                else:
                    source, apart = edge.ctypes.data, 4 * lanes
                    for j in range(lanes):
                        for k in range(lanes * span):
                            inside = column + j < n and step * span + k < size
                            edge[j, k] = b[column + j, step * span + k] if inside else beyond
                at = target + 4 * step * columns
                if quads:
                    machine.block_of_quads(source, apart, at, below, flip, 0)
                elif span == 2:
                    machine.block_of_pairs(source, apart, at, below, flip, centre.ctypes.data + 2 * column)
                else:
                    machine.block_of_words(source, apart, at, below, flip, centre.ctypes.data + 2 * column)
        if crossed:
            source = panels.ctypes.data + 4 * panel * steps * columns
            machine.crossing_of_panel(source, (size + 3) // 4, sums.ctypes.data + 4 * panel * columns)
        if quads:
            for j in range(panel * columns, min(n, (panel + 1) * columns)):
                total = np.int32(0)
                for k in range(size):
                    total += np.int32(np.int8(b[j, k] ^ flip))
                sums[j] = total


def _crowded_pairs(b: Any, flip: int, counts: Any) -> None:
    """Of each row, the pairs of neighbours of which 255 times the sum could leave int16."""
    flips = np.uint16(flip * 257)
    for j in range(b.shape[0]):
        row = b[j, : b.shape[1] // 2 * 2].view(np.uint16)
        count = np.int32(0)
        for at in range(row.size):
            pair = row[at] ^ flips
            first, second = np.int16(pair) >> 8, np.int16(pair << 8) >> 8
            count += np.int32(np.int16(abs(first + second)) > MOST)
        counts[j] = count


def _tamed(b: Any, flip: int, starts: Any, where: Any, rest: Any) -> None:
    """The larger of two crowded neighbours loses what is too much: a multiple of 1, below 2**8."""
    for j in range(b.shape[0]):
        t = starts[j]
        for k in range(0, b.shape[1] - 1, 2):
            first, second = np.int64(np.int8(b[j, k] ^ flip)), np.int64(np.int8(b[j, k + 1] ^ flip))
            over = abs(first + second) - MOST
            if over > 0:
                at, value = (k, first) if abs(first) >= abs(second) else (k + 1, second)
                rest[t] = over if value > 0 else -over
                where[t] = at
                b[j, at] = np.uint8((value - rest[t]) & 255) ^ flip
                t += 1


_pack = kernel(_pack_panels, "matmul.pack")
_crowded = kernel(_crowded_pairs, "matmul.crowded")
_tame = kernel(_tamed, "matmul.tame")

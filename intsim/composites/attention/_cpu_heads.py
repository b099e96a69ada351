"""Attention of an integer encoder on the CPU, a head of a sentence at a time: scores, softmax and context in one go.

A few queries go past all keys and values, while their scores and probabilities stay in the first-level cache.

Scores go by pairs of int16, the context by quads of bytes. These are exact: of two shares with x + y <= 256, ties to
even make at most 256 together (257 takes x = a + 1/2, y = b + 1/2, a + b = 255, both rounded up; but a or b is even),
and 256 times a value lies from -2**15 to 2**15 - 256.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from intsim.compiling import Int, kernel, portable
from intsim.composites.linear import _cpu_row_column_vectors as vectors
from intsim.ops.matmul import _cpu_tile as tiles
from intsim.ops.matmul._cpu_panels import SIGN
from intsim.ops.requantize._cpu_wide import ABOUT
from intsim.ops.softmax import _cpu_ibert_vectors as softmax

QUERIES = 24  # at a time: whole tiles on every machine
BEYOND = 64  # rows behind the last token that may be read: as many as a panel has columns on any machine


@portable
def _keys(k: Any, first: Int, width: Int, head: Int, panels: Any, centre: Any) -> None:
    """A head's keys as panels [panels, steps, columns of a panel]; what lies behind them counts for nothing."""
    lanes, columns, size = tiles.lanes(), tiles.width(), k.shape[1]
    steps = panels.shape[1]
    for panel in range(panels.shape[0]):
        for column in range(0, columns, lanes):
            source = k.ctypes.data + (first + panel * columns + column) * size + head * width
            target = panels.ctypes.data + 4 * (panel * steps * columns + column)
            for step in range(0, steps, lanes):
                tiles.block_of_pairs(
                    source + 2 * step, size, target + 4 * step * columns, 4 * columns, SIGN, centre.ctypes.data
                )


@portable
def _values(v: Any, first: Int, width: Int, head: Int, panels: Any, steps: Int) -> None:
    """A head's values as panels, four tokens a step; tokens too many have the probability 0."""
    columns = panels.shape[2]
    for panel in range(panels.shape[0]):
        column = panel * columns
        many = min(columns, width - column)
        for step in range(steps):
            token, begin = first + 4 * step, head * width + column
            a, b = v[token, begin : begin + many], v[token + 1, begin : begin + many]
            c, d = v[token + 2, begin : begin + many], v[token + 3, begin : begin + many]
            into = panels[panel, step]
            for j in range(many):
                low = (np.int32(a[j]) & np.int32(0xFF)) | ((np.int32(b[j]) & np.int32(0xFF)) << np.int32(8))
                into[j] = low | ((np.int32(c[j]) & np.int32(0xFF)) << np.int32(16)) | (np.int32(d[j]) << np.int32(24))


@portable
def _product(left: Any, apart: Int, panels: Any, panel: Int, steps: Int, count: Int, quads: bool, zeros: Any,
             acc: Any) -> None:  # fmt: skip
    """``count`` rows, ``apart`` bytes apart, by a panel."""
    columns, rows = panels.shape[2], tiles.rows_of_quads() if quads else tiles.rows_of_pairs()
    source = panels.ctypes.data + 4 * columns * panel * panels.shape[1]
    for i in range(0, count, rows):
        row, into = left.ctypes.data + apart * i, acc.ctypes.data + 4 * columns * i
        if quads:
            tiles.stretch_of_quads(row, apart, source, into, 4 * columns, steps, zeros.ctypes.data, 0)
        else:
            tiles.stretch_of_pairs(row, apart, source, into, 4 * columns, steps, zeros.ctypes.data, 0)


def _attended_heads(
    q: Any, of_q: Any, k: Any, of_k: Any, v: Any, begins: Any, lengths: Any, about_scores: Any, about_softmax: Any,
    about_context: Any, context: Any, first: int, last: int,
) -> None:  # fmt: skip
    """Tasks [first, last), each a head of a sentence.

    q, k, v: int8 [tokens of all sentences and BEYOND, heads * width]; of_q, of_k: int32 [heads, the same rows]. begins,
    lengths: of the sentences. about_scores: int64, lift and shift of their requantization, and its zero point.
    about_softmax: ``numbers``. about_context: a row a head, see ``requantize._cpu_wide.about``. context: int16
    [tokens, heads * width], which is filled.
    """
    heads, columns, lanes = of_q.shape[0], tiles.width(), tiles.lanes()
    width = q.shape[1] // heads
    centre, zeros = np.full(lanes, SIGN, np.int16), np.zeros(columns, np.int32)
    none, longest = np.full(columns, about_scores[2], np.int32), np.int64(lengths.max())
    all_panels, all_steps = (longest + columns - 1) // columns, (longest + 3) // 4
    of_values = (width + columns - 1) // columns
    key_room = np.empty((all_panels, width // 2, columns), np.int32)
    value_room = np.zeros((of_values, all_steps, columns), np.int32)
    words = np.zeros((QUERIES, width), np.int16)
    broad = all_panels * columns
    scores, shares = np.zeros((QUERIES, broad), np.int16), np.zeros((QUERIES, broad), np.uint8)
    exp = np.zeros(broad, np.int32)
    acc, made = np.zeros((QUERIES, columns), np.int32), np.zeros((QUERIES, of_values * columns), np.int16)
    for task in range(first, last):
        sentence, head = task // heads, task % heads
        begin: Any = np.int64(begins[sentence])
        count: Any = np.int64(lengths[sentence])
        keys, fours = key_room[: (count + columns - 1) // columns], (count + 3) // 4
        _keys(k, begin, width, head, keys, centre)
        _values(v, begin, width, head, value_room, fours)
        for at in range(0, count, QUERIES):
            rows, top = min(QUERIES, count - at), begin + at
            for i in range(rows):
                for j in range(width):
                    words[i, j] = q[top + i, head * width + j]
            for panel in range(keys.shape[0]):
                _product(words, 2 * width, keys, panel, width // 2, rows, False, zeros, acc)
                vectors.to_int16(
                    acc.ctypes.data, rows, of_q[head, top:].ctypes.data,
                    of_k[head, begin + panel * columns :].ctypes.data, none.ctypes.data, about_scores[0],
                    about_scores[1], scores.ctypes.data + 2 * panel * columns, 2 * broad,
                )  # fmt: skip
            for i in range(rows):
                softmax.softmax(scores[i], count, about_softmax, exp, shares[i])
            for panel in range(of_values):
                _product(shares, broad, value_room, panel, fours, rows, True, zeros, acc)
                vectors.by_columns(
                    acc.ctypes.data, rows,
                    about_context.ctypes.data + head * 8 * about_context.shape[1]
                    + 4 * ABOUT * panel * columns,
                    made.ctypes.data + 2 * panel * columns, 2 * made.shape[1],
                )  # fmt: skip
            for i in range(rows):
                for j in range(width):
                    context[top + i, head * width + j] = made[i, j]


attended_heads: Any = kernel(_attended_heads, "attention.integer.heads")

"""Layers of a Transformer with propagated scales on the CPU: norm, attention, feed-forward, as many as there are.

A few texts go through a layer at a time, so that what one step leaves is still in the cache when the next takes
it. Norms come first, the stream is int16. Every step is the kernel of its own op, and serves what that serves.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from intsim.compiling import Int, kernel, portable
from intsim.composites.attention import _cpu_propagated as attention
from intsim.composites.linear import _cpu_propagated as linear
from intsim.ops.matmul import _cpu_tile as tiles
from intsim.ops.propagate import _cpu_rows as rows

TOGETHER = 96  # rows that go through a layer together


@portable
def _norm(x: Any, norm: Any, scales: Any, h: Any, of_h: Any, policy: Int, exact: Int) -> None:
    """norm: gains and biases. scales: theirs."""
    rows.normed(x, norm[0], norm[1], scales[0], scales[1], h, of_h, policy, exact, 0, x.shape[0])


@portable
def _attend(h: Any, of_h: Any, numbers: Any, head: Any, k: Any, of_k: Any, v: Any, of_v: Any, slots: Any, stop: Any,
            x: Any, of_x: Any, left: Int, degree: Int, policy: Int, words: Any, acc: Any, by: Any,
            q: Any, of_q: Any, z: Any, of_z: Any, places: Any, spots: Any) -> None:  # fmt: skip
    """The attention added to the stream ``x``, whose rows behind the norm are ``h``. numbers: of query and out."""
    (texts, tokens), heads, count = stop.shape, k.shape[2], x.shape[0]
    linear.rescaled(
        h, of_h, numbers[0], q, of_q.reshape(-1), places, spots, linear.HEADS, policy, 0, 0, count, words, acc, by
    )
    attention.attended(
        q[:count].reshape((texts, tokens, heads, q.shape[2])), of_q[:count].reshape((texts, tokens, heads)),
        k, of_k, v, of_v, slots, stop, head, degree, policy, z, of_z, 0, texts,
    )  # fmt: skip
    rows.rescaled(z, of_z.reshape(-1), h, of_h, policy, 0, 0, count)
    linear.summed(x, of_x, h, of_h, numbers[1], x, of_x, left, policy, 0, count, words, acc, by)


def _layer_rows(
    x: Any, of_x: Any, maps: Any, norms: Any, of_norms: Any, heads: Any,
    k: Any, of_k: Any, v: Any, of_v: Any, slots: Any, stop: Any, places: Any, spots: Any,
    source_k: Any, of_source_k: Any, source_v: Any, of_source_v: Any, seen: Any,
    feed: int, left: int, degree: int, policy: int, exact: int, q: Any, made: Any,
) -> None:  # fmt: skip
    """The stream x, int16 [texts * tokens, width], through all layers, in place; behind the last norm as ``q``, int8.

    maps: int64 [maps, FIELDS], ``Layer.numbers`` in the order of use. norms: int32 [norms, 2, width], of_norms: int64
    [norms, 2], gains, then biases. heads: int64 [attentions, ..], see ``head_arguments``. slots: int32 [texts]. stop:
    int32 [texts, tokens], how many of the columns a token sees. k, v: the keys and values that the layers write,
    row i of the stream at ``places[i]``, and read: [layers or 1, slots, columns, heads, width of a head]; their scales
    [layers or 1, slots, groups, columns in whole registers, HEADS], the first head's at ``spots[i]``. source_..,
    seen: the same for the cross-attention, if there are any.
    """
    (texts, tokens), (_, _, _, count_of_heads, d), width = stop.shape, k.shape, x.shape[1]
    apart, crosses = of_k.shape[3] * linear.HEADS, source_k.shape[0] > 0
    each, ahead = (8, 2) if crosses else (6, 1)  # linear maps and attentions of a layer
    most, depth, broad = max(TOGETHER // tokens, 1), np.int64(0), np.int64(0)
    for m in range(maps.shape[0]):
        depth, broad = max(depth, maps[m, linear.DEPTH]), max(broad, maps[m, linear.PANELS] * tiles.width())
    words, acc, by = linear.room(depth, broad, count_of_heads)
    block = most * tokens
    h, of_h = np.empty((block, width), np.int8), np.empty(block, np.int64)
    own, of_own = np.empty((block, count_of_heads, d), np.int8), np.empty((block, count_of_heads), np.int64)
    z, of_z = np.empty((block, width), np.int32), np.empty((most, tokens), np.int64)
    fed, of_fed = np.empty((block, 1, feed), np.int8), np.empty(block, np.int64)
    every, by_heads = np.arange(block), np.arange(block) * count_of_heads
    for layer in range(maps.shape[0] // each):
        i, m, n, a = min(layer, k.shape[0] - 1), layer * each, layer * (ahead + 1), layer * ahead
        own_k, own_of_k, own_v, own_of_v = k[i], of_k[i], v[i], of_v[i]
        into_k, into_v = own_k.reshape((-1, count_of_heads, d)), own_v.reshape((-1, count_of_heads, d))
        for at in range(0, texts, most):
            to = min(at + most, texts)
            top, bottom = at * tokens, to * tokens
            count, to_keys, to_scales = bottom - top, places[top:bottom], spots[top:bottom]
            part, scales = x[top:bottom], of_x[top:bottom]
            _norm(part, norms[n], of_norms[n], h, of_h, policy, exact)
            linear.rescaled(
                h, of_h, maps[m], into_k, own_of_k.reshape(-1), to_keys, to_scales, apart, policy, 0, 0, count,
                words, acc, by,
            )  # fmt: skip
            linear.rescaled(
                h, of_h, maps[m + 1], into_v, own_of_v.reshape(-1), to_keys, to_scales, apart, policy, 0, 0, count,
                words, acc, by,
            )  # fmt: skip
            _attend(
                h, of_h, maps[m + 2 : m + 4], heads[a], own_k, own_of_k, own_v, own_of_v, slots[at:to], stop[at:to],
                part, scales, left, degree, policy, words, acc, by, own, of_own, z, of_z, every, by_heads,
            )  # fmt: skip
            if crosses:
                _norm(part, norms[n + 1], of_norms[n + 1], h, of_h, policy, exact)
                _attend(
                    h, of_h, maps[m + 4 : m + 6], heads[a + 1], source_k[layer], of_source_k[layer],
                    source_v[layer], of_source_v[layer], slots[at:to], seen[at:to],
                    part, scales, left, degree, policy, words, acc, by, own, of_own, z, of_z, every, by_heads,
                )  # fmt: skip
            _norm(part, norms[n + ahead], of_norms[n + ahead], h, of_h, policy, exact)
            up, down = maps[m + each - 2], maps[m + each - 1]
            linear.rescaled(h, of_h, up, fed, of_fed, every, every, 0, policy, 1, 0, count, words, acc, by)
            linear.summed(
                part, scales, fed.reshape((block, feed)), of_fed, down, part, scales, left, policy, 0, count,
                words, acc, by,
            )  # fmt: skip
    last = norms.shape[0] - 1
    _norm(x, norms[last], of_norms[last], q, made, policy, exact)


layer_rows: Any = kernel(_layer_rows, "attention.layers.rows")

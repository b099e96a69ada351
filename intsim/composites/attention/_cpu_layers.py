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
def _attend(h: Any, of_h: Any, numbers: Any, head: Any, k: Any, of_k: Any, v: Any, of_v: Any, slots: Any, stop: Any,
            x: Any, of_x: Any, left: Int, degree: Int, policy: Int, at: Int, to: Int,
            words: Any, acc: Any, by: Any, q: Any, of_q: Any, z: Any, of_z: Any, places: Any,
            spots: Any) -> None:  # fmt: skip
    """The attention of texts [at, to) added to the stream; h: its rows behind the norm. numbers: of query and out."""
    tokens, heads = stop.shape[1], k.shape[2]
    count, top = (to - at) * tokens, at * tokens
    linear.rescaled(h, of_h, numbers[0], q, of_q.reshape(-1), places, spots, 1, policy, 0, 0, count, words, acc, by)
    attention.attended(
        q[:count].reshape((to - at, tokens, heads, q.shape[2])), of_q[:count].reshape((to - at, tokens, heads)),
        k, of_k, v, of_v, slots[at:to], stop[at:to], head, degree, policy, z, of_z, 0, to - at,
    )  # fmt: skip
    rows.rescaled(z, of_z.reshape(-1), h, of_h, policy, 0, 0, count)
    stream, scales = x[top : top + count], of_x[top : top + count]
    linear.summed(stream, scales, h, of_h, numbers[1], stream, scales, left, policy, 0, count, words, acc, by)


def _layer_rows(
    x: Any, of_x: Any, maps: Any, norms: Any, of_norms: Any, heads: Any,
    k: Any, of_k: Any, v: Any, of_v: Any, slots: Any, stop: Any, places: Any, spots: Any,
    source_k: Any, of_source_k: Any, source_v: Any, of_source_v: Any, seen: Any,
    feed: int, left: int, degree: int, policy: int, exact: int, q: Any, made: Any,
) -> None:  # fmt: skip
    """The stream x, int16 [texts * tokens, width], through all layers, in place; behind the last norm as ``q``, int8.

    maps: int64 [maps, FIELDS], ``Layer.numbers`` in the order of use. norms: int32 [norms, 2, width], of_norms: int64
    [norms, 2], gains, then biases. heads: int64 [attentions, ..], see ``head_arguments``. k, v: the keys and values
    that the layers write, row i of the stream at ``places[i]``, and read: [layers or 1, slots, columns, heads, width
    of a head]; their scales [layers or 1, slots, heads, columns padded], the first head's at ``spots[i]``. slots: int32 [texts]. stop: int32 [texts, tokens], how many of the columns a token sees. source_..,
    seen: the same for the cross-attention, if there are any.
    """
    (texts, tokens), (_, _, _, count_of_heads, d), width = stop.shape, k.shape, x.shape[1]
    padded = of_k.shape[3]
    crosses = source_k.shape[0] > 0
    each = 8 if crosses else 6  # linear maps a layer
    most, depth, broad = max(TOGETHER // tokens, 1), np.int64(0), np.int64(0)
    for m in range(maps.shape[0]):
        depth = max(depth, maps[m, linear.DEPTH])
        broad = max(broad, maps[m, linear.PANELS] * tiles.width())
    words, acc, by = linear.room(depth, broad, count_of_heads)
    block = most * tokens
    h, of_h = np.empty((block, width), np.int8), np.empty(block, np.int64)
    own, of_own = np.empty((block, count_of_heads, d), np.int8), np.empty((block, count_of_heads), np.int64)
    z, of_z = np.empty((block, width), np.int32), np.empty((most, tokens), np.int64)
    fed, of_fed = np.empty((block, 1, feed), np.int8), np.empty(block, np.int64)
    every, heads_apart = np.arange(block), np.arange(block) * count_of_heads
    n, a = 0, 0
    for first in range(0, maps.shape[0], each):
        layer = first // each
        i = layer if k.shape[0] > 1 else 0
        own_k, own_of_k, own_v, own_of_v = k[i], of_k[i], v[i], of_v[i]
        into_k, into_v = own_k.reshape((-1, count_of_heads, d)), own_v.reshape((-1, count_of_heads, d))
        for at in range(0, texts, most):
            to = min(at + most, texts)
            top, bottom = at * tokens, to * tokens
            count, to_keys, to_scales = bottom - top, places[top:bottom], spots[top:bottom]
            part, scales = x[top:bottom], of_x[top:bottom]
            rows.normed(
                part, norms[n, 0], norms[n, 1], of_norms[n, 0], of_norms[n, 1], h, of_h, policy, exact, 0, count
            )
            linear.rescaled(
                h,
                of_h,
                maps[first],
                into_k,
                own_of_k.reshape(-1),
                to_keys,
                to_scales,
                padded,
                policy,
                0,
                0,
                count,
                words,
                acc,
                by,
            )
            linear.rescaled(
                h,
                of_h,
                maps[first + 1],
                into_v,
                own_of_v.reshape(-1),
                to_keys,
                to_scales,
                padded,
                policy,
                0,
                0,
                count,
                words,
                acc,
                by,
            )
            _attend(
                h, of_h, maps[first + 2 : first + 4], heads[a], own_k, own_of_k, own_v, own_of_v, slots, stop,
                x, of_x, left, degree, policy, at, to, words, acc, by, own, of_own, z, of_z, every, heads_apart,
            )  # fmt: skip
            if crosses:
                rows.normed(
                    part, norms[n + 1, 0], norms[n + 1, 1], of_norms[n + 1, 0], of_norms[n + 1, 1], h, of_h, policy, exact, 0, count,
                )  # fmt: skip
                _attend(
                    h, of_h, maps[first + 4 : first + 6], heads[a + 1], source_k[layer], of_source_k[layer],
                    source_v[layer], of_source_v[layer], slots, seen,
                    x, of_x, left, degree, policy, at, to, words, acc, by, own, of_own, z, of_z, every, heads_apart,
                )  # fmt: skip
            last = n + (2 if crosses else 1)
            rows.normed(
                part, norms[last, 0], norms[last, 1], of_norms[last, 0], of_norms[last, 1], h, of_h, policy, exact, 0, count,
            )  # fmt: skip
            up, down = maps[first + each - 2], maps[first + each - 1]
            linear.rescaled(h, of_h, up, fed, of_fed, every, every, 1, policy, 1, 0, count, words, acc, by)
            linear.summed(
                part,
                scales,
                fed.reshape((block, feed)),
                of_fed,
                down,
                part,
                scales,
                left,
                policy,
                0,
                count,
                words,
                acc,
                by,
            )
        n, a = n + (3 if crosses else 2), a + (2 if crosses else 1)
    rows.normed(x, norms[n, 0], norms[n, 1], of_norms[n, 0], of_norms[n, 1], q, made, policy, exact, 0, x.shape[0])


layer_rows: Any = kernel(_layer_rows, "attention.layers.rows")

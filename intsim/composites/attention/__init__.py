"""Attention: softmax(q k^T) v in integers. What every variant shares: the ports and the wire.

    logits = requantize(matmul(q, k));  out = requantize(matmul(softmax(logits, visible), v^T))

Row i sees column j where ``j < stop[i]`` and ``mask[i, j]`` is not 0. Causal (stop = past + i + 1),
padding (stop = length) and a cache with room to spare (t = capacity) are the same input; sliding
windows, left padding, trees and documents packed in one row need the mask. A hidden column adds
nothing, whatever it holds; a row that sees nothing gives what a product of zeros requantizes to.

Heads and batches are leading dimensions, and they broadcast. Grouped queries: q (batch, kv heads,
group, m, c) with k and v (batch, kv heads, 1, t, c). There is no bias on the logits (ALiBi, T5).

Flags: those of ``score`` and ``logit`` count hidden columns too (garbage in a cache may saturate
there); those of ``softmax`` stand where the wire moved a column, if ``mask`` hides others before it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np

from intsim.numerics import IntType, int8, int32, uint8
from intsim.op import Port, Tuned
from intsim.ops.columns import back, to_front

LAWS = ()

INPUTS = (
    Port("q", "m c", int8),
    Port("k", "t c", int8),
    Port("v", "t d", int8),
    Port("stop", "m", int32, fill="t", upto="t"),
    Port("mask", "m t", uint8, fill=1),
)
OUTPUTS = (Port("out", "m d", int8),)


def attention(softmax: str, run: Any, q: Any, k: Any, v: Any, stop: Any, mask: Any, p: Any) -> Any:
    """The wire of every variant; softmax: the op that turns logits into probabilities.

    A softmax takes ``stop`` alone, so a row's visible columns move to its front, and their
    probabilities back: none of these softmaxes depends on the order of the columns. A hidden column
    gets the zero point of ``mix``, which is also what the softmax gives the columns from ``stop`` on.
    """
    scores = run("matmul.integer", q, k, p=p.score)
    logits = run("requantize.single_rounding", scores, p=p.logit)
    move, put_back = moves(p.logit.dtype, p.mix.a, p.mix.a_zero_point)
    front, seen = run("columns.to_front", logits, stop, mask, p=move)
    probability = run("columns.back", run(softmax, front, seen, p=p.softmax), stop, mask, p=put_back)
    mixed = run("matmul.integer", probability, v.swapaxes(-1, -2), p=p.mix)
    return run("requantize.single_rounding", mixed, p=p.out)


@cache  # a stage keeps what it made for its parameters, so they are the same objects in every call
def moves(logit: IntType, probability: IntType, hidden: int) -> tuple[to_front.Params, back.Params]:
    """The parameters of the stages that move columns."""
    return to_front.Params(logit), back.Params(hidden, probability)


KEYS_OF_ONE_KERNEL = 896  # what a block's 99 KiB of shared memory hold beside 16 rows


def in_one_kernel(function: str, terms_fit: Callable[[Any], bool] = lambda p: True) -> tuple[Tuned, ...]:
    """The fused kernel of a variant; terms_fit: whether every term of the softmax is an int32."""

    def serves(p: Any, size: Mapping[str, int]) -> bool:
        widths = size["c"], size["d"]
        whole = all(w % 16 == 0 and 16 <= w <= 128 for w in widths)
        return whole and size["t"] <= KEYS_OF_ONE_KERNEL and terms_fit(p.softmax)

    where = f"intsim.composites.attention._cuda_fused:{function}"
    alone = Tuned("cuda", where, serves, capability=(8, 0))
    return alone, replace(alone, where=f"{where}_stacked", leading=True, strided=True)


def examples_of(plain: Any, per_channel: Any, saturating: Any) -> dict[str, Any]:
    """The calls that every variant states; the parameters are for c = 3, t = 5 and d = 2."""
    q = np.array([[-128, 127, 1], [127, 127, 127], [0, 0, 0], [5, -3, 9]], np.int8)
    k = np.array([[-128, 127, 0], [-128, -128, -128], [127, 127, 127], [1, 2, 3], [-9, 4, 0]], np.int8)
    v = np.array([[-128, 127], [127, -128], [1, 0], [-7, 100], [64, -64]], np.int8)
    causal = np.array([2, 3, 4, 5], np.int32)
    window = np.array([[1, 1, 0, 0, 0], [0, 1, 1, 0, 0], [0, 0, 0, 0, 0], [0, 0, 0, 1, 1]], np.uint8)
    return {
        "every row sees every column": ((q, k, v), plain),
        "equal logits: a mean": ((q * 0, k, v), plain),
        "causal: 1 column more a row": ((q, k, v, causal), plain),
        "a sliding window; a row that sees nothing": ((q, k, v, None, window), plain),
        "causal and masked; zero points and scales per key and per channel": ((q, k, v, causal, window), per_channel),
        "logits and results saturate": ((q, k, v, causal), saturating),
    }

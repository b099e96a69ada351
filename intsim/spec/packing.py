"""Four-bit integers, two a byte, along the last axis."""

from __future__ import annotations

from typing import Any

import numpy as np

from intsim.numerics import IntType, Nibbles


def unpack(byte: Any, t: IntType, nibbles: Nibbles) -> Any:
    """The elements of ``t`` in each byte; the last axis becomes twice as long."""
    low, high = byte % 16, byte // 16
    pair = (low, high) if nibbles == Nibbles.LOW_FIRST else (high, low)
    x = np.stack(pair, axis=-1).reshape(*byte.shape[:-1], 2 * byte.shape[-1])
    return (x - t.qmin) % 16 + t.qmin


def pack(q: Any, nibbles: Nibbles) -> Any:
    """``q`` (4-bit values) two a byte as uint8; an odd last axis is padded with a zero."""
    q = np.asarray(q)
    if q.shape[-1] % 2:
        q = np.concatenate([q, np.zeros_like(q[..., :1])], axis=-1)
    even, odd = q[..., 0::2].astype(np.int64) & 15, q[..., 1::2].astype(np.int64) & 15
    low, high = (even, odd) if nibbles == Nibbles.LOW_FIRST else (odd, even)
    return (low | high << 4).astype(np.uint8)

"""Data for cases: the same on every machine, from SHAKE-256, and whole domains."""

from __future__ import annotations

import hashlib

import numpy as np

from intsim.binding import Array

PAIRS = [np.ascontiguousarray(v) for v in np.mgrid[-128:128, -128:128].astype(np.int8)]  # every pair of int8


def drawn(text: str, t: str, *shape: int) -> Array:
    """Pseudorandom integers over all of the NumPy type ``t``; other text, other numbers."""
    size = int(np.prod(shape)) * np.dtype(t).itemsize
    raw = np.frombuffer(hashlib.shake_256(text.encode()).digest(size), np.dtype(t).newbyteorder("<"))
    return raw.astype(t).reshape(shape)

"""An integer constant beside the real number that it encodes; a test checks every pair."""

from __future__ import annotations

PAIRS: list[tuple[int, float, int]] = []


def fixed(raw: int, real: float, *, fraction_bits: int) -> int:
    """``raw``, which stands for ``real`` with so many fraction bits (to the nearest, or one off)."""
    PAIRS.append((raw, real, fraction_bits))
    return raw

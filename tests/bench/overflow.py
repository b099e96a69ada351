"""Accumulators that are watched beside the plain product: how many times as long each takes.

The weights are known beforehand. With 16 bits most sums of uniform operands saturate on the way; with 24 none does, but
the largest operands would, so that each tile has to be proved.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

import intsim
from intsim.numerics import IntType, Overflow
from tests.bench.frame import OURS, Case

SHAPES = ((192, 768, 768), (128, 768, 3072), (512, 512, 512))


def cases(threads: int) -> Iterator[Case]:
    draw = np.random.default_rng(0)
    for bits in (8, 7):
        for m, k, n in SHAPES:
            a = draw.integers(-128, 128, (m, k)).astype(np.int8)
            b = draw.integers(-(2 ** (bits - 1)), 2 ** (bits - 1), (n, k)).astype(np.int8)
            yield Case(f"{m} x {k} x {n}, weights of {bits} bits", _ways(a, b), {})


def _ways(a: Any, b: Any) -> dict[str, Callable[[], object]]:
    def way(name: str, **fields: Any) -> Callable[[], object]:
        ours = intsim.prepare(name, p=intsim.get(name).params(**fields), constant={"b": b})
        return lambda: ours(a)

    saturating = {"overflow": Overflow.SATURATE}
    return {
        OURS: way("matmul.integer"),
        "wraps at 16 bits": way("matmul.integer", acc=IntType(16)),
        "counted, 16 bits": way("matmul.counted", acc=IntType(16)),
        "counted, 20 bits": way("matmul.counted", acc=IntType(20)),
        "saturating": way("matmul.integer", acc=IntType(16), **saturating),
        "saturating, proved": way("matmul.integer", acc=IntType(24), **saturating),
        "prefix_extremes": way("matmul.prefix_extremes"),
    }

"""Products by weights of 4 bits beside the same products by weights of 8 bits, both known beforehand."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import numpy as np

import intsim
from tests.bench.frame import Case

SHAPES = ((512, 512, 512), (2048, 2048, 2048), (128, 768, 3072), (128, 3072, 768), (1, 4096, 4096))


def cases(threads: int) -> Iterator[Case]:
    draw, op = np.random.default_rng(0), intsim.get("matmul.integer")
    for m, k, n in SHAPES:
        a = draw.integers(-128, 128, (m, k)).astype(np.int8)
        bytes_ = draw.integers(-128, 128, (n, k)).astype(np.int8)
        nibbles = draw.integers(0, 256, (n, k // 2)).astype(np.uint8)
        four = intsim.prepare(op, p=op.params(b=intsim.int4), constant={"b": nibbles})
        eight = intsim.prepare(op, p=op.params(), constant={"b": bytes_})
        yield Case(f"{m} x {k} x {n}", {"intsim": partial(four, a), "8-bit weights": partial(eight, a)}, {})

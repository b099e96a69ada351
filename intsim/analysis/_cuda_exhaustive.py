"""The kernel of ``exhaustive``: two elements on one accumulator after the other, which never leaves a register."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np

from intsim.backends.cuda_compile import Kernel
from intsim.backends.cuda_intrinsics import cuda
from intsim.records import fields_class


def comparison(one: Any, p: Any, other: Any, r: Any) -> Kernel:
    """``f(found, low, high)``: found[0] += the number of accumulators for which the elements differ, found[1] the least."""
    word = np.int32
    fields = fields_class("acc")

    def compare(found: Any, low: int, high: int) -> None:
        acc = cuda.local.array((1, 1), word)
        step = np.int64(cuda.gridDim.x) * cuda.blockDim.x
        at = low + np.int64(cuda.blockIdx.x) * cuda.blockDim.x + cuda.threadIdx.x
        count, least = np.int64(0), np.int64(2147483648)
        while at <= high:
            acc[0, 0] = at
            x = fields(acc)
            if one(0, 0, x, p) != other(0, 0, x, r):
                count += 1
                least = min(least, at)
            at += step
        if count > 0:
            cuda.atomic.add(found, 0, count)
            cuda.atomic.min(found, 1, least)

    said = f"{one.__module__} {p} {other.__module__} {r}"
    return Kernel(compare, f"exhaustive_{hashlib.sha256(said.encode()).hexdigest()[:24]}", launch_bounds=256)

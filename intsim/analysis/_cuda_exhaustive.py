"""The kernel of ``exhaustive``: two elements on one accumulator after the other, which never leaves a register."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np

from intsim.backends.cuda_compile import Kernel
from intsim.backends.cuda_intrinsics import cuda, int32, int64
from intsim.records import fields_class


def comparison(one: Any, p: Any, other: Any, r: Any, *, least: bool) -> Kernel:
    """``f(found, low, high)``: adds to found[0] on how many accumulators of [low, high] the elements differ.

    least: takes found[1] down to the least of them instead; apart, because counting alone is faster.
    """
    word, fields = np.int32, fields_class("acc")

    def count(found: Any, low: int, high: int) -> None:
        acc = cuda.local.array((1, 1), word)
        step = np.int64(cuda.gridDim.x) * cuda.blockDim.x
        first = low + np.int64(cuda.blockIdx.x) * cuda.blockDim.x + cuda.threadIdx.x
        turns, stride = int32((high - first) // step + 1), int32(step)
        at, differ = int32(first), int32(0)
        while turns > 0:
            acc[0, 0] = at
            x = fields(acc)
            if one(0, 0, x, p) != other(0, 0, x, r):
                differ = int32(differ + 1)
            at, turns = int32(at + stride), int32(turns - 1)
        if differ > 0:
            cuda.atomic.add(found, 0, int64(differ))

    def lowest(found: Any, low: int, high: int) -> None:
        acc = cuda.local.array((1, 1), word)
        step = np.int64(cuda.gridDim.x) * cuda.blockDim.x
        at = low + np.int64(cuda.blockIdx.x) * cuda.blockDim.x + cuda.threadIdx.x
        while at <= high:
            acc[0, 0] = at
            x = fields(acc)
            if one(0, 0, x, p) != other(0, 0, x, r):
                cuda.atomic.min(found, 1, at)
                return
            at += step

    said = f"{least} {one.__module__} {p} {other.__module__} {r}"
    name = f"exhaustive_{hashlib.sha256(said.encode()).hexdigest()[:24]}"
    return Kernel(lowest if least else count, name, launch_bounds=256)

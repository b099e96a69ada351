"""The kernel of ``exhaustive``: two elements on one accumulator after the other, which never leaves a register."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np

from intsim.backends.cuda_compile import Kernel
from intsim.backends.cuda_intrinsics import cuda, int32, int64, on_device
from intsim.records import fields_class


def of_program(element: Any, p: Any, bits: int) -> Any:
    """The program's element, with the parameters compiled in, as a function of an int32; bits: of its results."""
    word, fields, result_of = np.int32, fields_class("acc"), int32 if bits <= 32 else int64

    @on_device
    def result(at: int) -> int:
        acc = cuda.local.array((1, 1), word)
        acc[0, 0] = at
        return result_of(element(0, 0, fields(acc), p))

    return result


def comparison(one: Any, other: Any, said: str, *, least: bool) -> Kernel:
    """``f(found, low, high)``: adds to found[0] on how many accumulators of [low, high] two functions differ.

    said: what tells these two from any others. least: takes found[1] down to the least of them instead; apart,
    because counting alone is faster.
    """

    def count(found: Any, low: int, high: int) -> None:
        step = np.int64(cuda.gridDim.x) * cuda.blockDim.x
        first = low + np.int64(cuda.blockIdx.x) * cuda.blockDim.x + cuda.threadIdx.x
        turns, stride = int32((high - first) // step + 1), int32(step)
        at, differ = int32(first), int32(0)
        while turns > 0:
            if one(at) != other(at):
                differ = int32(differ + 1)
            at, turns = int32(at + stride), int32(turns - 1)
        if differ > 0:
            cuda.atomic.add(found, 0, int64(differ))

    def lowest(found: Any, low: int, high: int) -> None:
        step = np.int64(cuda.gridDim.x) * cuda.blockDim.x
        at = low + np.int64(cuda.blockIdx.x) * cuda.blockDim.x + cuda.threadIdx.x
        while at <= high:
            if one(int32(at)) != other(int32(at)):
                cuda.atomic.min(found, 1, at)
                return
            at += step

    name = f"exhaustive_{hashlib.sha256(f'{least} {said}'.encode()).hexdigest()[:24]}"
    return Kernel(lowest if least else count, name, launch_bounds=256)

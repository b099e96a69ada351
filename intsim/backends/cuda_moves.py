"""Moving elements on the GPU: copies into C order, and the least and greatest of an array."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import cuda

from intsim.backends.cuda_arrays import DeviceArray
from intsim.backends.cuda_compile import Kernel
from intsim.backends.cuda_exchange import allocator, empty, upload
from intsim.backends.cuda_queue import issue

AXES = 6  # an array with more dimensions is folded before it is moved
THREADS = 128
MOST_THREADS = 1 << 18  # enough to fill a GPU; each takes several elements of a larger array


def _copy(source: Any, out: Any, shape: Any, strides: Any) -> None:
    """out[i] = the element at place i, in C order, of the strided array that begins at source[0]."""
    step = cuda.gridDim.x * cuda.blockDim.x
    at = cuda.grid(1)
    while at < out.shape[0]:
        rest, place = np.int64(at), np.int64(0)
        for axis in range(AXES - 1, -1, -1):
            place += rest % shape[axis] * strides[axis]
            rest //= shape[axis]
        out[at] = source[place]
        at += step


def _extremes(a: Any, out: Any, signed_magnitude: Any) -> None:
    """out[0], out[1] = the least and the greatest of a; of floats, of their place in the order of all floats."""
    step = cuda.gridDim.x * cuda.blockDim.x
    at = cuda.grid(1)
    if at >= a.shape[0]:
        return
    least, most = np.int64(2**62), np.int64(-(2**62))
    while at < a.shape[0]:
        value = np.int64(a[at])
        if signed_magnitude and value < 0:
            value = -(value & np.int64(0x7FFF_FFFF))
        least, most = min(least, value), max(most, value)
        at += step
    cuda.atomic.min(out, 0, least)
    cuda.atomic.max(out, 1, most)


COPY, EXTREMES = Kernel(_copy), Kernel(_extremes)


def _blocks(a: DeviceArray) -> tuple[int, int]:
    threads = min(THREADS, a.size)
    return -(-min(a.size, MOST_THREADS) // threads), threads


def copied(a: DeviceArray) -> DeviceArray:
    """A copy of ``a`` with its elements in C order."""
    out = empty(a.gpu, a.shape, a.dtype, a.stream, allocator(a))
    out.holds = a.holds
    if a.size:
        lead = AXES - a.ndim
        shape = (1,) * lead + a.shape
        strides = (0,) * lead + a.strides
        reach = 1 + sum((n - 1) * s for n, s in zip(a.shape, a.strides, strict=True))
        source = DeviceArray(a.gpu, a.pointer, (reach,), a.dtype, a.stream, a)
        grid, block = _blocks(a)
        issue(a.gpu, a.stream, COPY, grid, block, (source, out.reshape(-1), shape, strides))
    return out


def extremes(a: DeviceArray) -> tuple[int, int]:
    """The least and the greatest element; floats as their place in the order of all floats. Waits for the stream."""
    floats = a.dtype == np.float32
    flat = (a.view(np.int32) if floats else a).reshape(-1)
    found = upload(a.gpu, np.array([2**62, -(2**62)]), a.stream)
    grid, block = _blocks(a)
    issue(a.gpu, a.stream, EXTREMES, grid, block, (flat, found, int(floats)))
    least, most = found.to_host().tolist()
    return least, most

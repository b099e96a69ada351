"""Launching: arguments packed once, into a call that can be repeated.

Numba's own launch costs 30 to 140 us; repeating a packed call costs 6.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from intsim.backends.cuda_arrays import DeviceArray, Gpu, driver
from intsim.backends.cuda_compile import Kernel, types_of

MOST_BLOCKS = (2**31 - 1, 65535, 65535)
MOST_THREADS = 1024
STATIC_SHARED = 48 * 1024  # bytes of shared memory that every kernel may have; beyond, it has to be asked for
Dims = int | Sequence[int]

__all__ = ["MOST_BLOCKS", "MOST_THREADS", "Call", "Dims", "Kernel", "Loader", "loader", "pack"]


@dataclass(frozen=True, slots=True)
class Call:
    """One launch with all that it needs."""

    loaded: Any
    grid: tuple[int, int, int]
    block: tuple[int, int, int]
    shared: int
    packed: Any
    keeps: tuple[Any, ...]  # the arrays that the packed addresses point into
    early: bool = False  # may start while the kernel before it runs


class Loader:
    """The kernels that one GPU has loaded, by what decides their machine code."""

    def __init__(self, gpu: Gpu) -> None:
        self._gpu = gpu
        self._loaded: dict[Any, Any] = {}

    def call(self, kernel: Kernel, grid: Dims, block: Dims, arguments: tuple[Any, ...], shared: int = 0) -> Call:
        """A launch, ready to be issued. Raises ValueError for a grid or a block that no GPU runs."""
        grid, block = _dims(grid), _dims(block)
        threads = block[0] * block[1] * block[2]
        if any(not 1 <= n <= most for n, most in zip(grid, MOST_BLOCKS, strict=True)):
            raise ValueError(f"{kernel.name}: a grid of {grid} blocks; a GPU runs 1 to {MOST_BLOCKS}: split the arrays")
        if not 1 <= threads <= MOST_THREADS:
            raise ValueError(f"{kernel.name}: {threads} threads a block; a GPU runs 1 to {MOST_THREADS}")
        key = kernel.name, kernel.launch_bounds, types_of(arguments)
        if key not in self._loaded:
            self._loaded[key] = self._gpu.load(kernel, arguments)
        loaded = self._loaded[key]
        if shared > STATIC_SHARED:
            self._gpu.dynamic_shared(loaded, shared)
        return Call(
            loaded, grid, block, shared, arguments if self._gpu.simulated else pack(arguments), arguments, kernel.early
        )


@cache
def _loader(index: int) -> Loader:
    return Loader(driver().gpu(index))


def loader(gpu: Gpu) -> Loader:
    """What is loaded on ``gpu``; the same for each call."""
    return _loader(gpu.index)


def _dims(given: Dims) -> tuple[int, int, int]:
    x, y, z, *_ = (*((given,) if isinstance(given, int) else given), 1, 1, 1)
    return int(x), int(y), int(z)


@dataclass(frozen=True, slots=True)
class Packed:
    """Arguments as the driver takes them: values in 8-byte slots, the addresses of the slots, and where those lie."""

    values: Any
    slots: Any
    address: int


def pack(arguments: tuple[Any, ...]) -> Packed:
    listed: list[int] = []
    for value in arguments:
        _fill(value, listed)
    values = array("q", listed)
    first, count = values.buffer_info()
    slots = array("q", range(first, first + 8 * count, 8))
    return Packed(values, slots, slots.buffer_info()[0])


def _fill(value: Any, slots: list[int]) -> None:
    if isinstance(value, DeviceArray):  # two words that Numba does not use here, then its description of an array
        width = value.dtype.itemsize
        slots += [0, 0, value.size, width, value.pointer, *value.shape, *(s * width for s in value.strides)]
    elif isinstance(value, tuple):
        for v in value:
            _fill(v, slots)
    else:
        slots.append(int(value))

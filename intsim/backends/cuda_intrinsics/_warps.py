"""Sums, maxima and minima over the 32 lanes of a warp; every lane gets the result. All lanes have to call."""

from __future__ import annotations

from typing import Any

from numba import config, cuda

if config.ENABLE_CUDASIM:
    from intsim.backends.cuda_intrinsics._simulated import int32, int64, shuffle_xor
else:
    from intsim.backends.cuda_intrinsics._ptx import int32, int64, shuffle_xor

__all__ = ["on_device", "warp_max_64", "warp_min_64", "warp_sum_64"]


def on_device(function: Any) -> Any:
    """A function that kernels call; nothing is compiled until one is."""
    return function if config.ENABLE_CUDASIM else cuda.jit(device=True, forceinline=True)(function)


@on_device
def _other_64(x: Any, lanes: Any) -> Any:
    """int64 of the lane whose number differs in the bits ``lanes``."""
    low, high = shuffle_xor(int32(x & 0xFFFFFFFF), int32(lanes)), shuffle_xor(int32(x >> 32), int32(lanes))
    return int64((int64(high) << 32) | (int64(low) & 0xFFFFFFFF))


@on_device
def warp_sum_64(x: Any) -> Any:
    """Of int64."""
    for lanes in (16, 8, 4, 2, 1):
        x = int64(x + _other_64(x, lanes))
    return x


@on_device
def warp_max_64(x: Any) -> Any:
    """Of int64."""
    for lanes in (16, 8, 4, 2, 1):
        x = int64(max(x, _other_64(x, lanes)))
    return x


@on_device
def warp_min_64(x: Any) -> Any:
    """Of int64."""
    for lanes in (16, 8, 4, 2, 1):
        x = int64(min(x, _other_64(x, lanes)))
    return x

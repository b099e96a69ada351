"""Four neighbouring integers of 8, 16 or 32 bits, signed, as four words."""

from __future__ import annotations

from functools import cache
from typing import Any

from numba import config

from intsim.backends.cuda_intrinsics._warps import on_device

if config.ENABLE_CUDASIM:
    from intsim.backends.cuda_intrinsics._simulated import byte, int32, load_4, load_8, load_16
else:
    from intsim.backends.cuda_intrinsics._ptx import byte, int32, load_4, load_8, load_16

__all__ = ["LOAD_FOUR"]


@cache
def LOAD_FOUR(bits: int) -> Any:
    """``f(address)``; the address is a multiple of what four of them take."""

    @on_device
    def four_bytes(address: Any) -> Any:
        word = load_4(address)
        return byte(word, int32(0)), byte(word, int32(8)), byte(word, int32(16)), byte(word, int32(24))

    @on_device
    def four_halves(address: Any) -> Any:
        one, two = load_8(address)
        return int32(int32(one << 16) >> 16), int32(one >> 16), int32(int32(two << 16) >> 16), int32(two >> 16)

    return {8: four_bytes, 16: four_halves, 32: load_16}[bits]

"""The lanes that go through a row together, and how what each of them found becomes one value that all have."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

from intsim.backends.cuda_intrinsics import (
    cuda,
    int64,
    on_device,
    wait_for_kernels_before,
    warp_max_64,
    warp_meet,
    warp_min_64,
    warp_sum_64,
)

WARP = 32
BLOCK = 256


@dataclass(frozen=True, slots=True)
class Lanes:
    """A warp, or a block of ``count`` threads. The functions are for kernels; all lanes have to call them.

    first_turn(start): the first of the turns start, start + 1, ... that is this lane's.
    of_first_lane(x): x on one lane, 0 on the others.
    total_of_lanes, greatest_of_lanes, least_of_lanes: of int64, modulo 2**64.
    meet: what lanes wrote before can be read behind it.
    """

    count: int
    lane: Callable[[], int]
    total_of_lanes: Callable[[int], int]
    greatest_of_lanes: Callable[[int], int]
    least_of_lanes: Callable[[int], int]
    meet: Callable[[], None]
    first_turn: Callable[[int], int]
    of_first_lane: Callable[[int], int]
    on_device: Callable[[Any], Any] = on_device


@cache
def of_warp() -> Lanes:
    @on_device
    def lane() -> int:
        return int64(cuda.threadIdx.x & 31)

    return Lanes(WARP, lane, warp_sum_64, warp_max_64, warp_min_64, warp_meet, *_turns(lane, WARP))


@cache
def of_block() -> Lanes:
    warps = BLOCK // WARP

    @on_device
    def lane() -> int:
        return int64(cuda.threadIdx.x)

    def over_warps(of_warp: Any, join: Any) -> Any:
        @on_device
        def joined(x: int) -> int:
            parts = cuda.shared.array(warps, int64)
            thread = cuda.threadIdx.x
            x = of_warp(x)
            if thread & 31 == 0:
                parts[thread >> 5] = x
            cuda.syncthreads()
            x = int64(parts[0])
            for warp in range(1, warps):
                x = join(x, int64(parts[warp]))
            cuda.syncthreads()  # the next one overwrites the parts
            return x

        return joined

    @on_device
    def add(a: int, b: int) -> int:
        return int64(a + b)

    @on_device
    def greater(a: int, b: int) -> int:
        return int64(max(a, b))

    @on_device
    def smaller(a: int, b: int) -> int:
        return int64(min(a, b))

    @on_device
    def meet() -> None:
        cuda.syncthreads()

    joins = over_warps(warp_sum_64, add), over_warps(warp_max_64, greater), over_warps(warp_min_64, smaller)
    return Lanes(BLOCK, lane, *joins, meet, *_turns(lane, BLOCK))


def _turns(lane: Any, count: int) -> tuple[Any, Any]:
    @on_device
    def first_turn(start: int) -> int:
        made: int = int64(start) + ((lane() - int64(start)) & (count - 1))
        return made

    @on_device
    def of_first_lane(x: int) -> int:
        made: int = int64(x if lane() == 0 else 0)
        return made

    return first_turn, of_first_lane


def rows_of(row: Any, lanes: int, early: bool) -> Any:
    """A kernel in which each ``lanes`` threads go through a row together.

    It stands here because the simulator knows threads in the module of the kernel only.
    """

    def kernel(x: Any, out: Any, p: Any, size: int) -> None:
        if early:
            wait_for_kernels_before()
        i = cuda.grid(1) // lanes
        if i < out[0].shape[0]:  # alike in all lanes of a row
            row(i, x, out, p)

    return kernel

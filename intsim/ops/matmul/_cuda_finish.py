"""Sums of a matrix product through the programs of the stages that follow it, before they meet memory.

Each warp lays its registers down in shared memory, so that four neighbouring columns are one lane's, and one loop
does them all: the program is in the kernel once, however many registers a lane has.
"""

from __future__ import annotations

from typing import Any

from intsim.backends.cuda_intrinsics import (
    TO_SHARED,
    int32,
    int64,
    load_4,
    on_device,
    shared_load_4,
    store_1,
    store_4,
    unsigned_div,
    unsigned_rem,
    warp_meet,
)
from intsim.ops.matmul._cuda_result import Result


def finisher(row_blocks: int, column_blocks: int, result: Result) -> Any:
    """``f(acc, lane, scratch, top, left, out, m, n, added, more)``, by a warp.

    It holds ``row_blocks`` by ``column_blocks`` blocks of 16 by 8.

    scratch: the address of as many int32 in shared memory. top, left: where the warp's part of the result begins.
    added: int32 a column, its address.
    """
    assert result.finish is not None
    apply, bytes_wide = result.finish.apply, result.bits == 8
    to_shared, blocks, fours = TO_SHARED(4 * row_blocks * column_blocks), column_blocks, 2 * column_blocks
    units = 16 * row_blocks * fours

    @on_device
    def finish(
        acc: Any, lane: int, scratch: int, top: int, left: int, out: int, m: int, n: int, added: int, more: Any
    ) -> None:
        to_shared(acc, int32(scratch + lane * 16), int32(512))
        warp_meet()
        unit = lane
        while unit < units:
            row, four = unsigned_div(unit, int32(fours)), unsigned_rem(unit, int32(fours))
            i, first = int64(top) + row, int64(left) + 4 * four
            # the lane that had the first two of them, and the next lane the others; rows 8 to 15 come second
            block = int32((row >> 4) * blocks + (four >> 1))
            source = int32(scratch + block * 512 + ((row & 7) * 4 + (four & 1) * 2) * 16 + ((row >> 3) & 1) * 8)
            if i < m and first < n:
                # all four whatever n is, side by side: those beyond it are the last column's again, and not stored
                j1, j2, j3 = min(first + 1, n - 1), min(first + 2, n - 1), min(first + 3, n - 1)
                t0 = int64(int32(shared_load_4(source) + load_4(added + 4 * first)))
                t1 = int64(int32(shared_load_4(int32(source + 4)) + load_4(added + 4 * j1)))
                t2 = int64(int32(shared_load_4(int32(source + 16)) + load_4(added + 4 * j2)))
                t3 = int64(int32(shared_load_4(int32(source + 20)) + load_4(added + 4 * j3)))
                q0, q1 = int64(apply(t0, i, first, more[0], more[1])), int64(apply(t1, i, j1, more[0], more[1]))
                q2, q3 = int64(apply(t2, i, j2, more[0], more[1])), int64(apply(t3, i, j3, more[0], more[1]))
                if bytes_wide:
                    packed = int32((q0 & 255) | ((q1 & 255) << 8) | ((q2 & 255) << 16) | ((q3 & 255) << 24))
                    to = out + i * n + first
                    if n % 4 == 0:
                        store_4(to, packed)
                    else:
                        for column in range(4):
                            if first + column < n:
                                store_1(to + column, int32(packed >> (8 * column)))
                else:
                    to = out + (i * n + first) * 4
                    store_4(to, int32(q0))
                    if first + 1 < n:
                        store_4(to + 4, int32(q1))
                    if first + 2 < n:
                        store_4(to + 8, int32(q2))
                    if first + 3 < n:
                        store_4(to + 12, int32(q3))
            unit = int32(unit + 32)
        warp_meet()  # the memory is free again

    return finish

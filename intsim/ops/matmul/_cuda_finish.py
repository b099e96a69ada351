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
                packed = int32(0)
                for column in range(4):
                    j = first + column
                    if j < n:
                        total = int32(
                            shared_load_4(int32(source + (column >> 1) * 16 + (column & 1) * 4)) + load_4(added + 4 * j)
                        )
                        made = apply(int64(total), i, j, more[0], more[1])
                        if bytes_wide:
                            packed = int32(packed | ((int64(made) & 255) << (8 * column)))
                        else:
                            store_4(out + (i * n + j) * 4, int32(made))
                if bytes_wide:
                    if n % 4 == 0:
                        store_4(out + i * n + first, packed)
                    else:
                        for column in range(4):
                            if first + column < n:
                                store_1(out + i * n + first + column, int32(packed >> (8 * column)))
            unit = int32(unit + 32)
        warp_meet()  # the memory is free again

    return finish

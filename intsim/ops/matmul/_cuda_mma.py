"""int8 matrix product by mma.sync: any GPU from compute capability 8.0 on, and few rows on any.

A block computes ``rows`` by ``columns`` of the result. Its warps copy pieces of A and B, 128 bytes deep,
asynchronously into a ring of ``stages`` in shared memory, where the 16-byte chunks of a row are swizzled
(chunk c of row r lies at c ^ (r & 7)), so that eight lanes read eight rows without a bank conflict.
``slices`` sets of warps share the depth of a piece, and add up at the end: for shapes with few tiles.
Integer sums wrap, so no order of addition matters.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

from intsim.backends.cuda_compile import Kernel
from intsim.backends.cuda_intrinsics import (
    ADD_SUMS,
    COPIES_LEFT,
    FROM_SHARED,
    STORE_QUANTIZED,
    STORE_SUMS,
    TO_SHARED,
    WARP_PRODUCT,
    ZERO,
    commit_copies,
    copy_16,
    cuda,
    int8,
    int32,
    int64,
    shared_address,
    unsigned_div,
    unsigned_rem,
)
from intsim.ops.matmul._cuda_finish import finisher
from intsim.ops.matmul._cuda_result import Result

DEEP = 128  # bytes of K in one stage
SPAN = 8  # row tiles whose blocks run side by side, so that they share B in the L2 cache


@dataclass(frozen=True)
class Tile:
    rows: int
    columns: int
    down: int  # warps
    across: int
    slices: int
    stages: int

    @property
    def threads(self) -> int:
        return 32 * self.down * self.across * self.slices

    @property
    def shared(self) -> int:
        """Bytes of shared memory: the ring, in which the slices' sums lie at the end; and 1023 to align it.

        Behind the sums of all slices but one those lie that a program finishes: no warp waits for the others there.
        """
        ring = self.stages * DEEP * (self.rows + self.columns)
        return max(ring, self.slices * self.rows * self.columns * 4) + 1023


@cache
def kernel(tile: Tile, a_signed: bool, b_signed: bool, result: Result) -> Kernel:  # noqa: PLR0915  # one kernel
    """``f(a, b, out, m, n, k, depth, added, multiplier, shift, zero, more)``, int64 but for the last.

    a, b: m and n rows of k bytes, k a multiple of 16. Block (t, s) of the grid does tile t over the bytes from
    ``depth * s`` on, ``depth`` of them (a multiple of 128). Then four: see ``STORE_QUANTIZED``. more: the
    (x, p) of ``result.finish``, empty where there is none.
    """
    tile_rows, tile_columns, down, across, slices, stages = (
        tile.rows,
        tile.columns,
        tile.down,
        tile.across,
        tile.slices,
        tile.stages,
    )
    warp_rows, warp_columns = tile_rows // down, tile_columns // across
    row_blocks, column_blocks = warp_rows // 16, warp_columns // 8
    registers = 4 * row_blocks * column_blocks
    a_bytes, stage_bytes = DEEP * tile_rows, DEEP * (tile_rows + tile_columns)
    at_once = tile.threads // 8  # rows that all threads copy in one go, 16 bytes each
    a_turns, b_turns = tile_rows // at_once, tile_columns // at_once
    slice_bytes = DEEP // slices
    finishing = result.finish is not None
    quantized, adding = result.bits == 8 and not finishing, result.adds
    finish: Any = result.finish and finisher(row_blocks, column_blocks, result)
    span, deep, warps = SPAN, DEEP, down * across
    part = 512 * warps  # bytes that the warps of a slice store at once
    run, scratch, aside = 2 * column_blocks, 4 * warp_rows * warp_columns, 4 * (slices - 1) * tile_rows * tile_columns

    clear, copies_left = ZERO(registers), COPIES_LEFT(stages - 2)
    product = WARP_PRODUCT(row_blocks, column_blocks, 4 // slices, a_signed, b_signed)
    to_shared, from_shared = TO_SHARED(registers), FROM_SHARED(registers)
    store_sums, add_sums = (
        STORE_SUMS(row_blocks, column_blocks, result.paired, False),
        ADD_SUMS(row_blocks, column_blocks),
    )
    store_quantized = STORE_QUANTIZED(row_blocks, column_blocks, 1, result.signed, False)

    def gemm(  # noqa: PLR0915  # one kernel: its stages share registers and memory, which a function cannot hand on
        a: int, b: int, out: int, m: int, n: int, k: int, depth: int,
        added: int, multiplier: int, shift: int, zero: int, more: Any,
    ) -> None:  # fmt: skip
        thread = int32(cuda.threadIdx.x)
        lane, warp = int32(thread & 31), int32(thread >> 5)
        start = int32((shared_address(cuda.shared.array(0, int8)) + 1023) & -1024)
        rows, columns = int32(m), int32(n)
        down_tiles = unsigned_div(int32(rows + tile_rows - 1), int32(tile_rows))
        across_tiles = unsigned_div(int32(columns + tile_columns - 1), int32(tile_columns))
        index, per_span = int32(cuda.blockIdx.x), int32(span * across_tiles)
        spans = unsigned_div(index, per_span)
        high = int32(min(int32(down_tiles - spans * span), int32(span)))
        inside = int32(index - spans * per_span)
        top = int32((spans * span + unsigned_rem(inside, high)) * tile_rows)
        left = int32(unsigned_div(inside, high) * tile_columns)
        k_first = int64(cuda.blockIdx.y) * depth
        k_left = int32(min(int64(k - k_first), depth))

        # what this thread copies: chunk ``chunk`` of rows row, row + at_once, ...
        chunk, row = int32((thread & 7) * 16), int32(thread >> 3)
        lies = int32(start + row * deep + (chunk ^ ((row & 7) * 16)))
        a_from = a + int64(top + row) * k + k_first + chunk
        column = row
        if quantized:  # rows of B in the order that leaves a lane neighbouring columns: see STORE_QUANTIZED
            column = int32(
                (row & -warp_columns) + ((row & 7) >> 1) * run + 2 * ((row & (warp_columns - 1)) >> 3) + (row & 1)
            )
        b_from = b + int64(left + column) * k + k_first + chunk

        # what this warp multiplies: slice ``piece`` of the depth, of its part of the tile
        piece, place = unsigned_div(warp, int32(warps)), unsigned_rem(warp, int32(warps))
        warp_top = int32(unsigned_rem(place, int32(down)) * warp_rows)
        warp_left = int32(unsigned_div(place, int32(down)) * warp_columns)
        a_row = int32(warp_top + (lane & 15))
        a_lane = int32((a_row * deep + (((lane >> 4) ^ (a_row & 7)) * 16)) ^ (piece * slice_bytes))
        b_row = int32(warp_left + (lane & 7) + ((lane >> 4) << 3))
        b_lane = int32((b_row * deep + ((((lane >> 3) & 1) ^ (b_row & 7)) * 16)) ^ (piece * slice_bytes))

        acc = cuda.local.array(registers, int32)
        clear(acc)
        turns = int32((k_left + deep - 1) // deep)
        turn, read, written = int32(1 - stages), int32(0), int32(0)
        while turn < turns:
            if turn >= 0:
                copies_left()
                cuda.syncthreads()
            ahead = int32(turn + stages - 1)
            if ahead < turns:
                to = int32(lies + written * stage_bytes)
                offset = int64(ahead) * deep
                deep_enough = ahead * deep + chunk < k_left
                for i in range(a_turns):
                    size = int32(16) if deep_enough and top + row + i * at_once < rows else int32(0)
                    copy_16(int32(to + i * at_once * deep), a_from + offset + i * at_once * k, size)
                for i in range(b_turns):
                    on = i * at_once
                    if quantized:
                        on = (on & -warp_columns) + 2 * ((on & (warp_columns - 1)) >> 3)
                    size = int32(16) if deep_enough and left + column + on < columns else int32(0)
                    copy_16(int32(to + a_bytes + i * at_once * deep), b_from + offset + on * k, size)
                written = int32(written + 1) if written < stages - 1 else int32(0)
            commit_copies()
            if turn >= 0:
                at = int32(start + read * stage_bytes)
                product(acc, at, a_lane, int32(at + a_bytes), b_lane)
                read = int32(read + 1) if read < stages - 1 else int32(0)
            turn = int32(turn + 1)

        if slices > 1:
            cuda.syncthreads()
            mine = int32(start + (place * 32 + lane) * 16)
            if piece > 0:
                to_shared(acc, int32(mine + (piece - 1) * (part * (registers // 4))), int32(part))
            cuda.syncthreads()
            if piece > 0:
                return
            for other in range(slices - 1):
                from_shared(acc, int32(mine + other * (part * (registers // 4))), int32(part))

        if finishing:
            if slices == 1:
                cuda.syncthreads()  # nobody reads the ring any more
            finish(
                acc,
                lane,
                int32(start + aside + place * scratch),
                int32(top + warp_top),
                int32(left + warp_left),
                out,
                m,
                n,
                added,
                more,
            )
            return
        first_row = int32(top + warp_top + (lane >> 2))
        if quantized:
            first = int32(left + warp_left + (lane & 3) * run)
            to_out = out + int64(first_row) * n + first
            ahead4 = int64(first) * 4
            store_quantized(
                acc,
                to_out,
                n,
                int32(rows - first_row),
                int32(columns - first),
                added + ahead4,
                multiplier + ahead4,
                shift + first,
                int32(zero),
            )
        else:
            first = int32(left + warp_left + (lane & 3) * 2)
            to_out = out + (int64(first_row) * n + first) * 4
            if adding:
                add_sums(acc, to_out, n * 4, int32(rows - first_row), int32(columns - first))
            else:
                store_sums(
                    acc, to_out, n * 4, int32(rows - first_row), int32(columns - first), added + int64(first) * 4
                )

    shape = f"{tile_rows}x{tile_columns}_{down}x{across}x{slices}_{stages}"
    name = f"gemm_mma_{shape}_{'s' if a_signed else 'u'}{'s' if b_signed else 'u'}_{result}"
    gemm.__name__ = gemm.__qualname__ = name
    return Kernel(gemm, launch_bounds=tile.threads)

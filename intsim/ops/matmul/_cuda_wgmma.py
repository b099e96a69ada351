"""int8 matrix product by wgmma and the tensor copy engine: Hopper, compute capability 9.0.

As many blocks as there are multiprocessors each do one tile after another. Of a block's warps, groups of four
compute 64 rows each; one thread of one more warp orders the copies. They go into a ring of stages: a barrier a
stage says that it is full, another that it is empty again. The two sides count stages on their own, and run on
through all tiles, so that the copies for the next tile pass while a result is stored.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

from intsim.backends.cuda_compile import Kernel
from intsim.backends.cuda_intrinsics import (
    GROUP_PRODUCT,
    GROUPS_LEFT,
    SETTLED,
    STORE_FOURS,
    STORE_QUANTIZED,
    STORE_SUMS,
    ZERO,
    acquire_map,
    barrier_arrive,
    barrier_expect,
    barrier_init,
    barrier_passed,
    barriers_visible,
    copy_bytes,
    copy_tile,
    copy_tile_by_16,
    cuda,
    group_commit,
    group_fence,
    int8,
    int32,
    int64,
    shared_address,
    tensor_map,
    unsigned_div,
    unsigned_rem,
)
from intsim.ops.matmul._cuda_finish import finisher
from intsim.ops.matmul._cuda_result import Result

DEEP = 128  # bytes of K in one stage
SPAN = 8  # row tiles whose blocks run side by side, so that they share B in the L2 cache


@dataclass(frozen=True)
class Tile:
    groups: int  # of four warps, 64 rows each
    columns: int
    stages: int
    blocks: int = 1  # on a multiprocessor at a time

    @property
    def rows(self) -> int:
        return 64 * self.groups

    @property
    def threads(self) -> int:
        return 128 * self.groups + 32

    @property
    def stage_bytes(self) -> int:
        return DEEP * (self.rows + self.columns)

    @property
    def field_bytes(self) -> int:
        """What a tile's columns need at the end: what is added, a multiplier, a shift. Multiples of 16 each."""
        return -(-9 * self.columns // 16) * 16

    def shared(self, result: Result) -> int:
        """Bytes of shared memory: the ring, fields of as many tiles as can be under way, barriers, the alignment.

        The copies run ahead of the results by at most ``stages`` pieces, so by as many tiles. What finishes sums
        needs room for those of a tile.
        """
        sums = 0 if result.finish is None else 4 * self.rows * self.columns + 127
        return self.stages * (self.stage_bytes + 16) + (self.stages + 1) * self.field_bytes + sums + 1023


def maps(tile: Tile, a: int, b: int, m: int, n: int, k: int, result: Result) -> tuple[tuple[int, ...], ...]:
    """The tensor maps of both operands at these addresses; k and the addresses are multiples of 16.

    So that a lane has neighbouring columns, a tile of B has its rows in another order, in groups of 8 times
    ``blocks``: row 8 j + 2 u + v of a group is column 2 blocks u + 2 j + v. That is a tensor of five dimensions,
    and the copy engine orders them. It needs n to be a multiple of a group.
    """
    of_a, blocks = tensor_map(a, (k, m), (k,), (DEEP, tile.rows)), blocks_together(result)
    if blocks == 1:
        return of_a, tensor_map(b, (k, n), (k,), (DEEP, tile.columns))
    sizes, strides = (k, 2, 4, blocks, n // (8 * blocks)), (k, 2 * blocks * k, 2 * k, 8 * blocks * k)
    return of_a, tensor_map(b, sizes, strides, (DEEP, 2, 4, blocks, tile.columns // (8 * blocks)))


def blocks_together(result: Result) -> int:
    """Of how many blocks of 8 columns a lane's columns are neighbours: 16 bytes of result."""
    if result.finish is not None:
        return 1
    return 8 if result.bits == 8 else 2 if result.fours else 1


@cache
def kernel(tile: Tile, a_signed: bool, b_signed: bool, result: Result) -> Kernel:  # noqa: PLR0915  # one kernel
    """``f(a_map, b_map, out, m, n, k, added, multiplier, shift, zero, more)``, int64 but for the last.

    The maps lie in global memory, 64-byte aligned. Blocks: any number. Then four: see ``STORE_QUANTIZED``.
    more: the (x, p) of ``result.finish``, empty where there is none.
    """
    groups, tile_rows, tile_columns, stages = tile.groups, tile.rows, tile.columns, tile.stages
    stage_bytes, a_bytes, deep, span = tile.stage_bytes, DEEP * tile.rows, DEEP, SPAN
    finishing, registers = result.finish is not None, tile_columns // 2
    quantized = result.bits == 8 and not finishing
    field_bytes, per_column = tile.field_bytes, 9 if quantized else 4
    finish: Any = result.finish and finisher(1, tile_columns // 8, result)
    clear, product, settled = ZERO(registers), GROUP_PRODUCT(tile_columns, a_signed, b_signed), SETTLED(registers)
    one_left, none_left = GROUPS_LEFT(1), GROUPS_LEFT(0)
    store_sums = STORE_FOURS(1, tile_columns // 8) if result.fours else STORE_SUMS(1, tile_columns // 8, True, True)
    store_quantized: Any = STORE_QUANTIZED(1, 8, tile_columns // 64, result.signed, True) if quantized else None
    b_unit = 8 * blocks_together(result) if quantized or result.fours else 1  # how the map counts rows of B
    load_b, run = (copy_tile if b_unit == 1 else copy_tile_by_16), 4 if result.fours else 2

    def gemm(  # noqa: PLR0915  # one kernel: its stages share registers and memory, which a function cannot hand on
        a_map: int, b_map: int, out: int, m: int, n: int, k: int, added: int, multiplier: int, shift: int, zero: int,
        more: Any,
    ) -> None:  # fmt: skip
        thread = int32(cuda.threadIdx.x)
        start = int32((shared_address(cuda.shared.array(0, int8)) + 1023) & -1024)
        fields = int32(start + stages * stage_bytes)
        full = int32(fields + (stages + 1) * field_bytes)  # two barriers of 8 bytes a stage: full, then empty
        if thread == 0:
            for stage in range(stages):
                barrier_init(int32(full + 16 * stage), int32(1))
                barrier_init(int32(full + 16 * stage + 8), int32(groups))
            barriers_visible()
        acquire_map(a_map)
        acquire_map(b_map)
        cuda.syncthreads()

        rows, columns = int32(m), int32(n)
        down = unsigned_div(int32(rows + tile_rows - 1), int32(tile_rows))
        across = unsigned_div(int32(columns + tile_columns - 1), int32(tile_columns))
        per_span, tiles, blocks = int32(span * across), int32(down * across), int32(cuda.gridDim.x)
        turns = int32((k + deep - 1) // deep)
        stage, parity, slot = int32(0), int32(0), int32(0)
        index = int32(cuda.blockIdx.x)
        if thread >= 128 * groups:
            if thread == 128 * groups:
                while index < tiles:
                    spans = unsigned_div(index, per_span)
                    high = int32(min(int32(down - spans * span), int32(span)))
                    inside = int32(index - spans * per_span)
                    top = int32((spans * span + unsigned_rem(inside, high)) * tile_rows)
                    left = int32(unsigned_div(inside, high) * tile_columns)
                    turn = int32(0)
                    while turn < turns:
                        barrier = int32(full + 16 * stage)
                        while barrier_passed(int32(barrier + 8), int32(parity ^ 1)) == 0:
                            pass
                        to = int32(start + stage * stage_bytes)
                        if turn == 0:  # with the first stage comes what the tile's columns need at the end
                            there = int32(min(int32(columns - left), int32(tile_columns)))
                            barrier_expect(barrier, int32(stage_bytes + there * per_column))
                            at = int32(fields + slot * field_bytes)
                            copy_bytes(at, added + int64(left) * 4, barrier, int32(there * 4))
                            if quantized:
                                factors = multiplier + int64(left) * 4
                                copy_bytes(int32(at + 4 * tile_columns), factors, barrier, int32(there * 4))
                                copy_bytes(int32(at + 8 * tile_columns), shift + left, barrier, there)
                            slot = int32(slot + 1) if slot < stages else int32(0)
                        else:
                            barrier_expect(barrier, int32(stage_bytes))
                        copy_tile(to, a_map, barrier, int32(turn * deep), top)
                        load_b(
                            int32(to + a_bytes), b_map, barrier, int32(turn * deep), unsigned_div(left, int32(b_unit))
                        )
                        turn = int32(turn + 1)
                        stage = int32(stage + 1)
                        if stage == stages:
                            stage, parity = int32(0), int32(parity ^ 1)
                    index = int32(index + blocks)
        else:
            leads, lane = (thread & 127) == 0, int32(thread & 31)
            a_tile = int32(start + (thread >> 7) * (64 * deep))
            b_tile = int32(start + a_bytes)
            acc = cuda.local.array(registers, int32)
            while index < tiles:
                clear(acc)
                before = int32(-1)
                turn = int32(0)
                while turn < turns:
                    while barrier_passed(int32(full + 16 * stage), parity) == 0:
                        pass
                    group_fence()
                    ahead = int32(stage * stage_bytes)
                    product(acc, int32(a_tile + ahead), int32(b_tile + ahead))
                    group_commit()
                    one_left()  # the product before this one is done: its stage is free
                    if before >= 0 and leads:
                        barrier_arrive(int32(full + 16 * before + 8))
                    before = stage
                    turn = int32(turn + 1)
                    stage = int32(stage + 1)
                    if stage == stages:
                        stage, parity = int32(0), int32(parity ^ 1)
                none_left()
                settled(acc)
                if leads:
                    barrier_arrive(int32(full + 16 * before + 8))
                spans = unsigned_div(index, per_span)
                high = int32(min(int32(down - spans * span), int32(span)))
                inside = int32(index - spans * per_span)
                top = int32((spans * span + unsigned_rem(inside, high)) * tile_rows)
                left = int32(unsigned_div(inside, high) * tile_columns)
                row = int32(top + ((thread >> 5) << 4) + (lane >> 2))
                at = int32(fields + slot * field_bytes)
                if finishing:
                    aside = int32((full + 16 * stages + 127) & -128)
                    aside = int32(aside + (thread >> 5) * (64 * tile_columns))
                    finish(acc, lane, aside, int32(top + ((thread >> 5) << 4)), left, out, m, n, added, more)
                elif quantized:
                    aside = int32((lane & 3) * 16)
                    to_out = out + int64(row) * n + left + aside
                    factors = int32(at + 4 * tile_columns + 4 * aside)
                    shifts = int32(at + 8 * tile_columns + aside)
                    more = int32(rows - row), int32(columns - left - aside)
                    store_quantized(acc, to_out, n, *more, int32(at + 4 * aside), factors, shifts, int32(zero))
                else:
                    aside = int32((lane & 3) * run)
                    to_out = out + (int64(row) * n + left + aside) * 4
                    store_sums(
                        acc, to_out, n * 4, int32(rows - row), int32(columns - left - aside), int32(at + 4 * aside)
                    )
                slot = int32(slot + 1) if slot < stages else int32(0)
                index = int32(index + blocks)

    signs = f"{'s' if a_signed else 'u'}{'s' if b_signed else 'u'}"
    gemm.__name__ = gemm.__qualname__ = f"gemm_wgmma_{tile_rows}x{tile_columns}_{stages}x{tile.blocks}_{signs}_{result}"
    return Kernel(gemm, launch_bounds=(tile.threads, tile.blocks))

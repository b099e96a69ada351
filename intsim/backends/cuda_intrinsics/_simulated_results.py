"""Stand-ins for the simulator: what becomes of accumulators."""

from __future__ import annotations

from typing import Any

from intsim.backends.cuda_intrinsics._simulated import (
    PACK4,
    add_4,
    high_product,
    int32,
    load_4,
    shared_load_4,
    shared_load_16,
    shared_store_16,
    store_4,
    store_8,
    store_16,
)

__all__ = ["ADD_SUMS", "FROM_SHARED", "STORE_FOURS", "STORE_QUANTIZED", "STORE_SUMS", "TO_SHARED"]


def TO_SHARED(count: int) -> Any:
    def to_shared(acc: Any, address: int, stride: int) -> None:
        for first in range(0, count, 4):
            shared_store_16(address + first // 4 * stride, *acc[first : first + 4])

    return to_shared


def FROM_SHARED(count: int) -> Any:
    def from_shared(acc: Any, address: int, stride: int) -> None:
        for first in range(0, count, 4):
            more = shared_load_16(address + first // 4 * stride)
            acc[first : first + 4] = [int32(int(a) + b) for a, b in zip(acc[first : first + 4], more, strict=True)]

    return from_shared


def _rows(blocks: int, out: int, pitch: int, rows_left: int) -> list[tuple[int, int]]:
    return [(row, out + 8 * row * pitch) for row in range(2 * blocks) if 8 * row < rows_left]


def _word(staged: bool) -> Any:
    return shared_load_4 if staged else load_4


def STORE_SUMS(rows: int, columns: int, paired: bool, staged: bool) -> Any:
    load = _word(staged)

    def store_sums(acc: Any, out: int, pitch: int, rows_left: int, columns_left: int, added: int) -> None:
        for row, address in _rows(rows, out, pitch, rows_left):
            for j in range(columns):
                first = 4 * (row // 2 * columns + j) + 2 * (row % 2)
                here = [odd for odd in range(2) if 8 * j + odd < columns_left]
                sums = [int(acc[first + odd]) + load(added + 4 * (8 * j + odd)) for odd in here]
                if paired and here:
                    store_8(address + 32 * j, *sums)
                else:
                    for odd, total in zip(here, sums, strict=True):
                        store_4(address + 4 * (8 * j + odd), total)

    return store_sums


def STORE_FOURS(rows: int, columns: int) -> Any:
    def store_fours(acc: Any, out: int, pitch: int, rows_left: int, columns_left: int, added: int) -> None:
        for row, address in _rows(rows, out, pitch, rows_left):
            for j in range(0, columns, 2):
                if 8 * j < columns_left:
                    first = 4 * (row // 2 * columns + j) + 2 * (row % 2)
                    four = (acc[first], acc[first + 1], acc[first + 4], acc[first + 5])
                    sums = (int(a) + b for a, b in zip(four, shared_load_16(added + 32 * j), strict=True))
                    store_16(address + 32 * j, *sums)

    return store_fours


def ADD_SUMS(rows: int, columns: int) -> Any:
    def add_sums(acc: Any, out: int, pitch: int, rows_left: int, columns_left: int) -> None:
        for row, address in _rows(rows, out, pitch, rows_left):
            for j in range(columns):
                for odd in range(2):
                    if 8 * j + odd < columns_left:
                        value = acc[4 * (row // 2 * columns + j) + 2 * (row % 2) + odd]
                        add_4(address + 4 * (8 * j + odd), value)

    return add_sums


def STORE_QUANTIZED(rows: int, columns: int, groups: int, signed: bool, staged: bool) -> Any:
    run, pack4, load = 2 * columns, PACK4(signed), _word(staged)
    stores = {1: store_4, 2: store_8, 4: store_16}

    def store_quantized(
        acc: Any,
        out: int,
        pitch: int,
        rows_left: int,
        columns_left: int,
        added: int,
        multiplier: int,
        shift: int,
        zero: int,
    ) -> None:
        def one(total: int, at: int) -> int:
            places = (int(load(shift + (at & -4))) >> (8 * (at & 3))) & 255
            return int32(high_product(total, load(multiplier + 4 * at)) + int32(zero << (places - 1))) >> places

        for group in range(groups):
            if 4 * run * group >= columns_left:
                continue
            for row, address in _rows(rows, out, pitch, rows_left):
                q = []
                for c in range(run):
                    at = 4 * run * group + c
                    place = 4 * (row // 2 * columns * groups + group * columns + c // 2) + 2 * (row % 2) + c % 2
                    q.append(one(int32(int(acc[place]) + load(added + 4 * at)), at))
                packed = [pack4(*q[c : c + 4]) for c in range(0, run, 4)]
                stores[len(packed)](address + 4 * run * group, *packed)

    return store_quantized

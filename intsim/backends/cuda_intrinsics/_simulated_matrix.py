"""Stand-ins for the simulator: matrix instructions, tensor copies, barriers, and what becomes of accumulators."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np

from intsim.backends.cuda_intrinsics._simulated import (
    PATIENCE,
    block,
    collective,
    finish,
    global_bytes,
    pending,
    shared_bytes,
    thread,
)

__all__ = [
    "GROUPS_LEFT",
    "GROUP_PRODUCT",
    "MOVE",
    "SATURATED",
    "SETTLED",
    "WARP_PRODUCT",
    "ZERO",
    "acquire_map",
    "barrier_arrive",
    "barrier_expect",
    "barrier_init",
    "barrier_passed",
    "barriers_visible",
    "copy_bytes",
    "copy_tile",
    "copy_tile_by_16",
    "group_commit",
    "group_fence",
    "store_word",
    "tensor_map",
]


def ZERO(count: int) -> Any:
    def zero(acc: Any) -> None:
        acc[:count] = 0

    return zero


def MOVE(count: int) -> Any:
    def move(to: Any, source: Any) -> None:
        to[:count] = source[:count]

    return move


def SATURATED(fours: int) -> Any:
    def saturated(acc: Any, a: int, b: int, low: int, high: int) -> None:
        x, y = (np.concatenate([shared_bytes(at + 256 * i, 16).view(np.int32) for i in range(fours)]) for at in (a, b))
        sums = acc.reshape(4 * fours, -1) + x[:, None].astype(np.int64) * y
        acc[:] = np.clip(sums, int(low), int(high)).reshape(-1)

    return saturated


def _kind(signed: bool) -> str:
    return "int8" if signed else "uint8"


# -- mma.sync ----------------------------------------------------------------------------------------


def _matrices(addresses: list[int], count: int) -> Any:
    """ldmatrix: [lane, matrix, byte]; eight lanes tell where the rows of a matrix of 8 rows by 16 bytes lie."""
    rows = np.stack([shared_bytes(address, 16) for address in addresses[: 8 * count]]).reshape(count, 8, 4, 4)
    return rows.reshape(count, 32, 4).swapaxes(0, 1)


def WARP_PRODUCT(rows: int, columns: int, steps: int, a_signed: bool, b_signed: bool) -> Any:
    def of_warp(given: list[Any]) -> list[Any]:
        acc = np.stack([lane[0] for lane in given]).reshape(32, rows, columns, 4)
        for step in range(steps):
            a_at = [a + (a_lane ^ (32 * step)) for _, a, a_lane, _, _ in given]
            b_at = [b + (b_lane ^ (32 * step)) for *_, b, b_lane in given]
            a = np.zeros((rows, 16, 32), np.int64)
            for i in range(rows):
                parts = _matrices([at + 16 * 128 * i for at in a_at], 4).view(_kind(a_signed)).reshape(8, 4, 4, 4)
                for part, (down, right) in enumerate(((0, 0), (8, 0), (0, 16), (8, 16))):
                    a[i, down : down + 8, right : right + 16] = parts[:, :, part].reshape(8, 16)
            b = np.zeros((columns, 8, 32), np.int64)
            for j in range(0, columns, 2):
                parts = _matrices([at + 8 * 128 * j for at in b_at], 4).view(_kind(b_signed)).reshape(8, 4, 4, 4)
                for part in range(4):
                    right = 16 * (part % 2)
                    b[j + part // 2, :, right : right + 16] = parts[:, :, part].reshape(8, 16)
            product = np.einsum("irk,jck->ijrc", a, b).reshape(rows, columns, 2, 8, 4, 2)
            acc = acc + product.transpose(3, 4, 0, 1, 2, 5).reshape(32, rows, columns, 4)
        return list(acc.reshape(32, -1).astype(np.int32))

    def warp_product(acc: Any, a: int, a_lane: int, b: int, b_lane: int) -> None:
        acc[:] = collective((acc.copy(), int(a), int(a_lane), int(b), int(b_lane)), of_warp)

    return warp_product


# -- wgmma -------------------------------------------------------------------------------------------


def group_fence() -> None:
    pass


def group_commit() -> None:
    pending("intsim_products").append([])


def GROUPS_LEFT(count: int) -> Any:
    def groups_left() -> None:
        meeting = block().groups[thread().thread_id // 128]
        meeting.wait(PATIENCE)  # the four warps go on together
        finish(pending("intsim_products"), count)
        meeting.wait(PATIENCE)

    return groups_left


def _swizzled_row(tile: int, row: int) -> Any:
    start = tile + 128 * row
    return np.concatenate([shared_bytes(start + ((chunk ^ ((start >> 7) & 7)) << 4), 16) for chunk in range(8)])


def GROUP_PRODUCT(columns: int, a_signed: bool, b_signed: bool) -> Any:
    def group_product(acc: Any, a: int, b: int) -> None:
        if a % 1024 or b % 1024:
            raise ValueError(f"tiles at {a} and {b}: not aligned to 1024 bytes")
        warp = thread().thread_id // 32 % 4

        def of_warp(given: list[Any]) -> list[Any]:
            left = np.stack([_swizzled_row(a, 16 * warp + i) for i in range(16)]).view(_kind(a_signed))
            right = np.stack([_swizzled_row(b, j) for j in range(columns)]).view(_kind(b_signed))
            product = left.astype(np.int64) @ right.T.astype(np.int64)
            lanes = product.reshape(2, 8, columns // 8, 4, 2).transpose(1, 3, 2, 0, 4).reshape(32, -1)
            return list((np.stack(given) + lanes).astype(np.int32))

        def work() -> None:
            acc[:] = collective(acc.copy(), of_warp)

        pending("intsim_products")[-1].append(work)

    return group_product


def SETTLED(count: int) -> Any:
    return lambda acc: None


# -- barriers and tensor copies ----------------------------------------------------------------------


class _Barrier:
    """An mbarrier: a phase ends when all have arrived and all expected bytes have come."""

    def __init__(self, count: int) -> None:
        self.count, self.waited_for, self.bytes, self.parity = count, count, 0, 0
        self.changed = threading.Condition()

    def step(self, arrived: int, expected: int) -> None:
        with self.changed:
            self.waited_for -= arrived
            self.bytes += expected
            if self.waited_for < 0:
                raise RuntimeError("a barrier was arrived at more often than it counts to")
            if self.waited_for == 0 and self.bytes == 0:
                self.waited_for, self.parity = self.count, self.parity ^ 1
                self.changed.notify_all()


def barrier_init(address: int, count: int) -> None:
    block().barriers[address] = _Barrier(count)


def barrier_expect(address: int, count: int) -> None:
    block().barriers[address].step(1, count)


def barrier_arrive(address: int) -> None:
    block().barriers[address].step(1, 0)


def barrier_passed(address: int, parity: int) -> int:
    """Whether the phase of that parity has ended. Raises RuntimeError after two minutes, where a GPU would hang."""
    barrier = block().barriers[address]
    with barrier.changed:
        if not barrier.changed.wait_for(lambda: barrier.parity != parity, PATIENCE):
            raise RuntimeError(f"deadlock: nobody ends phase {parity} of the barrier at {address}")
    return 1


def barriers_visible() -> None:
    pass


def acquire_map(address: int) -> None:
    pass


def _copy(to: int, tensor_map: int, barrier: int, start: list[int]) -> None:
    base, rank, *rest = map(
        int, np.concatenate([global_bytes(tensor_map + 8 * i, 8) for i in range(16)]).view(np.int64)
    )
    sizes, strides, box = rest[:rank], [1, *rest[5 : 4 + rank]], [rest[9] >> (12 * i) & 0xFFF for i in range(rank)]
    for row, index in enumerate(np.ndindex(*box[:0:-1])):
        at = [start[0], *(s + i for s, i in zip(start[1:], index[::-1], strict=True))]
        inside = all(0 <= a < size for a, size in zip(at[1:], sizes[1:], strict=True))
        address = base + sum(a * stride for a, stride in zip(at, strides, strict=True))
        for chunk in range(box[0] // 16):
            place = to + 128 * row
            target = shared_bytes(place + ((chunk ^ ((place >> 7) & 7)) << 4), 16)
            there = inside and at[0] + 16 * chunk < sizes[0]
            target[:] = global_bytes(address + 16 * chunk, 16) if there else 0
    block().barriers[barrier].step(0, -int(np.prod(box)))


def copy_bytes(to: int, source: int, barrier: int, count: int) -> None:
    for at in range(0, int(count), 16):
        shared_bytes(to + at, 16)[:] = global_bytes(source + at, 16)
    block().barriers[barrier].step(0, -int(count))


def copy_tile(to: int, tensor_map: int, barrier: int, x: int, y: int) -> None:
    _copy(to, tensor_map, barrier, [x, y])


def copy_tile_by_16(to: int, tensor_map: int, barrier: int, x: int, y: int) -> None:
    _copy(to, tensor_map, barrier, [x, 0, 0, 0, y])


def tensor_map(address: int, sizes: tuple[int, ...], strides: tuple[int, ...], box: tuple[int, ...]) -> tuple[int, ...]:
    """A map as ``_copy`` reads it: address, rank, five sizes, four strides, the box."""
    rank = len(sizes)
    none = (0,) * (5 - rank)
    packed = sum(length << (12 * i) for i, length in enumerate(box))
    return (address, rank, *sizes, *none, *strides, *none, packed, 0, 0, 0, 0)


def store_word(address: int, value: int) -> None:
    global_bytes(address, 8)[:] = np.array([value], np.int64).view(np.uint8)

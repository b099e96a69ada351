"""activation.table from bytes to bytes at the speed of memory: the table in shared memory, 16 values a thread."""

from __future__ import annotations

from typing import Any

from intsim.backends.cuda_aligned import aligned, fill
from intsim.backends.cuda_compile import Kernel
from intsim.backends.cuda_intrinsics import (
    cuda,
    int32,
    int64,
    load_16,
    load_u8,
    on_device,
    shared_address,
    shared_load_u8,
    shared_store_4,
    store_1,
    store_16,
)


@on_device
def _four(table: int, word: int) -> int:
    """The results of four bytes."""
    low = shared_load_u8(int32(table + (word & 255))) | (shared_load_u8(int32(table + ((word >> 8) & 255))) << 8)
    high = shared_load_u8(int32(table + ((word >> 16) & 255))) | (
        shared_load_u8(int32(table + ((word >> 24) & 255))) << 8
    )
    return int32(low | (high << 16))


def _look_up(x: int, table: int, out: int, count: int, flip: int) -> None:
    """flip: what takes a byte of x to its place in the table, in all four bytes of a word."""
    lies = shared_address(cuda.shared.array(64, int32))
    thread = int32(cuda.threadIdx.x)
    if thread < 64:
        word = int32(0)
        for i in range(4):
            word = int32(word | (load_u8(table + 4 * thread + i) << (8 * i)))
        shared_store_4(int32(lies + 4 * thread), word)
    cuda.syncthreads()
    first = (int64(cuda.blockIdx.x) * 256 + thread) * 16
    flips = int32(flip)
    if first + 16 <= count:
        a, b, c, d = load_16(x + first)
        a, b, c, d = int32(a ^ flips), int32(b ^ flips), int32(c ^ flips), int32(d ^ flips)
        store_16(out + first, _four(lies, a), _four(lies, b), _four(lies, c), _four(lies, d))
    else:
        for i in range(16):
            if first + i < count:
                place = (load_u8(x + first + i) ^ flips) & 255
                store_1(out + first + i, shared_load_u8(int32(lies + place)))


_kernel = Kernel(_look_up, launch_bounds=256)


def look_up(x: Any, out: Any, p: Any, queue: Any) -> None:
    """Fills ``out.q``; serves results of 8 bits."""
    given, count = aligned(x.x), x.x.size
    flip = -0x7F7F7F80 if p.x.qmin < 0 else 0  # 0x80808080

    def work(q: Any) -> None:
        queue.launch(_kernel, -(-count // 4096), 256, given.pointer, x.table.pointer, q.pointer, count, flip)

    fill(queue, out.q, work)

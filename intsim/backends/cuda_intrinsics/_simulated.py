"""Stand-ins for the simulator: memory, arithmetic and shuffles, on one Python thread a CUDA thread.

Global addresses are those of the host. Asynchronous copies happen as late as the waits allow, so that a
missing wait is a wrong result.
"""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Callable
from typing import Any

import numpy as np

__all__ = [
    "COPIES_LEFT",
    "DOT4",
    "PACK4",
    "add_4",
    "arithmetic_shift",
    "byte",
    "commit_copies",
    "copy_16",
    "count_lanes",
    "high_product",
    "int8",
    "int32",
    "int64",
    "load_4",
    "load_8",
    "load_16",
    "load_u8",
    "permute",
    "read_4",
    "shared_address",
    "shared_load_4",
    "shared_load_16",
    "shared_load_u8",
    "shared_store_1",
    "shared_store_4",
    "shared_store_16",
    "shuffle_xor",
    "store_1",
    "store_4",
    "store_8",
    "store_16",
    "unsigned_div",
    "unsigned_high_product",
    "unsigned_min",
    "unsigned_rem",
    "unsigned_shift",
    "wait_for_kernels_before",
    "warp_max",
    "warp_meet",
    "warp_sum",
]

_LOCK = threading.Lock()
_SHARED = 1024  # the first address of shared memory: not 0, and aligned as its swizzles need
PATIENCE = 120.0  # seconds; who waits longer waits for ever


class _Word:
    """A type as a kernel calls it: wraps, and is a data type to ``cuda.local`` and ``cuda.shared``."""

    def __init__(self, bits: int) -> None:
        self.dtype, self.itemsize, self._bits = np.dtype(f"int{bits}"), bits // 8, bits

    def __call__(self, x: Any) -> int:
        low = int(x) & ((1 << self._bits) - 1)
        return low - (1 << self._bits) if low >> (self._bits - 1) else low


int8, int32, int64 = _Word(8), _Word(32), _Word(64)


def unsigned(x: Any) -> int:
    return int(x) & 0xFFFFFFFF


class Block:
    """What the threads of a block share, and where its warps meet."""

    def __init__(self, threads: int) -> None:
        self.memory = np.zeros(0, np.uint8)
        self.starts: dict[int, int] = {}
        warps = range(0, threads, 32)
        self.meeting = [threading.Barrier(min(32, threads - first)) for first in warps]
        self.given: list[list[Any]] = [[None] * 32 for _ in warps]
        self.made: list[Any] = [None for _ in warps]
        self.groups = [threading.Barrier(128) for _ in range(threads // 128)]
        self.barriers: dict[int, Any] = {}


def thread() -> Any:
    return threading.current_thread()


def block() -> Block:
    manager = thread()._manager
    with _LOCK:
        if not hasattr(manager, "intsim_block"):
            manager.intsim_block = Block(int(np.prod(manager._block_dim)))
        made: Block = manager.intsim_block
    return made


def collective(value: Any, compute: Callable[[list[Any]], Any]) -> Any:
    """One call of ``compute`` a warp: from what all its lanes gave to a result a lane."""
    shared, (warp, lane) = block(), divmod(thread().thread_id, 32)
    shared.given[warp][lane] = value
    shared.meeting[warp].wait(PATIENCE)
    if lane == 0:
        shared.made[warp] = compute(shared.given[warp][: shared.meeting[warp].parties])
    shared.meeting[warp].wait(PATIENCE)
    result = shared.made[warp][lane]
    shared.meeting[warp].wait(PATIENCE)
    return result


# -- memory ------------------------------------------------------------------------------------------


def global_bytes(address: Any, count: int) -> Any:
    if int(address) % count:
        raise ValueError(f"an access of {count} bytes at address {int(address):#x}: not aligned")
    memory: Any = (ctypes.c_uint8 * count).from_address(int(address))
    return np.frombuffer(memory, np.uint8)


def shared_bytes(address: Any, count: int) -> Any:
    start = int(address) - _SHARED
    memory = block().memory
    if start < 0 or start + count > memory.size or start % count:
        raise ValueError(f"shared memory has {memory.size} bytes; an access of {count} at {start}")
    return memory[start : start + count]


def shared_address(array: Any) -> int:
    """Static arrays one behind another, each from a multiple of 1024 bytes on; the caller uses addresses only."""
    data, count = array.ctypes.data, array.nbytes
    shared = block()
    with _LOCK:
        if data not in shared.starts:
            shared.starts[data] = shared.memory.size
            shared.memory = np.concatenate([shared.memory, np.zeros(-(-count // 1024) * 1024, np.uint8)])
        return _SHARED + shared.starts[data]


def _put(place: Any, *values: Any) -> None:
    place[:] = np.array([unsigned(v) for v in values], np.uint32).view(np.uint8)


def _get(place: Any) -> tuple[int, ...]:
    return tuple(map(int, place.view(np.int32)))


def load_4(address: Any) -> int:
    return _get(global_bytes(address, 4))[0]


def read_4(address: Any) -> int:
    return load_4(address)


def load_8(address: Any) -> tuple[int, ...]:
    return _get(global_bytes(address, 8))


def load_16(address: Any) -> tuple[int, ...]:
    return _get(global_bytes(address, 16))


def load_u8(address: Any) -> int:
    return int(global_bytes(address, 1)[0])


def store_1(address: Any, value: Any) -> None:
    global_bytes(address, 1)[0] = int(value) & 255


def store_4(address: Any, value: Any) -> None:
    _put(global_bytes(address, 4), value)


def store_8(address: Any, *values: Any) -> None:
    _put(global_bytes(address, 8), *values)


def store_16(address: Any, *values: Any) -> None:
    _put(global_bytes(address, 16), *values)


def add_4(address: Any, value: Any) -> None:
    with _LOCK:
        _put(global_bytes(address, 4), load_4(address) + int(value))


def shared_load_u8(address: Any) -> int:
    return int(shared_bytes(address, 1)[0])


def shared_load_4(address: Any) -> int:
    return _get(shared_bytes(address, 4))[0]


def shared_load_16(address: Any) -> tuple[int, ...]:
    return _get(shared_bytes(address, 16))


def shared_store_1(address: Any, value: Any) -> None:
    shared_bytes(address, 1)[0] = int(value) & 255


def shared_store_4(address: Any, value: Any) -> None:
    _put(shared_bytes(address, 4), value)


def shared_store_16(address: Any, *values: Any) -> None:
    _put(shared_bytes(address, 16), *values)


def pending(name: str) -> list[list[Any]]:
    """The groups of this thread's unfinished work, of which the last is still open."""
    me = thread()
    if not hasattr(me, name):
        setattr(me, name, [[]])
    made: list[list[Any]] = getattr(me, name)
    return made


def finish(groups: list[list[Any]], left: int) -> None:
    """Does all but the last ``left`` closed groups."""
    while len(groups) - 1 > left:
        for work in groups.pop(0):
            work()


def copy_16(to: Any, source: Any, count: Any) -> None:
    def work() -> None:
        place = shared_bytes(to, 16)
        place[:] = 0
        if count:
            place[: int(count)] = global_bytes(source, 16)[: int(count)]

    pending("intsim_copies")[-1].append(work)


def commit_copies() -> None:
    pending("intsim_copies").append([])


def COPIES_LEFT(count: int) -> Any:
    return lambda: finish(pending("intsim_copies"), count)


# -- arithmetic --------------------------------------------------------------------------------------


def unsigned_div(a: Any, b: Any) -> int:
    return int32(unsigned(a) // unsigned(b))


def unsigned_rem(a: Any, b: Any) -> int:
    return int32(unsigned(a) % unsigned(b))


def unsigned_shift(a: Any, count: Any) -> int:
    return int32(unsigned(a) >> int(count))


def arithmetic_shift(a: Any, count: Any) -> int:
    return int32(a) >> int(count)


def high_product(a: Any, b: Any) -> int:
    return (int32(a) * int32(b)) >> 32


def unsigned_high_product(a: Any, b: Any) -> int:
    return int32((unsigned(a) * unsigned(b)) >> 32)


def unsigned_min(a: Any, b: Any) -> int:
    return int32(min(unsigned(a), unsigned(b)))


def byte(word: Any, start: Any) -> int:
    return int8(unsigned(word) >> int(start))


def _bytes(word: Any, signed: bool) -> list[int]:
    return [(b if b < 128 or not signed else b - 256) for b in unsigned(word).to_bytes(4, "little")]


def DOT4(a_signed: bool, b_signed: bool) -> Any:
    def dot4(a: Any, b: Any, c: Any) -> int:
        return int32(int(c) + sum(x * y for x, y in zip(_bytes(a, a_signed), _bytes(b, b_signed), strict=True)))

    return dot4


def permute(a: Any, b: Any, selector: Any) -> int:
    among = _bytes(a, False) + _bytes(b, False)
    return int32(int.from_bytes(bytes(among[(int(selector) >> 4 * i) & 7] for i in range(4)), "little"))


def PACK4(signed: bool) -> Any:
    low, high = (-128, 127) if signed else (0, 255)

    def pack4(*values: Any) -> int:
        return int32(int.from_bytes(bytes(min(max(int32(v), low), high) & 255 for v in values), "little"))

    return pack4


def shuffle_xor(value: Any, lanes: Any) -> int:
    result: int = collective(int32(value), lambda given: [given[i ^ int(lanes)] for i in range(len(given))])
    return result


def count_lanes(value: Any) -> int:
    result: int = collective(int(value), lambda given: [sum(v != 0 for v in given)] * len(given))
    return result


def wait_for_kernels_before() -> None:
    pass  # every launch is over when it returns


def warp_max(x: Any) -> int:
    result: int = collective(int32(x), lambda given: [max(given)] * len(given))
    return result


def warp_sum(x: Any) -> int:
    result: int = collective(int32(x), lambda given: [int32(sum(given))] * len(given))
    return result


def warp_meet() -> None:
    collective(None, lambda given: given)

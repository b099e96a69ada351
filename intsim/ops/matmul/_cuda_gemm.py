"""Matrix products of 8-bit and 4-bit integers on a GPU: which kernel does which shape.

All end at the same int32 (modulo 2**32), so the choice is free. 4-bit operands are unpacked to bytes first:
Hopper multiplies no 4-bit integers, and one pass over the packed weights costs little beside the product.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from intsim.backends.cuda_aligned import fill
from intsim.backends.cuda_compile import Kernel
from intsim.backends.cuda_intrinsics import cuda, int64, load_4, store_4, store_word
from intsim.ops.matmul import _cuda_mma as mma, _cuda_vector as vector, _cuda_wgmma as wgmma
from intsim.ops.matmul._cuda_operands import added, rows_of_16, subtract_row_sums
from intsim.ops.matmul._cuda_result import Result

INT32 = Result()


# -- entries: (x, out, record, queue) ----------------------------------------------------------------


def best(x: Any, out: Any, p: Any, queue: Any) -> None:
    """Fills ``out.acc`` by the kernel that is fastest for the shape."""
    m, n = out.acc.shape
    _fill(x, out, p, queue, "vector" if m == 1 else _unit(queue, m, n, INT32))


def by_vector(x: Any, out: Any, p: Any, queue: Any) -> None:
    _fill(x, out, p, queue, "vector")


def by_mma(x: Any, out: Any, p: Any, queue: Any) -> None:
    _fill(x, out, p, queue, "mma")


def by_wgmma(x: Any, out: Any, p: Any, queue: Any) -> None:
    """By wgmma where the GPU has it and the number of columns is a multiple of 4, else by mma.sync."""
    _fill(x, out, p, queue, "wgmma" if _has_wgmma(queue) and out.acc.shape[1] % 4 == 0 else "mma")


def _fill(x: Any, out: Any, p: Any, queue: Any, unit: str) -> None:
    fill(queue, out.acc, lambda acc: _filled(x, acc, p, queue, unit))


def _filled(x: Any, acc: Any, p: Any, queue: Any, unit: str) -> None:
    a, b, bias = operands(x, p, queue)
    if unit == "vector":
        n = b.shape[0]
        kernel = vector.kernel(a.dtype == np.int8, b.dtype == np.int8)
        where = a.pointer, b.pointer, acc.pointer, n, b.shape[1], bias.pointer
        queue.launch(kernel, -(-n // vector.WARPS), 32 * vector.WARPS, *where)
    else:
        product(queue, a, b, acc, (bias.pointer, 0, 0, 0), INT32, unit)
    subtract_row_sums(queue, a, acc, p)


def operands(x: Any, p: Any, queue: Any) -> tuple[Any, Any, Any]:
    """(a, b, added): rows of bytes, and what a column starts from; p: the record of matmul.integer."""
    k = min(array.shape[1] * (2 if t.bits == 4 else 1) for array, t in ((x.a, p.a), (x.b, p.b)))
    a = rows_of_16(queue, x.a, k, p.a, p.nibbles)
    b = queue.once(("bytes", k), lambda: rows_of_16(queue, x.b, k, p.b, p.nibbles), of=("b",))
    return a, b, added(queue, b, x.bias, k, p)


# -- kernels and tiles -------------------------------------------------------------------------------


def product(
    queue: Any,
    a: Any,
    b: Any,
    out: Any,
    fields: tuple[int, int, int, int],
    result: Result,
    unit: str | None = None,
    more: tuple[Any, ...] = (),
) -> None:
    """``out`` from rows of bytes. fields: what is added, and for 8 bits multiplier, shift and zero, of
    ``STORE_QUANTIZED``, which then is a matter of 64 n columns. more: what ``result.finish`` takes.
    """
    m, n, k = a.shape[0], b.shape[0], a.shape[1]
    unit = unit or _unit(queue, m, n, result)
    signs = a.dtype == np.int8, b.dtype == np.int8
    if unit == "wgmma":
        wide = wgmma_tile(m, n, k, queue.multiprocessors) if result.finish is None else FINISHED
        if result.finish is None:
            result = Result(result.bits, result.signed, fours=result.bits == 32 and n % 16 == 0)
        maps = _maps(queue, wide, a, b, result)
        blocks = min(queue.multiprocessors * wide.blocks, -(-m // wide.rows) * -(-n // wide.columns))
        kernel = wgmma.kernel(wide, *signs, result)
        given = *maps, out.pointer, m, n, k, *fields, more
        queue.launch(kernel, blocks, wide.threads, *given, shared=wide.shared(result))
        return
    tile, splits = mma_tile(m, n, k, result, queue.multiprocessors)
    if result.finish is None:
        result = Result(result.bits, result.signed, n % 2 == 0 or result.bits == 8, splits > 1)
    depth = -(-k // (128 * splits)) * 128
    if result.adds:
        queue.launch(_STARTED, -(-m * n // 256), 256, out.pointer, fields[0], m, n)
    grid = -(-m // tile.rows) * -(-n // tile.columns), -(-k // depth)
    where = a.pointer, b.pointer, out.pointer, m, n, k, depth, *fields, more
    queue.launch(mma.kernel(tile, *signs, result), grid, tile.threads, *where, shared=tile.shared)


def _has_wgmma(queue: Any) -> bool:
    return bool(queue.capability[0] == 9)  # later GPUs have another instruction in its place


def _unit(queue: Any, m: int, n: int, result: Result) -> str:
    few = 32 if result.finish is None else FINISHED_FROM
    return "wgmma" if _has_wgmma(queue) and m > few and n % 4 == 0 else "mma"


WIDE, WIDE_FROM = wgmma.Tile(2, 256, 4), 4096
FINISHED, FINISHED_FROM = wgmma.Tile(2, 128, 4), 512  # beside the ring there is room for a tile's sums; rows
WGMMA_TILES = (
    wgmma.Tile(2, 192, 5),
    wgmma.Tile(2, 128, 6),
    wgmma.Tile(1, 192, 6),
    wgmma.Tile(1, 128, 7),
    wgmma.Tile(1, 64, 8),
)


def wgmma_tile(m: int, n: int, k: int, multiprocessors: int) -> wgmma.Tile:
    """The tile for which the block with the most to do has the least, as fitted to times on an H100.

    Of 42 products measured this choice is within 5 % of the best tile. The widest one pays where K is long.
    """

    def cost(tile: wgmma.Tile) -> int:
        turns = -(-(-(-m // tile.rows) * -(-n // tile.columns)) // multiprocessors)
        return turns * ((-(-k // 128) + 15) * tile.groups * tile.columns + 120)

    among: tuple[wgmma.Tile, ...] = (*WGMMA_TILES, WIDE) if k >= WIDE_FROM else WGMMA_TILES
    return min(among, key=cost)


MMA_TILES = (
    mma.Tile(128, 128, 2, 2, 1, 3),
    mma.Tile(64, 64, 2, 2, 1, 4),
    mma.Tile(32, 64, 1, 2, 2, 6),
    mma.Tile(32, 32, 1, 1, 4, 6),
)


def mma_tile(m: int, n: int, k: int, result: Result, multiprocessors: int) -> tuple[mma.Tile, int]:
    """The largest tile of which there is one for each multiprocessor; and among how many blocks to split K."""
    counts = {tile: -(-m // tile.rows) * -(-n // tile.columns) for tile in MMA_TILES}
    tile = next((t for t in MMA_TILES if counts[t] >= multiprocessors), MMA_TILES[-1 if m <= 32 else -2])
    if result.bits == 8 or result.finish or counts[tile] * 4 > multiprocessors:
        return tile, 1
    return tile, max(1, min(multiprocessors // counts[tile], k // 1024))


# -- what else runs on the GPU -----------------------------------------------------------------------


class _NotThereError(Exception):
    """A graph is being captured, which cannot make what is kept."""


def _maps(queue: Any, tile: wgmma.Tile, a: Any, b: Any, result: Result) -> tuple[int, int]:
    """Addresses of both tensor maps. They tell of addresses and sizes only, so they are kept from call to call.

    Where a graph is captured that meets new addresses, a kernel in the graph writes the maps.
    """
    m, n, k = a.shape[0], b.shape[0], a.shape[1]
    both = wgmma.maps(tile, a.pointer, b.pointer, m, n, k, result)

    def made() -> Any:
        if queue.capturing:
            raise _NotThereError
        memory = queue.upload(np.array(both, np.int64))
        queue.gpu.synchronize(queue.stream)  # whatever stream asks next finds them
        return memory

    try:
        memory = queue.once(("maps", both), made)
    except _NotThereError:
        memory = queue.empty((2, 16), np.int64)
        queue.launch(_WRITTEN, 1, 1, memory.pointer, *both[0], *both[1])
    return memory.pointer, memory.pointer + 128


def _start(out: int, bias: int, m: int, n: int) -> None:
    """Every row of ``out`` is the bias."""
    at = int64(cuda.blockIdx.x) * 256 + cuda.threadIdx.x
    if at < m * n:
        store_4(out + 4 * at, load_4(bias + 4 * (at % n)))


def _write(
    to: int,
    a0: int, a1: int, a2: int, a3: int, a4: int, a5: int, a6: int, a7: int,
    a8: int, a9: int, a10: int, a11: int, a12: int, a13: int, a14: int, a15: int,
    b0: int, b1: int, b2: int, b3: int, b4: int, b5: int, b6: int, b7: int,
    b8: int, b9: int, b10: int, b11: int, b12: int, b13: int, b14: int, b15: int,
) -> None:  # fmt: skip
    words = (a0, a1, a2, a3, a4, a5, a6, a7, a8, a9, a10, a11, a12, a13, a14, a15)
    more = (b0, b1, b2, b3, b4, b5, b6, b7, b8, b9, b10, b11, b12, b13, b14, b15)
    for i in range(16):
        store_word(to + 8 * i, words[i])
        store_word(to + 128 + 8 * i, more[i])


_STARTED, _WRITTEN = Kernel(_start), Kernel(_write)

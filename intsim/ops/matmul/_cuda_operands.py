"""Operands as the int8 kernels of a GPU take them: bytes, rows of a multiple of 16, and sums for zero points.

    sum_k (a - za) (b - zb) = sum_k a b - za sum_k b - zb sum_k a + k za zb        modulo 2**32

so what does not depend on the row of the result joins the bias.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np

from intsim.backends.cuda_compile import Kernel
from intsim.backends.cuda_intrinsics import (
    DOT4,
    cuda,
    int32,
    int64,
    load_4,
    load_8,
    load_16,
    load_u8,
    permute,
    read_4,
    shuffle_xor,
    store_4,
    store_16,
    unsigned_shift,
)
from intsim.numerics import Nibbles

ONES = 0x01010101


def rows_of_16(queue: Any, array: Any, k: int, t: Any, nibbles: int) -> Any:
    """``array`` itself, or a copy with a byte an element and zeros behind the k elements of a row.

    t: the TypeRecord of its elements, of 8 bits, or of 4 and packed.
    """
    if t.bits == 8 and k % 16 == 0 and array.pointer % 16 == 0:
        return array
    rows, wide = array.shape[0], -(-k // 16) * 16
    made = queue.empty((rows, wide), np.int8 if t.qmin < 0 else np.uint8)
    chunks = rows * (wide // 16)
    kernel = _wide_rows if t.bits == 8 else _unpacked_rows(t.qmin < 0, nibbles == Nibbles.HIGH_FIRST)
    queue.launch(kernel, -(-chunks // 256), 256, array.pointer, made.pointer, rows, k)
    return made


def _widen(array: int, made: int, rows: int, k: int) -> None:
    at = int64(cuda.blockIdx.x) * 256 + cuda.threadIdx.x
    per_row = (k + 15) // 16
    row, chunk = at // per_row, at % per_row
    if row < rows:
        for word in range(4):
            packed = int32(0)
            for i in range(4):
                column = chunk * 16 + word * 4 + i
                if column < k:
                    packed = int32(packed | (load_u8(array + row * k + column) << (8 * i)))
            store_4(made + (row * per_row + chunk) * 16 + word * 4, packed)


_wide_rows = Kernel(_widen)


@cache
def _unpacked_rows(signed: bool, high_first: bool) -> Kernel:
    """``f(packed, made, rows, k)``: rows of (k + 1) // 2 bytes of two elements become rows of bytes."""
    first_even, last_even = (0x1504, 0x3726) if high_first else (0x5140, 0x7362)  # bytes of (low, high) in order

    def unpack(packed: int, made: int, rows: int, k: int) -> None:
        at = int64(cuda.blockIdx.x) * 256 + cuda.threadIdx.x
        per_row, pitch = (k + 15) // 16, (k + 1) // 2
        row, chunk = at // per_row, at % per_row
        if row < rows:
            start = packed + row * pitch + chunk * 8
            left = int64(k - chunk * 16)
            one, two = int32(0), int32(0)
            if left >= 16 and start % 8 == 0:
                one, two = load_8(start)
            else:
                for i in range(4):
                    if 2 * i < left:
                        one = int32(one | (load_u8(start + i) << (8 * i)))
                    if 8 + 2 * i < left:
                        two = int32(two | (load_u8(start + 4 + i) << (8 * i)))
            low1, high1 = int32(one & 0x0F0F0F0F), int32(unsigned_shift(one, int32(4)) & 0x0F0F0F0F)
            low2, high2 = int32(two & 0x0F0F0F0F), int32(unsigned_shift(two, int32(4)) & 0x0F0F0F0F)
            if signed:  # in each byte (x ^ 8) - 8, which borrows nothing: ((x ^ 8) + 0x78) ^ 0x80
                low1 = int32(int32((low1 ^ 0x08080808) + 0x78787878) ^ int32(-0x7F7F7F80))
                high1 = int32(int32((high1 ^ 0x08080808) + 0x78787878) ^ int32(-0x7F7F7F80))
                low2 = int32(int32((low2 ^ 0x08080808) + 0x78787878) ^ int32(-0x7F7F7F80))
                high2 = int32(int32((high2 ^ 0x08080808) + 0x78787878) ^ int32(-0x7F7F7F80))
            to = made + (row * per_row + chunk) * 16
            if left >= 16:
                store_16(
                    to,
                    permute(low1, high1, first_even),
                    permute(low1, high1, last_even),
                    permute(low2, high2, first_even),
                    permute(low2, high2, last_even),
                )
            else:
                for word in range(4):
                    low, high = (low1, high1) if word < 2 else (low2, high2)
                    four = permute(low, high, first_even if word % 2 == 0 else last_even)
                    keep = min(max(left - 4 * word, int64(0)), int64(4))
                    store_4(to + 4 * word, int32(four & ((int64(1) << (8 * keep)) - 1)))

    unpack.__name__ = unpack.__qualname__ = f"unpack_{'s' if signed else 'u'}4{'_high_first' if high_first else ''}"
    return Kernel(unpack)


def added(queue: Any, b: Any, bias: Any, k: int, p: Any) -> Any:
    """int32 a column: the bias, and what the zero points add that is the same for all rows. 16-byte aligned.

    b: n rows of bytes, a multiple of 16 each, zeros behind the k elements. p: the record of matmul.integer.
    """
    if p.a_zero_point == 0 and bias.pointer % 16 == 0:
        return bias
    record = queue.record.matmul if hasattr(queue.record, "matmul") else queue.record

    def make() -> Any:
        n, wide = b.shape
        made = queue.empty((n,), np.int32)
        where = b.pointer, wide, bias.pointer, record.b_zero_point.pointer, made.pointer
        queue.launch(_column_terms(b.dtype == np.int8), -(-n // 8), 256, *where, n, k, int(p.a_zero_point))
        return made

    return queue.once(("added", k), make, of=tuple(name for name in ("b", "bias") if hasattr(queue.x, name)))


@cache
def _column_terms(b_signed: bool) -> Kernel:
    dot4 = DOT4(b_signed, True)

    def column_terms(
        b: int, wide: int, bias: int, zero_point: int, made: int, n: int, k: int, a_zero_point: int
    ) -> None:
        """A warp a column."""
        thread = int32(cuda.threadIdx.x)
        lane, row = int64(thread & 31), int64(cuda.blockIdx.x) * 8 + (thread >> 5)
        total = int32(0)
        if row < n:
            at = lane * 16
            while at < wide:
                w0, w1, w2, w3 = load_16(b + row * wide + at)
                total = dot4(w0, ONES, dot4(w1, ONES, dot4(w2, ONES, dot4(w3, ONES, total))))
                at += 512
        for step in (16, 8, 4, 2, 1):
            total = int32(total + shuffle_xor(total, int32(step)))
        if row < n and lane == 0:
            # one int64 of the record's zero points; k and both zero points below 2**21, 2**9, 2**9
            terms = a_zero_point * (k * int64(load_4(zero_point + 8 * row)) - int64(total))
            store_4(made + 4 * row, int32(int64(load_4(bias + 4 * row)) + terms))

    column_terms.__name__ = column_terms.__qualname__ = f"column_terms_{'s' if b_signed else 'u'}8"
    return Kernel(column_terms)


def subtract_row_sums(queue: Any, a: Any, acc: Any, p: Any) -> None:
    """``acc[i, j] -= b_zero_point[j] * sum_k a[i, k]``; nothing where all zero points are 0."""
    if not p.b_zero_point.any():
        return
    record = queue.record.matmul if hasattr(queue.record, "matmul") else queue.record
    m, n = acc.shape
    where = a.pointer, a.shape[1], record.b_zero_point.pointer, acc.pointer
    queue.launch(_rows_corrected(a.dtype == np.int8), -(-m // 8), 256, *where, m, n)


@cache
def _rows_corrected(a_signed: bool) -> Kernel:
    dot4 = DOT4(a_signed, True)

    def rows_corrected(a: int, wide: int, zero_point: int, acc: int, m: int, n: int) -> None:
        """A warp a row."""
        thread = int32(cuda.threadIdx.x)
        lane, row = int64(thread & 31), int64(cuda.blockIdx.x) * 8 + (thread >> 5)
        total = int32(0)
        if row < m:
            at = lane * 16
            while at < wide:
                w0, w1, w2, w3 = load_16(a + row * wide + at)
                total = dot4(w0, ONES, dot4(w1, ONES, dot4(w2, ONES, dot4(w3, ONES, total))))
                at += 512
        for step in (16, 8, 4, 2, 1):
            total = int32(total + shuffle_xor(total, int32(step)))
        if row < m:
            column = lane
            while column < n:
                place = acc + (row * n + column) * 4
                store_4(place, int32(int64(read_4(place)) - int64(total) * int64(load_4(zero_point + 8 * column))))
                column += 32

    rows_corrected.__name__ = rows_corrected.__qualname__ = f"rows_corrected_{'s' if a_signed else 'u'}8"
    return Kernel(rows_corrected)

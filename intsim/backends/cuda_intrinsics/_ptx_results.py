"""Accumulators to global memory, as inline PTX. ``_ptx_matrix`` says which lane holds what.

All take ``f(acc, out, pitch, rows_left, columns_left, ...)``: out, the address of the lane's first element;
pitch, bytes from one row to the next; rows_left and columns_left, how many rows and columns there are from
that element on (less than one: none).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any


from intsim.backends.cuda_intrinsics._ptx import I32, I64, assembly, pack4_text, words
from intsim.backends.cuda_intrinsics._ptx_matrix import INT32, INT64, constant, on_registers

__all__ = ["ADD_SUMS", "FROM_SHARED", "STORE_FOURS", "STORE_QUANTIZED", "STORE_SUMS", "TO_SHARED"]

# {at}: an offset that the instruction holds; {where}: global.nc or shared
_LOAD_ONE = "{{ .reg .pred p; setp.ne.s32 p, $2, 0; mov.b32 $0, 0; @p ld.global.nc.u32 $0, [$1+{at}]; }}"
_LOAD_PAIR = (
    "{{ .reg .pred p; setp.ne.s32 p, $3, 0; mov.b32 $0, 0; mov.b32 $1, 0; "
    "@p ld.global.nc.v2.u32 {{$0,$1}}, [$2+{at}]; }}"
)
_LOADS = {
    1: "ld.{where}.u32 $0, [$1+{at}];",
    2: "ld.{where}.v2.u32 {{$0,$1}}, [$2+{at}];",
    4: "ld.{where}.v4.u32 {{$0,$1,$2,$3}}, [$4+{at}];",
}
_STORES = {
    1: "st.global.u32 [$0+{at}], $1;",
    2: "st.global.v2.u32 [$0+{at}], {{$1,$2}};",
    4: "st.global.v4.u32 [$0+{at}], {{$1,$2,$3,$4}};",
}
_WHERE = "{ .reg .pred p; setp.ne.s32 p, $%d, 0; @p %s }"


def _if(builder: Any, condition: Any, text: str, takes: str, arguments: list[Any]) -> None:
    """A statement without result, where ``condition`` holds."""
    guarded = _WHERE % (len(takes), text)
    assembly(builder, guarded, takes + "r", "", [*arguments, builder.zext(condition, I32)], pure=False)


def _more(builder: Any, left: Any, offset: int) -> Any:
    return builder.icmp_signed(">", left, constant(offset))


def _rows(builder: Any, blocks: int, out: Any, pitch: Any, rows_left: Any) -> Iterator[tuple[int, Any, Any]]:
    """(index of the row's first accumulator in its block of 16 rows, address, whether it exists) of every row."""
    for row in range(2 * blocks):
        offset = 8 * row
        address = builder.add(out, builder.mul(pitch, constant(offset, I64)))
        yield row, address, _more(builder, rows_left, offset)


def TO_SHARED(count: int) -> Any:
    """``f(acc, address, stride)``: four at a time, ``stride`` bytes from one four to the next."""
    text = "st.shared.v4.u32 [$0], {$1,$2,$3,$4};"

    def body(builder: Any, acc: list[Any], arguments: Any) -> None:
        address, stride = arguments
        for first in range(0, count, 4):
            assembly(builder, text, "rrrrr", "", [address, *acc[first : first + 4]], pure=False)
            address = builder.add(address, stride)

    return on_registers(count, (INT32, INT32), body, writes=False)


def FROM_SHARED(count: int) -> Any:
    """``f(acc, address, stride)``: acc += what TO_SHARED stored."""
    text = "ld.shared.v4.u32 {$0,$1,$2,$3}, [$4];"

    def body(builder: Any, acc: list[Any], arguments: Any) -> list[Any]:
        address, stride = arguments
        for first in range(0, count, 4):
            more = words(builder, assembly(builder, text, "r", "rrrr", [address], pure=False), 4)
            acc[first : first + 4] = [builder.add(a, b) for a, b in zip(acc[first : first + 4], more, strict=True)]
            address = builder.add(address, stride)
        return acc

    return on_registers(count, (INT32, INT32), body)


def _load(builder: Any, address: Any, at: int, count: int, staged: bool) -> list[Any]:
    where, kind = ("shared", "r") if staged else ("global", "l")  # not .nc: it would be moved far ahead
    loaded = assembly(builder, _LOADS[count].format(where=where, at=at), kind, "r" * count, [address], pure=False)
    return [loaded] if count == 1 else words(builder, loaded, count)


def STORE_FOURS(rows: int, columns: int) -> Any:
    """``f(..., added)``: stores acc + added, int32, where B's rows lie so that a lane has four neighbouring columns.

    Of each two blocks of 8 columns lane t has columns 4 t to 4 t + 3, two from either block; the number of columns
    is a multiple of 16. added: the shared address of the first column's.
    """

    def body(builder: Any, acc: list[Any], arguments: Any) -> None:
        out, pitch, rows_left, columns_left, added = arguments
        places = list(_rows(builder, rows, out, pitch, rows_left))
        for j in range(0, columns, 2):
            here, extra = _more(builder, columns_left, 8 * j), _load(builder, added, 32 * j, 4, True)
            for row, address, exists in places:
                first = 4 * (row // 2 * columns + j) + 2 * (row % 2)
                four = [acc[first], acc[first + 1], acc[first + 4], acc[first + 5]]
                sums = [builder.add(a, b) for a, b in zip(four, extra, strict=True)]
                there = builder.and_(exists, here)
                _if(builder, there, _STORES[4].format(at=32 * j), "lrrrr", [address, *sums])

    return on_registers(4 * rows * columns, (INT64, INT64, INT32, INT32, INT32), body, writes=False)


def STORE_SUMS(rows: int, columns: int, paired: bool, staged: bool) -> Any:
    """``f(..., added)``: stores acc + added, int32. added: the address of the first column's.

    paired: the number of columns is even, so that two can be stored at once. staged: ``added`` lies in shared
    memory, as many as the tile has columns.
    """

    width = 2 if paired else 1
    load, store = (_LOAD_PAIR if paired else _LOAD_ONE), _STORES[width]

    def body(builder: Any, acc: list[Any], arguments: Any) -> None:
        out, pitch, rows_left, columns_left, added = arguments
        places = list(_rows(builder, rows, out, pitch, rows_left))
        for column in range(0, 2 * columns, width):
            j, odd = divmod(column, 2)
            here, at = _more(builder, columns_left, 8 * j + odd), 4 * (8 * j + odd)
            if staged:
                extra = _load(builder, added, at, width, staged)
            else:
                where = [added, builder.zext(here, I32)]
                loaded = assembly(builder, load.format(at=at), "lr", "r" * width, where, pure=False, early=True)
                extra = words(builder, loaded, 2) if paired else [loaded]
            for row, address, exists in places:
                first = 4 * (row // 2 * columns + j) + 2 * (row % 2) + odd
                sums = [builder.add(acc[first + i], extra[i]) for i in range(width)]
                there = builder.and_(exists, here)
                _if(builder, there, store.format(at=at), "l" + "r" * width, [address, *sums])

    return on_registers(
        4 * rows * columns, (INT64, INT64, INT32, INT32, INT32 if staged else INT64), body, writes=False
    )


def ADD_SUMS(rows: int, columns: int) -> Any:
    """``f(...)``: adds acc to the int32 that are there, atomically."""

    def body(builder: Any, acc: list[Any], arguments: Any) -> None:
        out, pitch, rows_left, columns_left = arguments
        for row, address, exists in _rows(builder, rows, out, pitch, rows_left):
            for column in range(2 * columns):
                j, odd = divmod(column, 2)
                where = builder.and_(exists, _more(builder, columns_left, 8 * j + odd))
                value = acc[4 * (row // 2 * columns + j) + 2 * (row % 2) + odd]
                _if(builder, where, f"red.global.add.s32 [$0+{4 * (8 * j + odd)}], $1;", "lr", [address, value])

    return on_registers(4 * rows * columns, (INT64, INT64, INT32, INT32), body, writes=False)


def STORE_QUANTIZED(rows: int, columns: int, groups: int, signed: bool, staged: bool) -> Any:
    """``f(..., added, multiplier, shift, zero)``: stores 8 bits.

    q = saturate(((acc + added) * multiplier >> 32) + (zero << shift - 1) >> shift),  zero = 2 zero_point + 1

    ``columns`` blocks of 8 lie in each of ``groups``, and B's rows so that a lane's columns of a group are
    2 ``columns`` neighbours. added, multiplier: int32 a column; shift: a byte a column, 1 to 30. These addresses
    and ``out`` are those of the lane's first column; staged: they lie in shared memory. A group exists or does not.
    """
    run = 2 * columns
    high = "mad.hi.s32 $0, $1, $2, $3;"

    def fields(builder: Any, places: Any, zero: Any, column: int) -> list[tuple[Any, ...]]:
        """(added, multiplier, constant, shift) of four neighbouring columns."""
        added, multiplier, shift = places
        biases = _load(builder, added, 4 * column, 4, staged)
        factors = _load(builder, multiplier, 4 * column, 4, staged)
        (packed,) = _load(builder, shift, column, 1, staged)
        shifts = [builder.and_(builder.lshr(packed, constant(8 * i)), constant(255)) for i in range(4)]
        constants = [builder.shl(zero, builder.sub(s, constant(1))) for s in shifts]
        return list(zip(biases, factors, constants, shifts, strict=True))

    def body(builder: Any, acc: list[Any], arguments: Any) -> None:
        out, pitch, rows_left, columns_left, *places, zero = arguments
        for group in range(groups):
            with builder.if_then(_more(builder, columns_left, 4 * run * group)):
                packed: list[list[Any]] = [[] for _ in range(2 * rows)]
                for first in range(0, run, 4):
                    four_columns = fields(builder, places, zero, 4 * run * group + first)
                    for row in range(2 * rows):
                        four = []
                        for c, (bias, multiplier, rest, shift) in enumerate(four_columns, start=first):
                            block = row // 2 * columns * groups + group * columns + c // 2
                            total = builder.add(acc[4 * block + 2 * (row % 2) + c % 2], bias)
                            value = assembly(builder, high, "rrr", "r", [total, multiplier, rest], pure=True)
                            four.append(builder.ashr(value, shift))
                        packed[row].append(assembly(builder, pack4_text(signed), "rrrr", "r", four, pure=True))
                for row, address, exists in _rows(builder, rows, out, pitch, rows_left):
                    store = _STORES[run // 4].format(at=4 * run * group)
                    _if(builder, exists, store, "l" + "r" * (run // 4), [address, *packed[row]])

    places = (INT32 if staged else INT64,) * 3
    takes = (INT64, INT64, INT32, INT32, *places, INT32)
    return on_registers(4 * rows * columns * groups, takes, body, writes=False)

"""Tile registers in LLVM's language: eight of 16 rows of 64 bytes, and the product of two added to a third."""

from __future__ import annotations

from typing import Any

from llvmlite import ir

from intsim.backends.vectors import I8, I32, I64, Loop, Vectors

REGISTERS, ROWS, BYTES = 8, 16, 64  # BYTES: of a row
SIZE = ROWS * BYTES


class Tiles:
    """Writes operations on tiles into a function under construction. Addresses are int64, registers are numbers.

    A rung without the instructions keeps the registers in memory, for as long as the function runs.
    """

    def __init__(self, v: Vectors) -> None:
        assert v.rung.tiles is not None
        self._v, self._builder, self._prefix = v, v.builder, v.rung.tiles
        if not self._prefix:
            with self._builder.goto_entry_block():
                memory = self._builder.alloca(ir.ArrayType(I8, REGISTERS * SIZE))
                self._memory = self._builder.ptrtoint(memory, I64)

    def _call(self, name: str, *values: Any) -> None:
        self._v.call(self._prefix + name, ir.VoidType(), *values)

    def _pointer(self, address: Any) -> Any:
        return self._builder.inttoptr(address, I8.as_pointer())

    def configure(self) -> None:
        """Every register of this thread becomes whole, until ``release``."""
        if not self._prefix:
            return
        layout = bytearray(64)
        layout[0] = 1  # the only palette there is
        layout[16 : 16 + 2 * REGISTERS : 2] = bytes([BYTES] * REGISTERS)  # 16 bits each
        layout[48 : 48 + REGISTERS] = bytes([ROWS] * REGISTERS)
        module = self._builder.module
        held = ir.GlobalVariable(module, ir.ArrayType(I8, 64), module.get_unique_name("whole.tiles"))
        held.linkage, held.global_constant = "internal", True
        held.initializer = ir.Constant(held.value_type, layout)
        self._call("ldtilecfg", self._builder.bitcast(held, I8.as_pointer()))

    def release(self) -> None:
        if self._prefix:
            self._call("tilerelease")

    def load(self, register: int, address: Any, apart: Any) -> None:
        """Rows that lie ``apart`` bytes from each other; 0: one row, in all."""
        if self._prefix:
            self._call("tileloadd64", I8(register), self._pointer(address), apart)
            return
        for row in range(ROWS):
            at = self._builder.add(address, self._builder.mul(apart, I64(row)))
            self._v.store(self._v.load(at), self._at(register, I64(row)))

    def store(self, register: int, address: Any, apart: Any) -> None:
        if self._prefix:
            self._call("tilestored64", I8(register), self._pointer(address), apart)
            return
        for row in range(ROWS):
            at = self._builder.add(address, self._builder.mul(apart, I64(row)))
            self._v.store(self._v.load(self._at(register, I64(row))), at)

    def add_products(self, acc: int, a: int, b: int, *, signed: bool) -> None:
        """``acc[i, j] += sum_kt a[i, k, t] b[k, j, t]`` modulo 2**32: int32, (u)int8 [16, 16, 4], int8 [16, 16, 4].

        signed: whether ``a`` is.
        """
        if self._prefix:
            self._call("tdpbssd" if signed else "tdpbusd", I8(acc), I8(a), I8(b))
            return
        v, build = self._v, self._builder
        rows = Loop(build, I64(ROWS), [I64(0)])
        (row,) = rows.values
        steps = Loop(build, I64(BYTES // 4), [I64(0), v.load(self._at(acc, row))])
        step, total = steps.values
        left = v.splat(v.load(build.add(self._at(a, row), build.mul(step, I64(4))), I32))
        right = v.load(self._at(b, step))
        top = v.constant(24)
        for byte in range(4):
            up = v.constant(24 - 8 * byte)
            x, y = build.shl(left, up), build.ashr(build.shl(right, up), top)
            total = build.add(total, build.mul(build.ashr(x, top) if signed else build.lshr(x, top), y))
        steps.end([build.add(step, I64(1)), total])
        v.store(total, self._at(acc, row))
        rows.end([build.add(row, I64(1))])

    def _at(self, register: int, row: Any) -> Any:
        """The address of a row of a register in memory."""
        return self._builder.add(
            self._memory, self._builder.add(I64(register * SIZE), self._builder.mul(row, I64(BYTES)))
        )

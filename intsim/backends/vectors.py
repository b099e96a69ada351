"""Vectors of int32 in LLVM's language: what the micro-kernels of the CPU are written in.

A rung is a set of instructions, widest first. Its choice depends on the machine that code is
generated for and on nothing else, so that a kernel compiled for one CPU is the same everywhere.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from llvmlite import ir

from intsim.compiling import Machine

I8, I16, I32, I64 = (ir.IntType(bits) for bits in (8, 16, 32, 64))


@dataclass(frozen=True, slots=True)
class Rung:
    """A set of vector instructions.

    lanes: int32 elements a vector. needs: the features, as LLVM writes them.
    pairs: the instruction that multiplies int16 and adds neighbours in int32 (exact modulo 2**32).
    quads: the one that adds four products of uint8 and int8 to int32 (exact modulo 2**32). Empty: bytes
        are multiplied four at a time, but in LLVM's own operations.
    bytes: the one that multiplies uint8 by int8 and adds neighbours in int16, where it saturates.
    crossed: whether tiles of bytes go faster by sums that are crossed: as many instructions as by pairs, but a
        quarter of them multiplies, not a half.
    tiles: what the names of the instructions on tiles of 16 rows begin with. Empty: LLVM's own operations stand in
        for them.
    """

    name: str
    lanes: int
    needs: tuple[str, ...] = ()
    pairs: str | None = None
    quads: str | None = None
    bytes: str | None = None
    crossed: bool = False
    tiles: str | None = None


AVX512_VNNI = Rung(
    "avx512vnni",
    16,
    ("+avx512bw", "+avx512vnni"),
    "llvm.x86.avx512.pmaddw.d.512",
    "llvm.x86.avx512.vpdpbusd.512",
    "llvm.x86.avx512.pmaddubs.w.512",
)
AMX = replace(AVX512_VNNI, name="amx", needs=(*AVX512_VNNI.needs, "+amx-tile", "+amx-int8"), tiles="llvm.x86.")
AVX512_BW = Rung("avx512bw", 16, ("+avx512bw",), "llvm.x86.avx512.pmaddw.d.512", None, "llvm.x86.avx512.pmaddubs.w.512")
AVX_VNNI = Rung(
    "avxvnni",
    8,
    ("+avx2", "+avxvnni"),
    "llvm.x86.avx2.pmadd.wd",
    "llvm.x86.avx512.vpdpbusd.256",
    "llvm.x86.avx2.pmadd.ub.sw",
)
AVX2 = Rung("avx2", 8, ("+avx2",), "llvm.x86.avx2.pmadd.wd", None, "llvm.x86.avx2.pmadd.ub.sw", crossed=True)
SSE2 = Rung("sse2", 4, (), "llvm.x86.sse2.pmadd.wd")
GENERIC = Rung("generic", 4)
RUNGS = (AMX, AVX512_VNNI, AVX512_BW, AVX_VNNI, AVX2, SSE2, GENERIC)


def rung(machine: Machine) -> Rung:
    """The widest rung that ``machine`` has; on anything but x86-64 the generic one, in LLVM's own operations."""
    if not machine.triple.startswith("x86_64"):
        return GENERIC
    features = set(machine.features.split(","))
    return next(r for r in RUNGS if features.issuperset(r.needs))


class _Again(ir.LoadInstr):  # type: ignore[misc]  # llvmlite has no types, so that mypy sees Any as the base
    """A load that stays where it is written: LLVM calls it volatile."""

    def descr(self, buf: list[str]) -> None:
        (address,) = self.operands
        buf.append(f"load volatile {self.type}, {address.type} {address.get_reference()}, align 4\n")


class Vectors:
    """Writes operations on vectors of one rung into a function under construction. Addresses are int64."""

    def __init__(self, builder: Any, rung: Rung) -> None:
        self.builder, self.rung = builder, rung
        self.type = ir.VectorType(I32, rung.lanes)

    def of(self, element: Any) -> Any:
        """The vector type of a register's size with these elements."""
        return ir.VectorType(element, self.rung.lanes * 32 // element.width)

    @property
    def wide(self) -> Any:
        """The type of int64 in a register."""
        return ir.VectorType(I64, self.rung.lanes // 2)

    def narrow(self, element: Any) -> Any:
        """As many elements as there are lanes."""
        return ir.VectorType(element, self.rung.lanes)

    def at(self, address: Any, offset: int) -> Any:
        return self.builder.add(address, I64(offset)) if offset else address

    def load(self, address: Any, of: Any = None) -> Any:
        of = of or self.type
        made = self.builder.load(self.builder.inttoptr(address, of.as_pointer()))
        made.align = 1
        return made

    def store(self, value: Any, address: Any) -> None:
        self.builder.store(value, self.builder.inttoptr(address, value.type.as_pointer())).align = 1

    def again(self, slot: Any, of: Any = None) -> Any:
        """What lies in memory at ``slot``, read where this is written and not before a loop.

        Out of sight of a constant LLVM forgets that it has 32 bits, and would multiply by 64.
        """
        made = _Again(self.builder.block, slot, "", typ=of or self.type)
        self.builder._insert(made)
        return made

    def ask_for(self, address: Any, *, to_write: bool = False) -> None:
        """Has the caches fetch what lies at ``address``, which may be outside of every array."""
        place = self.builder.inttoptr(address, I8.as_pointer())
        soon, data = I32(3), I32(1)
        self.call("llvm.prefetch.p0", ir.VoidType(), place, I32(int(to_write)), soon, data)

    def splat(self, scalar: Any, count: int = 0) -> Any:
        """``scalar`` in every one of ``count`` elements (a whole register where 0)."""
        of = ir.VectorType(scalar.type, count) if count else self.of(scalar.type)
        one = self.builder.insert_element(ir.Constant(of, ir.Undefined), scalar, I32(0))
        return self.shuffle(one, one, [0] * of.count)

    def constant(self, value: int, element: Any = I32) -> Any:
        of = self.of(element)
        return ir.Constant(of, [value] * of.count)

    def within(self, x: Any, low: int, high: int) -> Any:
        """Signed elements, saturated."""
        for limit, test in (low, ">"), (high, "<"):
            bound = ir.Constant(x.type, [limit] * x.type.count)
            x = self.builder.select(self.builder.icmp_signed(test, x, bound), x, bound)
        return x

    def wide_constant(self, value: int) -> Any:
        return ir.Constant(self.wide, [value] * self.wide.count)

    def spread(self, scalar: Any) -> Any:
        """An int64 in every pair of lanes."""
        return self.splat(scalar, self.rung.lanes // 2)

    def widened(self, address: Any, element: Any) -> Any:
        """int32 of as many narrower elements."""
        return self.builder.sext(self.load(address, self.narrow(element)), self.type)

    def shuffle(self, a: Any, b: Any, picks: Sequence[int]) -> Any:
        return self.builder.shuffle_vector(a, b, ir.Constant(ir.VectorType(I32, len(picks)), list(picks)))

    def cast(self, value: Any, element: Any) -> Any:
        return self.builder.bitcast(value, self.of(element))

    def call(self, name: str, returns: Any, *values: Any) -> Any:
        """An instruction of the machine, by LLVM's name for it."""
        return self.builder.call(self.function(name, returns, [v.type for v in values]), values)

    def function(self, name: str, returns: Any, takes: Sequence[Any]) -> Any:
        """One of LLVM's own, declared where it is not yet."""
        module = self.builder.module
        found = module.globals.get(name)
        return ir.Function(module, ir.FunctionType(returns, takes), name) if found is None else found

    def magnitude(self, x: Any) -> Any:
        sign = self.builder.ashr(x, self.constant(31))
        return self.builder.sub(self.builder.xor(x, sign), sign)

    def add_pairs(self, acc: Any, a: Any, b: Any) -> Any:
        """``acc`` + the two products of int16 in each int32 of ``a`` and ``b``, modulo 2**32."""
        build = self.builder
        if self.rung.pairs:
            product = self.call(self.rung.pairs, self.type, self.cast(a, I16), self.cast(b, I16))
            return build.add(acc, product)
        half = self.constant(16)
        low = build.mul(build.ashr(build.shl(a, half), half), build.ashr(build.shl(b, half), half))
        return build.add(acc, build.add(low, build.mul(build.ashr(a, half), build.ashr(b, half))))

    def add_quads(self, acc: Any, unsigned: Any, signed: Any) -> Any:
        """``acc`` + the four products uint8 by int8 in each int32, modulo 2**32.

        Where the rung has ``bytes`` only, two neighbouring products must fit int16 together.
        """
        build = self.builder
        if self.rung.quads:
            return self.call(self.rung.quads, self.type, acc, unsigned, signed)
        if self.rung.bytes:
            pairs = self.call(self.rung.bytes, self.of(I16), self.cast(unsigned, I8), self.cast(signed, I8))
            return self.add_pairs(acc, build.bitcast(pairs, self.type), self.cast(self.constant(1, I16), I32))
        for byte in range(4):
            top, up = self.constant(24), self.constant(24 - 8 * byte)
            a, b = build.lshr(build.shl(unsigned, up), top), build.ashr(build.shl(signed, up), top)
            acc = build.add(acc, build.mul(a, b))
        return acc

    def add_small_quads(self, acc: Any, unsigned: Sequence[Any], signed: Sequence[Any]) -> Any:
        """``acc`` + the products of a few vectors of bytes, where the unsigned ones are below 16: at most 8 of them.

        Their sums by pairs then fit int16 (8 * 2 * 15 * 128 < 2**15), so they are added there.
        """
        assert len(unsigned) <= 8
        if self.rung.quads is not None or not self.rung.bytes:
            for u, s in zip(unsigned, signed, strict=True):
                acc = self.add_quads(acc, self.cast(u, I32), self.cast(s, I32))
            return acc
        pairs = None
        for u, s in zip(unsigned, signed, strict=True):
            made = self.call(self.rung.bytes, self.of(I16), u, s)
            pairs = made if pairs is None else self.builder.add(pairs, made)
        return self.add_pairs(acc, self.cast(pairs, I32), self.cast(self.constant(1, I16), I32))

    def transpose(self, rows: Sequence[Any]) -> list[Any]:
        """The transpose of a square of int32, one row a vector."""
        rows, lanes = list(rows), self.rung.lanes
        distance = lanes // 2
        while distance:
            for i in range(lanes):
                if not i & distance:
                    a, b = rows[i], rows[i + distance]
                    upper = [lane & distance for lane in range(lanes)]
                    rows[i] = self.shuffle(
                        a, b, [lanes + lane - distance if up else lane for lane, up in enumerate(upper)]
                    )
                    rows[i + distance] = self.shuffle(
                        a, b, [lanes + lane if up else lane + distance for lane, up in enumerate(upper)]
                    )
            distance //= 2
        return rows

    def sum(self, value: Any) -> Any:
        """The sum of the elements, modulo 2**32."""
        return self.call(f"llvm.vector.reduce.add.v{self.rung.lanes}i32", I32, value)


class Loop:
    """A loop of ``count`` >= 1 turns: its body is what is written until ``end``.

    carried: the values before the first turn; ``values`` are those of a turn.
    """

    def __init__(self, builder: Any, count: Any, carried: Sequence[Any]) -> None:
        self._builder, self._count = builder, count
        before = builder.block
        self._body, self._after = builder.append_basic_block("turn"), builder.append_basic_block("done")
        builder.branch(self._body)
        builder.position_at_end(self._body)
        self._phis = [builder.phi(v.type) for v in (I64(0), *carried)]
        for phi, value in zip(self._phis, (I64(0), *carried), strict=True):
            phi.add_incoming(value, before)
        self.values = self._phis[1:]

    def end(self, carried: Sequence[Any]) -> None:
        """Closes the body; ``carried`` are the values for the next turn, and after the last the results."""
        builder = self._builder
        turn = builder.add(self._phis[0], I64(1))
        for phi, value in zip(self._phis, (turn, *carried), strict=True):
            phi.add_incoming(value, builder.block)
        builder.cbranch(builder.icmp_signed("<", turn, self._count), self._body, self._after)
        builder.position_at_end(self._after)

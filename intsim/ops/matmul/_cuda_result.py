"""What a matrix product leaves in memory: a choice that kernels are compiled for."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Result:
    """bits 32: the sum and what is added to it. bits 8: requantized, signed or not.

    paired: the number of columns is even (32 bits). adds: to what is there, with nothing else added: blocks
    that share a tile's depth. fours: B's rows are ordered so that a lane stores four sums at once.
    """

    bits: int = 32
    signed: bool = True
    paired: bool = True
    adds: bool = False
    fours: bool = False

    def __str__(self) -> str:
        kind = f"{'int' if self.signed else 'uint'}{self.bits}"
        return kind + ("" if self.bits == 8 or self.paired else "_odd") + "_added" * self.adds + "_fours" * self.fours

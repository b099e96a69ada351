"""What a matrix product leaves in memory: a choice that kernels are compiled for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Finish:
    """What becomes of a sum: programs of ops, by the composite that they are stages of.

    apply(acc, i, j, x, p) gives the result from one sum with its bias; x, p: the composite's inputs and record.
    """

    name: str
    apply: Callable[..., Any]


@dataclass(frozen=True)
class Result:
    """bits 32: the sum and what is added to it. bits 8: requantized, signed or not.

    finish: bits of what it makes of each sum, in place of both.

    paired: the number of columns is even (32 bits). adds: to what is there, with nothing else added: blocks
    that share a tile's depth. fours: B's rows are ordered so that a lane stores four sums at once.
    """

    bits: int = 32
    signed: bool = True
    paired: bool = True
    adds: bool = False
    fours: bool = False
    finish: Finish | None = None

    def __str__(self) -> str:
        kind = f"{'int' if self.signed else 'uint'}{self.bits}"
        if self.finish is not None:
            return f"{kind}_{self.finish.name}"
        return kind + ("" if self.bits == 8 or self.paired else "_odd") + "_added" * self.adds + "_fours" * self.fours

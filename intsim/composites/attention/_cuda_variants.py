"""The softmaxes of the fused attention kernel: their steps, and their records with the rules as constants."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from intsim.backends.cuda_intrinsics import on_device
from intsim.ops.softmax import Steps, _cuda_ibert, gemmlowp, ibert, polynomial
from intsim.params import Real, kinds
from intsim.records import fields_class


@dataclass(frozen=True)
class Variant:
    """A softmax, and what of its record a kernel is compiled for: no branch for other rules, no loop of any length.

    narrow: by steps in 32 bits.
    """

    name: str
    constant: tuple[int, ...]
    narrow: bool = False

    def __str__(self) -> str:
        return f"{self.name}{self.constant}{'_narrow' if self.narrow else ''}"

    def steps(self) -> Steps:
        if self.narrow:
            return _cuda_ibert.STEPS
        steps: Steps = {"ibert": ibert, "gemmlowp": gemmlowp, "polynomial": polynomial}[self.name].STEPS
        return steps

    def with_constants(self) -> Any:
        """``f(p)``: the record with the constants in it."""
        if self.name == "gemmlowp":
            return _gemmlowp_record()
        return (_ibert_record if self.name == "ibert" else _polynomial_record)(*self.constant)


def _ibert_record(out_bits: int, rounding: int) -> Any:
    made = fields_class(*(n for n, k in kinds(ibert.Params).items() if not isinstance(k, Real)))

    @on_device
    def settled(p: Any) -> Any:
        return made(p.ln2, p.b, p.c, out_bits, p.q, rounding)

    return settled


def _gemmlowp_record() -> Any:
    @on_device
    def settled(p: Any) -> Any:
        return p

    return settled


def _polynomial_record(degree: int, out_bits: int, rounding: int) -> Any:
    made = fields_class(*(n for n, k in kinds(polynomial.Params).items() if not isinstance(k, Real)))

    @on_device
    def settled(p: Any) -> Any:
        return made(p.b, p.delta_root, degree, out_bits, p.q, rounding)

    return settled

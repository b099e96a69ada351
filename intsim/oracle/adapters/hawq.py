"""HAWQ-V3's requantization as a backend under test: the published PyTorch code.

    requantize.dyadic    fixedpoint_fn, case 0: 8 and 16 bits, signed ("symmetric") and unsigned

It takes three scales and makes multiplier and shift of their quotient, in float64 of float32 scales;
the adapter finds scales whose quotient is the multiplier that is judged.
Source: Zhen-Dong/HAWQ utils/quantization_utils/quant_utils.py.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from intsim.numerics import int8, int16, uint8
from intsim.oracle.adapter import Capability, System, Unsupported
from intsim.oracle.adapters import _research_cases as own
from intsim.oracle.adapters._checkout import Checkout, module, on_cpu, torch, torch_version, whole
from intsim.oracle.cases import Case
from intsim.spec.tflite import quantize_multiplier

CHECKOUT = Checkout(
    name="hawq",
    repository="Zhen-Dong/HAWQ",
    commit="1616df6",
    folder="utils/quantization_utils",
    files={"quant_utils.py": "c362550a8f6eb43ddff33a1440e5612b56e87ef22baab6831a2d5cd89d695e7b"},
)
SYSTEM = System(
    title="HAWQ-V3",
    runs="source checkout",
    needs=CHECKOUT.needs,
    source="Zhen-Dong/HAWQ utils/quantization_utils/quant_utils.py",
    left={
        "fixedpoint_fn, case 1": "a residual sum, which add.dyadic states with an unlimited result: the two sides come "
        "in one float tensor that holds both only where they are short, and their sum goes out as float32",
    },
)
FLOAT32 = 2**24  # integers up to here are float32 scales


@dataclass
class Backend:
    """The adapter. folder: a checkout of the repository. Raises ValueError where it is none."""

    folder: str = ""
    name: str = "hawq"
    _place: Path = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self._place = CHECKOUT.at(self.folder)

    def capabilities(self) -> Sequence[Capability]:
        held: dict[str, Any] = {"zero_point": own.NO_ZERO_POINT, "dtype": (int8, uint8, int16)}
        return [Capability("requantize.dyadic", held, 40, 24, own.dyadic_unsigned, "fixedpoint_fn case 0")]

    def versions(self) -> Mapping[str, str]:
        return {"HAWQ": CHECKOUT.version(self._place), "torch": torch_version()}

    def run(self, case: Case) -> Any:
        p = case.params
        if case.op.name != "requantize.dyadic":
            raise Unsupported(f"HAWQ has no integer function for {case.op.name}")
        if p.dtype not in (int8, uint8, int16) or p.zero_point.any():
            raise Unsupported("fixedpoint_fn clamps to 8 or 16 bits and adds no zero point")
        n = case.acc.shape[-1]
        pairs = [_scales(int(m), int(s)) for m, s in zip(*np.broadcast_arrays(p.multiplier, p.shift), strict=True)]
        weight, result = (np.broadcast_to(np.array(side), n).copy() for side in zip(*pairs, strict=True))
        tensor = torch().tensor
        with on_cpu():
            y = module(self._place, "quant_utils").fixedpoint_fn.apply(
                tensor(case.acc * weight),  # float64: acc comes back whole when both scales are divided away
                p.dtype.bits,
                "symmetric" if p.dtype.signed else "asymmetric",
                tensor(result),
                0,
                tensor([1.0], dtype=torch().float64),
                tensor(weight),
            )
        return whole(y.numpy(), case)


@cache
def _scales(multiplier: int, shift: int) -> tuple[float, float]:
    """Two float32 scales whose quotient has this multiplier and shift, when its 31 bits are rounded."""
    if not multiplier:
        raise Unsupported("fixedpoint_fn divides by its scales: a multiplier of 0 is none of theirs")
    exponent = multiplier.bit_length() - 31
    full, shift = multiplier << -exponent, shift - exponent  # HAWQ's multipliers have 31 bits; the value is the same
    near = Fraction(full, 2**31).limit_denominator(FLOAT32)
    if near and quantize_multiplier(float(near.numerator) / near.denominator) == (full, 31):
        return float(near.numerator), float(Fraction(near.denominator) * Fraction(2) ** (shift - 31))
    raise Unsupported(f"no two float32 scales have the quotient {full} / 2**31")

"""FQ-ViT's log-int-softmax as a backend under test: the published PyTorch code, in float64, on exact integers.

    softmax.fqvit    QIntSoftmax with log_i_softmax

The module carries real = scale * q and takes q back with a division, in float32. Here it runs in
float64, at scales of few bits, so that it sees the integers.
Source: megvii-research/FQ-ViT models/ptq/layers.py.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np

from intsim.ops.softmax import fqvit
from intsim.oracle.adapter import Capability, System, Unsupported
from intsim.oracle.adapters import _research_cases as own
from intsim.oracle.adapters._checkout import Checkout, module, on_cpu, short_scale, torch, torch_version, whole
from intsim.oracle.cases import Case

CHECKOUT = Checkout(
    name="fqvit",
    repository="megvii-research/FQ-ViT",
    commit="5daf591",
    folder="models/ptq",
    files={
        "layers.py": "4dcde6048cb7de5833b2594df2b6ed7176fbd05cc389f02652bcc5b958bed0c7",
        "bit_type.py": "1ea9804e01fb3edad923f6c59049cb0e0dd8078c3ca61a3105a48a8e4e1bee87",
    },
)
SYSTEM = System(
    title="FQ-ViT",
    runs="source checkout",
    needs=CHECKOUT.needs,
    source="megvii-research/FQ-ViT models/ptq/layers.py",
    left={
        "QIntLayerNorm": "mean, standard deviation and the factors made of them are floats of the data: "
        "no integer rule to state",
        "QIntSoftmax in float32, as published": "(q * scale) / scale is not q where the scale is no power of two: "
        "441 of 567,360 results differ at 30 such scales, none of 113,472 at powers of two",
    },
)
EXACT = 2**53  # below it every integer is a float64
SCALES = (2.0**-3, 2.0**-4, 2.0**-5, 2.0**-6, 0.071, 0.15, 0.3)


@dataclass
class Backend:
    """The adapter. folder: a checkout of the repository. Raises ValueError where it is none."""

    folder: str = ""
    name: str = "fqvit"
    _place: Path = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self._place = CHECKOUT.at(self.folder)

    def capabilities(self) -> Sequence[Capability]:
        """One for each scale: the module makes its three constants of one."""
        made = []
        for scale in SCALES:
            p = fqvit.Params.from_scale(scale)
            held = {"ln2": (p.ln2,), "b_over_a": (p.b_over_a,), "c_over_a": (p.c_over_a,)}
            made.append(Capability("softmax.fqvit", held, 3, 24, partial(own.log_int_softmax, scale), "QIntSoftmax"))
        return made

    def versions(self) -> Mapping[str, str]:
        return {"FQ-ViT": CHECKOUT.version(self._place), "torch": torch_version(), "arithmetic": "float64"}

    def run(self, case: Case) -> Any:
        if case.op.name != "softmax.fqvit":
            raise Unsupported(f"FQ-ViT has no integer module for {case.op.name}")
        p, n = case.params, case.q.shape[-1]
        if (case.stop != n).any():
            raise Unsupported("QIntSoftmax has no mask")
        if (p.c_over_a << 30) * n >= EXACT:
            raise Unsupported("QIntSoftmax in float64 holds totals below 2**53")
        scale = _scale(p.ln2, p.b_over_a, p.c_over_a)
        with on_cpu():
            bits = module(self._place, "bit_type").BitType(p.code_bits, False)
            made = module(self._place, "layers").QIntSoftmax(log_i_softmax=True, quant=True, bit_type=bits)
            x = torch().tensor(case.q.astype(np.float64) * scale)
            y = made(x, torch().tensor([scale], dtype=torch().float64))
        return whole(y.numpy() * 2.0 ** (2**p.code_bits - 1), case)


@cache
def _scale(ln2: int, b_over_a: int, c_over_a: int) -> float:
    """A scale of few bits of which the module makes these three constants."""
    a, b = fqvit.A, fqvit.B / fqvit.A
    low = max(fqvit.LN2 / ln2, b / (b_over_a + 1), math.sqrt(1.0 / a / (c_over_a + 1)))  # each constant: below it
    found = short_scale(
        Fraction(low),
        lambda s: (
            (math.floor(-fqvit.LN2 / s), math.floor(b / s), math.floor(1.0 / a / s**2)) == (-ln2, b_over_a, c_over_a)
        ),
    )
    if found is None:
        raise Unsupported(f"no scale of 22 bits makes the constants {ln2}, {b_over_a}, {c_over_a}")
    return found

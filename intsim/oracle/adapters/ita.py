"""The Python model of the ITA accelerator as a backend under test: NumPy, on integers.

    softmax.itapartialmax         streamingPartialSoftmax    groups of 16, a shift for every step
    activation.gelu_ita           i_gelu
    requantize.single_rounding    requantize                 ties to positive, 8-bit multipliers

The model's probabilities are uint8; itapartialmax holds the same less 128.
Source: pulp-platform/ITA PyITA/{softmax,gelu,util}.py.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from intsim.binding import Array
from intsim.numerics import Order, Rounding, int8
from intsim.oracle.adapter import Capability, System, Unsupported
from intsim.oracle.adapters import _research_cases as own
from intsim.oracle.adapters._checkout import Checkout, module, whole
from intsim.oracle.cases import Case

CHECKOUT = Checkout(
    name="ita",
    repository="pulp-platform/ITA",
    commit="ba96519",
    folder="PyITA",
    files={
        "softmax.py": "16bcad03d8acfe0df3a64bb0816c941010fd2a293cceae33ecabb7e7605d6e14",
        "gelu.py": "55262442dd730619999a8f4a7b66f3139892f9f434987ed15e2e52bc55ebf4a7",
        "util.py": "9f2420a140df7a9986be163c143d4dda36755f661c4e27fb0b9d38172ec79f89",
    },
)
SYSTEM = System(
    title="ITA (PyITA)",
    runs="source checkout",
    needs=CHECKOUT.needs,
    source="pulp-platform/ITA PyITA/softmax.py, gelu.py, util.py",
    left={
        "fastSoftmax": "sums 256 / 2**shift in float64, and 2**shift leaves int64 from a shift of 63 on: "
        "it divides by zero at a difference of 64",
        "i_gelu_requantized": "activation.gelu_ita, then requantize.single_rounding: the two rows, one after the other",
    },
)
GROUP = 16  # columns that the accelerator takes at once
MOST_SHIFT = 22  # the model adds 2**-23 before the floor: at 23 places what is below a half would round up


@dataclass
class Backend:
    """The adapter. folder: a checkout of the repository. Raises ValueError where it is none."""

    folder: str = ""
    name: str = "ita"
    _place: Path = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self._place = CHECKOUT.at(self.folder)

    def capabilities(self) -> Sequence[Capability]:
        streamed: dict[str, Any] = {"step_bits": (0,), "peak": (255,), "group": (GROUP,), "levels": (256,)}
        rounded: dict[str, Any] = {
            "rounding": (Rounding.TIES_TO_POSITIVE,),
            "zero_point_added": (Order.LAST,),
            "dtype": (int8,),
            "multiplier": tuple(np.array([m]) for m in (0, 1, 3, 29, 127, 128, 255)),
            "shift": tuple(np.array([s]) for s in range(MOST_SHIFT + 1)),
            "zero_point": tuple(np.array([z]) for z in range(-128, 128)),
        }
        return [
            Capability(
                "softmax.itapartialmax",
                streamed | {"n": (16, 32, 48)},
                20,
                48,
                own.streamed,
                "streamingPartialSoftmax",
            ),
            Capability("activation.gelu_ita", {}, 20, 24, own.gelu_ita, "i_gelu"),
            Capability("requantize.single_rounding", rounded, 20, 24, own.requantize_ita, "requantize"),
        ]

    def versions(self) -> Mapping[str, str]:
        return {"ITA": CHECKOUT.version(self._place), "numpy": np.__version__}

    def run(self, case: Case) -> Any:
        served = {
            "softmax.itapartialmax": self._softmax,
            "activation.gelu_ita": self._gelu,
            "requantize.single_rounding": self._requantize,
        }
        if case.op.name not in served:
            raise Unsupported(f"PyITA has no function for {case.op.name}")
        return served[case.op.name](case)

    def _softmax(self, case: Case) -> Array:
        m, n = case.q.shape
        if n % GROUP or (case.stop != n).any():
            raise Unsupported("streamingPartialSoftmax takes whole groups of 16 columns, and no mask")
        # It takes heads of n rows each; rows do not depend on one another, so the last head is filled up.
        filled = np.concatenate([case.q, np.repeat(case.q[-1:], -m % n, axis=0)]) if m else case.q
        made = module(self._place, "softmax").streamingPartialSoftmax(filled.reshape(-1, n, n))
        return whole(made.reshape(-1, n)[:m].astype(np.int64) - 128, case)

    def _gelu(self, case: Case) -> Array:
        p = case.params
        constants = (np.int16(p.one), np.int16(p.b), np.int16(p.c))
        one = module(self._place, "gelu").i_gelu  # of one number
        made = [int(one(q, *constants)) for q in case.x.reshape(-1)]
        return whole(np.array(made, np.int64).reshape(case.x.shape), case)

    def _requantize(self, case: Case) -> Array:
        p = case.params
        if p.multiplier.size > 1 or p.shift.size > 1 or p.zero_point.size > 1:
            raise Unsupported("requantize has one multiplier, shift and offset for a head")
        if not (0 <= p.multiplier[0] <= 255 and p.shift[0] <= MOST_SHIFT and -128 <= p.zero_point[0] <= 127):
            raise Unsupported(f"ITA's multipliers and offsets have 8 bits, and shifts up to {MOST_SHIFT} are exact")
        made = module(self._place, "util").requantize(case.acc[None], p.multiplier, p.shift, p.zero_point)
        return whole(made[0], case)

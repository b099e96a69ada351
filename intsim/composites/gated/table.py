"""A gated unit by a table: any activation of an 8-bit gate times the other projection.

    q = rescale(table[gate - qmin] * up)            activation.table, then mul.rescaled

GEGLU, ReGLU and SwiGLU differ in the table alone. ``intsim.tabulate`` makes one from any elementwise
op over 8 bits:

    table = intsim.tabulate("activation.silu", p=silu.Params.from_scales(0.06, 2**-12, x=int8, dtype=int16))

and with that table the result is ``gated.swiglu`` to the bit. A table from a float function is data:
round it once, keep it with the model.

Differs from ``swiglu``: 8-bit gates only, any function.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from intsim.numerics import int8, int16, uint8
from intsim.op import Composition, Op, Port
from intsim.ops.activation import table as lookup
from intsim.ops.mul import rescaled as mul
from intsim.params import Params as Base, stage
from intsim.registry import register


@dataclass(frozen=True, slots=True, eq=False)
class Params(Base):
    table: lookup.Params = stage(lookup.Params, dtype=int16)
    mul: mul.Params = stage(mul.Params, a=int16)


def wire(run: Any, gate: Any, up: Any, table: Any, p: Params) -> Any:
    return run("mul.rescaled", run("activation.table", gate, table, p=p.table), up, p=p.mul)


def examples() -> dict[str, Any]:
    every = np.arange(-128, 128, dtype=np.int8).reshape(8, 32)
    relu = np.maximum(np.arange(-128, 128), 0).astype(np.int16)
    p = Params(lookup.Params(int8, int16), mul.Params.from_scales(0.06, 0.04, 0.1, a=int16))
    far = (np.arange(256) * 257 - 32768).astype(np.int16)
    unsigned = Params(lookup.Params(uint8, int16), mul.Params.from_scales(1e-4, 0.04, 0.1, b_zero_point=-3, a=int16))
    return {
        "ReGLU": ((every, every[::-1, ::-1].copy(), relu), p),
        "an unsigned gate, a table to both ends": ((every.view(np.uint8), every[::-1].copy(), far), unsigned),
    }


OP = register(
    Op(
        name="gated.table",
        version=1,
        cites="Shazeer 2020 (arXiv 2002.05202), eq. (5) and (6), with integers by activation.table and mul.rescaled",
        inputs=(
            Port("gate", "m n", lambda p: p.table.x),
            Port("up", "m n", lambda p: p.mul.b),
            Port("table", "256", int16),
        ),
        outputs=(Port("q", "m n", lambda p: p.mul.dtype),),
        params=Params,
        spec=wire,
        program=Composition(wire),
        examples=examples,
    )
)

"""SwiGLU: the SiLU of the gate times the other projection, on 8 or 16 bits.

    q = rescale(silu(gate) * up)            activation.silu, then mul.rescaled

The SiLU is an int16 in between, on a scale of its own (``hidden``): an int8 there would cost more
than both roundings of the product. ``gate`` and ``up`` are two inputs; a projection that holds both
in one row is sliced by the caller.

Differs from ``table``: inputs of up to 16 bits, no table.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from intsim.numerics import int8, int16, uint8
from intsim.op import Composition, Op, Port
from intsim.ops.activation import silu
from intsim.ops.mul import rescaled as mul
from intsim.params import Params as Base, stage
from intsim.registry import register


@dataclass(frozen=True, slots=True, eq=False)
class Params(Base):
    silu: silu.Params = stage(silu.Params, dtype=int16)
    mul: mul.Params = stage(mul.Params, a=int16)

    @classmethod
    def from_scales(
        cls, gate: float, up: float, result: float, /, *, hidden: float, b_zero_point: int = 0, **fields: Any
    ) -> Params:
        """The parameters for inputs and a result of these scales, with zero points 0; all int8.

        hidden: the scale of the SiLU in between, which reaches 2**15 steps of it (the largest gate / 2**15 loses
        nothing). fields: what ``mul.rescaled`` takes (types, zero points); the gate's are set with ``replace``.
        """
        return cls(
            silu.Params.from_scales(gate, hidden, x=int8, dtype=int16),
            mul.Params.from_scales(hidden, up, result, a=int16, b_zero_point=b_zero_point, **({"b": int8} | fields)),
        )


def wire(run: Any, gate: Any, up: Any, p: Params) -> Any:
    return run("mul.rescaled", run("activation.silu", gate, p=p.silu), up, p=p.mul)


def examples() -> dict[str, Any]:
    every = np.arange(-128, 128, dtype=np.int8).reshape(8, 32)
    wide = (np.arange(-8, 8, dtype=np.int16)[None] << 12) + 3
    plain = Params.from_scales(0.06, 0.04, 0.1, hidden=2.0**-12)
    sixteen = Params(
        silu.Params.from_scales(2.0**-12, 2.0**-12, x=int16, dtype=int16),
        mul.Params.from_scales(2.0**-12, 2.0**-12, 2.0**-9, a=int16, b=int16, dtype=int16),
    )
    unsigned = Params(
        silu.Params.from_scales(0.05, 2.0**-11, a_zero_point=128, zero_point=0, x=uint8, dtype=int16),
        mul.Params.from_scales(2.0**-11, 0.03, 0.05, b_zero_point=131, zero_point=100, a=int16, b=uint8, dtype=uint8),
    )
    return {
        "every gate, int8": ((every, every[::-1, ::-1].copy()), plain),
        "int16": ((wide, wide[:, ::-1].copy()), sixteen),
        "unsigned, zero points": ((every.view(np.uint8), every.T.reshape(8, 32).copy().view(np.uint8)), unsigned),
    }


OP = register(
    Op(
        name="gated.swiglu",
        version=1,
        cites="Shazeer 2020 (arXiv 2002.05202), eq. (6), with integers by activation.silu and mul.rescaled",
        inputs=(Port("gate", "m n", lambda p: p.silu.x), Port("up", "m n", lambda p: p.mul.b)),
        outputs=(Port("q", "m n", lambda p: p.mul.dtype),),
        params=Params,
        spec=wire,
        program=Composition(wire),
        examples=examples,
    )
)

"""Linear layer whose results go through a table: bias, requantization and activation as one op.

    q = table[requantize(matmul(a, b) + bias) - qmin]    matmul.integer, requantize.single_rounding, activation.table

GELU, or any function of 8 bits, between two layers. ``intsim.tabulate`` makes a table from an elementwise op over
8 bits.

Differs from ``single_rounding`` in the table.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from intsim.composites.linear import in_one_kernel
from intsim.numerics import Overflow, Rounding, int32, uint8
from intsim.op import Composition, Op, Port, Size
from intsim.ops.activation import table as lookup
from intsim.ops.matmul import MOST_TERMS, integer as matmul
from intsim.ops.requantize import single_rounding as requantize
from intsim.params import Limit, Params as Base, stage
from intsim.registry import register


@dataclass(frozen=True, slots=True, eq=False)
class Params(Base):
    matmul: matmul.Params = stage(matmul.Params, acc=int32, overflow=Overflow.WRAP)
    requantize: requantize.Params = stage(requantize.Params)
    table: lookup.Params = stage(lookup.Params)

    limits = (Limit("table.x = requantize.dtype", lambda p: bool(p.table.x == p.requantize.dtype)),)


def wire(run: Any, a: Any, b: Any, bias: Any, table: Any, p: Params) -> Any:
    acc = run("matmul.integer", a, b, bias, p=p.matmul)
    return run("activation.table", run("requantize.single_rounding", acc, p=p.requantize), table, p=p.table)


def examples() -> dict[str, Any]:
    a = np.array([[8, 0], [24, 0], [-24, 0], [-128, 127], [0, 0]], np.int8)
    b = np.array([[1, 0], [3, 7], [-128, 127]], np.int8)
    bias, table = np.array([-505, 504, 2**31 - 1 - 2**24], np.int32), (np.arange(256) * 37 % 256 - 128).astype(np.int8)
    plain = Params(matmul.Params(), requantize.Params(2**30, [34, 36, 38], -5), lookup.Params())
    unsigned = Params(
        matmul.Params(7, a=uint8),
        requantize.Params.from_scale(0.01, dtype=uint8, rounding=Rounding.TIES_TO_POSITIVE),
        lookup.Params(uint8, int32),
    )
    return {
        "ties; no bias": ((a, b, None, table), plain),
        "a bias, saturated": ((a, b, bias, table), plain),
        "unsigned, wide results": ((a.view(np.uint8), b, bias, table.astype(np.int32) * 2**20), unsigned),
    }


OP = register(
    Op(
        name="linear.tabulated",
        version=1,
        cites="Jacob et al. 2018 (arXiv 1712.05877), section 2.4; TOSA 1.0 TABLE (int8)",
        inputs=(
            Port("a", "m k", lambda p: p.matmul.a, packing=True),
            Port("b", "n k", lambda p: p.matmul.b, packing=True),
            Port("bias", "n", int32, fill=0),
            Port("table", "256", lambda p: p.table.dtype),
        ),
        outputs=(Port("q", "m n", lambda p: p.table.dtype),),
        params=Params,
        spec=wire,
        program=Composition(wire),
        sizes={"k": Size(1, MOST_TERMS)},
        examples=examples,
        tuned=(in_one_kernel("tabulated", lambda p: p.table.dtype.bits),),
    )
)

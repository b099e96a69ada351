"""Attention with polynomial weights: no exponential, int8 in and out, int16 logits, 8-bit probabilities.

    score = q k^T;   logit = int16(score);   probability = softmax.polynomial(logit);   out = int8(probability v)

The one division by sqrt(c) is part of the logits' multiplier.

Differs from ``ibert`` in the weights alone. They are not invariant under a shift: a zero point of
the logits acts like ``softmax.b``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from intsim.composites.attention import INPUTS, OUTPUTS, attention, examples_of, in_one_kernel
from intsim.numerics import Rounding, int8, int16, int32, uint8
from intsim.op import Composition, Op, Size
from intsim.ops.matmul import MOST_TERMS, integer as matmul
from intsim.ops.requantize import single_rounding as requantize
from intsim.ops.softmax import LONGEST, polynomial as softmax
from intsim.params import Params as Base, stage
from intsim.registry import register


@dataclass(frozen=True, slots=True, eq=False)
class Params(Base):
    score: matmul.Params = stage(matmul.Params, dims={"n": "t", "k": "c"}, a=int8, b=int8, acc=int32)
    logit: requantize.Params = stage(requantize.Params, dims={"n": "t"}, dtype=int16)
    softmax: softmax.Params = stage(softmax.Params, dims={"n": "t"}, q=int16, out_bits=8)
    mix: matmul.Params = stage(matmul.Params, dims={"n": "d", "k": "t"}, a=uint8, b=int8, a_zero_point=0, acc=int32)
    out: requantize.Params = stage(requantize.Params, dims={"n": "d"}, dtype=int8)

    @classmethod
    def from_scales(
        cls, q: float, k: float, v: float, out: float, c: int, *, logit: float = 2.0**-8, **fields: Any
    ) -> Params:
        """The parameters for inputs and a result of these scales, with zero points 0, and heads of ``c`` elements.

        logit: the step of the logits, which reach 2**15 of them; fields: what the softmax's from_scale takes.
        """
        return cls(
            matmul.Params(),
            requantize.Params.from_scale(q * k / (math.sqrt(c) * logit), dtype=int16),
            softmax.Params.from_scale(logit, **fields),
            matmul.Params(a=uint8),
            requantize.Params.from_scale(v / (2**8 * out)),
        )


def wire(run: Any, q: Any, k: Any, v: Any, stop: Any, mask: Any, p: Params) -> Any:
    return attention("softmax.polynomial", run, q, k, v, stop, mask, p)


def examples() -> dict[str, Any]:
    plain = Params.from_scales(0.02, 0.02, 0.05, 0.05, 3)
    per_channel = Params(
        matmul.Params(3, [1, -2, 0, 7, -128]),
        requantize.Params([2**30, 2**29, 2**30, 1, 2**30], [34, 33, 30, 0, 31], 5, dtype=int16),
        softmax.Params(0, 0, 2, rounding=Rounding.TOWARD_NEGATIVE),
        matmul.Params(0, [-5, 9], a=uint8),
        requantize.Params([2**30, 2**29], [38, 38], [-128, 3]),
    )
    return examples_of(plain, per_channel, Params.from_scales(9.0, 9.0, 0.5, 0.01, 3))


OP = register(
    Op(
        name="attention.polynomial",
        version=1,
        cites="Vaswani et al. 2017 (arXiv 1706.03762), eq. (1); Lin et al. 2020 (arXiv 2009.08034)",
        inputs=INPUTS,
        outputs=OUTPUTS,
        params=Params,
        spec=wire,
        program=Composition(wire),
        sizes={"c": Size(1, MOST_TERMS), "t": Size(1, LONGEST)},
        examples=examples,
        tuned=in_one_kernel("with_polynomial"),
    )
)

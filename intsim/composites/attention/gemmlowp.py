"""Attention with the softmax of gemmlowp: int8 all the way, as TFLite's kernels in a row give it.

    score = q k^T;   logit = int8(score);   probability = softmax.gemmlowp(logit);   out = int8(probability v)

Probabilities are int8 with scale 2**-8 and zero point -128. The division by sqrt(c) is part of the
logits' multiplier. With rounding TIES_TO_POSITIVE it is TFLite's single-rounding build.

Differs from TFLite's default build, which requantizes with two roundings. From ``ibert``: logits of
8 bits instead of 16, signed probabilities with a zero point.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from intsim.composites.attention import INPUTS, OUTPUTS, attention, examples_of, in_one_kernel
from intsim.numerics import Rounding, int8, int32
from intsim.op import Composition, Op, Size
from intsim.ops.matmul import MOST_TERMS, integer as matmul
from intsim.ops.requantize import single_rounding as requantize
from intsim.ops.softmax import gemmlowp as softmax
from intsim.params import Params as Base, stage
from intsim.registry import register


@dataclass(frozen=True, slots=True, eq=False)
class Params(Base):
    score: matmul.Params = stage(matmul.Params, dims={"n": "t", "k": "c"}, a=int8, b=int8, acc=int32)
    logit: requantize.Params = stage(requantize.Params, dims={"n": "t"}, dtype=int8)
    softmax: softmax.Params = stage(softmax.Params, dims={"n": "t"}, q=int8, dtype=int8)
    mix: matmul.Params = stage(matmul.Params, dims={"n": "d", "k": "t"}, a=int8, b=int8, a_zero_point=-128, acc=int32)
    out: requantize.Params = stage(requantize.Params, dims={"n": "d"}, dtype=int8)

    @classmethod
    def from_scales(
        cls, q: float, k: float, v: float, out: float, c: int, *, logit: float = 2.0**-4, **fields: Any
    ) -> Params:
        """The parameters for inputs and a result of these scales, with zero points 0, and heads of ``c`` elements.

        logit: the step of the logits, which reach 2**7 of them; fields: fields of the requantizations.
        """
        return cls(
            matmul.Params(),
            requantize.Params.from_scale(q * k / (math.sqrt(c) * logit), **fields),
            softmax.Params.from_scale(logit),
            matmul.Params(-128),
            requantize.Params.from_scale(v / (2**8 * out), **fields),
        )


def wire(run: Any, q: Any, k: Any, v: Any, stop: Any, mask: Any, p: Params) -> Any:
    return attention("softmax.gemmlowp", run, q, k, v, stop, mask, p)


def examples() -> dict[str, Any]:
    plain = Params.from_scales(0.02, 0.02, 0.05, 0.05, 3, rounding=Rounding.TIES_TO_POSITIVE)
    per_channel = Params(
        matmul.Params(3, [1, -2, 0, 7, -128]),
        requantize.Params([2**30, 2**29, 2**30, 1, 2**30], [38, 37, 36, 6, 39], 5),
        softmax.Params.from_scale(0.1),
        matmul.Params(-128, [-5, 9]),
        requantize.Params([2**30, 2**29], [38, 38], [-128, 3]),
    )
    return examples_of(plain, per_channel, Params.from_scales(1.0, 1.0, 0.5, 0.01, 3))


OP = register(
    Op(
        name="attention.gemmlowp",
        version=1,
        cites="Vaswani et al. 2017 (arXiv 1706.03762), eq. (1); "
        "google-ai-edge/LiteRT tflite/kernels/internal/reference/{batch_matmul,softmax}.h",
        inputs=INPUTS,
        outputs=OUTPUTS,
        params=Params,
        spec=wire,
        program=Composition(wire),
        sizes={"c": Size(1, MOST_TERMS), "t": Size(1, softmax.MOST)},
        examples=examples,
        tuned=in_one_kernel("with_gemmlowp"),
    )
)

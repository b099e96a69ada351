"""Softmax by powers of two over one maximum: Deeploy's ITAMax, after the ITA accelerator.

    s = (max q - q + 2**(step_bits - 1)) >> step_bits;   total = sum 256 >> s
    probability = ((peak * 256 // total) >> s) - levels // 2

The base of the exponential is 2 and one step of q is 2**-step_bits of it; nothing else of the scale
is left. A masked column gets -levels // 2, which stands for 0.

Differs from ``ibert``: no polynomial, one division a row, and the floor of the largest probability is
shifted for the others. From ``itapartialmax``: the true maximum, whatever the order of the columns.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from intsim.compiling import Int, portable
from intsim.numerics import int8, int32
from intsim.op import Op, Oracle, Port, Rowwise, Size
from intsim.ops.softmax import LONGEST, real_softmax
from intsim.params import Limit, Params as Base, integer
from intsim.registry import register


@dataclass(frozen=True, slots=True, eq=False)
class Params(Base):
    step_bits: int = integer(0, 7, default=5)
    peak: int = integer(1, 255, default=255)  # what a probability of 1 is; Deeploy: levels - 1
    levels: int = integer(2, 256, default=256)
    limits: ClassVar = (Limit("peak < levels", lambda p: p.peak < p.levels),)


def spec(q: Any, stop: Any, p: Params) -> Any:
    seen = np.arange(q.shape[-1]) < stop.reshape(-1, 1)
    d = np.where(seen, q, int8.qmin).max(axis=-1, keepdims=True) - q
    s = np.clip((d + 2**p.step_bits // 2) // 2**p.step_bits, 0, 62)
    total = np.where(seen, 256 >> s, 0).sum(axis=-1, keepdims=True)
    return np.where(seen, p.peak * 256 // total >> s, 0) - p.levels // 2


@portable
def places(d: Int, step_bits: Int) -> Int:
    return min((d + ((1 << step_bits) >> 1)) >> step_bits, 62)  # nothing is left beyond 8


@portable
def row(i: Int, x: Any, out: Any, p: Any) -> None:
    q, stop, y = x.q[i], np.int64(x.stop[i]), out.probability[i]
    top = np.int64(q[0])
    for j in range(1, stop):
        top = max(top, np.int64(q[j]))
    total = np.int64(0)
    for j in range(stop):
        total += 256 >> places(top - np.int64(q[j]), p.step_bits)  # 2**16 terms: 25 bits
    inverse = p.peak * 256 // total
    for j in range(q.shape[0]):
        y[j] = -(p.levels >> 1)
        if j < stop:
            y[j] = (inverse >> places(top - np.int64(q[j]), p.step_bits)) - (p.levels >> 1)


def examples() -> dict[str, Any]:
    q = np.array([[-128, 127, 126, 0, 111], [5, 5, 5, 5, 5], [-128, -128, 127, -100, -1]], np.int8)
    ties = np.array([[0, -15, -16, -17, -47], [127, 112, 111, 110, 80], [100, 84, 68, 52, 36]], np.int8)
    long = np.zeros((1, 300), np.int8)
    return {
        "extremes and equal": ((q,), Params()),
        "differences at the ties of the shift": ((ties,), Params()),
        "masked": ((q, np.array([1, 3, 4], np.int32)), Params()),
        "a row so long that all get 0": ((long,), Params()),
        "step_bits = 0: a shift for every step": ((q,), Params(step_bits=0)),
        "peak 127 of 256 levels": ((q,), Params(peak=127)),
        "16 levels": ((ties,), Params(levels=16, peak=15)),
    }


OP = register(
    Op(
        name="softmax.itamax",
        version=1,
        cites="Islamoglu et al. 2023 (arXiv 2307.03493); pulp-platform/Deeploy "
        "TargetLibraries/Generic/src/Softmax_s8.c ITAMax_s8",
        inputs=(Port("q", "m n", int8), Port("stop", "m", int32, fill="n", upto="n")),
        outputs=(Port("probability", "m n", int8),),
        params=Params,
        spec=spec,
        program=Rowwise(row),
        sizes={"n": Size(1, LONGEST)},
        examples=examples,
        oracle=Oracle(
            params=lambda bits: Params(round(bits)),
            scales=(0.0, 7.0),  # of step_bits: the scale of q is ln 2 / 2**step_bits
            real=lambda q, stop, p: real_softmax(q * math.log(2) / 2.0**p.step_bits, stop),
            value=lambda out, p: (out + p.levels // 2) / (p.peak + 1),
            # half a power of two in every term, up or down, and the two floors
            bound=lambda p: 0.18 + 2 / p.peak,
        ),
    )
)

"""Softmax by powers of two over a running maximum: Deeploy's ITAPartialMax, as the ITA accelerator streams it.

    groups of columns, left to right:  rise = max(max of the group - top, 0);   top = top + rise
        s = (top - q + half) >> step_bits;   total = (total >> ((rise + half) >> step_bits)) + sum 256 >> s
    then  probability = ((peak * 256 // total) >> ((top - q + half) >> step_bits)) - levels // 2

half = 2**(step_bits - 1). A column counts with the maximum known when its group went by; a later rise
shifts the whole total, rounded on its own, so the order of the columns matters. ``stop`` ends the last
group; Deeploy's rows have whole groups only.

Deeploy has step_bits 5 and a peak of 127, half of itamax's for signed dot products, so that its results
end at -1; quantlib, which trains for it, a peak of 255 and a zero of 0. ITA's own model
(streamingPartialSoftmax) has step_bits 0, a peak of 255 and a zero of 0.

Differs from ``itamax``: the running maximum, and that peak.
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
    group: int = integer(1, LONGEST, default=16)
    step_bits: int = integer(0, 7, default=5)
    peak: int = integer(1, 255, default=127)  # what a probability of 1 is; Deeploy: levels // 2 - 1
    levels: int = integer(2, 256, default=256)
    limits: ClassVar = (Limit("peak < levels", lambda p: p.peak < p.levels),)


def spec(q: Any, stop: Any, p: Params) -> Any:
    n, one = q.shape[-1], 2**p.step_bits
    seen = np.arange(n) < stop.reshape(-1, 1)
    visible = np.where(seen, q, int8.qmin)
    tops = np.maximum.accumulate(visible, axis=-1)
    # the maximum that a column knows is that at the end of its group
    ends = np.minimum(np.arange(n) // p.group * p.group + p.group, n) - 1
    tops = tops[:, ends]
    terms = np.where(seen, 256 >> np.clip((tops - q + one // 2) // one, 0, 62), 0)
    total = tops[:, :1] * 0
    for start in range(0, n, p.group):
        rise = tops[:, start : start + 1] - (tops[:, start - 1 : start] if start else int8.qmin)
        kept = total >> np.minimum((rise + one // 2) // one, 62)
        total = np.where(rise > 0, kept, total) + terms[:, start : start + p.group].sum(axis=-1, keepdims=True)
    s = np.clip((tops[:, -1:] - q + one // 2) // one, 0, 62)
    return np.where(seen, p.peak * 256 // total >> s, 0) - p.levels // 2


@portable
def places(d: Int, step_bits: Int) -> Int:
    return min((d + ((1 << step_bits) >> 1)) >> step_bits, 62)


@portable
def row(i: Int, x: Any, out: Any, p: Any) -> None:
    q, stop, y = x.q[i], np.int64(x.stop[i]), out.probability[i]
    top, total, start = np.int64(-128), np.int64(0), np.int64(0)
    while start < stop:
        end = min(start + p.group, stop)
        before = top
        for j in range(start, end):
            top = max(top, np.int64(q[j]))
        if top > before:
            total >>= places(top - before, p.step_bits)
        for j in range(start, end):
            total += 256 >> places(top - np.int64(q[j]), p.step_bits)  # 2**16 terms: 25 bits
        start = end
    inverse = p.peak * 256 // total  # the group of the maximum left at least 256
    for j in range(q.shape[0]):
        y[j] = -(p.levels >> 1)
        if j < stop:
            y[j] = (inverse >> places(top - np.int64(q[j]), p.step_bits)) - (p.levels >> 1)


def examples() -> dict[str, Any]:
    q = np.array(
        [
            [-128, 127, 126, 0, 111, 16, -16, 5],
            [5, 5, 5, 5, 5, 5, 5, 5],
            [-128, -113, -98, -83, -67, -51, 0, 127],
            [127, 0, -51, -67, -83, -98, -113, -128],
        ],
        np.int8,
    )
    return {
        "one group": ((q,), Params()),
        "groups of 2: rises that shift and rises that do not, up and down": ((q,), Params(group=2)),
        "groups of 1: a column a group": ((q,), Params(group=1)),
        "groups of 3: the last is short": ((q,), Params(group=3)),
        "masked, inside a group and at its end": ((q, np.array([1, 4, 7, 8], np.int32)), Params(group=4)),
        "peak 255": ((q,), Params(group=4, peak=255)),
        "step_bits = 0": ((q,), Params(group=2, step_bits=0)),
        "a rise of 2 from the lowest, step_bits = 1": (
            (np.array([[-128, -126, -126]], np.int8),),
            Params(group=1, step_bits=1),
        ),
        "step_bits = 0: the lowest alone, and rises of 1": (
            (np.array([[-128] * 6, [-3, -3, -2, -3, -1, -2]], np.int8),),
            Params(group=2, step_bits=0),
        ),
        "16 levels": ((q,), Params(group=2, levels=16, peak=7)),
    }


OP = register(
    Op(
        name="softmax.itapartialmax",
        version=1,
        cites="Islamoglu et al. 2023 (arXiv 2307.03493); pulp-platform/Deeploy "
        "TargetLibraries/Generic/src/Softmax_s8.c ITAPartialMax_s8; pulp-platform/ITA PyITA/softmax.py",
        inputs=(Port("q", "m n", int8), Port("stop", "m", int32, fill="n", upto="n")),
        outputs=(Port("probability", "m n", int8),),
        params=Params,
        spec=spec,
        program=Rowwise(row),
        sizes={"n": Size(1, LONGEST)},
        examples=examples,
        exempt={"equal_stay_equal": "the total depends on the order in which the columns go by"},
        oracle=Oracle(
            params=lambda bits: Params(group=2, step_bits=round(bits)),
            scales=(0.0, 7.0),  # of step_bits: the scale of q is ln 2 / 2**step_bits
            real=lambda q, stop, p: real_softmax(q * math.log(2) / 2.0**p.step_bits, stop),
            value=lambda out, p: (out + p.levels // 2) / (p.peak + 1),
            # as for itamax, and half a power of two again for each group that the maximum rises in:
            # with many groups any probability can be lost
            bound=lambda p: 0.5 + 2 / p.peak,
        ),
    )
)

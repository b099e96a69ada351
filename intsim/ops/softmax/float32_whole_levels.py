"""Softmax by a table of float32 exponentials: ONNX Runtime QLinearSoftmax.

    e[j] = table[255 + q[j] - max q];   total = e[0] + e[1] + ..., one float32 sum after the other
    probability[j] = saturate(rint(f32(f32(e[j] * levels) / total)) + zero_point)

levels = floor(f32(1 / scale)) is whole: for a scale of 1/255 written as 0.0039 it is 256. table[i] =
exp((i - 255) * x_scale + headroom), see ``table``. The zero point comes after the rounding (ties to even).
A total of 0 or infinity gives the zero point. So does an infinite e * levels where the result is uint8,
and saturate(wrap32(zero_point - 2**31)) where it is int8: ONNX Runtime converts it to an integer first,
on x86. Its headroom lets that happen in rows of fewer than levels / 148 columns: one column alone gives 0.

Differs from its siblings: a whole number of levels, and a float32 division for each column; the result
depends on the order of the columns.
Kernels compute the IEEE steps in integers.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from intsim.compiling import Int, portable
from intsim.numerics import IntType, Rounding, float32, int8, int32, uint8
from intsim.op import Op, Port, Rowwise, Size
from intsim.ops.softmax import LONGEST
from intsim.params import Params as Base, int_type, integer, real
from intsim.registry import register
from intsim.scalar.fixed_point import wrap32
from intsim.scalar.ieee import divide32, multiply32, pack32, sum32, to_integer, unpack32
from intsim.scalar.rounding import saturate
from intsim.spec import ieee, rounding

INFINITE = 0x7F80_0000


@dataclass(frozen=True, slots=True, eq=False)
class Params(Base):
    levels: int = integer(0, 2**24, default=256)
    zero_point: int = integer(-128, 255, inside="dtype", default=0)
    q: IntType = int_type(int8, uint8, role="operand")
    dtype: IntType = int_type(int8, uint8, role="result")
    x_scale: float = real()  # what the table was made for; only the host reads it

    @classmethod
    def from_scales(cls, x: float, result: float, /, **fields: Any) -> Params:
        """The parameters for two real scales (float32, positive); ``table`` goes with the first."""
        return cls(int(np.floor(np.float32(1) / np.float32(result))), x_scale=float(np.float32(x)), **fields)


def table(x_scale: float, columns: int) -> Any:
    """The table for a float32 scale and rows of so many columns: float32, 256 entries, the largest last.

    The headroom is f32(log(f32(FLT_MAX / columns))) - 5, so that no total overflows; the rest is float64.
    """
    scale = float(np.float32(x_scale))
    most = np.finfo(np.float32).max / np.float32(columns)
    headroom = max(0.0, float(np.float32(math.log(most))) - 5) / scale
    with np.errstate(under="ignore"):
        return np.array([math.exp((i - 255 + headroom) * scale) for i in range(256)]).astype(np.float32)


def spec(q: Any, table: Any, stop: Any, p: Params) -> Any:
    seen = np.arange(q.shape[-1]) < stop.reshape(-1, 1)
    top = np.where(seen, q, p.q.qmin).max(axis=-1, keepdims=True)
    e = np.where(seen, table[np.where(seen, 255 + q - top, 0).astype(int)], np.float32(0))
    with np.errstate(over="ignore", under="ignore", divide="ignore", invalid="ignore"):
        total = np.cumsum(e, axis=-1, dtype=np.float32)[:, -1:]  # in order; columns that are not seen add 0
        share = e * np.float32(p.levels) / total
    share = np.where((total > 0) & np.isfinite(total) & seen, share, np.float32(0))
    beyond = int32.qmin if p.dtype.signed else 0
    whole = np.where(np.isinf(share), beyond, ieee.to_integer(share, Rounding.TIES_TO_EVEN))
    return rounding.saturate(rounding.wrap(whole + p.zero_point, int32), p.dtype)


@portable
def row(i: Int, x: Any, out: Any, p: Any) -> None:
    q, stop, y = x.q[i], np.int64(x.stop[i]), out.probability[i]
    top = np.int64(q[0])
    for j in range(1, stop):
        top = max(top, np.int64(q[j]))
    total: Int = np.int64(0)  # as bits
    for j in range(stop):
        am, ae = unpack32(total)
        bm, be = unpack32(np.int64(x.table[255 + np.int64(q[j]) - top]))
        am, ae = sum32(am, ae, bm, be)
        total = min(pack32(am, ae), INFINITE)
    tm, te = unpack32(total)
    for j in range(q.shape[0]):
        whole = np.int64(0)
        if j < stop and total > 0 and total < INFINITE:
            am, ae = unpack32(np.int64(x.table[255 + np.int64(q[j]) - top]))
            am, ae = multiply32(am, ae, p.levels, 0)
            am, ae = unpack32(pack32(am, ae))
            am, ae = divide32(am, ae, tm, te)
            bits = pack32(am, ae)
            if bits < INFINITE:
                whole = to_integer(am, ae, Rounding.TIES_TO_EVEN)
            elif p.dtype.qmin < 0:
                whole = np.int64(-(2**31))
        y[j] = saturate(wrap32(whole + p.zero_point), p.dtype)


def examples() -> dict[str, Any]:
    q = np.array([[0, 0, 0, 0, 0, 0], [0, -14, -100, -127, 127, 126], [127, 127, -128, 0, 1, 2]], np.int8)
    unsigned: dict[str, Any] = {"q": uint8, "dtype": uint8}
    coarse = Params.from_scales(2.5, 1 / 256, zero_point=-128)
    return {
        "equal, far apart, extreme": ((q, table(0.1, 6)), Params.from_scales(0.1, 1 / 256, zero_point=-128)),
        "unsigned; 1 saturates": ((q.view(np.uint8), table(0.3, 6)), Params.from_scales(0.3, 1 / 256, **unsigned)),
        "a table that underflows to 0": ((q, table(2.5, 6)), coarse),
        "rows of 1, 3 and 6 columns": (
            (q, table(0.1, 6), np.array([1, 3, 6], np.int32)),
            Params.from_scales(0.1, 0.3, zero_point=3),
        ),
        "levels is floor(1 / scale): 255, though the scale is nearly 1/256": (
            (q, table(0.02, 6)),
            Params.from_scales(0.02, 1 / 255.9),
        ),
        "one column: e * levels is infinite, int8": ((q[:, :1], table(0.1, 1)), Params.from_scales(0.1, 1 / 256)),
        "one column: e * levels is infinite, int8, a negative zero point": (
            (q[:, :1], table(0.1, 1)),
            Params.from_scales(0.1, 1 / 256, zero_point=-1),
        ),
        "one column: e * levels is infinite, uint8": (
            (q[:, :1].view(np.uint8), table(0.1, 1)),
            Params.from_scales(0.1, 1 / 256, zero_point=3, **unsigned),
        ),
        "a total of 0": ((q, np.zeros(256, np.float32)), Params(zero_point=3)),
        "an infinite total": ((q, np.full(256, 3e38, np.float32)), Params(zero_point=3)),
        "a total that is the least float32": (
            (q[:, :1], np.full(256, 1e-45, np.float32)),
            Params(1, zero_point=3),
        ),
        "1.5": ((q[:, :2], np.ones(256, np.float32)), Params(3, zero_point=1)),
        "2.5: ties to even": ((np.zeros((1, 2), np.int8), np.ones(256, np.float32)), Params(5, zero_point=1)),
    }


OP = register(
    Op(
        name="softmax.float32_whole_levels",
        version=1,
        cites="microsoft/onnxruntime onnxruntime/contrib_ops/cpu/quantization/qlinear_softmax.cc",
        inputs=(
            Port("q", "m n", lambda p: p.q),
            Port("table", "256", float32, numbers="not negative"),
            Port("stop", "m", int32, fill="n", upto="n"),
        ),
        outputs=(Port("probability", "m n", lambda p: p.dtype),),
        params=Params,
        spec=spec,
        program=Rowwise(row),
        sizes={"n": Size(1, LONGEST)},
        examples=examples,
    )
)

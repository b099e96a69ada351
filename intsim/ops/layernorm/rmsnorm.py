"""Root-mean-square normalization in integers with one rounding: the definition of this package.

    d = x - a_zero_point;   s = sum d**2 + eps
    h = (61 - bit_length(s)) // 2;   root = isqrt((s << 2h) // n)      rms(d) ~ root / 2**h
    q = saturate(round(((d << h) * multiplier) / (root << shift)) + zero_point)

multiplier / 2**shift stands for gamma over the scale of q; the scale of x cancels. eps stands for
``n * eps / scale**2``: on the grid of the sum, where an eps of 1e-6 is seldom less than a step; at
least 1, so a row of zeros gives the zero point.

Exact in int64: the sum is below 2**46 and is shifted to 60 or 61 bits. From d**2 <= s follows
``|d << h| < 2**30.5``, so both the product and root << shift stay below 2**62. root has 24 bits or
more, so it is below sqrt(s / n) by less than one part in 2**22: before saturation q is within
``1/2 + |real| * 2**-22`` of the real quotient (1 for the rules that do not round to the nearest).

Differs from ``rmsnorm_deeploy``: there the root is that of the integer mean (6 bits for int8), the
quotient is cut toward zero, and a power of two brings it to the result.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from intsim.compiling import Int, portable
from intsim.numerics import IntType, Rounding, int8, int16, uint8, unlimited
from intsim.op import Op, Oracle, Port, Rowwise, Size, Tuned
from intsim.ops.layernorm import LONGEST
from intsim.params import Params as Base, int_type, integer, rule
from intsim.registry import register
from intsim.scalar.functions import bit_length, isqrt
from intsim.scalar.rounding import divide, saturate
from intsim.spec import functions, rounding

WIDTH = 61  # bits of the shifted sum, at most


@dataclass(frozen=True, slots=True, eq=False)
class Params(Base):
    multiplier: Any = integer(-(2**31) + 1, 2**31 - 1, per="n")
    shift: int = integer(0, 31)
    eps: int = integer(1, 2**45, default=1)
    a_zero_point: int = integer(-(2**15), 2**15 - 1, inside="x", default=0)
    zero_point: int = integer(-(2**15), 2**15, default=0)
    x: IntType = int_type(int16, int8, uint8, role="operand")
    dtype: IntType = int_type(int8, uint8, int16, unlimited, role="result")
    rounding: Rounding = rule(Rounding, Rounding.TIES_TO_EVEN)

    @classmethod
    def from_gamma(
        cls, gamma: Any, out_scale: float, *, n: int, eps: float = 1e-6, scale: float = 1.0, **fields: Any
    ) -> Params:
        """The parameters for a real gamma (one, or one per n), rows of n elements and a real eps.

        scale: of x; out_scale: of the result. Raises ValueError where a scale is not positive, where eps leaves
        the grid (n * eps / scale**2 above 2**45), or where gamma / out_scale reaches 2**31 or is not finite.
        """
        real = np.atleast_1d(np.asarray(gamma, np.float64)) / (out_scale if out_scale > 0 else math.nan)
        top = float(np.max(np.abs(real)))
        if not top < 2**31 - 1:
            raise ValueError(f"layernorm.rmsnorm: gamma / out_scale is finite and below 2**31, got {top}")
        if not (scale > 0 and 0 <= n * eps / scale**2 <= 2**45):
            raise ValueError(f"layernorm.rmsnorm: n * eps / scale**2 is in [0, 2**45], got n={n} {eps=} {scale=}")
        shift = 31 if top == 0 else min(31, 31 - math.frexp(top)[1])
        if top * 2**shift > 2**31 - 1:  # it would round to 2**31
            shift -= 1
        return cls(np.rint(real * 2**shift).astype(np.int64), shift, max(round(n * eps / scale**2), 1), **fields)


def spec(x: Any, p: Params) -> Any:
    d = x - p.a_zero_point
    s = (d**2).sum(axis=-1, keepdims=True) + p.eps
    h = (WIDTH - functions.bit_length(s)) // 2
    root = functions.isqrt((s << 2 * h) // x.shape[-1])
    return rounding.saturate(
        rounding.divide((d << h) * p.multiplier, root << p.shift, p.rounding) + p.zero_point, p.dtype
    )


@portable
def row(i: Int, x: Any, out: Any, p: Any) -> None:
    q, y = x.x[i], out.q[i]
    n = q.shape[0]
    total = np.int64(p.eps)
    for j in range(n):
        d = np.int64(q[j]) - p.a_zero_point
        total += d * d  # |d| < 2**16 and n <= 2**13: below 2**46 with eps
    up = (61 - bit_length(total)) >> 1
    divisor = isqrt((total << (2 * up)) // n) << p.shift
    for j in range(n):
        d = (np.int64(q[j]) - p.a_zero_point) << up
        y[j] = saturate(divide(d * p.multiplier[j], divisor, p.rounding) + p.zero_point, p.dtype)


def examples() -> dict[str, Any]:
    x = np.array(
        [[-32768, 32767, -32768, 32767], [0, 0, 0, 0], [1, 0, 0, 0], [1, 2, 4, 8], [-300, 200, 7, -9]], np.int16
    )
    byte = np.array([[-128, 127, -128, 127], [3, 3, 3, 3], [-1, 0, 5, 100]], np.int8)
    tie = np.array([[1, -1, 3, -3]], np.int16)  # with an eps of 80 the mean square is 25
    gains = [2**31 - 1, -(2**31) + 1, 1, 0]
    made: dict[str, Any] = {f"quotients of d / 2, {r.name}": ((tie,), Params(5, 1, 80, rounding=r)) for r in Rounding}
    made["extreme, zero, one spike, ordinary"] = ((x,), Params.from_gamma(1.0, 2.0**-5, n=4))
    made["a gain for each channel, of either sign and to the ends; saturates"] = ((x,), Params(gains, 20, dtype=int16))
    made["the largest shift and eps"] = ((x,), Params(gains, 31, 2**45, dtype=int16))
    even = np.array([[2, 2, 1, 1], [5, 3, 2, 1]], np.int16)
    made["sums of an even number of bits, every bit of the quotients"] = ((even,), Params(gains, 0, dtype=unlimited))
    made["no shift: the widest quotients"] = ((x,), Params(gains, 0, dtype=unlimited))
    made["int8 with zero points"] = (
        (byte,),
        Params.from_gamma(
            [0.7, -1.3, 2.0, 1e-4], 0.02, n=4, eps=1e-5, scale=0.05, a_zero_point=3, zero_point=-7, x=int8
        ),
    )
    made["unsigned, the farthest zero points"] = (
        (byte.view(np.uint8),),
        Params.from_gamma(1.0, 1 / 64, n=4, a_zero_point=255, zero_point=128, x=uint8, dtype=uint8),
    )
    made["one element a row"] = ((x[:, :1].copy(),), Params.from_gamma(1.0, 1 / 64, n=1))
    return made


def _real(x: Any, p: Params) -> Any:
    d = x - p.a_zero_point
    return d / np.sqrt(((d**2).sum(axis=-1, keepdims=True) + p.eps) / x.shape[-1]) * (p.multiplier / 2.0**p.shift)


OP = register(
    Op(
        name="layernorm.rmsnorm",
        version=1,
        cites="Zhang and Sennrich 2019 (arXiv 1910.07467), eq. (4), in integers: the rounding rules are this package's",
        inputs=(Port("x", "m n", lambda p: p.x),),
        outputs=(Port("q", "m n", lambda p: p.dtype),),
        params=Params,
        spec=spec,
        program=Rowwise(row),
        sizes={"n": Size(1, LONGEST)},
        examples=examples,
        oracle=Oracle(
            params=lambda scale: Params.from_gamma(scale, 2.0**-7, n=4, eps=1e-5, scale=0.01, dtype=unlimited),
            scales=(2.0**-6, 64.0),
            real=_real,
            value=lambda q, p: q,
            # |d / rms| is at most sqrt(n)
            bound=lambda p: 0.5 + math.sqrt(LONGEST) * float(abs(p.multiplier).max()) / 2.0**p.shift * 2.0**-22,
        ),
        tuned=(
            Tuned(
                "cpu",
                "intsim.ops.layernorm._cpu_rmsnorm:rmsnorm",
                lambda p, size: p.rounding == Rounding.TIES_TO_EVEN and p.dtype.bits <= 16,
            ),
        ),
    )
)

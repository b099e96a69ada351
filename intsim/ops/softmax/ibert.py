"""Integer-only softmax by range reduction and a quadratic: I-BERT, Kim et al. 2021, Algorithm 2.

    exp(x) = 2**-z * exp(r),   z = floor(-x / ln 2),   exp(r) ~ a (r + b)**2 + c   on (-ln 2, 0]
    probability = min(round(exp * 2**out_bits / sum exp), 2**out_bits - 1)

The paper leaves the last division open: its rounding is a parameter.

Differs from the published module (transformers ibert quant_modules.py), which first requantizes exp
to 16 bits and multiplies by floor(2**32 / sum). From ``gemmlowp``: 3 constants instead of 9.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from intsim.compiling import Int, portable
from intsim.numerics import IntType, Rounding, int8, int16, int32
from intsim.op import Op, Oracle, Port, Rowwise, Size, Tuned
from intsim.ops.softmax import LONGEST, UNSIGNED_ROUNDINGS, WORTH_TUNING, Steps, real_softmax
from intsim.params import Params as Base, int_type, integer, real, rule
from intsim.registry import register
from intsim.scalar.rounding import divide
from intsim.spec import rounding

A, B, C = 0.3585, 1.353, 0.344  # eq. (13)


@dataclass(frozen=True, slots=True, eq=False)
class Params(Base):
    ln2: int = integer(1, 2**18)
    b: int = integer(0, 2**18)
    c: int = integer(1, 2**38)  # not 0: a row whose every exp is 0 has no total
    out_bits: int = integer(2, 16, default=8)
    q: IntType = int_type(int16, int8, int32, role="operand")
    rounding: Rounding = rule(Rounding, Rounding.TOWARD_NEGATIVE, among=UNSIGNED_ROUNDINGS)
    scale: float = real()  # only the oracle reads it

    @classmethod
    def from_scale(cls, scale: float, **fields: Any) -> Params:
        """The parameters for inputs ``real = scale * q``; scale: a float in [6e-6, 0.69]."""
        if not 6e-6 <= scale <= math.log(2):
            raise ValueError(f"softmax.ibert: scale is in [6e-6, 0.69], got {scale}")
        ln2, b, c = math.log(2) / scale, B / scale, C / (A * scale**2)
        return cls(math.floor(ln2), math.floor(b), math.floor(c), scale=scale, **fields)


def spec(q: Any, stop: Any, p: Params) -> Any:
    seen = np.arange(q.shape[-1]) < stop.reshape(-1, 1)
    q = np.minimum(q - np.where(seen, q, p.q.qmin).max(axis=-1, keepdims=True), 0)
    z = -q // p.ln2
    r = q + z * p.ln2
    exp = np.where(seen, ((r + p.b) ** 2 + p.c) >> np.minimum(z, 62), 0)
    total = exp.sum(axis=-1, keepdims=True)
    return np.minimum(rounding.divide(exp << p.out_bits, total, p.rounding), (1 << p.out_bits) - 1)


@portable
def integer_exp(q: Int, p: Any) -> Int:
    z = -q // p.ln2
    r = q + z * p.ln2
    return ((r + p.b) * (r + p.b) + p.c) >> min(z, 62)  # not ** 2: numba-cuda takes that through float64


@portable
def term(q: Int, top: Int, p: Any) -> Int:
    return integer_exp(q - top, p)


@portable
def added(exp: Int, p: Any) -> Int:
    return exp


@portable
def settled(total: Int, seen: Int, p: Any) -> tuple[Int, Int]:
    return total, seen


@portable
def share(exp: Int, of: tuple[Int, Int], p: Any) -> Int:
    # exp < 2**40, so exp << 16 and a sum of 2**16 fit 62 bits
    return min(divide(exp << p.out_bits, of[0], p.rounding), (1 << p.out_bits) - 1)


STEPS = Steps(term, added, settled, share)


@portable
def softmax(q: Any, stop: Int, out: Any, p: Any) -> None:
    top = np.int64(q[0])
    for j in range(1, stop):
        top = max(top, np.int64(q[j]))
    total = np.int64(0)
    for j in range(stop):
        total += term(np.int64(q[j]), top, p)
    for j in range(stop):
        out[j] = share(term(np.int64(q[j]), top, p), (total, stop), p)
    for j in range(stop, q.shape[0]):
        out[j] = 0


@portable
def row(i: Int, x: Any, out: Any, p: Any) -> None:
    softmax(x.q[i], np.int64(x.stop[i]), out.probability[i], p)


def examples() -> dict[str, Any]:
    q = np.array([[0, 0, 0, 0], [0, -14, -1000, -32767], [32767, 32767, -32768, 0], [3, 1, 0, 2]], np.int16)
    made: dict[str, Any] = {
        f"equal, far apart, extreme; {r.name}": ((q,), Params.from_scale(0.05, rounding=r)) for r in UNSIGNED_ROUNDINGS
    }
    halving = np.array([[0, -1, -1, -2, -2, -2, -2]], np.int16)  # exponentials 6, 3, 3, 1, 1, 1, 1: eighths of 16
    for r in UNSIGNED_ROUNDINGS:
        made[f"ties at 1/2 and 3/2, {r.name}"] = ((halving,), Params(1, 0, 6, 3, rounding=r))
    made["masked"] = ((q, np.array([1, 2, 3, 4], np.int32)), Params.from_scale(0.05, out_bits=16))
    made["int8"] = ((np.array([[-128, 127, 126, 0]], np.int8),), Params.from_scale(0.1, q=int8))
    return made


def _serves(p: Params, size: Mapping[str, int]) -> bool:
    """8 bits rounded down or to even, and constants with which every exponential stays below 2**23."""
    largest = max(p.b, p.ln2) ** 2 + p.c
    narrow = p.ln2 <= 2**11 and largest < 2**23 and p.b**2 + p.c > 2**8
    to_even = p.rounding == Rounding.TIES_TO_EVEN and largest * size["n"] < 2**31
    served = p.out_bits == 8 and (p.rounding == Rounding.TOWARD_NEGATIVE or to_even)
    return served and narrow and size["m"] * size["n"] > WORTH_TUNING


def _largest_term(p: Any) -> int:
    return int(max(p.b, p.ln2 - 1 - p.b) ** 2 + p.c)


def terms_fit_int32(p: Params) -> bool:
    return _largest_term(p) < 2**31


def in_int32(p: Any, n: int) -> bool:
    """Whether every number of a row of n is an int32, shares and their sum included; p: Params or their record."""
    largest = _largest_term(p)
    return bool(p.rounding == Rounding.TOWARD_NEGATIVE and largest << p.out_bits < 2**31 and largest * n < 2**31)


def _in_32_bits(p: Params, size: Mapping[str, int]) -> bool:
    """Whether every step fits 32 bits and a row fits a warp's registers: see ``_cuda_ibert``."""
    return (
        in_int32(p, size["n"])
        and p.out_bits <= 8
        and p.ln2 >= 2
        and 31 * p.ln2**2 < 2**32
        and size["n"] % 4 == 0
        and size["n"] <= 1024
    )


OP = register(
    Op(
        name="softmax.ibert",
        version=1,
        cites="Kim et al. 2021 (arXiv 2101.01321), Algorithm 2",
        inputs=(Port("q", "m n", lambda p: p.q), Port("stop", "m", int32, fill="n", upto="n")),
        outputs=(Port("probability", "m n", lambda p: IntType(p.out_bits, signed=False)),),
        params=Params,
        spec=spec,
        program=Rowwise(row),
        sizes={"n": Size(1, LONGEST)},
        examples=examples,
        tuned=(
            Tuned("cpu", "intsim.ops.softmax._cpu_ibert:softmax", _serves),
            Tuned("cuda", "intsim.ops.softmax._cuda_ibert:softmax", _in_32_bits, capability=(8, 0)),
        ),
        oracle=Oracle(
            params=lambda scale: Params.from_scale(scale, rounding=Rounding.TIES_TO_EVEN, out_bits=12),
            scales=(2e-3, 0.3),
            real=lambda q, stop, p: real_softmax(q * p.scale, stop),
            value=lambda out, p: out / 2.0**p.out_bits,
            bound=lambda p: 0.01 + p.scale,
        ),
    )
)

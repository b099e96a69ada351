"""What surrounds a float32 activation of quantized values: parameters, and the steps in and out.

    v = f32(x_scale * (x - x_zero_point));   q = saturate(rint(f32(y / scale)) + zero_point)

Both in the words of the spec (NumPy) and of a program (integers), apart from each other.
"""

from __future__ import annotations

from typing import Any, Self

import numpy as np

from intsim.compiling import Int, portable
from intsim.numerics import Rounding
from intsim.params import Params as Base
from intsim.scalar.ieee import divide32, multiply32, pack32, to_integer, unpack32
from intsim.scalar.rounding import saturate
from intsim.spec import ieee, rounding

LEAST, MOST = 0x2000_0000, 0x5F00_0000  # float32 bits of 2**-63 and 2**63: no product is subnormal or infinite


class ScaledParams(Base):
    """Base of the parameters: the variants declare ``x_scale_bits`` and ``scale_bits`` first."""

    __slots__ = ()

    @classmethod
    def from_scales(cls, x: float, result: float, /, **fields: Any) -> Self:
        """The parameters for two real scales: positive float32 in [2**-63, 2**63]."""
        scales = np.array([x, result], np.float32)
        return cls(*map(int, scales.view(np.int32)), **fields)


def real(x: Any, p: Any) -> Any:
    """The float32 that ``x`` stands for."""
    return ieee.from_bits32(p.x_scale_bits) * ieee.float32(x - p.x_zero_point)


def quantized(y: Any, p: Any) -> Any:
    """The integers that float32 ``y`` become."""
    with np.errstate(over="ignore", under="ignore"):  # an infinite quotient saturates
        whole = ieee.to_integer(y / ieee.from_bits32(p.scale_bits), Rounding.TIES_TO_EVEN)
    return rounding.saturate(whole + p.zero_point, p.dtype)


@portable
def load(x: Int, p: Any) -> tuple[Int, Int]:
    """``real`` of one element: m has a sign."""
    sm, se = unpack32(p.x_scale_bits)
    whole = x - p.x_zero_point
    m, e = multiply32(abs(whole), 0, sm, se)
    return -m if whole < 0 else m, e


@portable
def store(m: Int, e: Int, p: Any) -> Int:
    """``quantized`` of one element; m has a sign."""
    am, ae = unpack32(pack32(abs(m), e))
    bm, be = unpack32(p.scale_bits)
    qm, qe = divide32(am, ae, bm, be)
    return saturate(to_integer(-qm if m < 0 else qm, qe, Rounding.TIES_TO_EVEN) + p.zero_point, p.dtype)

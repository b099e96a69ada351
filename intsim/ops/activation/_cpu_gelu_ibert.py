"""I-BERT's GELU in 32 bits a lane, for constants with which every step fits."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np

from intsim.backends.cpu import shared_out
from intsim.compiling import Int, kernel
from intsim.ops.activation.gelu_ibert import ERF_SHIFT

i32 = np.int32


@cache
def _kernel() -> Callable[..., None]:
    def pieces(x: Any, of_b: Int, of_c: Int, of_one: Int, y: Any, first: Int, last: Int) -> None:
        b, c, one = i32(of_b), i32(of_c), i32(of_one)
        piece, made = x[first:last], y[first:last]
        for j in range(piece.size):
            q = i32(piece[j])
            inside = i32(min(abs(q), i32(-b)) + b)
            erf = i32(i32(inside * inside) + c)
            erf = i32(-erf) if q < 0 else erf  # of q = 0 the result is 0 whatever erf is
            made[j] = i32(q * i32(i32(erf >> i32(ERF_SHIFT)) + one))

    return kernel(pieces, "activation.gelu_ibert.pieces")


def gelu(x: Any, out: Any, p: Any) -> None:
    """Fills ``out.y``; serves int32 results and constants with which nothing leaves 32 bits."""
    q, y, pieces = x.x.reshape(-1), out.y.reshape(-1), _kernel()
    shared_out(lambda first, last: pieces(q, p.b, p.c, p.one, y, first, last), q.size, q.size)

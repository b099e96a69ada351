"""``matmul.integer`` and ``matmul.row_zero_points`` on the CPU: by micro-kernels, or by BLAS until they are compiled.

Both give the same bits. Compiling costs a second or two, which a short program never earns back: so
until the kernels lie on disk, products go to float BLAS, up to the work that compiling is worth.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from intsim.compiling import at_hand
from intsim.ops.matmul import _cpu_blas as blas, _cpu_gemm as gemm, _cpu_panels as panels

WORTH_COMPILING = 2**34  # products: about as long in BLAS as compiling takes
LONGEST_IN_INT32 = 2**15  # terms: 2**15 * 255**2 < 2**31

_by_blas = [0]  # products so far, that the kernels would have been faster at


def serves(p: Any, size: Mapping[str, int]) -> bool:
    """Whether the micro-kernels compute ``matmul.integer`` with WRAP and these parameters."""
    if p.a.bits == p.b.bits == 16:
        return not (p.a_zero_point or p.b_zero_point.any()) and p.acc.bits <= 32
    return p.a.bits == p.b.bits == 8 and (p.acc.bits <= 32 or size["k"] <= LONGEST_IN_INT32)


def matmul(x: Any, out: Any, p: Any) -> None:
    """Fills ``out.acc``; serves overflow = WRAP with operands that are not packed."""
    size = {"k": x.a.shape[1]}
    if not serves(p, size) or not _ready(x.a.shape[0] * x.a.shape[1] * x.b.shape[0]):
        blas.matmul(x, out, p)
        return
    into = out.acc if out.acc.dtype == np.int32 and p.acc.bits == 32 else None
    acc = gemm.product(
        x.a, x.b, a_zero_point=p.a_zero_point, b_zero_point=p.b_zero_point, bias=x.bias if p.acc.bits <= 32 else None,
        out=into,
    )  # fmt: skip
    if into is None:
        out.acc[...] = _wrapped(acc if p.acc.bits <= 32 else acc + x.bias.astype(np.int64), p.acc)


def row_zero_points(x: Any, out: Any, p: Any) -> None:
    """``matmul.row_zero_points``: fills ``out.acc``."""
    zero_points = x.a_zero_point.astype(np.int64)
    if _ready(x.a.shape[0] * x.a.shape[1] * x.b.shape[0]):
        gemm.product(x.a, x.b, a_zero_point=zero_points, b_zero_point=p.b_zero_point, out=out.acc)
        return
    blas.centred(x.a, zero_points[:, None], x.b, p.b_zero_point[:, None], out.acc)


def _wrapped(acc: Any, t: Any) -> Any:
    low = t.qmax + 1 - (1 << t.bits)
    return ((acc.astype(np.int64) - low) & ((1 << t.bits) - 1)) + low if t.bits < 63 else acc


def _ready(products: int) -> bool:
    if all(at_hand(f) for f in (gemm._multiply, gemm._dots, panels._pack)):
        return True
    _by_blas[0] += products
    return _by_blas[0] > WORTH_COMPILING

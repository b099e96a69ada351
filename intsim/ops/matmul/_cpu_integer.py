"""``matmul.integer`` and ``matmul.row_zero_points`` on the CPU: by micro-kernels, or by BLAS until they are compiled.

Both give the same bits. Compiling costs a second or two, which a short program never earns back: so
until the kernels lie on disk, products go to float BLAS, up to the work that compiling is worth.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from intsim.compiling import at_hand, compiles
from intsim.ops.matmul import (
    _cpu_amx as tiled,
    _cpu_blas as blas,
    _cpu_few as few,
    _cpu_gemm as gemm,
    _cpu_nibbles as nibbles,
    _cpu_panels as panels,
)
from intsim.ops.matmul._cpu_wrapped import wrap

WORTH_COMPILING = 2**34  # products: about as long in BLAS as compiling takes
LONGEST_IN_INT32 = 2**15  # terms: 2**15 * 255**2 < 2**31

_by_blas = [0]  # products so far, that the kernels would have been faster at


def serves(p: Any, k: int) -> bool:
    """Whether the micro-kernels compute ``matmul.integer`` with WRAP, these parameters and rows of k."""
    if max(p.a.bits, p.b.bits) == 16:
        return p.a.bits == p.b.bits and not (p.a_zero_point or p.b_zero_point.any()) and p.acc.bits <= 32
    return p.acc.bits <= 32 or k <= LONGEST_IN_INT32


def matmul(x: Any, out: Any, p: Any, kept: Any) -> None:
    """Fills ``out.acc``; serves overflow = WRAP. A constant ``b`` is laid out once."""
    a, b = x.a, x.b
    if p.a.bits == 4:
        a = nibbles.unpacked(a, p.a.qmin < 0, bool(p.nibbles))
        a = np.ascontiguousarray(a[:, : a.shape[1] if p.b.bits == 4 else b.shape[1]])
    k = a.shape[1]
    if not serves(p, k) or not _ready(a.size * b.shape[0]):
        blas.matmul(a, _bytes(b, k, p), x.bias, out.acc, p)
        return
    narrow = p.acc.bits <= 32
    into = out.acc if out.acc.dtype == np.int32 and p.acc.bits == 32 else np.empty(out.acc.shape, np.int32)
    bias = x.bias if narrow else np.zeros_like(x.bias)
    is_few = few.are(a)
    if p.b.bits == 4 and is_few:
        nibbles.product(
            a, b, signed=p.b.qmin < 0, high_first=bool(p.nibbles), a_zero_point=p.a_zero_point,
            b_zero_point=p.b_zero_point, bias=bias, out=into,
        )  # fmt: skip
    else:
        right = b if is_few else laid_out(a, b, p, kept)
        gemm.product(a, right, a_zero_point=p.a_zero_point, b_zero_point=p.b_zero_point, bias=bias, out=into)
    if into is not out.acc and narrow and p.acc.qmin == -(1 << (p.acc.bits - 1)):
        wrap(into, p.acc.bits, out.acc, np.empty(out.acc.shape[0], np.int32))
    elif into is not out.acc:
        out.acc[...] = _wrapped(into if narrow else into + x.bias.astype(np.int64), p.acc)


def exact(x: Any, out: Any, p: Any, kept: Any) -> None:
    """Fills ``out``, int32 "m n", with the product of 8-bit operands and the bias; nothing leaves int32."""
    if _ready(x.a.size * x.b.shape[0]):
        b = x.b if few.are(x.a) else laid_out(x.a, x.b, p, kept)
        gemm.product(x.a, b, a_zero_point=p.a_zero_point, b_zero_point=p.b_zero_point, bias=x.bias, out=out)
        return
    blas.centred(x.a, p.a_zero_point, x.b, p.b_zero_point[:, None], out)
    out += x.bias


def laid_out(a: Any, b: Any, p: Any, kept: Any) -> panels.Panels:
    """``b`` of ``matmul.integer`` for the micro-kernels and the rows of ``a``; p: its record."""
    outliers = a.shape[0] >= gemm.MANY and "b" in kept.constant

    def pack() -> panels.Panels:
        return panels.pack(np.ascontiguousarray(_bytes(b, a.shape[1], p)), p.b_zero_point, outliers=outliers)

    made: panels.Panels = kept.once(f"panels {outliers}", pack, of=("b",))
    return made


def _bytes(b: Any, k: int, p: Any) -> Any:
    return b if p.b.bits > 4 else nibbles.unpacked(b, p.b.qmin < 0, bool(p.nibbles))[:, :k]


def row_zero_points(x: Any, out: Any, p: Any, kept: Any) -> None:
    """``matmul.row_zero_points``: fills ``out.acc``. A constant ``b`` is laid out once."""
    zero_points = x.a_zero_point.astype(np.int64)
    if _ready(x.a.shape[0] * x.a.shape[1] * x.b.shape[0]):
        b = x.b if few.are(x.a) else laid_out(x.a, x.b, p, kept)
        gemm.product(x.a, b, a_zero_point=zero_points, b_zero_point=p.b_zero_point, out=out.acc)
        return
    blas.centred(x.a, zero_points[:, None], x.b, p.b_zero_point[:, None], out.acc)


def _wrapped(acc: Any, t: Any) -> Any:
    low = t.qmax + 1 - (1 << t.bits)
    return ((acc.astype(np.int64) - low) & ((1 << t.bits) - 1)) + low if t.bits < 63 else acc


def _ready(products: int) -> bool:
    if all(at_hand(f) for f in (tiled.multiply if tiled.serves() else gemm._multiply, few._dots, panels._pack)):
        return True
    _by_blas[0] += products
    return compiles() and _by_blas[0] > WORTH_COMPILING

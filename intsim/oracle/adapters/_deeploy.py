"""Deeploy's Generic C kernels: their signatures, what they serve, and a case as a call of one.

    softmax.deeploy, .itamax, .itapartialmax    Softmax_s8_s8, ITAMax_s8, ITAPartialMax_s8
    layernorm.deeploy, .rmsnorm_deeploy         Layernorm_s8_s8, iRMSnorm_s8_s8
    activation.gelu_deeploy                     GELU_s8_s32
    requantize.multiply_add_shift               RequantShift_s8_s8_NHWC, _s16_s8_NHWC, _s32_s8_NHWC, _s32_s8_NCHW
    matmul.integer                              MatMul_s8_s8_s32, Gemm_s8_s8_s32_s32

Source: pulp-platform/Deeploy TargetLibraries/Generic/inc/kernel, TargetLibraries/Generic/src.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

from intsim.binding import Array
from intsim.numerics import IntType, Order, Overflow, Rounding, int8, int32
from intsim.oracle.adapter import Capability, Unsupported
from intsim.oracle.adapters import _deeploy_cases as own
from intsim.oracle.cases import Case

i32, u32, pointer = ctypes.c_int32, ctypes.c_uint32, ctypes.c_void_p
_REQUANT = (None, [pointer, i32, pointer, pointer, pointer, *[i32] * 4, ctypes.c_int8, ctypes.c_int8, ctypes.c_bool])
SIGNATURES: Mapping[str, tuple[Any, list[Any]]] = {
    "Softmax_s8_s8": (None, [pointer, pointer, u32, u32, i32, i32, ctypes.c_int64, i32, u32]),
    "ITAMax_s8": (None, [pointer, pointer, pointer, u32, u32, u32]),
    "ITAPartialMax_s8": (None, [pointer, pointer, u32, u32, u32, u32]),
    "Layernorm_s8_s8": (None, [pointer] * 4 + [i32] * 4),
    "iRMSnorm_s8_s8": (None, [pointer] * 3 + [i32] * 4),
    "GELU_s8_s32": (None, [pointer, pointer, i32, ctypes.c_int8, ctypes.c_int16, i32]),
    "RequantShift_s8_s8_NHWC": _REQUANT,
    "RequantShift_s16_s8_NHWC": _REQUANT,
    "RequantShift_s32_s8_NHWC": _REQUANT,
    "RequantShift_s32_s8_NCHW": _REQUANT,
    "MatMul_s8_s8_s32": (None, [pointer] * 3 + [u32] * 3 + [i32] * 3),
    "Gemm_s8_s8_s32_s32": (None, [pointer] * 4 + [u32] * 3 + [i32] * 8),
}
LEFT: Mapping[str, str] = {
    "convolutions, pooling, hard swish (Deeploy)": "no variant states them",
    "RQDiv_s32_s8 (Deeploy)": "no variant states an element-wise quotient",
}


def capabilities(profile: str) -> Sequence[Capability]:
    """What the library serves."""
    zero: dict[str, Any] = {"rounding": (Rounding.TOWARD_ZERO,)}
    norm = zero | {"mean_rounding": (Rounding.TOWARD_ZERO,), "overflow": (Overflow.WRAP,)}
    product: dict[str, Any] = {"a": (int8,), "b": (int8,), "acc": (int32,), "overflow": (Overflow.WRAP,)}
    steps: dict[str, Any] = {"step_bits": (5,)}
    made = [
        Capability("softmax.deeploy", {}, 20, 40, own.softmax, "Softmax_s8_s8"),
        Capability("softmax.itamax", steps | {"levels": (256,), "peak": (255,)}, 20, 40, own.itamax, "ITAMax_s8"),
        Capability(
            "softmax.itapartialmax",
            steps | {"levels": (256,), "peak": (127,)},
            0,
            40,
            own.itapartialmax,
            "ITAPartialMax_s8",
        ),
        Capability("layernorm.deeploy", norm, 40, 40, own.layernorm, "Layernorm_s8_s8"),
        Capability("layernorm.rmsnorm_deeploy", zero | {"dtype": (int8,)}, 40, 40, own.rmsnorm, "iRMSnorm_s8_s8"),
        Capability("activation.gelu_deeploy", {}, 40, 40, own.gelu, "GELU_s8_s32"),
    ]
    for bits, layout in ((8, "NHWC"), (16, "NHWC"), (32, "NHWC"), (32, "NCHW")):
        serves, drawn = f"RequantShift_s{bits}_s8_{layout}", 40 if bits == 32 else 0
        directed = partial(own.requantize, bits, layout)
        made.append(Capability("requantize.multiply_add_shift", {"dtype": (int8,)}, drawn, 40, directed, serves))
    made += [
        Capability("matmul.integer", product, 40, 40, partial(own.matmul, biased), serves)
        for serves, biased in (("MatMul_s8_s8_s32", False), ("Gemm_s8_s8_s32_s32", True))
    ]
    return made


def run(functions: Any, case: Case) -> Array:
    """The result of the function that serves the case. Raises Unsupported where it cannot say the case."""
    return _SERVED[case.op.name](functions, case)


def _at(a: Array) -> int:
    """The address of a contiguous array, which must stay alive until the call is over."""
    assert a.flags.c_contiguous
    return a.ctypes.data


def _rows(case: Case) -> tuple[Array, Array]:
    """The rows of a softmax, and an array for the result."""
    if (case.stop != case.q.shape[1]).any():
        raise Unsupported("a row has no end before its last element")
    q = np.ascontiguousarray(case.q)
    return q, np.empty_like(q)


def _softmax(functions: Any, case: Case) -> Array:
    p = case.params
    q, out = _rows(case)
    top = p.a * p.b**2 + p.c  # the largest element's term
    if top % 2**32 == 0 or q.shape[1] * (p.a * max(p.b, 255) ** 2 + p.c) >= 2**32:
        raise Unsupported("the total may be 0 modulo 2**32, and the kernel divides by it")
    functions.Softmax_s8_s8(_at(q), _at(out), q.size, q.shape[1], p.a, p.b, p.c, p.log2, p.levels)
    return out


def _itamax(functions: Any, case: Case) -> Array:
    p = case.params
    if p.step_bits != 5 or p.peak != p.levels - 1:
        raise Unsupported("a step of 2**-5, and a peak of levels - 1")
    q, out = _rows(case)
    shifts = np.empty(q.shape[1], np.int8)
    functions.ITAMax_s8(_at(q), _at(out), _at(shifts), q.size, q.shape[1], p.levels)
    return out


def _itapartialmax(functions: Any, case: Case) -> Array:
    p = case.params
    if p.step_bits != 5 or p.peak != p.levels // 2 - 1:
        raise Unsupported("a step of 2**-5, and a peak of levels / 2 - 1")
    q, out = _rows(case)
    if q.shape[1] % p.group:
        raise Unsupported("a row is made of whole groups")
    functions.ITAPartialMax_s8(_at(q), _at(out), q.size, q.shape[1], p.group, p.levels)
    return out


def _layernorm(functions: Any, case: Case) -> Array:
    p, x = case.params, np.ascontiguousarray(case.x)
    if {p.mean_rounding, p.rounding} != {Rounding.TOWARD_ZERO} or p.overflow != Overflow.WRAP:
        raise Unsupported("quotients drop their fraction, and results wrap")
    weight, bias = (np.ascontiguousarray(v, np.int32) for v in (case.weight, case.bias))
    out = np.empty_like(x)
    functions.Layernorm_s8_s8(_at(x), _at(out), _at(weight), _at(bias), p.offset, x.size, x.shape[1], p.shift)
    return out


def _rmsnorm(functions: Any, case: Case) -> Array:
    p, x = case.params, np.ascontiguousarray(case.x)
    if p.rounding != Rounding.TOWARD_ZERO or p.dtype != int8:
        raise Unsupported("quotients drop their fraction, and results are int8")
    weight, out = np.ascontiguousarray(case.weight, np.int32), np.empty_like(x)
    functions.iRMSnorm_s8_s8(_at(x), _at(out), _at(weight), p.offset, x.size, x.shape[1], p.shift)
    return out


def _gelu(functions: Any, case: Case) -> Array:
    p, x = case.params, np.ascontiguousarray(case.x)
    out = np.empty(x.shape, np.int32)
    functions.GELU_s8_s32(_at(x), _at(out), x.size, p.b, p.one, p.offset)
    return out


def _requantize(functions: Any, case: Case) -> Array:
    p, (m, n) = case.params, case.acc.shape
    serves = case.serves or "RequantShift_s32_s8_NHWC"
    if p.dtype != int8:
        raise Unsupported("int8 results")
    t = IntType(int(serves.split("_")[1].removeprefix("s")))
    if case.acc.min() < t.qmin or case.acc.max() > t.qmax:
        raise Unsupported(f"an input of {t.bits} bits")
    multiplier, bias = (np.array(np.broadcast_to(v, n), np.int32) for v in (p.multiplier, p.bias))
    # NHWC: the channel is the last dimension; NCHW: the first, of m elements each
    by_column = serves.endswith("NHWC")
    acc = np.ascontiguousarray(case.acc if by_column else case.acc.T, t.storage)
    out = np.empty(acc.shape, np.int8)
    rounds = p.rounding == Rounding.TIES_TO_POSITIVE
    last = (p.shift, n if by_column else m, p.offset, p.zero_point, int8.qmin, int8.qmax, rounds)
    getattr(functions, serves)(_at(acc), acc.size, _at(multiplier), _at(bias), _at(out), *last)
    return out if by_column else np.ascontiguousarray(out.T)


def _matmul(functions: Any, case: Case) -> Array:
    p = case.params
    if {p.a, p.b} != {int8} or (p.acc, p.overflow) != (int32, Overflow.WRAP):
        raise Unsupported("int8 times int8 to int32, which wraps")
    if (p.b_zero_point != p.b_zero_point[0]).any():
        raise Unsupported("one zero point for all of b")
    biased = case.serves != "MatMul_s8_s8_s32"
    if case.bias.any() and (not biased or p.bias_added != Order.FIRST):
        raise Unsupported("no bias, or one that is added modulo 2**32")
    a, b = np.ascontiguousarray(case.a), np.ascontiguousarray(case.b)
    (m, k), n = a.shape, b.shape[0]
    offsets = (-p.a_zero_point, -int(p.b_zero_point[0]), 0)
    out = np.empty((m, n), np.int32)
    if not biased:
        columns = np.ascontiguousarray(b.T)
        functions.MatMul_s8_s8_s32(_at(a), _at(columns), _at(out), m, k, n, *offsets)
        return out
    c = np.ascontiguousarray(np.broadcast_to(case.bias, (m, n)), np.int32)
    functions.Gemm_s8_s8_s32_s32(_at(a), _at(b), _at(c), _at(out), m, k, n, 1, 1, 0, 1, *offsets, 0)
    return out


_SERVED: Mapping[str, Callable[[Any, Case], Array]] = {
    "softmax.deeploy": _softmax,
    "softmax.itamax": _itamax,
    "softmax.itapartialmax": _itapartialmax,
    "layernorm.deeploy": _layernorm,
    "layernorm.rmsnorm_deeploy": _rmsnorm,
    "activation.gelu_deeploy": _gelu,
    "requantize.multiply_add_shift": _requantize,
    "matmul.integer": _matmul,
}

"""gemmlowp's fixed-point steps, one function a step: an op that consists of them is judged through them.

    requantize.double_rounding       SaturatingRoundingDoublingHighMul, RoundingDivideByPOT
    softmax.gemmlowp                 these, exp_on_negative_values, one_over_one_plus_x_for_x_in_0_1
    activation.logistic_gemmlowp     these, logistic
    activation.tanh_gemmlowp         these, tanh

gemmlowp is a header; ``tests/conformance/gemmlowp_steps.cc`` gives its steps as functions on arrays. The
shifts, sums and clips between them are stated here, as the kernels that use gemmlowp state them.
Source: google/gemmlowp fixedpoint/fixedpoint.h.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

from intsim.binding import Array
from intsim.numerics import IntType, int8, int16, int32, uint8
from intsim.oracle.adapter import Capability, Unsupported
from intsim.oracle.adapters import _cmsis_nn_cases
from intsim.oracle.adapters._drawn import drawn
from intsim.oracle.cases import Case, make
from intsim.ops.activation import logistic_gemmlowp, tanh_gemmlowp
from intsim.ops.requantize import double_rounding

pointer, i64 = ctypes.c_void_p, ctypes.c_int64
_ONE, _TWO = (None, [pointer, pointer, i64]), (None, [pointer, pointer, pointer, i64])
SIGNATURES: Mapping[str, tuple[Any, list[Any]]] = {
    "intsim_high_multiply": _TWO,
    "intsim_rounding_shift": _TWO,
    "intsim_exp": _ONE,
    "intsim_one_over_one_plus": _ONE,
    "intsim_logistic": _ONE,
    "intsim_tanh": _ONE,
}
LARGEST_SHIFT = 31  # of RoundingDivideByPOT, which asserts it


def capabilities(profile: str) -> Sequence[Capability]:
    """What the steps make up."""
    made = [
        Capability(
            "requantize.double_rounding",
            {"dtype": (int8, uint8, int16, int32)},
            40,
            40,
            requantize,
            "SaturatingRoundingDoublingHighMul, RoundingDivideByPOT",
        )
    ]
    for t in (int8, int16):
        serves = "exp_on_negative_values, one_over_one_plus_x_for_x_in_0_1"
        only = {"q": (int8,), "dtype": (t,)}
        made.append(Capability("softmax.gemmlowp", only, 20, 40, partial(_cmsis_nn_cases.softmax, t), serves))
    for variant in (logistic_gemmlowp, tanh_gemmlowp):
        serves = variant.OP.name.removeprefix("activation.").removesuffix("_gemmlowp")
        made.append(Capability(variant.OP.name, {}, 40, 40, partial(activation, variant), serves))
    return made


def requantize() -> Iterator[Case]:
    op, n = double_rounding.OP, 2000
    acc = drawn("steps", "int32", 20, n)
    acc[:, ::7] >>= 12
    ends = np.array([-(2**31), -(2**31) + 1, -1, 0, 1, 2**31 - 2, 2**31 - 1], np.int32)
    acc[0, :7] = ends
    multiplier = drawn("steps multiplier", "int32", n) & np.int32(2**31 - 1)
    multiplier[:21:3], multiplier[21:42:3] = 2**31 - 1, 2**30
    for slug, shift in {"right": 31 + np.arange(n) % 32, "left": np.arange(n) % 32, "plain": 31}.items():
        p = double_rounding.Params(multiplier, shift, dtype=int32)
        yield make(op, f"c-{slug}", "a multiplier and a shift a column, accumulators of every size", (acc,), p)
    ties = np.arange(-8000, 8000, dtype=np.int32)[None]
    for shift in (31, 32, 34, 38, 62):
        p = double_rounding.Params(2**30, shift, zero_point=-5, dtype=int16)
        yield make(op, f"c-ties-{shift}", "ties of both steps", (ties,), p)


def activation(variant: Any) -> Iterator[Case]:
    every = np.arange(-128, 128, dtype=np.int8).reshape(16, 16)
    for i, scale in enumerate(np.geomspace(1e-6, 15.0, 420)):
        p = variant.Params.from_scale(float(scale), a_zero_point=(i * 37) % 256 - 128, zero_point=0, dtype=int16)
        yield make(variant.OP, f"c-every-{i}", f"every int8 at scale {scale:.3g}", (every,), p)
    for i, power in enumerate(range(-27, 4)):
        p = variant.Params.from_scale(2.0**power)
        yield make(variant.OP, f"c-power-{i}", f"every int8 at scale 2**{power}", (every,), p)


def run(functions: Any, case: Case) -> Array:
    """The result that the steps give. Raises Unsupported where a step does not take its operand."""
    return _SERVED[case.op.name](_Steps(functions), case)


class _Steps:
    """The steps on arrays of int32."""

    def __init__(self, functions: Any) -> None:
        self._functions = functions

    def __getattr__(self, name: str) -> Callable[..., Array]:
        function = getattr(self._functions, f"intsim_{name}")

        def step(*operands: Any) -> Array:
            arrays = [np.ascontiguousarray(a, np.int32) for a in np.broadcast_arrays(*operands)]
            out = np.empty(arrays[0].shape, np.int32)
            function(*(a.ctypes.data for a in arrays), out.ctypes.data, out.size)
            return out.astype(np.int64)

        return step

    def scaled(self, x: Array, multiplier: Any, shift: Any) -> Array:
        """x * multiplier / 2**shift: a left shift that wraps, the high multiply, the rounding shift."""
        left = (x.astype(np.int64) << np.maximum(31 - np.asarray(shift), 0)).astype(np.int32)
        return self.rounding_shift(self.high_multiply(left, multiplier), np.maximum(np.asarray(shift) - 31, 0))


def _requantize(steps: _Steps, case: Case) -> Array:
    p = case.params
    q = steps.scaled(case.acc, p.multiplier, p.shift) + p.zero_point
    return _clipped(q, p.dtype)


def _softmax(steps: _Steps, case: Case) -> Array:
    p, q = case.params, case.q.astype(np.int64)
    if (case.stop != q.shape[1]).any():
        raise Unsupported("a row has no end before its last element")
    d = q - q.max(axis=1, keepdims=True)
    counts = d >= p.diff_min
    e = steps.exp(steps.scaled(np.where(counts, d, 0), p.multiplier, p.shift))
    total = np.where(counts, steps.rounding_shift(e, 12), 0).sum(axis=1, keepdims=True)
    headroom = 32 - np.frexp(total.astype(np.float64))[1].astype(np.int64)  # a total is below 2**31: exact
    last = 12 - headroom + 31 - p.dtype.bits
    if (last > LARGEST_SHIFT).any():
        raise Unsupported("a total of 512 times the largest term: the last shift is by 32 or more")
    reciprocal = steps.one_over_one_plus((total << headroom) - 2**31)
    y = steps.rounding_shift(steps.high_multiply(reciprocal, e), last) + p.dtype.qmin
    return _clipped(np.where(counts, y, p.dtype.qmin), p.dtype)


def _logistic(steps: _Steps, case: Case) -> Array:
    return _activation(
        case, lambda d, p: steps.rounding_shift(steps.logistic(steps.scaled(d, p.multiplier, p.shift)), 23), 0, 256
    )


def _tanh(steps: _Steps, case: Case) -> Array:
    return _activation(
        case, lambda d, p: steps.rounding_shift(steps.tanh(steps.scaled(d, p.multiplier, p.shift)), 24), -128, 128
    )


def _activation(case: Case, function: Callable[[Array, Any], Array], low: int, high: int) -> Array:
    p = case.params
    d = case.x.astype(np.int64) - p.a_zero_point
    inside = np.abs(d) < p.radius
    y = np.where(inside, function(np.where(inside, d, 0), p), np.where(d <= -p.radius, low, high))
    return _clipped(y + p.zero_point, p.dtype)


def _clipped(q: Array, t: IntType) -> Array:
    return np.clip(q, t.qmin, t.qmax).astype(t.storage)


_SERVED: Mapping[str, Callable[[_Steps, Case], Array]] = {
    "requantize.double_rounding": _requantize,
    "softmax.gemmlowp": _softmax,
    "activation.logistic_gemmlowp": _logistic,
    "activation.tanh_gemmlowp": _tanh,
}
LEFT: Mapping[str, str] = {
    "GEMM and its output stages (gemmlowp)": "not run; its arithmetic is matmul.integer and the steps that are judged",
}

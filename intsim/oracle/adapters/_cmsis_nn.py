"""CMSIS-NN's C kernels: what they serve, and a case as a call of one.

    softmax.gemmlowp                 arm_softmax_s8, arm_softmax_s8_s16
    softmax.tflite_s16               arm_softmax_s16
    linear.double_rounding, .single_rounding    arm_fully_connected_s8, _per_channel_s8, _s4, arm_batch_matmul_s8
    linear.multiplier16              arm_fully_connected_s16, arm_batch_matmul_s16
    requantize.*                     arm_nn_requantize, arm_nn_requantize_s64: they are inline, so they are
                                     judged through the bias of a layer whose product is 0
    add.rescaled, mul.rescaled       arm_elementwise_add_s8, _s16, arm_elementwise_mul_s8, _s16
    activation.*_s16                 arm_nn_activation_s16

A profile is a build: gemmlowp's double rounding, or CMSIS_NN_USE_SINGLE_ROUNDING. Portable C only: the
DSP and MVE code is chosen by the compiler for Arm, and was not run.
Source: ARM-software/CMSIS-NN Include/arm_nnfunctions.h; Source/.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache, partial
from typing import Any

import numpy as np

from intsim.binding import Array
from intsim.numerics import Nibbles, Order, Rounding, Scaling, int4, int8, int16, int32
from intsim.oracle.adapter import Capability, Unsupported
from intsim.oracle.adapters import _cmsis_nn_cases as own
from intsim.oracle.adapters._cmsis_nn_signatures import (
    SIGNATURES,
    Activation,
    BatchMatmul,
    Context,
    Dims,
    FullyConnected,
    PerChannel,
    PerTensor,
    SoftmaxTables,
)
from intsim.oracle.cases import Case
from intsim.ops.softmax import tflite_s16
from intsim.spec import fixed_point
from intsim.spec.packing import pack, unpack
from intsim.spec.rounding import wrap
from intsim.spec.tflite import sigmoid_table

__all__ = ["LEFT", "SIGNATURES", "capabilities", "run"]

SUCCESS = 0
INT32_MAX = 2**31 - 1
SHIFT_BY_31 = 511  # equal elements of a row of arm_softmax_s8 whose result is still shifted by 31 at most
SIGMOID, TANH = 0, 1


def capabilities(profile: str) -> Sequence[Capability]:
    """What the build ``profile`` serves; both builds have the same functions."""
    scaling = Scaling.SINGLE_ROUNDING if profile == "cmsis_nn_single" else Scaling.DOUBLE_ROUNDING
    made = [
        Capability(
            "softmax.gemmlowp", {"q": (int8,), "dtype": (t,)}, 20, 40, partial(own.softmax, t), f"arm_softmax_{name}"
        )
        for t, name in ((int8, "s8"), (int16, "s8_s16"))
    ]
    fixed: dict[str, Any] = {"scaling": (scaling,)}
    table: dict[str, Any] = {"index_bits": (9,), "dtype": (int16,)}
    made.append(
        Capability("softmax.tflite_s16", fixed | table, 0, 40, partial(own.softmax_s16, scaling), "arm_softmax_s16")
    )
    for kind in ("add", "mul"):
        for t in (int8, int16):
            zero = {} if t == int8 else dict.fromkeys(("a_zero_point", "b_zero_point", "zero_point"), (0,))
            shifts = {"left_shift": ((20,) if t == int8 else (15,))} if kind == "add" else {}
            only = fixed | {"a": (t,), "b": (t,), "dtype": (t,)} | zero | shifts
            directed = partial(getattr(own, kind), t, scaling)
            serves = f"arm_elementwise_{kind}_s{t.bits}"
            made.append(Capability(f"{kind}.rescaled", only, 20, 40, directed, serves))
    for kind in ("logistic", "tanh"):
        serves = f"arm_nn_activation_s16 {kind}"
        made.append(
            Capability(
                f"activation.{kind}_s16",
                {"multiplier": tuple(3 << s for s in range(14))},
                0,
                8,
                getattr(own, kind),
                serves,
            ),
        )
    return [*made, *_linear_capabilities(scaling)]


def _linear_capabilities(scaling: Scaling) -> Iterator[Capability]:
    rounds, rule = scaling.name.lower(), dict[str, Any]()
    if scaling == Scaling.SINGLE_ROUNDING:
        rule = {"rounding": (Rounding.TIES_TO_POSITIVE,), "zero_point_added": (Order.LAST,)}
    directed = partial(own.requantize, scaling)
    yield Capability(f"requantize.{rounds}", rule | {"dtype": (int8,)}, 40, 40, directed, "arm_nn_requantize")
    wide: dict[str, Any] = {"dtype": (int16,), "zero_point": (np.array([0]),)}
    yield Capability("requantize.multiplier16", wide, 40, 40, own.requantize_s64, "arm_nn_requantize_s64")
    stage = {f"requantize.{name}": values for name, values in rule.items()}
    for serves, layers in (
        ("arm_fully_connected_s8", own.fully_connected),
        ("arm_fully_connected_per_channel_s8", own.per_channel),
        ("arm_fully_connected_s4", own.four_bits),
        ("arm_batch_matmul_s8", own.batch_matmul),
    ):
        b = int4 if serves.endswith("s4") else int8
        only = stage | {"matmul.a": (int8,), "matmul.b": (b,), "requantize.dtype": (int8,)}
        yield Capability(f"linear.{rounds}", only, 0, 8, partial(layers, scaling), serves)
    for serves, b in (("arm_fully_connected_s16", int8), ("arm_batch_matmul_s16", int16)):
        only = {"matmul.a": (int16,), "matmul.b": (b,), "requantize.dtype": (int16,)}
        yield Capability("linear.multiplier16", only, 0, 8, partial(own.sixteen_bits, b), serves)


def run(functions: Any, case: Case) -> Array:
    """The result of the function that serves the case. Raises Unsupported where it cannot say the case."""
    return _SERVED[case.op.name](functions, case)


def _at(a: Array) -> int:
    """The address of a contiguous array, which must stay alive until the call is over."""
    assert a.flags.c_contiguous
    return a.ctypes.data


def _whole(status: int) -> None:
    if status != SUCCESS:
        raise RuntimeError(f"the library returned status {status}, not ARM_CMSIS_NN_SUCCESS")


def _softmax(functions: Any, case: Case) -> Array:
    p, q = case.params, np.ascontiguousarray(case.q)
    if p.q != int8 or p.dtype not in (int8, int16):
        raise Unsupported(f"int8 to int8 or int16, not {p.q} to {p.dtype}")
    _no_mask(case)
    if p.dtype == int8 and q.shape[1] > SHIFT_BY_31 and (_totals(q, p) >= SHIFT_BY_31 + 1 << 19).any():
        # Built by gcc 12 for x86, 4,095 equal elements then get 127 each, the largest probability.
        raise Unsupported("a total of 512 times the largest term: the last shift is by 32 or more, undefined in C")
    function = functions.arm_softmax_s8 if p.dtype == int8 else functions.arm_softmax_s8_s16
    out = np.empty(q.shape, p.dtype.storage)
    function(_at(q), *q.shape, p.multiplier, 31 - p.shift, p.diff_min, _at(out))
    return out


def _totals(q: Array, p: Any) -> Array:
    """The total of each row in Q12.19, where the largest element's term is 2**19."""
    d = q.astype(np.int64) - q.max(axis=1, keepdims=True)
    counts = d >= p.diff_min
    u = fixed_point.multiply_by_quantized(np.where(counts, d, 0), p.multiplier, p.shift)
    terms = fixed_point.rounding_shift(fixed_point.exp_of_negative(u, 5), 12)
    return np.asarray(np.where(counts, terms, 0).sum(axis=1))


def _no_mask(case: Case) -> None:
    if (case.stop != case.q.shape[1]).any():
        raise Unsupported("a row has no end before its last element")


@cache
def _published_tables() -> tuple[bytes, ...]:
    pairs = [tflite_s16.tables(precision) for precision in (np.float32, np.float64)]
    return tuple(a.tobytes() + b.tobytes() for a, b in pairs)


def _softmax_s16(functions: Any, case: Case) -> Array:
    p, q = case.params, np.ascontiguousarray(case.q)
    tables = [np.ascontiguousarray(t) for t in (case.exp_table, case.inverse_table)]
    if p.dtype != int16 or b"".join(t.tobytes() for t in tables) not in _published_tables():
        raise Unsupported("int16 results, which other tables than TFLite's may leave: they are cast, not saturated")
    _no_mask(case)
    out = np.empty_like(q)
    luts = SoftmaxTables(*(_at(t) for t in tables))
    _whole(functions.arm_softmax_s16(_at(q), *q.shape, p.multiplier, 31 - p.shift, luts, _at(out)))
    return out


def _elementwise(kind: str, functions: Any, case: Case) -> Array:
    p, t = case.params, case.params.dtype
    if t not in (int8, int16) or {p.a, p.b} != {t}:
        raise Unsupported(f"int8 or int16 throughout, not {p.a} and {p.b} to {t}")
    offsets = (-p.a_zero_point, -p.b_zero_point)
    if t == int16 and (any(offsets) or p.zero_point):
        raise Unsupported("int16 has no zero points")
    a, b = np.ascontiguousarray(case.a), np.ascontiguousarray(case.b)
    out = np.empty(a.shape, t.storage)
    function = getattr(functions, f"arm_elementwise_{kind}_s{t.bits}")
    last = (_at(out), p.zero_point, p.multiplier, 31 - p.shift, t.qmin, t.qmax, a.size)
    if kind == "mul":
        largest = _largest(a, p.a_zero_point) * _largest(b, p.b_zero_point)
        _fits(np.array([largest]), p, p.scaling == Scaling.SINGLE_ROUNDING)
        _whole(function(_at(a), _at(b), *offsets, *last))
        return out
    one = (offsets[0], p.a_multiplier, 31 - p.a_shift)
    two = (offsets[1], p.b_multiplier, 31 - p.b_shift)
    if max(_largest(a, p.a_zero_point), _largest(b, p.b_zero_point)) << p.left_shift > INT32_MAX:
        raise Unsupported("an operand shifted left leaves int32: the C code does not define what comes of it")
    _whole(function(_at(a), _at(b), *one, *two, p.left_shift, *last))
    return out


def _largest(a: Array, zero_point: int) -> int:
    return max(abs(int(a.min()) - zero_point), abs(int(a.max()) - zero_point))


def _fits(acc: Array, p: Any, single: bool) -> None:
    """Refuses accumulators whose result leaves int32 before it is clipped: the C code does not define it."""
    reach = np.abs(acc.astype(np.float64)) * 2.0 ** np.maximum(31 - p.shift, 0)
    reach = reach if single else np.minimum(reach, 2.0**31)  # a left shift of its own wraps
    reach = reach * (p.multiplier / 2.0 ** np.maximum(p.shift, 31))
    if (reach + np.abs(p.zero_point) >= INT32_MAX - 1).any():
        raise Unsupported("a result leaves int32 before it is clipped: the C code does not define what comes of it")


def _activation(kind: int, functions: Any, case: Case) -> Array:
    p = case.params
    if case.table.tobytes() != sigmoid_table().tobytes():
        raise Unsupported("the table is the library's own")
    shifts = {(3, s): -s for s in range(1, 16)} | {(3 << s, 0): s for s in range(14)}
    if (p.multiplier, p.shift) not in shifts or getattr(p, "dtype", int16) != int16:
        raise Unsupported("the multiplier is 3 times a power of two, and the result int16")
    x = np.ascontiguousarray(case.x)
    out = np.empty_like(x)
    left = shifts[p.multiplier, p.shift]
    _whole(functions.arm_nn_activation_s16(_at(x), _at(out), x.size, left, kind))
    return out


def _requantize(functions: Any, case: Case) -> Array:
    p, single = case.params, case.op.name == "requantize.single_rounding"
    if p.dtype != int8:
        raise Unsupported("through a layer of int8 results")
    _check(p, case.acc, single)
    m, n = case.acc.shape
    nothing = np.zeros((1, 1), np.int8), np.zeros((m * n, 1), np.int8)
    quantities = [np.tile(np.broadcast_to(v, n), m) for v in (p.multiplier, p.shift)]
    made = FullyConnected(0, 0, int(p.zero_point[0]), Activation(int8.qmin, int8.qmax))
    layer = functions.arm_fully_connected_per_channel_s8
    return _layer(layer, made, _per_channel(*quantities), *nothing, case.acc.reshape(-1), "int8").reshape(m, n)


def _check(p: Any, acc: Array, single: bool) -> None:
    """Refuses what arm_nn_requantize cannot say, or C does not define."""
    if single and (p.rounding != Rounding.TIES_TO_POSITIVE or p.zero_point_added != Order.LAST):
        raise Unsupported("ties to positive, and the zero point after the rounding")
    if single and ((p.multiplier < 0).any() or (p.shift < 1).any()):
        raise Unsupported("a multiplier from 0 on, and a shift from 1 on: the last step is a shift by 1")
    if (p.zero_point != p.zero_point[0]).any():
        raise Unsupported("one zero point for all results")
    _fits(acc, p, single)


def _requantize_s64(functions: Any, case: Case) -> Array:
    p = case.params
    _check_s64(p, case.acc)
    if p.multiplier.size > 1 or p.shift.size > 1:
        raise Unsupported("one multiplier for all results")
    shape = case.acc.shape
    nothing = np.zeros((1, 1), np.int16), np.zeros((case.acc.size, 1), np.int8)
    return _layer(functions.arm_fully_connected_s16, *_sixteen(p), *nothing, case.acc.reshape(-1), "int16").reshape(
        shape
    )


def _check_s64(p: Any, acc: Array) -> None:
    if p.dtype != int16 or p.zero_point.any():
        raise Unsupported("int16 results without a zero point")
    if (p.shift < 17).any():
        raise Unsupported("a shift from 17 on: the last step is a shift by 1")
    reduced = np.minimum((p.multiplier + 2**15) >> 16, 2**15 - 1)
    if (np.abs(acc.astype(np.int64) * reduced >> (p.shift - 17)) >= INT32_MAX).any():
        raise Unsupported("a result leaves int32 before it is clipped: the C code casts it")


def _per_channel(multiplier: Array, shift: Array) -> tuple[PerChannel, Array, Array]:
    """The parameters of each channel, with the arrays that they point into."""
    arrays = np.ascontiguousarray(multiplier, np.int32), np.ascontiguousarray(31 - shift, np.int32)
    return (PerChannel(*(_at(a) for a in arrays)), *arrays)


def _sixteen(p: Any) -> tuple[FullyConnected, tuple[PerTensor]]:
    quantities = PerTensor(int(p.multiplier[0]), 31 - int(p.shift[0]))
    return FullyConnected(0, 0, 0, Activation(int16.qmin, int16.qmax)), (quantities,)


def _layer(
    function: Any, made: FullyConnected, quantities: tuple[Any, ...], a: Array, b: Array, bias: Array, t: str
) -> Array:
    """A fully connected layer: ``a`` (m k) times ``b`` (n k, or 4-bit values one after the other)."""
    a, b = np.ascontiguousarray(a), np.ascontiguousarray(b)
    bias = np.ascontiguousarray(bias, np.int32 if t == "int8" else np.int64)
    (m, k), n = a.shape, bias.size
    out = np.empty((m, n), t)
    dims = Dims(m, 1, 1, k), Dims(k, 1, 1, n), Dims(1, 1, 1, n), Dims(m, 1, 1, n)
    arrays = _at(a), _at(b), _at(bias), _at(out)
    calls = [part for pair in zip(dims, arrays, strict=True) for part in pair]
    _whole(function(Context(None, 0), made, quantities[0], *calls))
    return out


def _linear(functions: Any, case: Case) -> Array:
    p, r, serves = case.params.matmul, case.params.requantize, case.serves or "arm_fully_connected_s8"
    if p.a != int8 or r.dtype != int8 or (p.b != int8 and not (p.b == int4 and serves.endswith("_s4"))):
        raise Unsupported(f"int8 times int8 (or int4) to int8, not {p.a} times {p.b} to {r.dtype}")
    if p.bias_added != Order.FIRST and case.bias.any():
        raise Unsupported("the accumulator starts at the bias")
    if (p.b_zero_point != p.b_zero_point[0]).any():
        raise Unsupported("one zero point for all weights")
    a, b = np.ascontiguousarray(case.a), case.b
    if p.b == int4:
        b = unpack(b.astype(np.int64), int4, p.nibbles)[:, : a.shape[1]]
    b_zero_point = int(p.b_zero_point[0])
    acc = (a.astype(np.int64) - p.a_zero_point) @ (b.astype(np.int64) - b_zero_point).T + case.bias
    _check(r, wrap(acc, int32), case.op.name == "linear.single_rounding")
    clip = Activation(int8.qmin, int8.qmax)
    made = FullyConnected(-p.a_zero_point, -b_zero_point, int(r.zero_point[0]), clip)
    function = getattr(functions, serves)
    if serves == "arm_fully_connected_per_channel_s8":
        quantities = [np.array(np.broadcast_to(v, case.bias.size)) for v in (r.multiplier, r.shift)]
        return _layer(function, made, _per_channel(*quantities), a, b, case.bias, "int8")
    if r.multiplier.size > 1 or r.shift.size > 1:
        raise Unsupported("one multiplier for all columns")
    per_tensor = PerTensor(int(r.multiplier[0]), 31 - int(r.shift[0]))
    if serves == "arm_batch_matmul_s8":
        return _product(function, BatchMatmul(False, False, made), per_tensor, a, b, case.bias, "int8")
    if p.b == int4:
        if b_zero_point:
            raise Unsupported("weights of 4 bits have no zero point")
        b = pack(b.reshape(1, -1), Nibbles.LOW_FIRST)  # no row starts a byte of its own
    return _layer(function, made, (per_tensor,), a, b, case.bias, "int8")


def _product(function: Any, made: BatchMatmul, quantities: PerTensor, a: Array, b: Array, bias: Array, t: str) -> Array:
    if bias.any():
        raise Unsupported("a product of two tensors has no bias")
    a, b = np.ascontiguousarray(a), np.ascontiguousarray(b)
    (m, k), n = a.shape, b.shape[0]
    out = np.empty((m, n), t)
    left, right, result = Dims(1, 1, m, k), Dims(1, 1, n, k), Dims(1, 1, m, n)
    _whole(function(Context(None, 0), made, quantities, left, _at(a), right, _at(b), result, _at(out)))
    return out


def _linear_s16(functions: Any, case: Case) -> Array:
    p, r, serves = case.params.matmul, case.params.requantize, case.serves or "arm_fully_connected_s16"
    b = int16 if serves == "arm_batch_matmul_s16" else int8
    if (p.a, p.b) != (int16, b) or p.a_zero_point or p.b_zero_point.any():
        raise Unsupported(f"int16 times {b}, without zero points")
    if r.multiplier.size > 1 or r.shift.size > 1:
        raise Unsupported("one multiplier for all columns")
    _check_s64(r, case.a.astype(np.int64) @ case.b.astype(np.int64).T + case.bias)
    made, (per_tensor,) = _sixteen(r)
    if b == int16:
        batch = BatchMatmul(False, False, made)
        return _product(functions.arm_batch_matmul_s16, batch, per_tensor, case.a, case.b, case.bias, "int16")
    return _layer(functions.arm_fully_connected_s16, made, (per_tensor,), case.a, case.b, case.bias, "int16")


_SERVED: Mapping[str, Callable[[Any, Case], Array]] = {
    "softmax.gemmlowp": _softmax,
    "softmax.tflite_s16": _softmax_s16,
    "add.rescaled": partial(_elementwise, "add"),
    "mul.rescaled": partial(_elementwise, "mul"),
    "activation.logistic_s16": partial(_activation, SIGMOID),
    "activation.tanh_s16": partial(_activation, TANH),
    "requantize.double_rounding": _requantize,
    "requantize.single_rounding": _requantize,
    "requantize.multiplier16": _requantize_s64,
    "linear.double_rounding": _linear,
    "linear.single_rounding": _linear,
    "linear.multiplier16": _linear_s16,
}

LEFT: Mapping[str, str] = {
    "DSP and MVE builds (CMSIS-NN)": "code that a compiler for Arm chooses; it was not run",
    "convolutions, pooling, SVDF, LSTM (CMSIS-NN)": "no variant states them",
}

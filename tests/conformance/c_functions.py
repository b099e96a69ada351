"""The functions of the C libraries, restated in Python behind the same C interface: arguments as the headers say.

What they compute is intsim's spec, so that calling them proves how the adapter passes arguments, and no
arithmetic. Sources: ARM-software/CMSIS-NN Include/arm_nnfunctions.h; pulp-platform/Deeploy
TargetLibraries/Generic/inc/kernel; ``gemmlowp_steps.cc``.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np

import intsim
from intsim.numerics import Nibbles, Rounding, Scaling, int4, int8, int16
from intsim.spec import fixed_point, packing, tflite

Functions = Mapping[str, Callable[..., Any]]
SUCCESS = 0


def at(t: str, address: int, *shape: int) -> Any:
    """The array of ``shape`` at an address that a caller gave."""
    size = int(np.prod(shape)) * np.dtype(t).itemsize
    return np.frombuffer((ctypes.c_char * size).from_address(address), t).reshape(shape)


def spec(op: str, *arrays: Any, **fields: Any) -> Any:
    return intsim.run(op, *arrays, p=intsim.get(op).params(**fields), backend="reference")


def library(file: str, signatures: Mapping[str, tuple[Any, list[Any]]], functions: Functions) -> Any:
    """The library ``file`` with ``functions`` in it, each called through C."""
    made = ctypes.CDLL(file)
    for name, (result, arguments) in signatures.items():
        setattr(made, name, ctypes.CFUNCTYPE(result, *arguments)(functions[name]))
    return made


# -- CMSIS-NN --------------------------------------------------------------------------------------


def cmsis_nn(scaling: Scaling, tilt: int = 0) -> Functions:  # noqa: PLR0915  # one function of the library after the other
    """Either build; ``tilt`` is an error in the zero point of arm_fully_connected_s8."""
    rounds = scaling.name.lower()
    rule = {"rounding": Rounding.TIES_TO_POSITIVE} if scaling == Scaling.SINGLE_ROUNDING else {}

    def softmax(t: Any, x: int, rows: int, n: int, multiplier: int, shift: int, diff_min: int, out: int) -> None:
        p = intsim.get("softmax.gemmlowp").params(multiplier, 31 - shift, dtype=t)
        assert diff_min == p.diff_min
        at(t.storage, out, rows, n)[:] = intsim.run(
            "softmax.gemmlowp", at("int8", x, rows, n), p=p, backend="reference"
        )

    def softmax_s16(x: int, rows: int, n: int, multiplier: int, shift: int, luts: Any, out: int) -> int:
        tables = (at("int16", address, 513) for address in (luts[0].exp_lut, luts[0].one_by_one_lut))
        fields = {"multiplier": multiplier, "shift": 31 - shift, "scaling": scaling}
        at("int16", out, rows, n)[:] = spec("softmax.tflite_s16", at("int16", x, rows, n), *tables, **fields)
        return SUCCESS

    def add(t: Any, a: int, b: int, za: int, ma: int, sa: int, zb: int, mb: int, sb: int, left: int, *rest: int) -> int:
        out, zero_point, multiplier, shift, low, high, n = rest
        assert (low, high) == (t.qmin, t.qmax)
        fields = {"a_multiplier": ma, "a_shift": 31 - sa, "b_multiplier": mb, "b_shift": 31 - sb, "left_shift": left}
        fields |= {"multiplier": multiplier, "shift": 31 - shift, "scaling": scaling, "a": t, "b": t, "dtype": t}
        zeros = {"a_zero_point": -za, "b_zero_point": -zb, "zero_point": zero_point}
        arrays = (at(t.storage, address, 1, n) for address in (a, b))
        at(t.storage, out, 1, n)[:] = spec("add.rescaled", *arrays, **fields, **zeros)
        return SUCCESS

    def mul(t: Any, a: int, b: int, za: int, zb: int, out: int, zero_point: int, *rest: int) -> int:
        multiplier, shift, low, high, n = rest
        assert (low, high) == (t.qmin, t.qmax)
        fields = {"multiplier": multiplier, "shift": 31 - shift, "scaling": scaling, "a": t, "b": t, "dtype": t}
        zeros = {"a_zero_point": -za, "b_zero_point": -zb, "zero_point": zero_point}
        arrays = (at(t.storage, address, 1, n) for address in (a, b))
        at(t.storage, out, 1, n)[:] = spec("mul.rescaled", *arrays, **fields, **zeros)
        return SUCCESS

    def activation(x: int, out: int, n: int, left: int, kind: int) -> int:
        fields = {"multiplier": 3 << max(left, 0), "shift": max(-left, 0)}
        op = f"activation.{('logistic', 'tanh')[kind]}_s16"
        at("int16", out, 1, n)[:] = spec(op, at("int16", x, 1, n), tflite.sigmoid_table(), **fields)
        return SUCCESS

    def product(a: Any, b: Any, bias: Any, fc: Any, multiplier: Any, shift: Any, error: int = 0) -> Any:
        t = int8 if a.dtype == np.int8 else int16
        assert (fc.activation.min, fc.activation.max) == (t.qmin, t.qmax)
        acc = (a.astype(np.int64) + fc.input_offset) @ (b.astype(np.int64) + fc.filter_offset).T + bias
        fields = {"multiplier": multiplier, "shift": 31 - shift, "zero_point": fc.output_offset + error, "dtype": t}
        if t == int16:
            return spec("requantize.multiplier16", acc, **fields)
        acc = (acc & (2**32 - 1)).astype(np.uint32).view(np.int32)
        return spec(f"requantize.{rounds}", acc, **fields, **rule)

    def layer(t: Any, weights: Any, channel: bool, context: Any, fc: Any, q: Any, *rest: Any, error: int = 0) -> int:
        x_dims, x, w_dims, w, bias_dims, bias, out_dims, out = rest
        m, k, n = x_dims[0].n, w_dims[0].n, out_dims[0].c
        assert (x_dims[0].c, w_dims[0].c, bias_dims[0].c, out_dims[0].n) == (k, n, n, m)
        assert context[0].size == 0
        if weights == int4:
            packed = at("uint8", w, (n * k + 1) // 2).astype(np.int64)
            b = packing.unpack(packed, int4, Nibbles.LOW_FIRST)[: n * k].reshape(n, k)
        else:
            b = at("int8", w, n, k)
        quantities = q[0].multiplier, q[0].shift
        if channel:
            quantities = tuple(at("int32", address, n).astype(np.int64) for address in quantities)
        start = at("int32" if t == int8 else "int64", bias, n)
        at(t.storage, out, m, n)[:] = product(at(t.storage, x, m, k), b, start, fc[0], *quantities, error)
        return SUCCESS

    def batch(t: Any, context: Any, made: Any, q: Any, *rest: Any) -> int:
        a_dims, a, b_dims, b, out_dims, out = rest
        m, k, n = a_dims[0].w, a_dims[0].c, b_dims[0].w
        assert (b_dims[0].c, out_dims[0].w, out_dims[0].c) == (k, m, n)
        assert {d[0].n for d in rest[::2]} == {d[0].h for d in rest[::2]} == {1}
        assert not made[0].adj_x
        assert not made[0].adj_y
        assert context[0].size == 0
        arrays = at(t.storage, a, m, k), at(t.storage, b, n, k)
        at(t.storage, out, m, n)[:] = product(*arrays, 0, made[0].fc_params, q[0].multiplier, q[0].shift)
        return SUCCESS

    return {
        "arm_softmax_s8": partial(softmax, int8),
        "arm_softmax_s8_s16": partial(softmax, int16),
        "arm_softmax_s16": softmax_s16,
        "arm_elementwise_add_s8": partial(add, int8),
        "arm_elementwise_add_s16": partial(add, int16),
        "arm_elementwise_mul_s8": partial(mul, int8),
        "arm_elementwise_mul_s16": partial(mul, int16),
        "arm_nn_activation_s16": activation,
        "arm_fully_connected_s8": partial(layer, int8, int8, False, error=tilt),
        "arm_fully_connected_per_channel_s8": partial(layer, int8, int8, True),
        "arm_fully_connected_s4": partial(layer, int8, int4, False),
        "arm_fully_connected_s16": partial(layer, int16, int8, False),
        "arm_batch_matmul_s8": partial(batch, int8),
        "arm_batch_matmul_s16": partial(batch, int16),
    }


# -- gemmlowp --------------------------------------------------------------------------------------


def gemmlowp() -> Functions:
    def step(function: Callable[..., Any], *addresses: int) -> None:
        *operands, out, n = addresses
        at("int32", out, n)[:] = function(*(at("int32", a, n).astype(np.int64) for a in operands))

    steps = {
        "high_multiply": fixed_point.high_multiply,
        "rounding_shift": fixed_point.rounding_shift,
        "exp": partial(fixed_point.exp_of_negative, integer_bits=5),
        "one_over_one_plus": fixed_point.one_over_one_plus,
        "logistic": partial(tflite.logistic, integer_bits=4),
        "tanh": partial(tflite.tanh, integer_bits=4),
    }
    return {f"intsim_{name}": partial(step, function) for name, function in steps.items()}


# -- Deeploy ---------------------------------------------------------------------------------------


def deeploy() -> Functions:
    def softmax(x: int, out: int, size: int, n: int, a: int, b: int, c: int, log2: int, levels: int) -> None:
        fields = {"a": a, "b": b, "c": c, "log2": log2, "levels": levels}
        at("int8", out, size // n, n)[:] = spec("softmax.deeploy", at("int8", x, size // n, n), **fields)

    def itamax(x: int, out: int, buffer: int, size: int, n: int, levels: int) -> None:
        at("int8", buffer, n)[:] = 0
        rows = at("int8", x, size // n, n)
        at("int8", out, size // n, n)[:] = spec("softmax.itamax", rows, peak=levels - 1, levels=levels)

    def partial_max(x: int, out: int, size: int, n: int, group: int, levels: int) -> None:
        fields = {"group": group, "peak": levels // 2 - 1, "levels": levels}
        at("int8", out, size // n, n)[:] = spec("softmax.itapartialmax", at("int8", x, size // n, n), **fields)

    def layernorm(x: int, out: int, weight: int, bias: int, offset: int, size: int, n: int, shift: int) -> None:
        arrays = at("int8", x, size // n, n), at("int32", weight, n), at("int32", bias, n)
        at("int8", out, size // n, n)[:] = spec("layernorm.deeploy", *arrays, shift=shift, offset=offset)

    def rmsnorm(x: int, out: int, weight: int, offset: int, size: int, n: int, shift: int) -> None:
        arrays = at("int8", x, size // n, n), at("int32", weight, n)
        at("int8", out, size // n, n)[:] = spec("layernorm.rmsnorm_deeploy", *arrays, shift=shift, offset=offset)

    def gelu(x: int, out: int, size: int, b: int, one: int, offset: int) -> None:
        fields = {"b": b, "one": one, "offset": offset}
        at("int32", out, 1, size)[:] = spec("activation.gelu_deeploy", at("int8", x, 1, size), **fields)

    def requantize(t: str, last: bool, x: int, size: int, multiplier: int, bias: int, out: int, *rest: Any) -> None:
        shift, count, offset, zero_point, low, high, rounds = rest
        assert (low, high) == (int8.qmin, int8.qmax)
        n = count if last else size // count
        each = (at("int32", address, n).astype(np.int64) for address in (multiplier, bias))
        fields = {"shift": shift, "offset": offset, "zero_point": zero_point, "dtype": int8}
        fields["rounding"] = Rounding.TIES_TO_POSITIVE if rounds else Rounding.TOWARD_NEGATIVE
        shape = (size // n, n) if last else (n, size // n)
        acc, q = at(t, x, *shape).astype(np.int32), at("int8", out, *shape)
        p = intsim.get("requantize.multiply_add_shift").params(*each, **fields)
        made = intsim.run("requantize.multiply_add_shift", acc if last else acc.T.copy(), p=p, backend="reference")
        q[:] = made if last else made.T

    def matmul(a: int, b: int, out: int, m: int, k: int, n: int, za: int, zb: int, zc: int) -> None:
        assert zc == 0
        arrays = at("int8", a, m, k), at("int8", b, k, n).T.copy()
        at("int32", out, m, n)[:] = spec("matmul.integer", *arrays, a_zero_point=-za, b_zero_point=-zb)

    def gemm(a: int, b: int, c: int, out: int, m: int, k: int, n: int, *rest: int) -> None:
        alpha, beta, a_transposed, b_transposed, za, zb, zc, zy = rest
        assert (alpha, beta, a_transposed, b_transposed, zc, zy) == (1, 1, 0, 1, 0, 0)
        bias = at("int32", c, m, n)
        assert (bias == bias[0]).all()
        arrays = at("int8", a, m, k), at("int8", b, n, k), bias[0]
        at("int32", out, m, n)[:] = spec("matmul.integer", *arrays, a_zero_point=-za, b_zero_point=-zb)

    return {
        "Softmax_s8_s8": softmax,
        "ITAMax_s8": itamax,
        "ITAPartialMax_s8": partial_max,
        "Layernorm_s8_s8": layernorm,
        "iRMSnorm_s8_s8": rmsnorm,
        "GELU_s8_s32": gelu,
        "RequantShift_s8_s8_NHWC": partial(requantize, "int8", True),
        "RequantShift_s16_s8_NHWC": partial(requantize, "int16", True),
        "RequantShift_s32_s8_NHWC": partial(requantize, "int32", True),
        "RequantShift_s32_s8_NCHW": partial(requantize, "int32", False),
        "MatMul_s8_s8_s32": matmul,
        "Gemm_s8_s8_s32_s32": gemm,
    }


PROFILES: Mapping[str, Callable[[], Functions]] = {
    "cmsis_nn_double": partial(cmsis_nn, Scaling.DOUBLE_ROUNDING),
    "cmsis_nn_single": partial(cmsis_nn, Scaling.SINGLE_ROUNDING),
    "gemmlowp": gemmlowp,
    "deeploy": deeploy,
}

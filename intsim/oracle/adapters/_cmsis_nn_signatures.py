"""CMSIS-NN's functions as ctypes sees them: structures, and of each function the result and the arguments.

Pointers to arrays are addresses. Source: ARM-software/CMSIS-NN Include/arm_nn_types.h, arm_nnfunctions.h.
"""

from __future__ import annotations

import ctypes
from collections.abc import Mapping
from typing import Any

i32, pointer = ctypes.c_int32, ctypes.c_void_p


class Context(ctypes.Structure):
    _fields_ = [("buf", pointer), ("size", i32)]


class Dims(ctypes.Structure):
    _fields_ = [("n", i32), ("h", i32), ("w", i32), ("c", i32)]


class Activation(ctypes.Structure):
    _fields_ = [("min", i32), ("max", i32)]


class FullyConnected(ctypes.Structure):
    _fields_ = [("input_offset", i32), ("filter_offset", i32), ("output_offset", i32), ("activation", Activation)]


class BatchMatmul(ctypes.Structure):
    _fields_ = [("adj_x", ctypes.c_bool), ("adj_y", ctypes.c_bool), ("fc_params", FullyConnected)]


class PerTensor(ctypes.Structure):
    _fields_ = [("multiplier", i32), ("shift", i32)]


class PerChannel(ctypes.Structure):
    _fields_ = [("multiplier", pointer), ("shift", pointer)]


class SoftmaxTables(ctypes.Structure):
    _fields_ = [("exp_lut", pointer), ("one_by_one_lut", pointer)]


_P = ctypes.POINTER
_SOFTMAX = (None, [pointer, i32, i32, i32, i32, i32, pointer])
_LINEAR = [_P(Dims), pointer, _P(Dims), pointer, _P(Dims), pointer, _P(Dims), pointer]
_TENSOR = (i32, [_P(Context), _P(FullyConnected), _P(PerTensor), *_LINEAR])
_PRODUCT = (i32, [_P(Context), _P(BatchMatmul), _P(PerTensor), _P(Dims), pointer, _P(Dims), pointer, _P(Dims), pointer])
_ADD = (i32, [pointer, pointer, *[i32] * 7, pointer, *[i32] * 6])
_MUL = (i32, [pointer, pointer, i32, i32, pointer, *[i32] * 6])
SIGNATURES: Mapping[str, tuple[Any, list[Any]]] = {
    "arm_softmax_s8": _SOFTMAX,
    "arm_softmax_s8_s16": _SOFTMAX,
    "arm_softmax_s16": (i32, [pointer, i32, i32, i32, i32, _P(SoftmaxTables), pointer]),
    "arm_fully_connected_s8": _TENSOR,
    "arm_fully_connected_s4": _TENSOR,
    "arm_fully_connected_s16": _TENSOR,
    "arm_fully_connected_per_channel_s8": (i32, [_P(Context), _P(FullyConnected), _P(PerChannel), *_LINEAR]),
    "arm_batch_matmul_s8": _PRODUCT,
    "arm_batch_matmul_s16": _PRODUCT,
    "arm_elementwise_add_s8": _ADD,
    "arm_elementwise_add_s16": _ADD,
    "arm_elementwise_mul_s8": _MUL,
    "arm_elementwise_mul_s16": _MUL,
    "arm_nn_activation_s16": (i32, [pointer, pointer, i32, i32, ctypes.c_int]),
}

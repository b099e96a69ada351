"""Real arrays to QTensors and back, for every granularity, by the ``quantize.affine`` and ``dequantize.affine`` ops."""

from __future__ import annotations

from typing import Any

import numpy as np

from intsim.binding import Array
from intsim.execute import run
from intsim.numerics import IntType, Rounding, int8
from intsim.registry import get
from intsim.tensor import QTensor

WHOLE_ROW = 2**31 - 1  # a group_size that no row reaches: one scale a row


def quantize(
    x: Any,
    scale: Any,
    zero_point: Any = 0,
    *,
    dtype: IntType = int8,
    axis: int | None = None,
    group_size: int | None = None,
    rounding: Rounding = Rounding.TIES_TO_EVEN,
    backend: str = "cpu",
) -> QTensor:
    """``saturate(round(x / scale) + zero_point)`` as a QTensor; the division is float32's.

    x: float32, any shape of one dimension or more. scale: positive float32, one number; one an index
    along ``axis``; or, with ``group_size``, shape (..., ceil(last / group_size)) for groups along the
    last axis. zero_point: whole numbers that broadcast to ``scale``.
    Raises TypeError or ValueError where they do not fit (also for a NaN, or a scale that is not positive).
    """
    x = np.asarray(x)
    if x.dtype != np.float32 or x.ndim == 0:
        raise TypeError(f"quantize: x is a float32 array, got {x.dtype} of shape {x.shape}")
    given = np.asarray(scale, np.float32)
    zeros = np.asarray(zero_point)
    if zeros.dtype.kind not in "iu":
        raise TypeError(f"quantize: zero_point holds whole numbers, got {zeros.dtype}")
    zeros = np.broadcast_to(zeros, given.shape).astype(np.int32)
    if zeros.size and (zeros.min() < dtype.qmin or zeros.max() > dtype.qmax):
        raise ValueError(f"quantize: zero_point leaves {dtype}: {zeros.min()} to {zeros.max()}")
    params: Any = get("quantize.affine").params
    p = params(group_size or WHOLE_ROW, dtype, rounding)
    rows, scales, offsets = _rows(x, axis, group_size), *_scales(x.shape, given, zeros, axis, group_size)
    q = run("quantize.affine", rows, scales, offsets, p=p, backend=backend)
    return QTensor(_back(q, x.shape, axis), given, zeros, dtype, axis, group_size)


def dequantize(tensor: QTensor, *, backend: str = "cpu") -> Array:
    """``scale * (q - zero_point)`` in float32, the shape of ``tensor``."""
    shape, axis, group_size = tensor.shape, tensor.axis, tensor.group_size
    params: Any = get("dequantize.affine").params
    p = params(group_size or WHOLE_ROW, tensor.dtype)
    scales = _scales(shape, np.asarray(tensor.scale), np.asarray(tensor.zero_point), axis, group_size)
    x = run("dequantize.affine", _rows(tensor.values(), axis, group_size), *scales, p=p, backend=backend)
    return _back(x, shape, axis)


def _rows(x: Array, axis: int | None, group_size: int | None) -> Array:
    """``x`` as a matrix whose rows share what one row of scales holds."""
    if group_size is not None:
        return np.ascontiguousarray(x).reshape(-1, x.shape[-1])
    if axis is None:
        return x.reshape(1, -1)
    return np.moveaxis(x, axis, 0).reshape(x.shape[axis], -1)


def _scales(
    shape: tuple[int, ...], scale: Array, zero_point: Array, axis: int | None, group_size: int | None
) -> tuple[Array, Array]:
    needs: tuple[int, ...]
    if group_size is not None:
        needs = (*shape[:-1], -(-shape[-1] // group_size))
    else:
        needs = () if axis is None else (shape[axis],)
    if scale.shape != needs:
        raise ValueError(f"quantize: scale has shape {scale.shape}, needs {needs}")
    columns = needs[-1] if group_size is not None else 1
    return scale.reshape(-1, columns), zero_point.reshape(-1, columns)


def _back(rows: Array, shape: tuple[int, ...], axis: int | None) -> Array:
    if axis is None:
        return rows.reshape(shape)
    moved = (shape[axis], *np.delete(shape, axis))
    return np.ascontiguousarray(np.moveaxis(rows.reshape(moved), 0, axis))

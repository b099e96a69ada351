"""A tensor of quantized values with what is needed to read them: scale, zero point, granularity, packing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from intsim.numerics import Granularity, IntType, Nibbles, int8
from intsim.spec import packing

Array = np.ndarray[Any, Any]


@dataclass(frozen=True, slots=True, eq=False)
class QTensor:
    """Integers ``q`` that stand for ``real = scale * (q - zero_point)``.

    q: the values, shape ``shape``, dtype ``dtype.storage``; where ``packed``, 4-bit values two a byte
        along the last axis (uint8).
    scale: float32. One value (per tensor); one an index along ``axis`` (per channel); or, where
        ``group_size`` is set, shape ``(..., ceil(last / group_size))``: one a group along the last axis.
    zero_point: int32, the shape of ``scale``.
    Raises TypeError or ValueError where the parts do not fit together, or a scale is not positive.
    """

    q: Array
    scale: Array
    zero_point: Array
    dtype: IntType = int8
    axis: int | None = None
    group_size: int | None = None
    packed: bool = False
    nibbles: Nibbles = Nibbles.LOW_FIRST
    length: int | None = None  # of the last axis, where ``packed`` hides whether it is odd

    def __post_init__(self) -> None:
        needs = "uint8" if self.packed else self.dtype.storage
        if self.q.dtype != needs:
            raise TypeError(f"QTensor of {self.dtype}: q is {self.q.dtype}, needs {needs}")
        if self.packed and self.dtype.bits != 4:
            raise ValueError(f"QTensor: only 4-bit types are packed, got {self.dtype}")
        if self.packed and (self.length is None or not 0 <= 2 * self.q.shape[-1] - self.length <= 1):
            raise ValueError(f"QTensor: packed q needs the length of its last axis, got {self.length}")
        scale = np.asarray(self.scale)
        if scale.dtype != np.float32 or not (np.isfinite(scale) & (scale > 0)).all():
            raise ValueError("QTensor: scale holds positive finite float32 numbers")
        if np.shape(self.zero_point) != scale.shape or np.asarray(self.zero_point).dtype != np.int32:
            raise ValueError(f"QTensor: zero_point is int32 of shape {scale.shape}, like scale")
        if scale.shape != self._scale_shape():
            raise ValueError(
                f"QTensor: scale has shape {scale.shape}, needs {self._scale_shape()} ({self.granularity.value})"
            )
        if not self.packed and self.q.size and (self.q.min() < self.dtype.qmin or self.q.max() > self.dtype.qmax):
            raise ValueError(f"QTensor: q leaves {self.dtype}")

    @property
    def granularity(self) -> Granularity:
        if self.group_size is not None:
            return Granularity.PER_GROUP
        return Granularity.PER_TENSOR if self.axis is None else Granularity.PER_CHANNEL

    @property
    def shape(self) -> tuple[int, ...]:
        """The logical shape."""
        return (*self.q.shape[:-1], self.length) if self.packed and self.length is not None else self.q.shape

    def _scale_shape(self) -> tuple[int, ...]:
        if self.group_size is not None:
            return (*self.shape[:-1], -(-self.shape[-1] // self.group_size))
        return () if self.axis is None else (self.shape[self.axis],)

    def values(self) -> Array:
        """The integers, one an element, dtype ``dtype.storage``."""
        if not self.packed:
            return self.q
        whole = packing.unpack(self.q.astype(np.int64), self.dtype, self.nibbles)
        return np.asarray(whole[..., : self.length]).astype(self.dtype.storage)

    def pack(self, nibbles: Nibbles = Nibbles.LOW_FIRST) -> QTensor:
        """The same tensor with its 4-bit values two a byte."""
        q = packing.pack(self.values(), nibbles)
        return QTensor(
            q, self.scale, self.zero_point, self.dtype, self.axis, self.group_size, True, nibbles, self.shape[-1]
        )

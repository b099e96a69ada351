"""Cases for QONNX and Brevitas: quantizers that add the zero point before they round."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from intsim.binding import Array
from intsim.numerics import IntType, Rounding, int8, int16, uint8
from intsim.ops.quantize import qonnx, reciprocal
from intsim.ops.requantize import power_of_two
from intsim.oracle.cases import Case, make

ROWS, COLUMNS = 8, 2500
SCALES = (0.1, 0.3, 0.7, 0.025)


def floats(text: str, *shape: int) -> Array:
    """Pseudorandom float32 in [-16, 16], the same on every machine."""
    size = 4 * int(np.prod(shape))
    bits = np.frombuffer(hashlib.shake_256(text.encode()).digest(size), np.int32).reshape(shape)
    return ((bits >> 7) / 2**20).astype(np.float32)


def beside_ties(scale: float, low: int, high: int) -> Array:
    """For each half between two integers the float32 nearest to it times ``scale``, and both neighbours of that."""
    at = (np.arange(low, high) + 0.5).astype(np.float32) * np.float32(scale)
    return np.concatenate([at, np.nextafter(at, np.float32(np.inf)), np.nextafter(at, np.float32(-np.inf))])[None]


def ends(t: IntType, zero_point: int) -> Array:
    """Both ends of a type and what lies around them for the scale 1, then large, small and infinite numbers."""
    around = np.array([t.qmin - zero_point, t.qmax - zero_point]) + np.array([[-1], [-0.5], [0], [0.5], [1]])
    wild = [np.inf, -np.inf, 3e38, -3e38, 2.0**31, -(2.0**31), 2.0**32, 1e-45, -1e-45, -0.0, 0.0]
    return np.array([[*around.reshape(-1), *wild]], np.float32)


def quantized(op: Any, fields: dict[str, Any], types: Sequence[IntType], label: str) -> Iterator[Case]:
    """Cases of an op that takes x, scale and zero point; ``fields`` are its parameters besides the type."""
    one = np.ones((1, 1), np.float32)
    ties = (np.arange(-1030, 1031, dtype=np.float32) / 4)[None]
    for t in types:
        odd = (t.qmin + t.qmax) // 2 | 1
        p, z = op.Params(dtype=t, **fields), np.array([[odd]], np.int32)
        why = "exact ties, an odd zero point"
        yield make(op.OP, f"{label}-{t}-ties", why, (ties, one / 2, z), p)
        yield make(op.OP, f"{label}-{t}-ends", "the ends of the range, infinities", (ends(t, odd), one, z), p)
        for scale in SCALES:
            x = beside_ties(scale, max(t.qmin, -300) - odd, min(t.qmax, 300) - odd)
            why = "on ties and beside them: a product for the quotient, another order or a fused sum give others"
            yield make(op.OP, f"{label}-{t}-beside-ties-{scale}", why, (x, one * np.float32(scale), z), p)
    for t in (int8, uint8):
        scales = np.abs(floats(f"{label} scale", ROWS, 1)) / 64 + np.float32(0.005)
        zero_point = (np.arange(ROWS, dtype=np.int32) * 37 % 255 + t.qmin)[:, None]
        why = "ordinary numbers, a scale and a zero point a row"
        rows = (floats(f"{label} x", ROWS, COLUMNS), scales, zero_point)
        yield make(op.OP, f"{label}-{t}-rows", why, rows, op.Params(dtype=t, **fields))
        whole = (np.arange(-ROWS * COLUMNS, ROWS * COLUMNS, dtype=np.float32) / 64)[None]
        line = (whole, one / 2, np.array([[t.qmin + 101]], np.int32))
        yield make(
            op.OP, f"{label}-{t}-line", "a line of 1/32: ties and all between", line, op.Params(dtype=t, **fields)
        )


def quantize(rounding: Rounding, below_zero: qonnx.BelowZero, types: Sequence[IntType], label: str) -> Iterator[Case]:
    yield from quantized(qonnx, {"rounding": rounding, "below_zero": below_zero}, types, label)


def product(zero_point_added: reciprocal.ZeroPoint, types: Sequence[IntType], label: str) -> Iterator[Case]:
    yield from quantized(reciprocal, {"zero_point_added": zero_point_added}, types, label)


def truncate(roundings: Sequence[Rounding]) -> Iterator[Case]:
    line = np.arange(-10_000, 10_000, dtype=np.int32)[None]
    for r in roundings:
        for t, shift in ((int8, 4), (uint8, 5), (int16, 0)):
            p = power_of_two.Params(shift, dtype=t, rounding=r)
            why = "every code of 14 bits: ties, and both ends of the result"
            yield make(power_of_two.OP, f"qonnx-{r.name.lower()}-{t}-by-{shift}", why, (line,), p)

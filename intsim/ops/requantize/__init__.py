"""Requantize: a wide accumulator becomes a narrow integer. What every variant must keep."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Self

import numpy as np

from intsim.numerics import IntType, Rounding, int8, int16, int32, uint8, unlimited
from intsim.op import Oracle
from intsim.params import Params
from intsim.spec.tflite import quantize_multiplier

RESULTS: tuple[IntType, ...] = (int8, uint8, int16, int32, unlimited)
TIES = (Rounding.TIES_TO_EVEN, Rounding.TIES_TO_POSITIVE, Rounding.TIES_TO_AWAY)  # what the tuned kernels round by
WORTH_TUNING = 1 << 14  # elements: below, the one kernel of the program, which serves every type, is as good


def streams(p: Any, size: Mapping[str, int]) -> bool:
    """What the tuned kernels were written for: many elements, narrow results.

    With 16 bits and a zero point below 2**23, the bounds of a result less its zero point are float32 integers.
    """
    large = size["m"] * size["n"] > WORTH_TUNING and (size["n"] == 1 or size["n"] >= 64)
    return large and p.dtype.bits <= 16 and bool((abs(p.zero_point) < 2**23).all())


def multiplier_and_shift(real: Any) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """(multiplier, shift) with ``real ~ multiplier / 2**shift`` and 31 significant bits, as QuantizeMultiplier.

    real: one positive finite float64, or a row of them. Raises ValueError for anything else.
    Source: google-ai-edge/LiteRT tflite/kernels/internal/quantization_util.cc.
    """
    parts = [quantize_multiplier(float(one)) for one in np.atleast_1d(np.asarray(real, np.float64))]
    multiplier, shift = np.array(parts, np.int64).T
    return multiplier, shift


class MultiplierParams(Params):
    """Base of the parameters of variants that take a real scale as ``multiplier / 2**shift``."""

    __slots__ = ()

    @classmethod
    def from_scale(cls, scale: Any, **fields: Any) -> Self:
        """The parameters for ``q ~ acc * scale``; scale: positive finite floats, one or one per n."""
        multiplier, shift = multiplier_and_shift(scale)
        return cls(multiplier, shift, **fields)  # type: ignore[call-arg]  # the variants declare both first


def multiplier_oracle(params: type[MultiplierParams], bound: Callable[[Any], float]) -> Oracle:
    """The oracle of such a variant: the real product, on results wide enough not to saturate."""
    return Oracle(
        params=lambda scale: params.from_scale(scale, dtype=int32),
        scales=(1e-6, 0.9),
        real=lambda acc, p: acc * (p.multiplier[0] / 2.0 ** p.shift[0]),
        value=lambda q, p: q,
        bound=bound,
    )


def monotone(f: Callable[[Any], Any], acc: Any) -> bool:
    """A larger accumulator never gets a smaller result (for a positive multiplier)."""
    ordered = np.sort(acc, axis=0)
    return bool((np.diff(f(ordered).astype(np.int64), axis=0) >= 0).all())


LAWS = (monotone,)

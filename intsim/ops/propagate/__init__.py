"""Scale Propagation: tensors of integers, each row with a scale that is two integers.

A scale is ``mantissa * 2**exponent``, 2**30 <= mantissa < 2**31 (``intsim.spec.scale``); it multiplies:
``real = q / scale``, so a smaller scale is a coarser grid. Every op takes integers with their scales
and gives both; nothing is calibrated. MATCH brings integers to the smaller of two scales, where none
grows; a rescaling brings a row inside a narrow type by its own largest element.

Source: Lin et al. 2020 (arXiv 2009.08034), section 3. The paper leaves open the form of a scale, the
rounding and when to rescale: these are rules here, with the defaults that lost least when measured.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import IntEnum, unique
from typing import Any

import numpy as np

from intsim.numerics import IntType, Rounding, int32
from intsim.op import Port
from intsim.spec.scale import of_real

LAWS = ()

ONE = (2**30, -30)  # the scale 1
CONSTANT = 2**29 - 1  # the largest of the constants that are added to accumulators
SUM = 3 * 2**29  # the largest accumulator with such a constant: 2**30 + 2**29
LARGEST = 2**31 - 1  # of what a ratio may be applied to

# Not away from zero: a row's largest element comes out within 2**-31 above the end of its type.
ROUNDINGS = tuple(r for r in Rounding if r not in (Rounding.TOWARD_POSITIVE, Rounding.AWAY_FROM_ZERO))

WHOLE = 16  # elements: a register of int32 is as long on every machine, or a divisor
EXPONENT = IntType(12)
MADE_EXPONENT = IntType(14)  # three scales of 12 bits multiplied stay inside 2**13 - 200


@unique
class Policy(IntEnum):
    """When a row is brought to the whole range of its type, and by what."""

    WHEN_NEEDED = 0  #: where it does not fit; else it stays as it is
    ALWAYS = 1  #: small rows are stretched too
    POWERS_OF_TWO = 2  #: where it does not fit, by the smallest shift that makes it


@unique
class Activation(IntEnum):
    """What happens to an accumulator before it is rescaled."""

    NONE = 0
    RELU = 1


@unique
class Probabilities(IntEnum):
    """Where the sum of a row's attention weights goes."""

    DENOMINATOR = 0  #: into the scale: nothing is divided
    EXPLICIT = 1  #: into the weights, which become q / qmax


@unique
class Centring(IntEnum):
    """How the mean is taken away."""

    EXACT = 0  #: n x - sum x
    ROUNDED_MEAN = 1  #: x - round(sum x / n)


def scale_ports(dims: str, name: str = "", exponent: IntType = EXPONENT) -> tuple[Port, Port]:
    """The two inputs that are a scale; ``name`` says whose."""
    start = f"{name}_" if name else ""
    return Port(f"{start}mantissa", dims, int32, low=2**30), Port(f"{start}exponent", dims, exponent)


MADE_SCALE = (Port("mantissa", "m", int32), Port("exponent", "m", MADE_EXPONENT))


def half_away_in_whole_registers(p: Any, size: Mapping[str, int]) -> bool:
    """Whether the vector kernels serve: they round half away from zero, and take rows of whole registers."""
    return bool(p.rounding == Rounding.TIES_TO_AWAY and size["n"] % WHOLE == 0)


def constants(values: Any) -> tuple[Any, int, int]:
    """Real numbers as integers below 2**29 on one scale: (q, mantissa, exponent). Zeros get the largest scale.

    For the host, before anything runs. Raises ValueError where one is not finite.
    """
    values = np.atleast_1d(np.asarray(values, np.float64))
    if not np.isfinite(values).all():
        raise ValueError("a constant is finite; got an infinity or NaN")
    top = float(np.abs(values).max(initial=0.0))
    if top < 2.0**-1000:
        return np.zeros(values.shape, np.int64), 2**31 - 1, EXPONENT.qmax
    mantissa, exponent = of_real(CONSTANT / top)
    q = np.rint(values * (CONSTANT / top)).astype(np.int64)
    return np.clip(q, -CONSTANT, CONSTANT), int(mantissa), int(exponent)

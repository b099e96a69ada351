"""The vocabulary of the arithmetic: number types, rounding rules, and what else systems disagree on."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, IntEnum, unique
from functools import cache


@unique
class Rounding(IntEnum):
    """Where a value between two integers goes. The words are IEEE 754's."""

    TOWARD_NEGATIVE = 0  #: floor; an arithmetic right shift
    TOWARD_ZERO = 1  #: C's integer division
    TIES_TO_POSITIVE = 2  #: nearest; add half, then floor
    TIES_TO_AWAY = 3  #: nearest; C's round()
    TIES_TO_EVEN = 4  #: nearest; NumPy's rint
    TIES_TO_NEGATIVE = 5  #: nearest; differs from TIES_TO_POSITIVE on a tie and nowhere else
    TOWARD_POSITIVE = 6  #: ceiling
    AWAY_FROM_ZERO = 7  #: the next integer outward, ties or not
    TIES_TO_ZERO = 8  #: nearest; differs from TIES_TO_AWAY on a tie and nowhere else


@unique
class Overflow(IntEnum):
    """What a value becomes that its type cannot hold. (Raising is the runner's demand, not a rule.)"""

    WRAP = 0  #: modulo 2**bits; the order of a sum does not matter
    SATURATE = 1  #: the nearest value, at every step; the order of a sum matters


@unique
class Order(IntEnum):
    """Whether something is added before or after the step that it is named beside."""

    FIRST = 0
    LAST = 1


@unique
class Scaling(IntEnum):
    """How a product with multiplier / 2**shift is rounded inside an op: as the requantize of that name."""

    DOUBLE_ROUNDING = 0  #: gemmlowp; the default build of TFLite's kernels and of CMSIS-NN
    SINGLE_ROUNDING = 1  #: ties to positive; TFLITE_SINGLE_ROUNDING, CMSIS_NN_USE_SINGLE_ROUNDING


@unique
class Nibbles(IntEnum):
    """Which half of a byte holds the element of even index."""

    LOW_FIRST = 0  #: ONNX, TFLite, CMSIS-NN
    HIGH_FIRST = 1


@unique
class Granularity(Enum):
    """How many elements share one scale."""

    PER_TENSOR = "per tensor"
    PER_CHANNEL = "per channel"
    PER_GROUP = "per group"


@cache  # asked for many times in every call
def _storage(bits: int, signed: bool) -> str:
    return f"{'int' if signed else 'uint'}{next(b for b in (8, 16, 32, 64) if bits <= b)}"


@dataclass(frozen=True, slots=True)
class IntType:
    """A two's complement or unsigned integer, 2 to 64 bits wide (unsigned: to 62).

    ``narrow_range`` leaves out the lowest value of a signed type, so that the range is symmetric.
    """

    bits: int
    signed: bool = True
    narrow_range: bool = False

    def __post_init__(self) -> None:
        widest = 64 if self.signed else 62
        if not 2 <= self.bits <= widest:
            kind = "a signed" if self.signed else "an unsigned"
            raise ValueError(f"{kind} IntType has 2 to {widest} bits, got {self.bits}")
        if self.narrow_range and not self.signed:
            raise ValueError("narrow_range leaves out the lowest signed value: an unsigned type has none")

    @property
    def qmin(self) -> int:
        return -(1 << (self.bits - 1)) + self.narrow_range if self.signed else 0

    @property
    def qmax(self) -> int:
        return (1 << (self.bits - self.signed)) - 1

    @property
    def storage(self) -> str:
        """The NumPy type of an array of these."""
        return _storage(self.bits, self.signed)

    def __str__(self) -> str:
        return f"{'' if self.signed else 'u'}int{self.bits}{'_narrow' if self.narrow_range else ''}"

    @classmethod
    def parse(cls, text: str) -> IntType:
        """The type that ``str`` writes as ``text``."""
        name, _, narrow = text.partition("_")
        digits = name.removeprefix("u").removeprefix("int")
        if not digits.isdecimal() or narrow not in ("", "narrow"):
            raise ValueError(f"an integer type looks like int8, uint4 or int8_narrow; got {text!r}")
        return cls(int(digits), signed=not name.startswith("u"), narrow_range=bool(narrow))


@dataclass(frozen=True, slots=True)
class FloatType:
    """An IEEE 754 binary32. Kernels see its bits as an int32: no kernel holds a float instruction."""

    bits: int = 32

    @property
    def storage(self) -> str:
        return f"float{self.bits}"

    def __str__(self) -> str:
        return self.storage


NumberType = IntType | FloatType

int2, uint2 = IntType(2), IntType(2, signed=False)
int4, uint4 = IntType(4), IntType(4, signed=False)
int8, uint8 = IntType(8), IntType(8, signed=False)
int16, uint16 = IntType(16), IntType(16, signed=False)
int24, int32, int48 = IntType(24), IntType(32), IntType(48)
int8_narrow, int16_narrow = IntType(8, narrow_range=True), IntType(16, narrow_range=True)
unlimited = IntType(64)  # nothing inside the limits leaves it: the type that never saturates
float32 = FloatType(32)

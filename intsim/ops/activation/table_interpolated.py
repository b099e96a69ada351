"""Any function of a 16-bit input, by a table of 513 points and straight lines between them.

    at   = (x + 2**15) >> 7,  along = (x + 2**15) mod 2**7
    q    = positive((table[at] * 2**7 + (table[at + 1] - table[at]) * along) / 2**(7 - fraction_bits))

fraction_bits is how much of the line's fraction stays in the result: 7 is TOSA's TABLE of int16 (an exact value of
23 bits, rescaled afterwards), 0 is TFLite's lookup (rounded to the table's own 16 bits).

Differs from ``table``: 16 bits in. From the tables of ``logistic_s16``: any function.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from intsim.compiling import Int, portable
from intsim.numerics import Rounding, int16, int32
from intsim.op import Elementwise, Op, Port
from intsim.params import Params as Base, integer
from intsim.registry import register
from intsim.scalar.rounding import shift_right
from intsim.spec import rounding

STEP_BITS = 7  # 65536 inputs, 512 stretches


@dataclass(frozen=True, slots=True, eq=False)
class Params(Base):
    fraction_bits: int = integer(0, STEP_BITS, default=STEP_BITS)


def spec(x: Any, table: Any, p: Params) -> Any:
    at = (x + (1 << 15) >> STEP_BITS).astype(int)
    along = (x + (1 << 15)) % (1 << STEP_BITS)
    line = (table[at] << STEP_BITS) + (table[at + 1] - table[at]) * along
    return rounding.shift_right(line, STEP_BITS - p.fraction_bits, Rounding.TIES_TO_POSITIVE)


@portable
def element(i: Int, j: Int, x: Any, p: Any) -> Int:
    value = np.int64(x.x[i, j])
    at = (value >> 7) + 256
    base = np.int64(x.table[at])
    # A slope is below 2**16 and the fraction below 2**7: the line is an int24.
    line = base * 128 + (np.int64(x.table[at + 1]) - base) * (value & 127)
    return shift_right(line, 7 - p.fraction_bits, Rounding.TIES_TO_POSITIVE)


def examples() -> dict[str, Any]:
    x = np.array([[-32768, -32767, -32705, -32704, -129, -128, -1, 0, 1, 63, 64, 65, 127, 128, 32767]], np.int16)
    ramp = (np.arange(513) * 127 - 32512).clip(-32768, 32767).astype(np.int16)
    jumps = np.where(np.arange(513) % 2, 32767, -32768).astype(np.int16)
    return {
        "a ramp, the fraction kept": ((x, ramp), Params()),
        "a ramp, rounded: ties in the middle": ((x, ramp), Params(0)),
        "three bits of the fraction": ((x, ramp), Params(3)),
        "the steepest lines": ((x, jumps), Params()),
        "the steepest lines, rounded": ((x, jumps), Params(0)),
    }


OP = register(
    Op(
        name="activation.table_interpolated",
        version=1,
        cites="TOSA 1.0 TABLE (int16); google-ai-edge/LiteRT tflite/kernels/internal/common.h (LUT of int16)",
        inputs=(Port("x", "m n", int16), Port("table", "513", int16)),
        outputs=(Port("q", "m n", int32),),
        params=Params,
        spec=spec,
        program=Elementwise(element),
        examples=examples,
    )
)

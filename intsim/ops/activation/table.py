"""Any function of an 8-bit input, by a table of 256 results.

    q = table[x - qmin]

``intsim.tabulate`` fills the table from any elementwise op. TFLite, CMSIS-NN and TOSA do their int8
activations so (TOSA TABLE; LiteRT's LUT for sigmoid, tanh, GELU).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from intsim.compiling import Int, portable
from intsim.numerics import IntType, int8, int16, int32, uint8
from intsim.op import Elementwise, Op, Port, Tuned
from intsim.params import Params as Base, int_type
from intsim.registry import register

WORTH_TUNING = 1 << 14  # elements: below, the one kernel of the program, which serves every type, is as good


@dataclass(frozen=True, slots=True, eq=False)
class Params(Base):
    x: IntType = int_type(int8, uint8, role="operand")
    dtype: IntType = int_type(int8, uint8, int16, int32, role="operand")  # of the table: nothing saturates here


def spec(x: Any, table: Any, p: Params) -> Any:
    return table[(x - p.x.qmin).astype(int)]


@portable
def element(i: Int, j: Int, x: Any, p: Any) -> Int:
    return np.int64(x.table[np.int64(x.x[i, j]) - p.x.qmin])


def examples() -> dict[str, Any]:
    table = (np.arange(256) * 37 % 256 - 128).astype(np.int8)
    x = np.array([[-128, -1, 0, 1, 127]], np.int8)
    return {
        "signed": ((x, table), Params()),
        "unsigned, wide results": ((x.view(np.uint8), table.astype(np.int16) * 256), Params(uint8, int16)),
    }


OP = register(
    Op(
        name="activation.table",
        version=1,
        cites="TOSA 1.0 TABLE (int8); google-ai-edge/LiteRT tflite/kernels/internal/common.h (LUT)",
        inputs=(Port("x", "m n", lambda p: p.x), Port("table", "256", lambda p: p.dtype)),
        outputs=(Port("q", "m n", lambda p: p.dtype),),
        params=Params,
        spec=spec,
        program=Elementwise(element),
        examples=examples,
        tuned=(
            Tuned(
                "cpu", "intsim.ops.activation._cpu_table:table", lambda p, size: size["m"] * size["n"] > WORTH_TUNING
            ),
            Tuned(
                "cuda",
                "intsim.ops.activation._cuda_table:look_up",
                lambda p, size: p.dtype.bits == 8,
            ),
        ),
    )
)

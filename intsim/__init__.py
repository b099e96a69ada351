"""intsim: the bit-exact oracle for integer Transformer inference.

Names are loaded when they are first used: importing intsim imports neither NumPy's heavier parts
nor Numba nor CUDA.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from intsim.flags import Flags
    from intsim.graphs import capture, freeze, to_device
    from intsim.oracle.adapter import Capability, Unsupported, adapter
    from intsim.oracle.cases import Case
    from intsim.oracle.judge import check
    from intsim.numerics import (
        FloatType,
        Granularity,
        IntType,
        Nibbles,
        Order,
        Overflow,
        Rounding,
        float32,
        int4,
        int8,
        int8_narrow,
        int16,
        int24,
        int32,
        int48,
        uint4,
        uint8,
        uint16,
        unlimited,
    )
    from intsim.quantizing import dequantize, quantize
    from intsim.registry import all_ops, get
    from intsim.execute import prepare, reference, run, tabulate
    from intsim.tensor import QTensor

_HOMES = {
    "intsim.numerics": (
        "FloatType Granularity IntType Nibbles Order Overflow Rounding float32 int4 int8 int8_narrow int16 int24 "
        "int32 int48 uint4 uint8 uint16 unlimited"
    ),
    "intsim.flags": "Flags",
    "intsim.graphs": "capture freeze to_device",
    "intsim.oracle.adapter": "Capability Unsupported adapter",
    "intsim.oracle.cases": "Case",
    "intsim.oracle.judge": "check",
    "intsim.quantizing": "dequantize quantize",
    "intsim.registry": "all_ops get",
    "intsim.execute": "prepare reference run tabulate",
    "intsim.tensor": "QTensor",
}
_HOME = {name: home for home, names in _HOMES.items() for name in names.split()}

__all__ = [
    *_HOME,
    "__version__",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'intsim' has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOME[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOME})

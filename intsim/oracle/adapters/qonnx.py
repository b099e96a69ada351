"""QONNX's own executor as a backend under test: one node, run as its model execution runs it.

    quantize.qonnx             Quant    seven rounding modes (ROUND is HALF_EVEN), signed, unsigned, narrow
    requantize.power_of_two    Trunc    from opset 2 on, without a zero point

A Quant node hands out the dequantized float32 number. What is judged is the integer q inside it: the
adapter solves out = f32((q - zero_point) * scale) for q and requires that float to the bit (a zero of
either sign). Source: fastmachinelearning/qonnx src/qonnx/custom_op/general.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from importlib.metadata import version
from types import SimpleNamespace
from typing import Any

import numpy as np

from intsim.binding import Array
from intsim.numerics import IntType, Rounding, int8, int16, uint8
from intsim.ops.quantize import RESULTS, qonnx as variant
from intsim.oracle.adapter import Capability, System, Unsupported
from intsim.oracle.adapters import _qonnx_cases as own
from intsim.oracle.adapters._dequantized import EXACT, codes
from intsim.oracle.cases import Case

SYSTEM = System(
    title="QONNX",
    runs="wheel",
    needs="pip install 'intsim[qonnx]'",
    source="fastmachinelearning/qonnx src/qonnx/custom_op/general",
    left={
        "Quant, 1 bit signed": "gives the sign, +-1, which is no integer type of the catalogue (2 to 64 bits)",
        "Quant, unsigned and narrow": "its highest code is 2**bits - 2; an IntType narrows signed types only",
        "Quant HALF_UP, |x / scale + zero_point| = 1/2 - 2**-25": "floor(|y| + 1/2) in float32 is 1 there, not 0",
        "BipolarQuant": "gives +-scale: nothing is rounded",
        "FloatQuant": "its results are small floats, not integers",
        "Trunc with a zero point": "subtracts zero_point / 2**shift, a fraction, from the integer",
    },
)
MODES = {
    Rounding.TIES_TO_EVEN: "ROUND",
    Rounding.TOWARD_POSITIVE: "CEIL",
    Rounding.TOWARD_NEGATIVE: "FLOOR",
    Rounding.AWAY_FROM_ZERO: "UP",
    Rounding.TOWARD_ZERO: "DOWN",
    Rounding.TIES_TO_AWAY: "HALF_UP",
    Rounding.TIES_TO_ZERO: "HALF_DOWN",
}
TYPES: tuple[IntType, ...] = (*RESULTS, *variant.NARROW)
BELOW_HALF = np.float32(0.5) - np.float32(2.0**-25)


@cache
def _packages() -> SimpleNamespace:
    try:
        import onnx.helper
        from qonnx.custom_op.registry import getCustomOp
    except ImportError as missing:
        raise ValueError(
            f"the qonnx backend needs the package {missing.name}: pip install 'intsim[qonnx]'"
        ) from missing
    return SimpleNamespace(make_node=onnx.helper.make_node, custom_op=getCustomOp)


@dataclass
class Backend:
    """The adapter."""

    name: str = "qonnx"

    def capabilities(self) -> Sequence[Capability]:
        same = variant.BelowZero.SAME
        made = [
            Capability(
                "quantize.qonnx",
                {"rounding": (rounding,), "below_zero": (same,), "dtype": TYPES},
                cases=30,
                longest=40,
                directed=partial(own.quantize, rounding, same, TYPES, f"qonnx-{mode.lower()}"),
                serves=f"Quant {mode}",
            )
            for rounding, mode in MODES.items()
        ]
        held: dict[str, Any] = {"rounding": tuple(MODES), "dtype": (int8, uint8, int16), "zero_point": ([0],)}
        directed = partial(own.truncate, tuple(MODES))
        return [*made, Capability("requantize.power_of_two", held, 12, 24, directed, "Trunc")]

    def versions(self) -> Mapping[str, str]:
        _packages()
        return {"qonnx": version("qonnx"), "numpy": np.__version__}

    def run(self, case: Case) -> Any:
        p = case.params
        if case.op.name not in ("quantize.qonnx", "requantize.power_of_two"):
            raise Unsupported(f"no QONNX node computes {case.op.name}")
        if p.rounding not in MODES:
            raise Unsupported(f"QONNX has no rounding mode {p.rounding.name}")
        if p.dtype.bits > 16:
            raise Unsupported(f"float32 does not hold both ends of {p.dtype}")
        return self._trunc(case) if case.op.name == "requantize.power_of_two" else self._quant(case)

    def node(self, kind: str, inputs: Sequence[Any], opset: int = 1, **attributes: Any) -> Array:
        """The result of one node; inputs are float32, given in its order."""
        packages = _packages()
        names = [f"x{i}" for i in range(len(inputs))]
        node = packages.make_node(kind, names, ["y"], domain="qonnx.custom_op.general", **attributes)
        context = dict(zip(names, (np.asarray(x, np.float32) for x in inputs), strict=True))
        with np.errstate(all="ignore"):
            packages.custom_op(node, onnx_opset_version=opset).execute_node(context, None)
        return np.asarray(context["y"])

    def _quant(self, case: Case) -> Array:
        p = case.params
        if p.below_zero != variant.BelowZero.SAME:
            raise Unsupported("QONNX rounds sums below 0 by the same rule")
        group = np.arange(case.x.shape[1]) // p.group_size
        scale, z = case.scale[:, group], case.zero_point[:, group]
        if p.rounding == Rounding.TIES_TO_AWAY and _beside_half(case.x, scale, z):
            raise Unsupported("HALF_UP adds a half in float32, which rounds 1/2 - 2**-25 up to 1")
        t = p.dtype
        out = self.node(
            "Quant",
            (case.x, scale, z, t.bits),
            signed=int(t.signed),
            narrow=int(t.narrow_range),
            rounding_mode=MODES[p.rounding],
        )
        return codes(out, scale, z).astype(t.storage)

    def _trunc(self, case: Case) -> Array:
        p, t = case.params, case.params.dtype
        if p.zero_point.any():
            raise Unsupported("Trunc with a zero point subtracts a fraction of it")
        if np.abs(case.acc.astype(np.int64)).max(initial=0) >= EXACT // 2:
            raise Unsupported("Trunc holds its input in float32; an integer of more than 23 bits may not fit")
        inputs = (case.acc, 1, 0, 24, 2.0 ** p.shift.astype(np.float64), t.bits)
        attributes: dict[str, Any] = {"signed": int(t.signed), "narrow": int(t.narrow_range)}
        out = self.node("Trunc", inputs, 2, rounding_mode=MODES[p.rounding], **attributes)
        return codes(out, 2.0 ** p.shift.astype(np.float32), np.zeros(1, np.int64)).astype(t.storage)


def _beside_half(x: Array, scale: Array, z: Array) -> bool:
    with np.errstate(all="ignore"):
        return bool((np.abs(x / scale + z.astype(np.float32)) == BELOW_HALF).any())

"""Brevitas's integer quantizer as a backend under test: ``IntQuant.to_int``, one rounding function a row.

    quantize.qonnx    RoundSte, FloorSte, CeilSte, RoundToZeroSte, DPURoundSte

DPURoundSte takes ties above 0 to even and those below 0 up. What is judged is the integer, before
IntQuant scales it back. Source: Xilinx/brevitas src/brevitas/core/quant/int_base.py, function/ops.py.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from importlib.metadata import version
from types import SimpleNamespace
from typing import Any

import numpy as np

from intsim.binding import Array
from intsim.numerics import IntType, Rounding
from intsim.ops.quantize import RESULTS, qonnx as variant
from intsim.ops.quantize.qonnx import BelowZero
from intsim.oracle.adapter import Capability, System, Unsupported
from intsim.oracle.adapters import _qonnx_cases as own
from intsim.oracle.cases import Case

SYSTEM = System(
    title="Brevitas",
    runs="wheel",
    needs="pip install 'intsim[brevitas]'",
    source="Xilinx/brevitas src/brevitas/core/quant/int_base.py, src/brevitas/function/ops.py",
    left={
        "IntQuant, unsigned and narrow": "its highest code is 2**bits - 2; an IntType narrows signed types only",
        "BinaryQuant, TernaryQuant": "give signs: nothing is rounded",
        "LearnedRoundSte, StochasticRoundSte": "round by what was learned or drawn",
        "FloatQuant": "its results are small floats, not integers",
    },
)
FUNCTIONS = {
    (Rounding.TIES_TO_EVEN, BelowZero.SAME): "RoundSte",
    (Rounding.TOWARD_NEGATIVE, BelowZero.SAME): "FloorSte",
    (Rounding.TOWARD_POSITIVE, BelowZero.SAME): "CeilSte",
    (Rounding.TOWARD_ZERO, BelowZero.SAME): "RoundToZeroSte",
    (Rounding.TIES_TO_EVEN, BelowZero.TIES_TO_POSITIVE): "DPURoundSte",
}
TYPES: tuple[IntType, ...] = (*RESULTS, *variant.NARROW)


@cache
def _packages() -> SimpleNamespace:
    try:
        import torch

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of the packages that it imports
            from brevitas.core import function_wrapper
            from brevitas.core.quant import IntQuant
    except ImportError as missing:
        raise ValueError(
            f"the brevitas backend needs the package {missing.name}: pip install 'intsim[brevitas]'"
        ) from missing
    return SimpleNamespace(torch=torch, wrapper=function_wrapper, IntQuant=IntQuant)


@dataclass
class Backend:
    """The adapter."""

    name: str = "brevitas"

    def capabilities(self) -> Sequence[Capability]:
        return [
            Capability(
                "quantize.qonnx",
                {"rounding": (rounding,), "below_zero": (below_zero,), "dtype": TYPES},
                cases=30,
                longest=40,
                directed=partial(own.quantize, rounding, below_zero, TYPES, f"brevitas-{function.lower()}"),
                serves=f"IntQuant {function}",
            )
            for (rounding, below_zero), function in FUNCTIONS.items()
        ]

    def versions(self) -> Mapping[str, str]:
        packages = _packages()
        return {"brevitas": version("brevitas"), "torch": packages.torch.__version__}

    def run(self, case: Case) -> Array:
        p = case.params
        if case.op.name != "quantize.qonnx":
            raise Unsupported(f"no quantizer of Brevitas computes {case.op.name}")
        if (p.rounding, p.below_zero) not in FUNCTIONS:
            raise Unsupported(f"Brevitas has no {p.rounding.name} with {p.below_zero.name} below zero")
        if p.dtype.bits > 16:
            raise Unsupported(f"float32 does not hold both ends of {p.dtype}")
        packages, t = _packages(), p.dtype
        torch, wrapper = packages.torch, packages.wrapper
        group = np.arange(case.x.shape[1]) // p.group_size
        rounds = getattr(wrapper, FUNCTIONS[p.rounding, p.below_zero])()
        quant = packages.IntQuant(t.narrow_range, t.signed, wrapper.Identity(), rounds)
        given: list[Any] = [case.scale[:, group], case.zero_point[:, group], np.float32(t.bits), case.x]
        with torch.no_grad():
            whole = quant.to_int(*(torch.from_numpy(np.array(a, np.float32)) for a in given)).numpy()
        return np.asarray(whole, np.float64).astype(np.int64).astype(t.storage)

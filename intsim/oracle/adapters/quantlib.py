"""quantlib's integer modules as a backend under test: the PyTorch code that trains for Deeploy, in float64.

    softmax.deeploy               PACTIntegerSoftmax
    softmax.itamax                PACTIntegerITAMax
    softmax.itapartialmax         PACTIntegerITAPartialMax    numerator 255, where Deeploy's kernel has 127
    activation.gelu_deeploy       PACTIntegerGELU
    layernorm.deeploy             PACTIntegerLayerNorm        clips, where Deeploy's kernel wraps
    requantize.single_rounding    RequantShift                ties to positive

The modules have no words to wrap in: what leaves the C kernels' words is unsupported here. Their
softmaxes start at 0, Deeploy's at -levels // 2.
Source: pulp-platform/quantlib algorithms/pact/pact_ops.py.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from intsim.binding import Array
from intsim.numerics import Order, Overflow, Rounding, int8, int16, uint8
from intsim.oracle.adapter import Capability, System, Unsupported
from intsim.oracle.adapters import _quantlib_cases as own
from intsim.oracle.adapters._checkout import Checkout, on_cpu, torch, torch_version, whole
from intsim.oracle.cases import Case

CHECKOUT = Checkout(
    name="quantlib",
    repository="pulp-platform/quantlib",
    commit="d3c829e",
    folder="algorithms/pact",
    files={"pact_ops.py": "2dbbf7bc25c65b9c86c8a741810460ab69def8bc66e76aeb6334414ca58dfaee"},
)
SYSTEM = System(
    title="quantlib",
    runs="source checkout",
    needs=CHECKOUT.needs,
    source="pulp-platform/quantlib algorithms/pact/pact_ops.py",
    left={
        "PACTIntegerITAPartialMax, first group all -128": "it starts from a maximum of -127: a later rise is "
        "then counted from there, one step short of Deeploy's",
        "PACTIntegerLayerNorm beyond 24 bits": "it carries the quotient through float32; Deeploy's kernel does not",
        "RequantShift by 1": "where the multiplier is 2**shift and nothing is added it returns its input, not clipped",
    },
)
WORD = 2**32
EXACT = 2**53  # below it every integer is a float64
FLOAT32 = 2**24


@dataclass
class Backend:
    """The adapter. folder: a checkout of the repository. Raises ValueError where it is none."""

    folder: str = ""
    name: str = "quantlib"
    _place: Path = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self._place = CHECKOUT.at(self.folder)

    def capabilities(self) -> Sequence[Capability]:
        ita: dict[str, Any] = {"step_bits": (5,), "peak": (255,), "levels": (256,)}
        rounded: dict[str, Any] = {
            "rounding": (Rounding.TIES_TO_POSITIVE,),
            "zero_point_added": (Order.LAST,),
            "dtype": (int8, uint8, int16),
            "shift": tuple(np.array([s]) for s in range(1, 25)),
            "multiplier": tuple(np.array([m]) for m in (1, 3, 77, 1000, 2**16 - 1, 2**20)),
            "zero_point": tuple(np.array([z]) for z in range(-128, 128)),
        }
        clipped: dict[str, Any] = {
            "offset": (0,),
            "overflow": (Overflow.SATURATE,),
            "mean_rounding": (Rounding.TOWARD_ZERO,),
            "rounding": (Rounding.TOWARD_ZERO,),
        }
        return [
            Capability("softmax.deeploy", {}, 0, 24, own.softmax, "PACTIntegerSoftmax"),
            Capability("softmax.itamax", ita, 12, 24, own.itamax, "PACTIntegerITAMax"),
            Capability("softmax.itapartialmax", ita, 12, 24, own.itapartialmax, "PACTIntegerITAPartialMax"),
            Capability("activation.gelu_deeploy", {"offset": (0,)}, 20, 24, own.gelu, "PACTIntegerGELU"),
            Capability("layernorm.deeploy", clipped, 12, 24, own.layernorm, "PACTIntegerLayerNorm"),
            Capability("requantize.single_rounding", rounded, 20, 24, own.requantize, "RequantShift"),
        ]

    def versions(self) -> Mapping[str, str]:
        return {"quantlib": CHECKOUT.version(self._place), "torch": torch_version(), "arithmetic": "float64"}

    def run(self, case: Case) -> Any:
        served = {
            "softmax.deeploy": self._softmax,
            "softmax.itamax": self._ita,
            "softmax.itapartialmax": self._ita,
            "activation.gelu_deeploy": self._gelu,
            "layernorm.deeploy": self._layernorm,
            "requantize.single_rounding": self._requantize,
        }
        if case.op.name not in served:
            raise Unsupported(f"quantlib has no integer module for {case.op.name}")
        with on_cpu():
            return served[case.op.name](case, _operators(self._place.parents[1]))

    def _softmax(self, case: Case, pact: Any) -> Array:
        p, n = case.params, case.q.shape[-1]
        _check_unmasked(case)
        top = p.a * max(p.b, 255) ** 2 + p.c
        if 255 // p.log2 > 31 or top * max(p.levels - 1, n) >= WORD or p.a * p.b**2 + p.c == 0:
            raise Unsupported("PACTIntegerSoftmax has no words that wrap, no most of 31 halvings, no least total of 1")
        made = pact.PACTIntegerSoftmax(n_levels=p.levels, eps_in=torch().tensor(1.0))
        made.log2, made.coeffA, made.coeffB, made.coeffC = (_tensor([one]) for one in (p.log2, p.a, p.b, p.c))
        return whole(made(_tensor(case.q)).numpy() - p.levels // 2, case)

    def _ita(self, case: Case, pact: Any) -> Array:
        p, (m, n) = case.params, case.q.shape
        _check_unmasked(case)
        if (p.step_bits, p.peak, p.levels) != (5, 255, 256):
            raise Unsupported("256 levels have 8 bits: a step of 8 / 256, and a numerator of 255")
        if case.op.name == "softmax.itamax":
            made = pact.PACTIntegerITAMax(1.0)
        else:
            if n % p.group or (case.q[:, : p.group].max(axis=-1, initial=-127) == -127).any():
                raise Unsupported("PACTIntegerITAPartialMax takes whole groups, and starts from a maximum of -127")
            made = pact.PACTIntegerITAPartialMax(1.0, processing_uints=p.group, ita_sequence_length=n)
        made.rq = torch().nn.Identity()  # what brings real scores to the step of 8 / 256
        # It takes heads of n rows each; rows do not depend on one another, so the last head is filled up.
        filled = np.concatenate([case.q, np.repeat(case.q[-1:], -m % n, axis=0)]) if m else case.q
        y = made(_tensor(filled.reshape(1, -1, n, n))).numpy()
        return whole(y.reshape(-1, n)[:m] - 128, case)

    def _gelu(self, case: Case, pact: Any) -> Array:
        p = case.params
        if p.offset:
            raise Unsupported("PACTIntegerGELU has no offset")
        made = pact.PACTIntegerGELU(eps_in=torch().tensor(1.0))
        made.b, made.one = _tensor([p.b]), _tensor([p.one])
        return whole(made(_tensor(case.x)).numpy(), case)

    def _layernorm(self, case: Case, pact: Any) -> Array:
        p = case.params
        if p.offset or p.overflow != Overflow.SATURATE or {p.mean_rounding, p.rounding} != {Rounding.TOWARD_ZERO}:
            raise Unsupported("PACTIntegerLayerNorm has no offset, drops fractions and clips")
        if 255 * abs(case.weight.astype(np.int64)).max(initial=0) >= FLOAT32:
            raise Unsupported("PACTIntegerLayerNorm carries the quotient through float32")
        function = pact.PACTIntegerLayerNorm.MyLayerNorm.forward
        y = function(
            None,
            _tensor(case.x),
            _tensor(case.weight),
            _tensor(case.bias),
            _tensor([2.0**p.shift]),
            _tensor([256]),
        )
        return whole(y.numpy(), case)

    def _requantize(self, case: Case, pact: Any) -> Array:
        p = case.params
        if p.dtype not in (int8, uint8, int16) or p.rounding != Rounding.TIES_TO_POSITIVE or p.shift.size > 1:
            raise Unsupported("RequantShift rounds ties to positive, to 8 or 16 bits, with one shift")
        shift = int(p.shift[0])
        most = 2**31 * abs(p.multiplier).max().item() + (abs(p.zero_point).max().item() << shift)
        if most >= EXACT or shift > 52:
            raise Unsupported("RequantShift in float64 holds products below 2**53")
        if (p.multiplier == 1 << shift).all() and not p.zero_point.any():
            raise Unsupported("RequantShift returns its input where it would divide by what it multiplies with")
        made = pact.RequantShift(
            _tensor(p.multiplier),
            _tensor(p.zero_point * 2.0**shift),
            2**p.dtype.bits,
            signed=p.dtype.signed,
            D=_tensor([2.0**shift]),
        )
        return whole(made(_tensor(case.acc)).numpy(), case)


def _check_unmasked(case: Case) -> None:
    if (case.stop != case.q.shape[-1]).any():
        raise Unsupported("quantlib's softmaxes have no mask")


def _tensor(values: Any) -> Any:
    return torch().tensor(np.asarray(values, np.float64))


@cache
def _operators(root: Path) -> ModuleType:
    """The module of operators. It names its own package, ``quantlib``: the folders stand for it, unopened."""
    folders = {"quantlib": root, "quantlib.algorithms": root / "algorithms"}
    folders["quantlib.algorithms.pact"] = root / "algorithms" / "pact"
    for name, folder in folders.items():
        known = sys.modules.get(name)
        if known is not None and list(known.__path__) != [str(folder)]:
            raise ValueError(f"another {name} is loaded in this process, from {next(iter(known.__path__))}")
        package = ModuleType(name)
        package.__path__ = [str(folder)]
        sys.modules[name] = package
    with warnings.catch_warnings():  # the module changes the filters of the process
        return import_module("quantlib.algorithms.pact.pact_ops")

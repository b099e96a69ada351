"""I-ViT's modules as a backend under test: the published PyTorch code, in float64, on exact integers.

    softmax.shiftmax_ivit      IntSoftmax      Shiftmax
    activation.shiftgelu_ivit  IntGELU         ShiftGELU
    layernorm.ivit             IntLayerNorm    I-LayerNorm
    requantize.dyadic          fixedpoint_mul  what QuantAct rescales with
    add.dyadic                 fixedpoint_mul  the same with a residual

The modules carry real = scale * q and take q back with a division. In float32, as published, that and
their sums round; here they run in float64, at scales of few bits, so that they see the integers.
Source: zkkli/I-ViT models/quantization_utils/{quant_modules,quant_utils}.py.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from intsim.binding import Array
from intsim.numerics import Rounding, int8, int16, unlimited
from intsim.oracle.adapter import Capability, System, Unsupported
from intsim.oracle.adapters import _research_cases as own
from intsim.oracle.adapters._checkout import Checkout, module, on_cpu, short_scale, torch, torch_version, whole
from intsim.oracle.cases import Case

CHECKOUT = Checkout(
    name="ivit",
    repository="zkkli/I-ViT",
    commit="380ba99",
    folder="models/quantization_utils",
    files={
        "quant_modules.py": "b32344dcdb6021dd740341dae0690fc0b75d2627483eaa93115f5b1372f02698",
        "quant_utils.py": "a6d411f1dcc29fadbb898083cc97ce6451d86bc4a3e09ef19752ce3b51ca0b07",
    },
)
SYSTEM = System(
    title="I-ViT",
    runs="source checkout",
    needs=CHECKOUT.needs,
    source="zkkli/I-ViT models/quantization_utils/quant_modules.py, quant_utils.py",
    left={
        "the modules in float32, as published": "products beyond 24 bits round: on int8 rows of 197 that changes 54 % "
        "of IntLayerNorm's results and 1 % of IntGELU's at scales that are powers of two, and none of IntSoftmax's; at "
        "other scales (q * scale) / scale is not q either, which changes 0.3 % of IntSoftmax's",
        "TVM_benchmark/models/layers.py": "another arithmetic (precision 16, truncation, no half bit, no cap on the "
        "total), written for TVM's Relay, which released packages of TVM (0.25 and later) left out: read, not run",
    },
)
WIDE = 2**53  # below it every integer is a float64


@dataclass
class Backend:
    """The adapter. folder: a checkout of the repository. Raises ValueError where it is none."""

    folder: str = ""
    name: str = "ivit"
    _place: Path = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self._place = CHECKOUT.at(self.folder)

    def capabilities(self) -> Sequence[Capability]:
        eight: dict[str, Any] = {"zero_point": own.NO_ZERO_POINT, "dtype": own.SYMMETRIC}
        return [
            Capability("softmax.shiftmax_ivit", {}, 12, 24, own.shiftmax, "IntSoftmax"),
            Capability("activation.shiftgelu_ivit", {}, 12, 24, own.shiftgelu, "IntGELU"),
            Capability(
                "layernorm.ivit",
                {"steps": (10,), "dtype": (unlimited,), "mean_rounding": (Rounding.TIES_TO_EVEN,), "x": (int8, int16)},
                12,
                24,
                own.layernorm,
                "IntLayerNorm",
            ),
            Capability("requantize.dyadic", eight, 12, 24, own.dyadic, "fixedpoint_mul"),
            Capability("add.dyadic", {"dtype": own.SYMMETRIC}, 20, 24, own.residual, "fixedpoint_mul, identity"),
        ]

    def versions(self) -> Mapping[str, str]:
        return {"I-ViT": CHECKOUT.version(self._place), "torch": torch_version(), "arithmetic": "float64"}

    def run(self, case: Case) -> Any:
        served = {
            "softmax.shiftmax_ivit": self._softmax,
            "activation.shiftgelu_ivit": self._gelu,
            "layernorm.ivit": self._layernorm,
            "requantize.dyadic": self._requantize,
            "add.dyadic": self._residual,
        }
        if case.op.name not in served:
            raise Unsupported(f"I-ViT has no module for {case.op.name}")
        with on_cpu():
            return served[case.op.name](case)

    def _modules(self) -> Any:
        return module(self._place, "quant_modules")

    def _softmax(self, case: Case) -> Array:
        p = case.params
        if (case.stop != case.q.shape[-1]).any():
            raise Unsupported("IntSoftmax has no mask")
        made = self._modules().IntSoftmax(output_bit=p.out_bits + 1)
        made.n = p.precision
        return _through(made, case.q, _scale(p.unit, 1.0), case)

    def _gelu(self, case: Case) -> Array:
        p = case.params
        made = self._modules().IntGELU(output_bit=p.out_bits + 1)
        made.n = p.precision
        return _through(made, case.x, _scale(p.unit, 1.702), case)

    def _layernorm(self, case: Case) -> Array:
        x, bias = case.x.astype(np.int64), case.bias
        if (x.astype(object) ** 2).sum(axis=-1).max(initial=0) >= WIDE:
            raise Unsupported("IntLayerNorm in float64 holds sums of squares below 2**53")
        made = self._modules().IntLayerNorm(x.shape[-1]).double()
        # dim_sqrt / 2**30 is the scale of the result, which the host alone reads: 1 gives the integers
        # themselves, and takes the bias, which the module divides by it, as an integer.
        made.dim_sqrt = torch().tensor(2.0**30, dtype=torch().float64)
        made.bias.data = _tensor(bias)
        y, _ = made(_tensor(x)[None], _tensor([1.0]))
        return whole(y[0].numpy(), case)

    def _requantize(self, case: Case) -> Array:
        p = case.params
        if p.zero_point.any():
            raise Unsupported("fixedpoint_mul adds no zero point")
        return self._fixedpoint(case, (case.acc, p.multiplier, p.shift))

    def _residual(self, case: Case) -> Array:
        p = case.params
        return self._fixedpoint(case, (case.a, p.a_multiplier, p.a_shift), (case.b, p.b_multiplier, p.b_shift))

    def _fixedpoint(self, case: Case, *sides: tuple[Array, Array, Array]) -> Array:
        """fixedpoint_mul of one side, or of two: integers with the multiplier and shift that are judged.

        It makes them of the quotient of two scales: here multiplier / 2**shift, and a result's scale of 1.
        """
        t = case.params.dtype
        if t not in own.SYMMETRIC:
            raise Unsupported("fixedpoint_mul clamps to 8 or 16 bits")
        if not all(multiplier.all() for _, multiplier, _ in sides):
            raise Unsupported("fixedpoint_mul divides by the scale of each side, which is not 0")
        given = []
        for x, multiplier, shift in sides:
            scale = np.broadcast_to(multiplier / 2.0**shift, x.shape[-1:])  # 31 bits: exact
            given.append((_tensor(x * scale), _tensor(scale)))
        function = module(self._place, "quant_utils").fixedpoint_mul
        y = function.apply(*given[0], t.bits, "symmetric", _tensor([1.0]), *(given[1] if len(given) > 1 else ()))
        return whole(y.numpy(), case)


def _tensor(values: Any) -> Any:
    return torch().tensor(np.asarray(values, np.float64))


@cache
def _scale(unit: int, factor: float) -> float:
    """A scale of few bits for which the module's floor(-1 / (scale * factor)) is -unit."""
    low = Fraction(1, unit) / Fraction(factor)
    found = short_scale(low, lambda s: math.floor(-1.0 / (s * factor)) == -unit)
    if found is None:
        raise Unsupported(f"no scale of 22 bits has the unit {unit}")
    return found


def _through(made: Any, q: Array, scale: float, case: Case) -> Array:
    """The integers that ``made`` gives: its result over its scale, both exact in float64."""
    y, out_scale = made(_tensor(q * scale), _tensor([scale]))
    return whole((y / out_scale).numpy(), case)

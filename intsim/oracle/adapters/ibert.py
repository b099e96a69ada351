"""I-BERT's modules, as Hugging Face transformers holds them, as a backend under test.

    activation.gelu_ibert    IntGELU
    softmax.ibert_module     IntSoftmax, with the 16-bit QuantAct inside it
    layernorm.ibert          IntLayerNorm
    requantize.dyadic        FixedPointMul

The modules compute in floating point on x = q * scale. Here they run in float64 with scales that are
powers of two, where every integer of theirs is exact: in float32 IntGELU and IntLayerNorm leave the
integers, and with other scales (q * scale) / scale is not q. Their outputs are divided by their scale
and must be integers to the bit. Source: huggingface/transformers models/ibert/quant_modules.py.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.metadata import version
from types import SimpleNamespace
from typing import Any

import numpy as np

from intsim.binding import Array
from intsim.numerics import IntType, Rounding, int8, int16, unlimited
from intsim.ops.activation import gelu_ibert
from intsim.ops.softmax import ibert_module
from intsim.oracle.adapter import Capability, System, Unsupported
from intsim.oracle.adapters import _ibert_cases as own
from intsim.oracle.cases import Case

SYSTEM = System(
    title="I-BERT (transformers)",
    runs="wheel",
    needs="pip install 'intsim[ibert]'",
    source="huggingface/transformers src/transformers/models/ibert/quant_modules.py",
    left={
        "the modules in float32": "float32 does not hold their integers: IntGELU leaves them below a scale of 6.4e-4, "
        "IntLayerNorm in most outputs",
        "scales that are no power of two": "(q * scale) / scale is not q for every integer, and a floor slips by one",
        "IntSoftmax, an exponential beside a tie": "QuantAct divides the integer by a scale near 2**-40 in float64 and "
        "multiplies by a rounded ratio: which way a tie goes is the error of that",
        "IntLayerNorm of a constant row": "divides by a standard deviation of 0",
        "SymmetricQuantFunction": "clamps to [-127, 126], the range of no integer type",
        "QuantAct with an identity": "two FixedPointMul and a sum: the sum of two requantize.dyadic",
    },
)
# Scales whose parameters a case may hold
GELU_SCALES = tuple(2.0**-k for k in range(16))
SOFTMAX_SCALES = tuple(2.0**-k for k in range(1, 14))
INTEGERS = 2**53  # up to it float64 holds every one


@cache
def _packages() -> SimpleNamespace:
    try:
        import torch
        from transformers.models.ibert import quant_modules
    except ImportError as missing:
        raise ValueError(
            f"the ibert backend needs the package {missing.name}: pip install 'intsim[ibert]'"
        ) from missing
    return SimpleNamespace(torch=torch, modules=quant_modules)


@dataclass
class Backend:
    """The adapter."""

    name: str = "ibert"

    def capabilities(self) -> Sequence[Capability]:
        even: dict[str, Any] = {"mean_rounding": (Rounding.TIES_TO_EVEN,), "x": (int8, int16)}
        narrow: dict[str, Any] = {"dtype": (int8, int16), "zero_point": (np.array([0]),)}
        return [
            Capability("activation.gelu_ibert", {"dtype": (unlimited,)}, 4, 24, own.gelu, "IntGELU"),
            Capability("softmax.ibert_module", {"q": (int8, int16)}, 4, 24, own.softmax, "IntSoftmax"),
            Capability("layernorm.ibert", even, 30, 40, own.layernorm, "IntLayerNorm"),
            Capability("requantize.dyadic", narrow, 40, 40, own.dyadic, "FixedPointMul"),
        ]

    def versions(self) -> Mapping[str, str]:
        packages = _packages()
        return {"transformers": version("transformers"), "torch": packages.torch.__version__}

    def run(self, case: Case) -> Array:
        served = {
            "activation.gelu_ibert": _gelu,
            "softmax.ibert_module": _softmax,
            "layernorm.ibert": _layernorm,
            "requantize.dyadic": _fixed_point_mul,
        }
        if case.op.name not in served:
            raise Unsupported(f"no module of I-BERT computes {case.op.name}")
        with _packages().torch.no_grad(), np.errstate(all="ignore"):
            return served[case.op.name](case)


def _tensor(values: Any) -> Any:
    return _packages().torch.from_numpy(np.array(values, np.float64))


def integers(out: Any, scale: Any) -> Array:
    """The integers q with ``out = q * scale`` in float64. Raises ValueError where there are none."""
    out, scale = (np.asarray(a.detach().numpy(), np.float64) for a in (out, scale))
    q = np.rint(out / scale)
    if not ((np.abs(q) < INTEGERS).all() and (q * scale == out).all()):
        raise ValueError("a result is no integer times the scale that the module gives")
    return np.asarray(q.astype(np.int64))


def _unsaturated(q: Array, t: IntType) -> Array:
    if q.size and (q.min() < t.qmin or q.max() > t.qmax):
        raise Unsupported("the module does not saturate")
    return np.asarray(q.astype(t.storage))


def _gelu(case: Case) -> Array:
    p = case.params
    for scale in GELU_SCALES:
        there = gelu_ibert.Params.from_scale(scale)
        if (there.b, there.c, there.one) == (p.b, p.c, p.one):
            break
    else:
        raise Unsupported("b, c and one are not those of a scale that is a power of two")
    size = _tensor([scale])
    made = _packages().modules.IntGELU(quant_mode=True)(_tensor(case.x) * size, size)
    return _unsaturated(integers(*made), p.dtype)


def _softmax(case: Case) -> Array:
    p = case.params
    if (case.stop != case.q.shape[1]).any():
        raise Unsupported("IntSoftmax has no mask of its own")
    for scale in SOFTMAX_SCALES:
        there = ibert_module.Params.from_scale(scale)
        if (there.ln2, there.b_over_a, there.c_over_a) == (p.ln2, p.b_over_a, p.c_over_a):
            break
    else:
        raise Unsupported("ln2, b_over_a and c_over_a are not those of a scale that is a power of two")
    packages = _packages()
    step = np.float32(2.0**p.e_shift / p.e_multiplier)
    module = packages.modules.IntSoftmax(p.out_bits, quant_mode=True).eval()
    # The calibrated range counts integers, for QuantAct takes the integer exponential for a real number.
    module.act.x_max, module.act.x_min = _tensor([float(step) * ibert_module.MOST]), _tensor([0.0])
    size = _tensor([scale])
    q = case.q.astype(np.float64)
    exponential, tiny = module.int_exp(_tensor(q - q.max(axis=1, keepdims=True)), size)
    short = integers(*module.act(exponential, tiny))
    if (short != _short_exponential(exponential.numpy(), p)).any():
        raise Unsupported("an exponential lies beside a tie, where the error of QuantAct's float64 steps decides")
    out, unit = module(_tensor(q) * size, size)
    return integers(out, _tensor(unit)).reshape(q.shape).astype(case.op.outputs[0].storage(p))


def _short_exponential(exponential: Array, p: Any) -> Array:
    """The product of two integers that the variant takes for QuantAct, rounded, ties to even."""
    whole = exponential.astype(np.int64).astype(object) * p.e_multiplier
    quotient, rest = whole >> p.e_shift, whole & (2**p.e_shift - 1)
    twice = rest * 2 - 2**p.e_shift
    rounded = quotient + ((twice > 0) | ((twice == 0) & (quotient % 2 == 1)))
    return np.asarray(np.minimum(rounded.astype(np.int64), ibert_module.MOST))


def _layernorm(case: Case) -> Array:
    p, n = case.params, case.x.shape[1]
    if p.mean_rounding != Rounding.TIES_TO_EVEN:
        raise Unsupported("IntLayerNorm rounds the mean by torch.round, ties to even")
    x = case.x.astype(np.int64)
    squares = (((x - np.rint(x.sum(1, keepdims=True) / n).astype(np.int64)) >> p.k) ** 2).sum(1)
    if (squares == 0).any():
        raise Unsupported("a row without a deviation (after the shift by k) is divided by 0")
    if squares.max() >= INTEGERS:
        raise Unsupported("a sum of squares above 2**53 is not exact in float64")
    module = _packages().modules.IntLayerNorm(n, 1e-5, output_bit=22, quant_mode=True).double().eval()
    torch = _packages().torch
    root = float(np.sqrt(np.float32(n)))  # the module takes it in float32
    module.weight.data = torch.ones(n, dtype=torch.float64)
    module.bias.data = _tensor((case.bias + 0.5) * (root / 2.0**30))  # its floor in steps of root / 2**30 is the bias
    module.shift = _tensor([float(p.k)])
    size = _tensor([2.0**-8])
    made = module(_tensor(x[None]) * size, size)
    return _unsaturated(integers(*made)[0], p.dtype)


def _fixed_point_mul(case: Case) -> Array:
    p = case.params
    if p.dtype not in (int8, int16):
        raise Unsupported(f"FixedPointMul hands out float32, which is for results of 8 or 16 bits, not {p.dtype}")
    if p.zero_point.any():
        raise Unsupported("FixedPointMul has no zero point")
    if (p.multiplier == 0).any():
        raise Unsupported("a multiplier of 0 is a scale of 0")
    size = _tensor(p.multiplier / 2.0**p.shift)  # exact; the ratio to a result scale of 1 gives back both
    one = _packages().torch.ones(1)
    mul = _packages().modules.FixedPointMul.apply
    made = mul(_tensor(case.acc[None]) * size, size, p.dtype.bits, one)
    return np.asarray(made.numpy()[0].astype(p.dtype.storage))

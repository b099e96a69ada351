"""PyTorch's CPU kernels as a backend under test.

    quantize.reciprocal         quantize_per_tensor and _per_channel, fake_quantize_..., quantized_decomposed
    dequantize.affine           Tensor.dequantize, quantized_decomposed.dequantize_per_tensor
    matmul.integer              _int_mm
    linear.float32_bias         quantized.linear, engines x86 and fbgemm
    linear.float32_ties_even    quantized.linear, engine qnnpack

Three places for the zero point: quantize_per_tensor adds it in a fused multiply-add, quantize_per_channel
in a sum before the rounding, the others after it. fake_quantize hands out dequantized numbers; the adapter
solves them for the integer. Source: pytorch/pytorch aten/src/ATen/native/quantized; pytorch/FBGEMM.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from types import SimpleNamespace
from typing import Any

import numpy as np

from intsim.binding import Array
from intsim.composites.linear import float32_bias, float32_ties_even
from intsim.numerics import IntType, Overflow, Rounding, int4, int8, int8_narrow, int16, int32, uint4, uint8, uint16
from intsim.ops.quantize.reciprocal import ZeroPoint
from intsim.oracle.adapter import Capability, System, Unsupported
from intsim.oracle.adapters import _qonnx_cases as quantizers, _torch_cases as own
from intsim.oracle.adapters._dequantized import codes
from intsim.oracle.cases import Case

SYSTEM = System(
    title="PyTorch CPU",
    runs="wheel",
    needs="pip install 'intsim[torch]'",
    source="pytorch/pytorch aten/src/ATen/native/quantized, torch/ao/quantization/fx/_decomposed.py",
    profiles={
        "fbgemm": "the engines x86 and fbgemm; with every operator that no engine changes",
        "qnnpack": "the engine qnnpack: quantized.linear",
    },
    left={
        "quantized.linear, onednn": "adds the zero point before the rounding; f32(f32(f32(f32(acc) * s) + bias) / "
        "result) with a reciprocal comes nearest, and misses 22 of some 22 million elements beside ties",
        "quantized.linear, 2**31 steps and more": "the conversion to int32 gives the lowest value for either sign",
        "fake_quantize_per_channel_affine, 2**63 steps and more": "in int64 the lowest value for either sign",
        "quantized.softmax, .layer_norm, .add, .mul, gelu, sigmoid": "dequantize, compute in float32, quantize",
        "quantize_per_tensor to qint32": "float32 does not hold both ends of int32",
        "_weight_int4pack_mm_for_cpu": "dequantizes and sums in float32, in an order of its own",
    },
)
QUANTIZED = (int8, uint8)
FAKE = (int8, uint8, int8_narrow, int16, uint16, int4, uint4)
DECOMPOSED = (int8, uint8, int8_narrow, int16)
# what serves quantize.reciprocal: name of the operator, place of the zero point, types, one scale a row
QUANTIZERS = {
    "quantize_per_tensor": (ZeroPoint.FUSED, QUANTIZED, False),
    "quantize_per_channel": (ZeroPoint.FIRST, QUANTIZED, True),
    "fake_quantize_per_tensor_affine": (ZeroPoint.LAST, FAKE, False),
    "fake_quantize_per_channel_affine": (ZeroPoint.LAST, FAKE, True),
    "quantized_decomposed.quantize_per_tensor": (ZeroPoint.LAST, DECOMPOSED, False),
    "quantized_decomposed.quantize_per_channel": (ZeroPoint.LAST, DECOMPOSED, True),
}
DEQUANTIZERS = {
    "Tensor.dequantize, per tensor": False,
    "Tensor.dequantize, per channel": True,
    "quantized_decomposed.dequantize_per_tensor": False,
}
DIVIDES = (
    "documented as nearby_int(input / scale) + zero_point; the kernel multiplies by f32(1 / scale), and the product "
    "may lie on the other side of a tie"
)


@cache
def _torch() -> Any:
    try:
        import torch
        import torch.ao.quantization.fx._decomposed  # defines the decomposed operators
    except ImportError as missing:
        raise ValueError(
            f"the torch backend needs the package {missing.name}: pip install 'intsim[torch]'"
        ) from missing
    return torch


@dataclass
class Backend:
    """The adapter. profile: the engine of quantized.linear."""

    profile: str = "fbgemm"
    name: str = "torch"

    def capabilities(self) -> Sequence[Capability]:
        held: dict[str, Any] = {
            "matmul.a": (uint8,),
            "matmul.b": (int8,),
            "requantize.dtype": (uint8,),
            "requantize.zero_point": tuple(np.array([z]) for z in range(256)),
        }
        op = float32_ties_even if self.profile == "qnnpack" else float32_bias
        linear = Capability(op.OP.name, held, 20, 40, partial(own.linear, op, self.profile), "quantized.linear")
        if self.profile == "qnnpack":
            return [linear]
        plain: dict[str, Any] = {"a": (int8,), "b": (int8,), "acc": (int32,), "overflow": (Overflow.WRAP,)}
        plain |= {"a_zero_point": (0,), "b_zero_point": (np.array([0]),)}
        return [
            *(self._quantizer(name, *what) for name, what in QUANTIZERS.items()),
            *(
                Capability(
                    "dequantize.affine",
                    {"q": QUANTIZED},
                    cases=30,
                    longest=40,
                    directed=partial(own.dequantize, QUANTIZED, f"torch-{i}"),
                    serves=name,
                )
                for i, name in enumerate(DEQUANTIZERS)
            ),
            Capability("matmul.integer", plain, 20, 40, own.matmul, "_int_mm"),
            linear,
        ]

    @staticmethod
    def _quantizer(name: str, added: ZeroPoint, types: Sequence[IntType], per_row: bool) -> Capability:
        held: dict[str, Any] = {"dtype": types, "rounding": (Rounding.TIES_TO_EVEN,), "zero_point_added": (added,)}
        label = f"torch-{name.replace('.', '-').replace('_', '-')}"
        directed = partial(quantizers.product, added, types, label)
        defect = DIVIDES if name.startswith("fake") else ""
        return Capability("quantize.reciprocal", held, 30, 40, directed, name, defect)

    def versions(self) -> Mapping[str, str]:
        torch = _torch()
        return {"torch": torch.__version__, "kernels": torch.backends.cpu.get_cpu_capability()}

    def run(self, case: Case) -> Array:
        served: dict[str, Callable[[Case], Array]] = {
            "quantize.reciprocal": _quantize,
            "dequantize.affine": _dequantize,
            "matmul.integer": _matmul,
            "linear.float32_bias": self._linear_real,
            "linear.float32_ties_even": self._linear_whole,
        }
        if case.op.name not in served:
            raise Unsupported(f"no operator of PyTorch computes {case.op.name}")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # quantized tensors are deprecated
            return served[case.op.name](case)

    # -- quantized.linear ------------------------------------------------------------------------------

    def _linear_real(self, case: Case) -> Array:
        _check_linear(case.params, "fbgemm", self.profile)
        p, r = case.params.matmul, case.params.requantize
        acc = _accumulators(case)
        if pairs_saturate() and _pair_leaves_int16(case.a, case.b):
            raise Unsupported(
                "on this processor (x86 without VNNI) FBGEMM adds pairs of products in saturating int16, and here a "
                "pair leaves int16; quantize weights to 7 bits"
            )
        multiplier, inverse = (bits.astype(np.int32).view(np.float32) for bits in (r.multiplier_bits, r.inverse_bits))
        with np.errstate(over="ignore", under="ignore"):
            _check_converts((acc + case.bias * inverse.astype(np.float64)) * multiplier)
            if multiplier.size == p.b_zero_point.size == 1:
                scale, whole = _scales(float(inverse[0]), float(multiplier[0]))
                return linear("fbgemm", case, np.float64(scale), whole, case.bias)
            if (inverse != 1).any():
                raise Unsupported("with a scale a column FBGEMM divides the bias by it: the inverse is 1")
            bias = _products(
                case.bias, multiplier
            )  # the result's scale is 1, so the multiplier is the product of scales
        return linear("fbgemm", case, np.broadcast_to(multiplier, bias.shape).astype(np.float64), 1.0, bias)

    def _linear_whole(self, case: Case) -> Array:
        _check_linear(case.params, "qnnpack", self.profile)
        multiplier = case.params.requantize.multiplier_bits.astype(np.int32).view(np.float32)
        acc = _accumulators(case)
        wrapped = (acc + case.bias + 2**31) % 2**32 - 2**31
        with np.errstate(over="ignore", under="ignore"):
            _check_converts(wrapped * multiplier.astype(np.float64))
            bias = (case.bias * multiplier.astype(np.float64)).astype(np.float32)
            steps = [bias / multiplier, bias * (np.float32(1) / multiplier)]  # either way must give the integer
        if not all((np.rint(s) == case.bias).all() for s in steps):
            raise Unsupported("the bias is a float32 number, and here none stands for the integer")
        scale = multiplier.astype(np.float64)
        if case.params.matmul.b_zero_point.size > 1:
            scale = np.broadcast_to(scale, case.b.shape[:1])
        return linear("qnnpack", case, scale if scale.size > 1 else scale[0], 1.0, bias)


def linear(engine: str, case: Case, scale: Any, result: float, bias: Array) -> Array:
    """``quantized.linear`` with 1 for the scale of ``a``; scale: that of ``b``, one or one a row of it."""
    torch = _torch()
    p, r = case.params.matmul, case.params.requantize
    a = torch._make_per_tensor_quantized_tensor(_tensor(case.a), 1.0, p.a_zero_point)
    if np.ndim(scale):
        zeros = np.broadcast_to(p.b_zero_point, np.shape(scale)).astype(np.int64)
        b = torch._make_per_channel_quantized_tensor(_tensor(case.b), _tensor(scale), _tensor(zeros), 0)
    else:
        b = torch._make_per_tensor_quantized_tensor(_tensor(case.b), float(scale), int(p.b_zero_point[0]))
    before = torch.backends.quantized.engine
    torch.backends.quantized.engine = engine
    try:
        packed = torch.ops.quantized.linear_prepack(b, _tensor(bias))
        made = torch.ops.quantized.linear(a, packed, result, int(r.zero_point[0]))
    finally:
        torch.backends.quantized.engine = before
    return np.asarray(made.int_repr().numpy())


@cache
def pairs_saturate() -> bool:
    """Whether this processor's FBGEMM adds pairs of uint8-int8 products in saturating int16 (x86 without VNNI)."""
    a = np.full((1, 8), 255, np.uint8)
    case = SimpleNamespace(
        a=a,
        b=np.full((1, 8), 127, np.int8),
        params=SimpleNamespace(
            matmul=SimpleNamespace(a_zero_point=0, b_zero_point=np.array([0])),
            requantize=SimpleNamespace(zero_point=np.array([0])),
        ),
    )
    exact: Any = 8 * 255 * 127
    stand_in: Any = case  # what ``linear`` reads of a case, without an op
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return int(linear("fbgemm", stand_in, 1.0, exact / 200, np.zeros(1, np.float32))[0, 0]) != 200


def _check_linear(p: Any, engine: str, profile: str) -> None:
    if engine != profile:
        raise Unsupported(f"this is the arithmetic of the engine {engine}, and the profile is {profile}")
    if (p.matmul.a, p.matmul.b, p.requantize.dtype) != (uint8, int8, uint8):
        raise Unsupported("quantized.linear takes uint8 times int8 to uint8")
    if p.requantize.zero_point.size > 1 or not 0 <= p.requantize.zero_point[0] <= 255:
        raise Unsupported("quantized.linear has one zero point for the result, a uint8")


def _accumulators(case: Case) -> Array:
    p = case.params.matmul
    a = case.a.astype(np.float64) - p.a_zero_point
    b = case.b.astype(np.float64) - p.b_zero_point.reshape(-1, 1)
    exact = (a @ b.T).astype(np.int64)  # below 2**53
    return np.asarray((exact + 2**31) % 2**32 - 2**31)


def _check_converts(steps: Array) -> None:
    if not (np.abs(steps) < 2.0**30).all():
        raise Unsupported("from 2**31 steps on the conversion to int32 gives the lowest value for either sign")


def _pair_leaves_int16(a: Array, b: Array) -> bool:
    odd = a.shape[1] % 2
    a, b = (np.pad(x, ((0, 0), (0, odd))).astype(np.int32) for x in (a, b))
    for row in a:  # one row at a time: m n k products at once could be large
        pairs = (row * b).reshape(len(b), -1, 2).sum(2)
        if pairs.size and (pairs.min() < -(2**15) or pairs.max() >= 2**15):
            return True
    return False


def _near(value: float) -> Iterator[np.float32]:
    """The float32 nearest to a number, and the three on either side of it."""
    with np.errstate(over="ignore", under="ignore"):
        at = np.float32(value)
    if np.isfinite(at) and at > 0:
        bits = int(at.view(np.int32)) + np.arange(-3, 4)
        yield from bits[(bits > 0) & (bits < 0x7F80_0000)].astype(np.int32).view(np.float32)


def _scales(inverse: float, multiplier: float) -> tuple[float, float]:
    """float32 scales of ``b`` and of the result with f32(1 / b) and f32(b / result) as given."""
    for scale in _near(1 / inverse):
        if np.float32(1) / scale == np.float32(inverse):
            for result in _near(float(scale) / multiplier):
                if scale / result == np.float32(multiplier):
                    return float(scale), float(result)
    raise Unsupported("no float32 scales give this inverse and this multiplier")


def _products(bias: Array, scale: Array) -> Array:
    """float32 numbers whose quotients by ``scale`` are ``bias``."""
    scale = np.broadcast_to(scale, bias.shape)
    at = bias * scale
    for made in (at, np.nextafter(at, np.float32(np.inf)), np.nextafter(at, np.float32(-np.inf))):
        at = np.where(made / scale == bias, made, at)
    if not np.isfinite(at).all() or (at / scale != bias).any():
        raise Unsupported("no float32 bias is, divided by the scale, the one of this case")
    return np.asarray(at, np.float32)


# -- quantize and dequantize ---------------------------------------------------------------------------


def _tensor(values: Any) -> Any:
    return _torch().from_numpy(np.array(values, order="C"))


def _pieces(whole: Array, case: Case, per_row: bool) -> Iterator[tuple[tuple[Any, ...], Array, Array, Array]]:
    """(place, values, scales, zero points): all rows where each has one scale, else one scale at a time."""
    scale, z, size = case.scale, case.zero_point, case.params.group_size
    if per_row and scale.shape[1] == 1:
        yield np.s_[:, :], whole, scale[:, 0], z[:, 0]
        return
    for i in range(whole.shape[0]):
        for g in range(scale.shape[1]):
            place = np.s_[i : i + 1, g * size : (g + 1) * size]
            yield place, whole[place], scale[i, g : g + 1], z[i, g : g + 1]


def _check_zero_points(case: Case, t: IntType) -> None:
    if case.zero_point.min(initial=0) < t.qmin or case.zero_point.max(initial=0) > t.qmax:
        raise Unsupported(f"a zero point is a value of the quantized type, {t}")


def _quantize(case: Case) -> Array:
    p, t = case.params, case.params.dtype
    name = case.serves or next(n for n, (added, *_) in QUANTIZERS.items() if added == p.zero_point_added)
    added, types, per_row = QUANTIZERS[name]
    if p.rounding != Rounding.TIES_TO_EVEN:
        raise Unsupported("PyTorch rounds ties to even")
    if p.zero_point_added != added or t not in types:
        raise Unsupported(f"{name} gives {', '.join(map(str, types))} and adds the zero point {added.name}")
    _check_zero_points(case, t)
    with np.errstate(over="ignore"):
        if np.isinf(np.float32(1) / case.scale).any():
            raise Unsupported("the reciprocal of a scale below 2**-128 is infinite: 0 times it is a NaN")
        group = np.arange(case.x.shape[1]) // p.group_size
        if name == "fake_quantize_per_channel_affine" and (np.abs(case.x / case.scale[:, group]) >= 2.0**62).any():
            raise Unsupported("it converts to int64 before it clamps: from 2**63 on the lowest value, of either sign")
    made = np.empty(case.x.shape, t.storage)
    for place, x, scale, z in _pieces(case.x, case, per_row):
        made[place] = _quantizer(name, t, x, scale, z)
    return made


def _quantizer(name: str, t: IntType, x: Array, scale: Array, z: Array) -> Array:
    torch = _torch()
    values, one, zero = _tensor(x), float(scale[0]), int(z[0])
    scales, zeros = _tensor(scale), _tensor(z.astype(np.int64))
    kind = {8: torch.qint8 if t.signed else torch.quint8}.get(t.bits)
    storage = getattr(torch, t.storage, None)
    if name == "quantize_per_tensor":
        return np.asarray(torch.quantize_per_tensor(values, one, zero, kind).int_repr().numpy())
    if name == "quantize_per_channel":
        return np.asarray(torch.quantize_per_channel(values, scales, zeros, 0, kind).int_repr().numpy())
    decomposed = torch.ops.quantized_decomposed
    if name == "quantized_decomposed.quantize_per_tensor":
        made = decomposed.quantize_per_tensor(values, one, zero, t.qmin, t.qmax, storage)
    elif name == "quantized_decomposed.quantize_per_channel":
        made = decomposed.quantize_per_channel(values, scales, zeros, 0, t.qmin, t.qmax, storage)
    else:
        if name == "fake_quantize_per_tensor_affine":
            real = torch.fake_quantize_per_tensor_affine(values, one, zero, t.qmin, t.qmax)
        else:
            whole = zeros.to(torch.int32)
            real = torch.fake_quantize_per_channel_affine(values, scales, whole, 0, t.qmin, t.qmax)
        return codes(real.numpy(), scale[:, None], z[:, None])
    return np.asarray(made.numpy())


def _dequantize(case: Case) -> Array:
    torch, t = _torch(), case.params.q
    name = case.serves or next(iter(DEQUANTIZERS))
    if t not in QUANTIZED:
        raise Unsupported(f"quantized tensors are int8 or uint8, not {t}")
    _check_zero_points(case, t)
    made = np.empty(case.q.shape, np.float32)
    for place, q, scale, z in _pieces(case.q, case, DEQUANTIZERS[name]):
        whole, one, zero = _tensor(q), float(scale[0]), int(z[0])
        if name.startswith("quantized_decomposed"):
            operator = torch.ops.quantized_decomposed.dequantize_per_tensor
            real = operator(whole, one, zero, t.qmin, t.qmax, whole.dtype)
        elif DEQUANTIZERS[name]:
            channels = (_tensor(scale), _tensor(z.astype(np.int64)))
            real = torch._make_per_channel_quantized_tensor(whole, *channels, 0).dequantize()
        else:
            real = torch._make_per_tensor_quantized_tensor(whole, one, zero).dequantize()
        made[place] = real.numpy()
    return made


def _matmul(case: Case) -> Array:
    p = case.params
    if (p.a, p.b, p.acc, p.overflow) != (int8, int8, int32, Overflow.WRAP):
        raise Unsupported("_int_mm takes int8 times int8 to an int32 that wraps")
    if p.a_zero_point or p.b_zero_point.any() or case.bias.any():
        raise Unsupported("_int_mm has no zero points and no bias")
    return np.asarray(_torch()._int_mm(_tensor(case.a), _tensor(case.b.T)).numpy())

"""Arm's Ethos-U compiler as a backend under test: a gemmlowp in Python, and the tables that it compiles.

    requantize.double_rounding    fp_math.multiply_by_quantized_multiplier, as a constant QUANTIZE is folded
    softmax.gemmlowp              SOFTMAX s8: the table of exponentials of softmax.py; the passes after it,
                                  which the compiler emits for the processor, are done here in fp_math
    activation.rsqrt_tflite       RSQRT s8: the table of lut.py, from the compiler's own list of roots

Where a left shift leaves int32 the compiler asserts; TFLite wraps.
Source: the package ethos-u-vela, ethosu/vela/{fp_math,softmax,lut,scaling}.py.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib import import_module, metadata
from types import SimpleNamespace
from typing import Any
from unittest import mock

import numpy as np

from intsim.binding import Array
from intsim.numerics import int8, int16, int32, uint8
from intsim.ops.activation import rsqrt_tflite
from intsim.ops.requantize import double_rounding
from intsim.ops.softmax import gemmlowp
from intsim.oracle.adapter import Capability, System, Unsupported
from intsim.oracle.adapters import _research_cases as own
from intsim.oracle.cases import Case, make

SYSTEM = System(
    title="ethos-u-vela",
    runs="wheel",
    needs="pip install 'intsim[vela]'",
    source="ethosu/vela/fp_math.py, softmax.py, lut.py, scaling.py of the package ethos-u-vela",
    left={
        "LOGISTIC, TANH s8": "the compiler's tables are made with math.exp and math.tanh in float64",
        "SOFTMAX s16": "the compiler makes commands for the processor: no Python computes them; its two tables "
        "(LiteRT's, of float64) are compared in tests/conformance/test_vela.py",
    },
)


@cache
def _packages() -> SimpleNamespace:
    try:
        names = ("fp_math", "softmax", "lut", "scaling")
        return SimpleNamespace(**{name: import_module(f"ethosu.vela.{name}") for name in names})
    except ImportError as missing:
        raise ValueError("the vela backend needs the package ethos-u-vela: pip install 'intsim[vela]'") from missing


@dataclass
class Backend:
    """The adapter: one number at a time, as the compiler does."""

    name: str = "vela"
    _tables: dict[Any, list[int]] = field(default_factory=dict, repr=False)

    def capabilities(self) -> Sequence[Capability]:
        right = tuple(np.array([shift]) for shift in range(31, 63))  # some to the left are among the directed cases
        narrow: dict[str, Any] = {"dtype": (int8, uint8, int16), "shift": right}
        eight: dict[str, Any] = {"q": (int8,), "dtype": (int8,)}
        root: dict[str, Any] = {"x": (int8,), "dtype": (int8,), "a_zero_point": (-128,)}
        return [
            Capability("requantize.double_rounding", narrow, 20, 24, _requantize_cases, "QUANTIZE, constant"),
            Capability("softmax.gemmlowp", eight, 12, 24, _softmax_cases, "SOFTMAX s8"),
            Capability("activation.rsqrt_tflite", root, 12, 24, _rsqrt_cases, "RSQRT s8"),
        ]

    def versions(self) -> Mapping[str, str]:
        _packages()
        return {"ethos-u-vela": metadata.version("ethos-u-vela"), "numpy": np.__version__}

    def run(self, case: Case) -> Any:
        served = {
            "requantize.double_rounding": self._requantize,
            "softmax.gemmlowp": self._softmax,
            "activation.rsqrt_tflite": self._rsqrt,
        }
        if case.op.name not in served:
            raise Unsupported(f"the compiler computes no {case.op.name}")
        return served[case.op.name](case)

    def _requantize(self, case: Case) -> Array:
        p, n = case.params, case.acc.shape[-1]
        multiply = _packages().fp_math.multiply_by_quantized_multiplier
        shifted = case.acc.astype(np.int64) << np.maximum(31 - p.shift, 0)
        if (shifted != shifted.astype(np.int32)).any():
            raise Unsupported("multiply_by_quantized_multiplier asserts that a left shift stays an int32")
        columns = [np.broadcast_to(one, n).tolist() for one in (p.multiplier, p.shift, p.zero_point)]
        made = [
            [int(multiply(x, m, s)) + z for x, m, s, z in zip(row, *columns, strict=True)] for row in case.acc.tolist()
        ]
        return np.clip(np.array(made, np.int64).reshape(case.acc.shape), p.dtype.qmin, p.dtype.qmax).astype(
            p.dtype.storage
        )

    def _softmax(self, case: Case) -> Array:
        p = case.params
        if (case.stop != case.q.shape[-1]).any():
            raise Unsupported("SOFTMAX has no mask")
        key = p.multiplier, p.shift
        if key not in self._tables:
            # multiplier / 2**shift is beta * input scale * 2**26, exact in float64
            made = _packages().softmax.SoftMax.generate_exp_table(None, 1.0, p.multiplier / 2.0 ** (p.shift + 26))
            self._tables[key] = [int(e) for e in made]
        e = self._tables[key]
        shift = _packages().fp_math.rounding_divide_by_pot
        terms = np.array([int(shift(one, 12)) for one in e])
        out = np.empty(case.q.shape, np.int8)
        for row, y in zip(case.q.astype(int), out, strict=True):
            at = row - row.max() + 255
            factor, right = _reciprocal(int(terms[at].sum()))
            present = np.unique(at)
            values = np.zeros(256, np.int64)
            values[present] = [_scaled(e[i], factor, right) for i in present]
            y[:] = values[at]
        return out

    def _rsqrt(self, case: Case) -> Array:
        p = case.params
        if (case.x < p.a_zero_point).any():
            raise Unsupported("RSQRT is not run below the zero point")
        packages = _packages()
        scale = 2.0 ** (p.shift - rsqrt_tflite.FRACTION_BITS) / max(p.multiplier, 1)
        if packages.scaling.quantise_scale(1 / scale) != (p.multiplier, p.shift - rsqrt_tflite.FRACTION_BITS):
            raise Unsupported("the compiler's multipliers have 31 bits, and shifts from 0 to 63")
        op = SimpleNamespace(ifm=_operand(1.0, p.a_zero_point), ofm=_operand(scale, p.zero_point))
        with mock.patch.object(packages.lut, "convert_to_lut", lambda op, values, name: values):
            try:
                table = packages.lut.create_lut_rsqrt_int8_op(op)
            except (OverflowError, AssertionError):
                raise Unsupported("multiply_by_quantized_multiplier asserts that a left shift stays an int32") from None
        made: Array = np.array(table, np.int8)[case.x.astype(int) + 128]
        return made


def _operand(scale: float, zero_point: int) -> Any:
    return SimpleNamespace(quantization=SimpleNamespace(scale_f32=scale, zero_point=zero_point))


def _reciprocal(total: int) -> tuple[int, int]:
    """Passes 4 to 28: 1 / total as a Q0.31 factor, and the right shift that belongs to it."""
    fp = _packages().fp_math
    headroom = 32 - total.bit_length()
    half = (total << headroom) >> 1  # the denominator, in [1/2, 1)
    x = int(fp.saturating_rounding_mul32(half, -1010580540)) + 1515870810
    for _ in range(3):
        rest = 2**29 - int(fp.saturating_rounding_mul32(x, half))
        x += int(fp.saturating_rounding_multiply_by_pot(fp.saturating_rounding_mul32(x, rest), 2))
    return int(fp.saturating_rounding_multiply_by_pot(x, 1)), 12 + 31 - 8 - headroom


def _scaled(e: int, factor: int, right: int) -> int:
    """Passes 29 and 30, and the saturation of the result."""
    fp = _packages().fp_math
    return min(int(fp.rounding_divide_by_pot(fp.saturating_rounding_mul32(e, factor), right)) - 128, 127)


def _requantize_cases() -> Iterator[Case]:
    op, params = double_rounding.OP, double_rounding.Params
    every = np.arange(-(2**12), 2**12, dtype=np.int32).reshape(8, 1024)
    wide = own.pseudorandom("vela requantize", int32, 8, 512)
    for t, zero_point in ((int8, -5), (uint8, 131), (int16, 0)):
        far = t.bits - 8
        for shift in (33, 35, 37):
            p = params(2**30, shift, zero_point, dtype=t)
            yield make(op, f"vela-{t}-ties-{shift}", "powers of two: ties of both signs", (every,), p)
        p = params.from_scale(0.0731 * 2.0**far, zero_point=zero_point, dtype=t)
        yield make(op, f"vela-{t}-scale", "an ordinary scale", (every,), p)
        columns = (1 + np.arange(512) / 512) * 2.0 ** (far - 25)
        p = params.from_scale(columns, zero_point=zero_point, dtype=t)
        yield make(op, f"vela-{t}-columns", "a multiplier a column, any int32", (wide,), p)
        p = params.from_scale(columns * 2.0**26, zero_point=zero_point, dtype=t)
        yield make(op, f"vela-{t}-left", "shifts to the left that stay an int32", (wide >> 22,), p)


def _softmax_cases() -> Iterator[Case]:
    op = gemmlowp.OP
    for scale in (0.003, 0.017, 0.0625, 0.1, 0.29, 1.0, 3.0):
        p = gemmlowp.Params.from_scale(scale)
        rows = own.attention_rows(f"vela {scale}", int8, 36, 512)
        yield make(op, f"vela-rows-{scale}", "rows of an attention layer", (rows,), p)
        yield make(op, f"vela-pairs-{scale}", "every difference of two int8", (own.every_difference(),), p)


def _rsqrt_cases() -> Iterator[Case]:
    op = rsqrt_tflite.OP
    every = np.arange(-128, 128, dtype=np.int8).reshape(1, 256)
    for k in range(400):
        scale, result = 0.001 * 1.02**k, 0.004 * 1.013 ** (k * 7 % 400)
        p = rsqrt_tflite.Params.from_scales(scale, result, a_zero_point=-128, zero_point=k % 256 - 128)
        yield make(op, f"vela-{k}", "every int8, many scales", (every,), p)
    for zero_point in (-127, -1, 0, 100):
        p = rsqrt_tflite.Params.from_scales(0.02, 0.05, a_zero_point=zero_point, zero_point=-128)
        above = np.arange(zero_point, 128, dtype=np.int8).reshape(1, -1)
        yield make(op, f"vela-from-{zero_point}", "inputs at the zero point and above it", (above,), p)

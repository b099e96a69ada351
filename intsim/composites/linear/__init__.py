"""Linear layers: a matrix product with a bias, and a requantization. What the variants share.

    q = requantize(matmul(a, b) + bias)        matmul.integer, then the requantize that the variant is called after

A system's FULLY_CONNECTED and BATCH_MATMUL are one of these: the same product, and a requantization of
its own. A fused RELU is ``activation.relu`` after it: clipping twice is clipping to the narrower range.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Self

import numpy as np

from intsim.numerics import IntType, int8, int16, int32
from intsim.op import Composition, Op, Port, Size, Tuned
from intsim.ops.matmul import MOST_TERMS, integer as product
from intsim.params import Params, kinds
from intsim.spec.tflite import product_scale

LAWS = ()


class LinearParams(Params):
    """Base of the parameters: the stages ``matmul`` and ``requantize``, and how TFLite derives them from scales."""

    __slots__ = ()

    @classmethod
    def from_scales(
        cls,
        a: float,
        b: Any,
        result: float,
        /,
        matmul: product.Params | None = None,
        *,
        single: bool = True,
        **fields: Any,
    ) -> Self:
        """The parameters for three real scales (float32); that of ``b`` one, or one per n.

        matmul: zero points and types of the operands (default: int8 without zero points). single: of
        ``product_scale``, which gives the real multiplier; a requantization with a ``from_scales`` of its
        own has its own steps. fields: of the requantization. Raises ValueError where a scale is not
        positive and finite.
        """
        stages: Any = kinds(cls)
        operands = product.Params() if matmul is None else matmul
        requantize = stages["requantize"].params
        if hasattr(requantize, "from_scales"):
            made = requantize.from_scales(a, b, result, **fields)
        else:
            made = requantize.from_scale(product_scale(a, b, result, single=single), **fields)
        return cls(replace(operands, **stages["matmul"].fixed), made)  # type: ignore[call-arg]  # they declare both


LIGHT = ("single_rounding", "tabulated")
MOST = 2**20  # results: beyond them a kernel of its own runs a longer program faster, by the threads that it can have


def in_one_kernel(name: str, result: Callable[[Any], int] = lambda p: p.requantize.dtype.bits) -> Tuned:
    """The fused kernel ``name`` on a GPU; result(p): bits of the results. It has no place for a weight's zero point."""

    def serves(p: Any, size: Mapping[str, int]) -> bool:
        bytes_or_less = max(p.matmul.a.bits, p.matmul.b.bits) <= 8
        pays = name in LIGHT or size["m"] * size["n"] <= MOST
        return pays and bytes_or_less and not p.matmul.b_zero_point.any() and result(p) in (8, 32)

    return Tuned("cuda", f"intsim.composites.linear._cuda_programs:{name}", serves, capability=(8, 0))


def linear(
    name: str, params: type[LinearParams], wire: Any, *, cites: str, wide: bool = False, tuned: tuple[Tuned, ...] = ()
) -> Op:
    """The op ``linear.<name>``; wide: its operands ``a`` are int16 and its results too."""
    return Op(
        name=f"linear.{name}",
        version=1,
        cites=cites,
        inputs=(
            Port("a", "m k", lambda p: p.matmul.a, packing=True),
            Port("b", "n k", lambda p: p.matmul.b, packing=True),
            Port("bias", "n", int32, fill=0),
        ),
        outputs=(Port("q", "m n", lambda p: p.requantize.dtype),),
        params=params,
        spec=wire,
        program=Composition(wire),
        sizes={"k": Size(1, MOST_TERMS)},
        examples=lambda: examples_of(params, int16 if wide else int8),
        tuned=tuned,
    )


def examples_of(params: type[LinearParams], t: IntType) -> dict[str, Any]:
    """The calls that every variant states: ``a`` and the result are of type ``t``."""
    a = np.array([[8, 0], [24, 0], [40, 0], [-8, 1], [-24, 0], [t.qmin, t.qmax], [0, 0]], t.storage)
    b = np.array([[1, 0], [3, 7], [-128, 127]], np.int8)
    bias = np.array([-505, 504, 2**31 - 1 - 2**24], np.int32)
    plain = product.Params(a=t, b=int8)
    zero_points = plain if t == int16 else product.Params(-5, [3, 0, -7], a=t, b=int8)
    return {
        "ties at 1/16, odd zero point": ((a, b), params.from_scales(0.5, 0.5, 4.0, plain, zero_point=-5, dtype=t)),
        "a bias; zero points of both operands": (
            (a, b, bias),
            params.from_scales(0.021, 0.4, 3.1, zero_points, dtype=t),
        ),
        "per channel": (
            (a, b, bias),
            params.from_scales(0.021, [0.013, 0.4, 1e-4], 0.21, plain, zero_point=[7, -1, 0], dtype=t),
        ),
        "the bias alone, beside ties and at its ends": (
            (
                a[6:],
                np.zeros((10, 2), np.int8),
                np.array([-40, -24, -8, -7, 7, 8, 9, 24, -(2**31), 2**31 - 1], np.int32),
            ),
            params.from_scales(1.0, 1.0, 16.0, plain, dtype=t),
        ),
    }

"""Layer normalization as TFLite models hold it: nine int8 operators in a row, each with its own scales.

    mean     = MEAN(x)                    square   = SQUARED_DIFFERENCE(x, mean)
    variance = MEAN(square)               shifted  = ADD(variance, epsilon)
    root     = RSQRT(shifted)             factor   = MUL(root, gamma)
    centred  = SUB(x, mean)               product  = MUL(centred, factor)
    q        = ADD(product, beta)

TFLite has no integer kernel for it, so that exporters write what the float model computes, and calibrate
every tensor between. mean, variance, shifted and root are one number a row; epsilon is a constant of one
element, gamma and beta are constants of one row. With RSQRT a variance of 0 (shifted at its zero point)
gives the largest int8, and shifted below its zero point is refused by TFLite's kernel: calibration puts the
zero point of shifted at -128.

Differs from ``ibert`` and its siblings: every intermediate has 8 bits, so that a row of small variance is
normalized by a coarse root.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from intsim.numerics import int8
from intsim.op import Composition, Op, Port, Size
from intsim.ops.activation import rsqrt_tflite
from intsim.ops.add import rescaled as sum_of
from intsim.ops.mul import rescaled as product_of, squared_difference
from intsim.ops.reduce import mean_tflite
from intsim.params import Params as Base, integer, stage
from intsim.registry import register

TENSORS: tuple[str, ...] = (
    *("x", "mean", "square", "variance", "epsilon", "shifted", "root"),
    *("gamma", "factor", "centred", "product", "beta", "q"),
)

Quantization = tuple[float, int]  # scale and zero point

_TWO: dict[str, Any] = {"a": int8, "b": int8, "dtype": int8}
_ONE: dict[str, Any] = {"x": int8, "dtype": int8}


@dataclass(frozen=True, slots=True, eq=False)
class Params(Base):
    mean: mean_tflite.Params = stage(mean_tflite.Params, **_ONE)
    square: squared_difference.Params = stage(squared_difference.Params, **_TWO)
    variance: mean_tflite.Params = stage(mean_tflite.Params, **_ONE)
    shifted: sum_of.Params = stage(sum_of.Params, **_TWO)
    root: rsqrt_tflite.Params = stage(rsqrt_tflite.Params, **_ONE)
    factor: product_of.Params = stage(product_of.Params, **_TWO)
    centred: sum_of.Params = stage(sum_of.Params, **_TWO)
    product: product_of.Params = stage(product_of.Params, **_TWO)
    q: sum_of.Params = stage(sum_of.Params, **_TWO)
    epsilon: int = integer(-128, 127, default=127)  # the quantized constant

    @classmethod
    def from_quantization(cls, tensors: Mapping[str, Quantization], *, epsilon: int = 127) -> Params:
        """The parameters for scale (float32) and zero point of each of ``TENSORS``, as tflite-micro derives them.

        epsilon: the constant's int8 value. Raises KeyError for a tensor that is not given, ValueError
        where scales cannot be: see the ops.
        """
        s = {name: tensors[name][0] for name in TENSORS}
        z = {name: tensors[name][1] for name in TENSORS}

        def one(variant: Any, x: str, y: str) -> Any:
            return variant.Params.from_scales(s[x], s[y], a_zero_point=z[x], zero_point=z[y], **_ONE)

        def two(variant: Any, a: str, b: str, y: str) -> Any:
            zero_points = {"a_zero_point": z[a], "b_zero_point": z[b], "zero_point": z[y]}
            return variant.Params.from_scales(s[a], s[b], s[y], **zero_points, **_TWO)

        return cls(
            one(mean_tflite, "x", "mean"),
            two(squared_difference, "x", "mean", "square"),
            one(mean_tflite, "square", "variance"),
            two(sum_of, "variance", "epsilon", "shifted"),
            one(rsqrt_tflite, "shifted", "root"),
            two(product_of, "root", "gamma", "factor"),
            two(sum_of, "x", "mean", "centred"),
            two(product_of, "centred", "factor", "product"),
            two(sum_of, "product", "beta", "q"),
            epsilon,
        )


def wire(run: Any, x: Any, gamma: Any, beta: Any, p: Params) -> Any:
    def each(name: str, a: Any, b: Any, stage: Any) -> Any:
        a, b = (np.ascontiguousarray(side) for side in np.broadcast_arrays(a, b))
        return run(name, a, b, p=stage)

    average = run("reduce.mean_tflite", x, p=p.mean)[..., None]
    square = each("mul.squared_difference", x, average, p.square)
    variance = run("reduce.mean_tflite", square, p=p.variance)[..., None]
    shifted = each("add.rescaled", variance, np.full_like(variance, p.epsilon), p.shifted)
    root = run("activation.rsqrt_tflite", shifted, p=p.root)
    factor = each("mul.rescaled", root, gamma[..., None, :], p.factor)
    centred = each("add.rescaled_difference", x, average, p.centred)
    product = each("mul.rescaled", centred, factor, p.product)
    return each("add.rescaled", product, beta[..., None, :], p.q)


def calibrated(scale: float, zero_point: int, spread: float, *, epsilon: float = 1e-5) -> dict[str, Quantization]:
    """Scales and zero points of all tensors for rows of ``spread`` steps of standard deviation or less, as a
    calibration gives them: the largest value of each tensor is the largest int8.

    scale, zero_point: of x. gamma is taken to be at most 2 in magnitude, beta at most 1.
    """
    deviation = spread * scale
    least = deviation / 16  # rows below this deviation have a root beyond int8
    return {
        "x": (scale, zero_point),
        "mean": (scale / 4, 0),
        "square": (9 * deviation**2 / 255, -128),
        "variance": (deviation**2 / 255, -128),
        "epsilon": (epsilon / 255, -128),
        "shifted": ((deviation**2 + epsilon) / 255, -128),
        "root": (1 / least / 255, -128),
        "gamma": (2 / 127, 0),
        "factor": (2 / least / 127, 0),
        "centred": (3 * deviation / 127, 0),
        "product": (6 / 127, 0),
        "beta": (1 / 127, 0),
        "q": (7 / 127, -3),
    }


def examples() -> dict[str, Any]:
    x = np.array([[-128, 127, 3, 0, 64, -64], [5, 5, 5, 5, 5, 5], [-3, -2, -1, 1, 2, 3], [127] * 5 + [-128]], np.int8)
    gamma = np.array([127, 64, 63, -64, 1, 0], np.int8)
    beta = np.array([0, 1, -1, 127, -127, -128], np.int8)
    powers = {name: (2.0 ** round(np.log2(s)), z) for name, (s, z) in calibrated(0.0625, -7, 90.0).items()}
    return {
        "a wide row, a constant row (the root of 0), a narrow row": (
            (x, gamma, beta),
            Params.from_quantization(calibrated(0.05, 3, 90.0)),
        ),
        "powers of two: ties": ((x, gamma, beta), Params.from_quantization(powers)),
        "an epsilon that shows": (
            (x, gamma, beta),
            Params.from_quantization(calibrated(0.01, 0, 40.0, epsilon=0.01), epsilon=127),
        ),
        "one element a row": (
            (x[:, :1].copy(), gamma[:1], beta[:1]),
            Params.from_quantization(calibrated(0.05, 3, 90.0)),
        ),
    }


OP = register(
    Op(
        name="layernorm.tflite_decomposed",
        version=1,
        cites="Ba et al. 2016 (arXiv 1607.06450), eq. (4); google-ai-edge/LiteRT tflite/kernels (the operators); "
        "tensorflow/tflite-micro tensorflow/lite/micro/kernels",
        inputs=(Port("x", "m n", int8), Port("gamma", "n", int8), Port("beta", "n", int8)),
        outputs=(Port("q", "m n", int8),),
        params=Params,
        spec=wire,
        program=Composition(wire),
        sizes={"n": Size(1, mean_tflite.LONGEST)},
        examples=examples,
    )
)

"""What an integer Transformer is made of, as few integers as say it: what a file holds.

Nothing is in a file that follows from something else in it. The scale of a row of weights is 16 bits; a bias,
a norm's bias, b and delta are int16 on one scale each, in one list; from these ``assembled`` makes the
parameters of every step, the same on every machine: by the integer rules of ``intsim.spec.scale``, and square roots
and quotients of whole numbers that IEEE 754 defines to the last bit.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from intsim.models.architecture import Architecture
from intsim.models.layout import Array, same_names
from intsim.models.transformer_checkpoint import attentions, linear_maps, needs_integer_form
from intsim.models.transformer_layout import Granularity, Options, PropagatedModel, step_ops, used_norms
from intsim.numerics import int8, int8_narrow, int16, int16_narrow, int32
from intsim.ops.propagate import EXPONENT, Activation
from intsim.params import Params
from intsim.registry import get
from intsim.spec.scale import BITS, of_real

SUM_BITS = 24  # a residual comes into its sum with so many: propagate.add takes no more

# A scale of weights: 5 bits of exponent, 11 of fraction. 2**-6 <= scale < 2**26, so a row's largest weight may be
# from 127 / 2**26 to 127 * 2**6; a relative step of 2**-11, of which a weight loses the most at its row's end.
FRACTION_BITS, FIRST_EXPONENT, LAST_CODE = 11, -6 - (BITS - 1), 2**16 - 1
SMALLEST_TOP, LARGEST_TOP = 127 / 2.0**26, 127 * 2.0**6
CONSTANT = 2**15 - 1

Parts = Mapping[str, Array]


def matrices(shape: Architecture) -> dict[str, tuple[int, int]]:
    """(rows, columns) of every matrix, in the order in which their scales are listed."""
    tables = {"embedding": (shape.vocabulary, shape.width), "positions": (shape.positions, shape.width)}
    return tables | linear_maps(shape)


def vectors(shape: Architecture) -> dict[str, int]:
    """The length of every vector of constants, in the order in which they are listed."""
    made = {f"{name}.bias": rows for name, (rows, _) in linear_maps(shape).items()}
    made |= {f"{name}.bias": shape.width for name in used_norms(shape)}
    return made | {f"{name}.{part}": shape.heads for name in attentions(shape) for part in ("shift", "floor")}


def part_types(shape: Architecture, options: Options) -> dict[str, tuple[str, tuple[int, ...]]]:
    """(dtype, shape) of every part."""
    tables, lists, norms = matrices(shape), vectors(shape), used_norms(shape)
    by_row = options.weights is Granularity.ROW
    return {f"{name}.weight": ("int8", dims) for name, dims in tables.items()} | {
        "scales": ("uint16", (sum(rows for rows, _ in tables.values()) if by_row else len(tables),)),
        "constants": ("int16", (sum(lists.values()),)),
        "constants.mantissa": ("int32", (len(lists),)),
        "constants.exponent": ("int16", (len(lists),)),
        "gains": ("int8", (len(norms), shape.width)),
        "gains.mantissa": ("int32", (len(norms),)),
        "gains.exponent": ("int16", (len(norms),)),
    }


def check_parts(shape: Architecture, options: Options, parts: Parts) -> None:
    """Raises ValueError where a part is missing, of another type or shape, out of range, or one too many."""
    needs_integer_form(shape)
    wanted = part_types(shape, options)
    same_names("tensor", parts, wanted)
    for name, (dtype, dims) in wanted.items():
        a = parts[name]
        if a.dtype != dtype or a.shape != dims:
            raise ValueError(
                f"tensor {name} is {a.dtype} {a.shape}, needs {dtype} {dims}; convert the checkpoint again"
            )
    for name in ("constants", "gains"):
        mantissa, exponent = parts[f"{name}.mantissa"], parts[f"{name}.exponent"]
        if mantissa.min(initial=2**30) < 2**30 or abs(exponent.astype(int)).max(initial=0) > EXPONENT.qmax:
            raise ValueError(f"tensor {name}: a mantissa is at least 2**30, an exponent of {EXPONENT.bits} bits")


def scale_codes(top: Array) -> Array:
    """uint16: the greatest scales by which weights up to ``top`` stay inside 127.

    Raises ValueError for weights above 8128. A row below 127 / 2**26 gets the scale of that.
    """
    if top.max(initial=0.0) > LARGEST_TOP:
        raise ValueError(f"weights up to {top.max():g} have no scale here; at most {LARGEST_TOP:g}")
    mantissa, exponent = of_real(127 / np.maximum(top, SMALLEST_TOP))
    fraction = (mantissa >> (BITS - 1 - FRACTION_BITS)) - (1 << FRACTION_BITS)
    code = ((exponent - FIRST_EXPONENT) << FRACTION_BITS) + fraction
    return np.asarray(np.minimum(code, LAST_CODE), np.uint16)


def scales_of(codes: Array) -> tuple[Array, Array]:
    """(mantissas int32, exponents int16) that ``scale_codes`` stands for."""
    code = codes.astype(np.int64)
    fraction = (code & ((1 << FRACTION_BITS) - 1)) + (1 << FRACTION_BITS)
    mantissa = fraction << (BITS - 1 - FRACTION_BITS)
    return mantissa.astype(np.int32), ((code >> FRACTION_BITS) + FIRST_EXPONENT).astype(np.int16)


def assembled(
    shape: Architecture, options: Options, parts: Parts, tokenizer: str, source: Mapping[str, Any]
) -> PropagatedModel:
    """The model that ``parts`` say. Raises ValueError where they are not whole."""
    check_parts(shape, options, parts)
    made = _Assembly(shape, options, parts)
    made.shared()
    made.outputs()
    for number, name in enumerate(used_norms(shape)):
        made.norm(number, name)
    for name in linear_maps(shape):
        made.linear(name)
    for name in attentions(shape):
        made.attention(name)
    steps = {name: made.steps[name] for name in step_ops(shape)}
    return PropagatedModel(shape, options, dict(parts), steps, made.tensors, tokenizer, dict(source))


class _Assembly:
    def __init__(self, shape: Architecture, options: Options, parts: Parts) -> None:
        self.shape, self.options, self._parts = shape, options, parts
        self.steps: dict[str, Params] = {}
        self.tensors = {f"{name}.weight": parts[f"{name}.weight"] for name in matrices(shape)}
        rows = [n if options.weights is Granularity.ROW else 1 for n, _ in matrices(shape).values()]
        cut = np.split(parts["scales"], np.cumsum(rows)[:-1])
        self._scales = {name: scales_of(codes) for name, codes in zip(matrices(shape), cut, strict=True)}
        lengths = vectors(shape)
        self._places = {name: i for i, name in enumerate(lengths)}
        self._constants = np.split(parts["constants"], np.cumsum(list(lengths.values()))[:-1])
        for name in ("embedding", "positions"):
            mantissa, exponent = self._scales[name]
            self.tensors |= {f"{name}.mantissa": mantissa, f"{name}.exponent": exponent}

    def _params(self, op: str) -> Any:
        return get(op).params

    def _vector(self, name: str) -> tuple[Array, int, int]:
        """(q, mantissa, exponent)"""
        at = self._places[name]
        scale = (int(self._parts[f"constants.{part}"][at]) for part in ("mantissa", "exponent"))
        return self._constants[at].astype(np.int64), *scale  # type: ignore[return-value]  # two

    def shared(self) -> None:
        rescale, how = self._params("propagate.rescale"), self.options
        kinds = {"policy": how.policy, "rounding": how.rounding}
        self.steps["stream.rescale"] = rescale(how.residual, **kinds)
        for name in ("narrow", "head", "mixed"):
            self.steps[f"{name}.rescale"] = rescale(int8, **kinds)
        self.steps["hidden.rescale"] = rescale(int8, activation=Activation.RELU, **kinds)
        narrow = int16_narrow if how.residual == int16 else int8_narrow
        self.steps["stream.add"] = self._params("propagate.add")(narrow, SUM_BITS - narrow.bits, rounding=how.rounding)
        self.steps["linear.matmul"] = self._params("matmul.integer")()

    def outputs(self) -> None:
        self.steps["embedding.embed"] = self._params("propagate.embed").from_real(
            multiplier=math.sqrt(self.shape.width) if self.shape.translates else 1.0, rounding=self.options.rounding
        )
        self.steps["logits.bias"] = self._params("propagate.bias").from_scales(
            weight=self._scales["embedding"], rounding=self.options.rounding
        )
        self.steps["logits.argmax"] = self._params("reduce.argmax")(int32)

    def norm(self, number: int, name: str) -> None:
        self.steps[f"{name}.l1_norm"] = self._params("propagate.l1_norm")(
            self._parts["gains"][number],
            int(self._parts["gains.mantissa"][number]),
            int(self._parts["gains.exponent"][number]),
            *self._vector(f"{name}.bias"),
            dtype=int8 if self.shape.norm_first else self.options.residual,
            centring=self.options.centring,
            policy=self.options.policy,
            rounding=self.options.rounding,
        )

    def linear(self, name: str) -> None:
        made = self._params("propagate.bias").from_scales(weight=self._scales[name], rounding=self.options.rounding)
        bias, mantissa, exponent = self._vector(f"{name}.bias")
        made = dataclasses.replace(made, bias=bias, bias_mantissa=mantissa, bias_exponent=exponent)
        self.steps[f"{name}.bias"] = made

    def attention(self, name: str) -> None:
        heads = [np.broadcast_to(a, self.shape.heads)
                 for part in ("shift", "floor") for a in self._vector(f"{name}.{part}")]  # fmt: skip
        root = (int(part) for part in of_real(math.sqrt(self.shape.head_width)))
        how = self.options
        weights = self._params("propagate.polynomial")(
            self.shape.degree,
            *heads,
            *root,
            dtype=how.probability,
            probabilities=how.probabilities,
            policy=how.policy,
            rounding=how.rounding,
        )
        product = self._params("matmul.integer")
        self.steps[f"{name}.attention"] = self._params("attention.propagated")(
            product(), weights, product(a=weights.dtype), self._params("propagate.join")(how.rounding)
        )

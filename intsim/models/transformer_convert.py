"""A trained float Transformer becomes integers: int8 weights, int30 constants, integer scales. Nothing is calibrated.

The scales of activations are found at run time, a row each (Lin et al. 2020, section 3): all that is
decided here is the rounding of the weights and of the constants.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from intsim.models.architecture import Positions
from intsim.models.float_transformer import sinusoids
from intsim.models.layout import Array
from intsim.models.transformer_checkpoint import TransformerCheckpoint, attentions, linear_maps, needs_integer_form
from intsim.models.transformer_layout import Granularity, Options, PropagatedModel, check, step_ops, used_norms
from intsim.numerics import int8, int8_narrow, int16, int16_narrow, int32
from intsim.ops.propagate import Activation
from intsim.params import Params
from intsim.registry import get
from intsim.spec.scale import of_real

SMALLEST = 2.0**-100  # a row whose largest weight is below this counts as having this
SUM_BITS = 24  # a residual comes into its sum with so many: propagate.add takes no more


def convert(checkpoint: TransformerCheckpoint, options: Options | None = None) -> PropagatedModel:
    """The integer model. Raises ValueError for an architecture without an integer form (softmax, standard norm)."""
    needs_integer_form(checkpoint.shape)
    made = _Converter(checkpoint, options or Options())
    made.embedding()
    made.shared()
    for name in used_norms(checkpoint.shape):
        made.norm(name)
    for name in linear_maps(checkpoint.shape):
        made.linear(name)
    for name in attentions(checkpoint.shape):
        made.attention(name)
    model = PropagatedModel(
        checkpoint.shape,
        made.options,
        {name: made.steps[name] for name in step_ops(checkpoint.shape)},
        made.tensors,
        checkpoint.tokenizer,
        {"name": checkpoint.name, "sha256": checkpoint.sha256, "float32_bytes": checkpoint.float_bytes},
    )
    check(model)
    return model


def quantized(weight: Array, granularity: Granularity) -> tuple[Array, Array, Array]:
    """(int8 in [-127, 127], mantissas, exponents): q = round(weight * scale), half to even, scale = 127 / max."""
    weight = np.asarray(weight, np.float64)
    top = np.abs(weight).max(axis=1 if granularity is Granularity.ROW else None, keepdims=True).reshape(-1)
    mantissa, exponent = of_real(int8.qmax / np.maximum(top, SMALLEST))
    scale = np.ldexp(mantissa.astype(np.float64), exponent.astype(np.int64))
    q = np.clip(np.rint(weight * scale[:, None]), -int8.qmax, int8.qmax)
    return q.astype(np.int8), mantissa.astype(np.int32), exponent.astype(np.int16)


class _Converter:
    def __init__(self, checkpoint: TransformerCheckpoint, options: Options) -> None:
        self.shape, self.options, self._t = checkpoint.shape, options, checkpoint.tensors
        self.steps: dict[str, Params] = {}
        self.tensors: dict[str, Array] = {}

    def _params(self, op: str) -> Any:
        return get(op).params

    def embedding(self) -> None:
        learned = self.shape.position_kind is Positions.LEARNED
        places = self._t["positions.weight"] if learned else sinusoids(self.shape.positions, self.shape.width)
        for name, table in (("embedding", self._t["embedding.weight"]), ("positions", places)):
            q, mantissa, exponent = quantized(table, self.options.weights)
            self.tensors |= {f"{name}.weight": q, f"{name}.mantissa": mantissa, f"{name}.exponent": exponent}
        self.steps["embedding.embed"] = self._params("propagate.embed").from_real(
            multiplier=math.sqrt(self.shape.width) if self.shape.translates else 1.0, rounding=self.options.rounding
        )
        scales = self.tensors["embedding.mantissa"], self.tensors["embedding.exponent"]
        bias = self._params("propagate.bias")
        self.steps["logits.bias"] = bias.from_scales(weight=scales, rounding=self.options.rounding)
        self.steps["logits.argmax"] = self._params("reduce.argmax")(int32)

    def shared(self) -> None:
        rescale, how = self._params("propagate.rescale"), self.options
        kinds = {"policy": how.policy, "rounding": how.rounding}
        self.steps["stream.rescale"] = rescale(how.residual, **kinds)
        for name in ("narrow", "head", "mixed"):
            self.steps[f"{name}.rescale"] = rescale(int8, **kinds)
        self.steps["hidden.rescale"] = rescale(int8, activation=Activation.RELU, **kinds)
        narrow = int16_narrow if how.residual == int16 else int8_narrow
        self.steps["stream.add"] = self._params("propagate.add")(
            narrow, SUM_BITS - narrow.bits, rounding=self.options.rounding
        )
        self.steps["linear.matmul"] = self._params("matmul.integer")()

    def norm(self, name: str) -> None:
        wide = int8 if self.shape.norm_first else self.options.residual
        self.steps[f"{name}.l1_norm"] = self._params("propagate.l1_norm").from_real(
            self._t[f"{name}.weight"],
            self._t[f"{name}.bias"],
            dtype=wide,
            centring=self.options.centring,
            policy=self.options.policy,
            rounding=self.options.rounding,
        )

    def linear(self, name: str) -> None:
        q, *scales = quantized(self._t[f"{name}.weight"], self.options.weights)
        self.tensors[f"{name}.weight"] = q
        self.steps[f"{name}.bias"] = self._params("propagate.bias").from_scales(
            weight=tuple(scales), bias=self._t[f"{name}.bias"], rounding=self.options.rounding
        )

    def attention(self, name: str) -> None:
        self.steps[f"{name}.attention"] = self._params("attention.propagated").from_real(
            self._t[f"{name}.shift"],
            self._t[f"{name}.floor"],
            self.shape.degree,
            self.shape.head_width,
            rounding=self.options.rounding,
            policy=self.options.policy,
            probabilities=self.options.probabilities,
            dtype=self.options.probability,
        )

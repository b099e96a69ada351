"""A float checkpoint and its ranges become an integer model: int8 weights, and one grid a place.

Where a bound proves how large a value can get, the bound sets the grid and nothing can saturate:

    layer norm   |gamma| sqrt(n) + |beta|, as a centred row of norm 1 has no element above 1
    query, key   |W gamma| sqrt(n) + |W beta + b| (Cauchy-Schwarz), and the rounding of W and x
    context      a mean of values, whose int8 grid is known
    embedding    the largest entries of the three tables

Where none is tight, text sets it: values (int8, a scale a channel), scores, and the GELU's input and
output (int16, with headroom, as 16 bits have bits to spare). Linear maps take int8 weights with a
scale an output channel, and int8 activations with a scale a token that is found at run time.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any, cast

import numpy as np

from intsim.execute import run
from intsim.models.calibrate import Ranges
from intsim.models.checkpoint import Checkpoint
from intsim.models.layout import Array, IntegerModel, check, step_ops
from intsim.numerics import Rounding, int8, int16, int24, int32, uint8
from intsim.ops.requantize import multiplier_and_shift
from intsim.params import Params, Real, kinds
from intsim.registry import get

SCORE_HEADROOM = 4.0
GELU_HEADROOM = 1.5  # little: I-BERT drops 14 bits of the square, so a coarse grid costs accuracy here
VALUE_HEADROOM = 1.25
NORM_HEADROOM = 1.02  # the root's floor raises a norm of 64 steps or more by less
PROBABILITY_BITS = 8
POOLED_FRACTION_BITS = 8
FINEST_SCORE = 1e-5  # softmax.ibert takes scales from 1.353 / 2**18
SMALLEST = 1e-4  # a range below this (a dead map or channel) counts as this; its grids still meet every shift


def convert(checkpoint: Checkpoint, ranges: Ranges) -> IntegerModel:
    """The integer model. Raises ValueError where a parameter leaves an operation's limits."""
    made = _Converter(checkpoint, ranges)
    made.embedding()
    for i in range(checkpoint.shape.layers):
        made.layer(f"layer.{i}", "embedding" if i == 0 else f"layer.{i - 1}.output")
    made.pooling()
    model = IntegerModel(
        checkpoint.shape,
        {name: _without_reals(made.steps[name]) for name in step_ops(checkpoint.shape)},
        made.tensors,
        made.scales,
        checkpoint.tokenizer,
        {
            "name": checkpoint.name,
            "sha256": checkpoint.sha256,
            "bytes": checkpoint.weight_bytes,
            "calibration_sentences": ranges.sentences,
        },
    )
    check(model)
    return model


def quantized_rows(weight: Array) -> tuple[Array, Array]:
    """(int8 in [-127, 127], scale a row): symmetric, to nearest; a row of zeros has scale 0."""
    weight = np.asarray(weight, np.float64)
    scale = np.abs(weight).max(axis=1) / int8.qmax
    return np.rint(weight / np.where(scale == 0, 1.0, scale)[:, None]).astype(np.int8), scale


def common_shift(real: Array, bits: int) -> tuple[Array, int]:
    """Integers and one shift with ``real ~ integer / 2**shift``, the largest filling ``bits`` bits without sign."""
    top = float(np.max(real))
    shift = 0 if top == 0 else math.floor(math.log2((2**bits - 1) / top))
    shift = min(shift, 62)
    if shift < 0:
        raise ValueError(f"a rescaling by {top} needs a shift to the left: the grids do not fit")
    return np.rint(real * 2.0**shift).astype(np.int64), shift


def signed_multipliers(real: Array) -> tuple[Array, Array]:
    """(multiplier, shift) a channel for factors of any sign, 0 among them."""
    multiplier, shift = multiplier_and_shift(np.where(real == 0, 1.0, np.abs(real)))
    return multiplier * np.sign(real).astype(np.int64), np.where(real == 0, 0, shift)


def _without_reals(p: Params) -> Params:
    """``p`` as a file holds it: whole numbers only."""
    reals = {name: math.nan for name, kind in kinds(p).items() if isinstance(kind, Real)}
    made: Params = dataclasses.replace(cast(Any, p), **reals)
    return made


class _Converter:
    def __init__(self, checkpoint: Checkpoint, ranges: Ranges) -> None:
        self.shape, self._t, self._ranges = checkpoint.shape, checkpoint.tensors, ranges
        self.steps: dict[str, Params] = {}
        self.tensors: dict[str, Array] = {}
        self.scales: dict[str, float] = {}

    def _step(self, name: str, op: str, *values: Any, **fields: Any) -> None:
        self.steps[name] = get(op).params(*values, **fields)

    def _real(self, name: str) -> Array:
        return self._t[name].astype(np.float64)

    # -- the parts of the model ----------------------------------------------------------------

    def embedding(self) -> None:
        tables = {name: self._real(f"{name}.table") for name in ("word", "position", "type")}
        grid = sum(max(float(np.abs(t).max()), SMALLEST) for t in tables.values()) / (int16.qmax - 2)  # 3 roundings
        table, row_scale = quantized_rows(tables["word"])
        multiplier, shift = common_shift(row_scale / grid, 31)
        self.tensors |= {"word.table": table, "word.multiplier": multiplier.astype(np.int32)}
        self._step("word.embedding", "embedding.row_scaled", shift, table=int8, dtype=int16)
        for name in ("position", "type"):
            self.tensors[f"{name}.table"] = np.rint(tables[name] / grid).astype(np.int16)
            self._step(f"{name}.embedding", "embedding.gather", table=int16)
        self._step("position_sum.add", "add.matched", a=int16, b=int16, dtype=int24)
        self._step("embedding_sum.add", "add.matched", a=int16, b=int24, dtype=int24)
        self.scales["embedding_sum"] = grid
        self._norm("embedding")

    def layer(self, layer: str, source: str) -> None:
        heads = self.shape.head
        stream = self.scales[source]
        self._step(f"{layer}.input.quantize", "quantize.dynamic_token")
        for name in ("query", "key"):
            grid = max(self._linear_bound(f"{layer}.{name}", source), SMALLEST) / int16.qmax
            self._dense(f"{layer}.{name}", stream, grid, int16)
            self._step(f"{layer}.{name}.quantize", "quantize.dynamic_token")
        self._scores(layer, math.sqrt(heads))
        self._values(layer, stream)
        self._dense(f"{layer}.attention", self.scales[f"{layer}.context"], stream, int32)
        self._step(f"{layer}.attention_sum.add", "add.matched", a=int16, b=int32, dtype=int24)
        self.scales[f"{layer}.attention_sum"] = stream
        self._norm(f"{layer}.attention_norm")
        self._feed_forward(layer)

    def pooling(self) -> None:
        self._step("pooled.mean", "reduce.mean", shift=POOLED_FRACTION_BITS, x=int16, dtype=int32)
        self.scales["pooled"] = self.scales[f"layer.{self.shape.layers - 1}.output"] / 2**POOLED_FRACTION_BITS

    # -- their pieces --------------------------------------------------------------------------

    def _scores(self, layer: str, root: float) -> None:
        """Scores on the grid of query times key, from which a shift leads to int16; softmax takes any grid."""
        unit = self.scales[f"{layer}.query"] * self.scales[f"{layer}.key"] / int8.qmax**2 / root
        wanted = max(self._ranges.largest[f"{layer}.scores"] * SCORE_HEADROOM / int16.qmax, FINEST_SCORE)
        shift = max(0, math.ceil(math.log2(wanted / unit)))
        self._step(f"{layer}.scores.matmul", "matmul.integer", a=int8, b=int8, acc=int32)
        self._step(f"{layer}.scores.requantize", "requantize.row_column", shift, dtype=int16)
        scale = self.scales[f"{layer}.scores"] = unit * 2.0**shift
        softmax = get("softmax.ibert").params
        assert hasattr(softmax, "from_scale")
        self.steps[f"{layer}.probabilities.softmax"] = softmax.from_scale(
            scale, q=int16, out_bits=PROBABILITY_BITS, rounding=Rounding.TIES_TO_EVEN
        )
        self.scales[f"{layer}.probabilities"] = 2.0**-PROBABILITY_BITS

    def _values(self, layer: str, stream: float) -> None:
        grid = np.maximum(self._ranges.values[f"{layer}.value"] * VALUE_HEADROOM, SMALLEST) / int8.qmax
        self._dense(f"{layer}.value", stream, grid, int8)
        # Rounding adds at most 1/2 to each of the probabilities, so their sum is below 1 + tokens / 2 steps.
        total = 1 + self.shape.tokens / 2 / 2**PROBABILITY_BITS
        context = float(grid.max()) * -int8.qmin * total / int16.qmax
        multiplier, shift = signed_multipliers(grid / 2**PROBABILITY_BITS / context)
        self._step(f"{layer}.context.matmul", "matmul.integer", a=uint8, b=int8, acc=int32)
        self._step(f"{layer}.context.requantize", "requantize.single_rounding", multiplier, shift, dtype=int16)
        self._step(f"{layer}.context.quantize", "quantize.dynamic_token")
        self.scales[f"{layer}.context"] = context

    def _feed_forward(self, layer: str) -> None:
        source = f"{layer}.attention_norm"
        stream = self.scales[source]
        grid = min(max(self._ranges.largest[f"{layer}.up"] * GELU_HEADROOM / int16.qmax, 2e-5), 1.0)
        self._step(f"{layer}.attention_norm.quantize", "quantize.dynamic_token")
        self._dense(f"{layer}.up", stream, grid, int16)
        gelu = get("activation.gelu_ibert").params
        assert hasattr(gelu, "from_scale")
        activation = gelu.from_scale(grid, x=int16, dtype=int32)
        self.steps[f"{layer}.gelu.activation"] = activation
        # Above the range of the text the result saturates; below, it must not reach -2**15, which no
        # symmetric quantization takes. The lowest of all results is known, so the grid holds it.
        everything = np.arange(int16.qmin, int16.qmax + 1).astype(np.int16)[None]
        results = run("activation.gelu_ibert", everything, p=activation, backend="reference")
        lowest = -1.01 * float((results * activation.out_scale).min())
        out = max(self._ranges.largest[f"{layer}.gelu"] * GELU_HEADROOM, lowest, SMALLEST) / int16.qmax
        multiplier, shift = signed_multipliers(np.array([activation.out_scale / out]))
        self._step(f"{layer}.gelu.requantize", "requantize.single_rounding", multiplier, shift, dtype=int16)
        self._step(f"{layer}.gelu.quantize", "quantize.dynamic_token")
        self.scales[f"{layer}.gelu"] = out
        self._dense(f"{layer}.down", out, stream, int32)
        self._step(f"{layer}.output_sum.add", "add.matched", a=int16, b=int32, dtype=int24)
        self.scales[f"{layer}.output_sum"] = stream
        self._norm(f"{layer}.output")

    def _dense(self, name: str, source: float, grid: float | Array, dtype: Any) -> None:
        """A linear map from int8 tokens of the grid ``source`` to ``grid``: one, or one a channel."""
        weight, scale = quantized_rows(self._real(f"{name}.weight"))
        column, shift = common_shift(scale * source / int8.qmax / grid, 15)
        bias = self._real(f"{name}.bias")
        if name.endswith(".attention"):
            bias = bias + self._left_of_value_bias(name)
        whole = np.rint(bias / grid)
        if np.abs(whole).max() > int32.qmax:
            raise ValueError(f"{name}: the bias {np.abs(bias).max()} leaves int32 on a grid of {np.min(grid)}")
        self.tensors[f"{name}.weight"] = weight
        self.tensors[f"{name}.column"] = column.astype(np.int16)
        self.tensors[f"{name}.bias"] = whole.astype(np.int32)
        self._step(f"{name}.matmul", "matmul.integer", a=int8, b=int8, acc=int32)
        self._step(f"{name}.requantize", "requantize.row_column", shift, dtype=dtype)
        if isinstance(grid, float):
            self.scales[name] = grid

    def _left_of_value_bias(self, name: str) -> Array:
        """What the int8 grid of the values dropped of their bias, behind the output map: probabilities sum to 1."""
        layer = name.removesuffix(".attention")
        grid = np.maximum(self._ranges.values[f"{layer}.value"] * VALUE_HEADROOM, SMALLEST) / int8.qmax
        bias = self._real(f"{layer}.value.bias")
        left: Array = self._real(f"{name}.weight") @ (bias - grid * np.rint(bias / grid))
        return left

    def _norm(self, name: str) -> None:
        gamma, beta = self._real(f"{name}.gamma"), self._real(f"{name}.beta")
        root = math.sqrt(self.shape.hidden)
        bound = float((np.abs(gamma) * root * NORM_HEADROOM + np.abs(beta)).max())
        grid = max(bound, SMALLEST) / int16.qmax
        multiplier, shift = signed_multipliers(gamma * root / 2**30 / grid)
        self._step(f"{name}.layernorm", "layernorm.ibert", x=int24, dtype=int32)
        self._step(
            f"{name}.requantize",
            "requantize.single_rounding",
            multiplier,
            shift,
            np.rint(beta / grid).astype(np.int64),
            dtype=int16,
        )
        self.scales[name] = grid

    def _linear_bound(self, name: str, norm: str) -> float:
        """The most that a linear map of a layer norm's output can reach, int8 rounding of both included."""
        weight, bias = self._real(f"{name}.weight"), self._real(f"{name}.bias")
        gamma, beta = self._real(f"{norm}.gamma"), self._real(f"{norm}.beta")
        root = math.sqrt(self.shape.hidden)
        exact = np.linalg.norm(weight * gamma, axis=1) * root * NORM_HEADROOM + np.abs(weight @ beta + bias)
        row = float(np.abs(gamma).max() * root * NORM_HEADROOM + np.linalg.norm(beta))
        error = root / (2 * int8.qmax)  # half a step of each element, against the largest element
        rounding = np.linalg.norm(weight, axis=1) * row * ((1 + error) ** 2 - 1)
        return float((exact + rounding).max())

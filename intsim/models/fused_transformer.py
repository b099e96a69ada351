"""The Integer Transformer on the CPU at speed: the same integers, by kernels that each do several steps.

A linear layer leaves as int8 for the next one, or goes into the residual sum, while its rows are in the
cache; the search for the best token keeps no logits; nothing is checked twice. Models whose options or
sizes the kernels do not serve, traces, and decodings without a cache take the general way.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from intsim.composites.attention import _cpu_propagated as attention
from intsim.composites.linear import _cpu_propagated as linear
from intsim.models.integer_transformer import IntegerTransformer, Scaled
from intsim.models.layout import Array
from intsim.models.transformer import Observer, State, padded
from intsim.models.transformer_checkpoint import attentions, linear_maps
from intsim.models.transformer_layout import PropagatedModel, check, used_norms
from intsim.numerics import Rounding, int16, uint8
from intsim.ops.propagate import WHOLE, Probabilities, _cpu_rows as rows
from intsim.ops.propagate._cpu_rows import embed_rows, norm_rows, rescale_rows

Keys = tuple[
    Array, Array, Array, Array
]  # int8 [slots, columns, heads, width], packed scales [slots, columns, heads]; twice
ROOM = 16  # columns that a cache starts with; doubled when full


class Rows(NamedTuple):
    """A row a token, and its packed scale (``_cpu_scale``)."""

    q: Array
    scale: Array


@dataclass(slots=True)
class FusedState(State):
    """slots: int32, a text's place in the arrays of keys and values, which may hold finished texts too."""

    slots: Array = field(default_factory=lambda: np.zeros(0, np.int32))
    sources: list[Keys] = field(default_factory=list)
    own: list[Keys] = field(default_factory=list)

    def chosen(self, rows: Array) -> State:
        slots, sources, own = self.slots[rows], self.sources, self.own
        if len(np.unique(slots)) < len(slots):  # texts that go on from the same one part ways
            sources, own = ([_at(part, slots) for part in parts] for parts in (sources, own))
            slots = np.arange(len(slots), dtype=np.int32)
        return FusedState(self.seen[rows], self.ids[rows], slots=slots, sources=sources, own=own)

    def plain(self) -> State:
        """The same as the general way keeps it."""

        def unpacked(part: Keys, columns: int) -> tuple[Array, ...]:
            made: list[Array] = []
            for q, packed in (part[:2], part[2:]):
                scale = packed[self.slots, :columns]
                made += [q[self.slots, :columns], (scale & 0xFFFFFFFF).astype(np.int32), (scale >> 32).astype(np.int16)]
            return tuple(made)

        memory = [unpacked(part, part[0].shape[1]) for part in self.sources]
        kept = [unpacked(part, self.length) for part in self.own]
        return State(self.seen, self.ids, memory, kept)


def _at(part: Keys, slots: Array) -> Keys:
    return part[0][slots], part[1][slots], part[2][slots], part[3][slots]


def serves(model: PropagatedModel, backend: str) -> bool:
    """Whether the kernels are written for this model's options and sizes."""
    check(model)
    shape, options = model.shape, model.options
    return bool(
        backend == "cpu"
        and shape.norm_first
        and options.rounding == Rounding.TIES_TO_AWAY
        and options.residual == int16
        and options.probability == uint8
        and options.probabilities == Probabilities.DENOMINATOR
        and shape.head_width % (2 * WHOLE) == 0
        and shape.feed % WHOLE == 0
    )


class FusedTransformer(IntegerTransformer):
    """Only for models that ``serves`` says yes to; equal to ``IntegerTransformer`` to the bit."""

    def __init__(self, model: PropagatedModel) -> None:
        super().__init__(model, "cpu")
        shape = self.shape
        self._layers = {
            name: linear.layer(self._t[f"{name}.weight"], self._record(f"{name}.bias", n))
            for name, (n, _) in linear_maps(shape).items()
        }
        self._output = linear.layer(self._t["embedding.weight"], self._record("logits.bias", shape.vocabulary))
        self._start = self._output.start
        self._norms = {
            name: rows.norm_arguments(self._record(f"{name}.l1_norm", shape.width)) for name in used_norms(shape)
        }
        self._attentions = {
            name: attention.head_arguments(
                self._steps[f"{name}.attention"].kernel_record(h=shape.heads, m=1, t=1, c=1, d=1).polynomial,
                shape.heads,
            )
            for name in attentions(shape)
        }
        p: Any = model.steps["embedding.embed"]
        self._embed = int(p.left_shift), int(rows.packed(p.factor_mantissa, p.factor_exponent))
        self._tables = [
            part
            for name in ("embedding", "positions")
            for part in (
                self._t[f"{name}.weight"], rows.packed(self._t[f"{name}.mantissa"], self._t[f"{name}.exponent"]),
            )
        ]  # fmt: skip
        p = model.steps["stream.add"]
        self._left = int(p.left_shift)
        self._policy = int(self.options.policy)

    def _record(self, step: str, n: int) -> Any:
        return self._steps[step].kernel_record(m=1, n=n)

    # -- steps ---------------------------------------------------------------------------------------

    def _rescaled(self, x: Array, scale: Array, dtype: Any) -> Rows:
        made = Rows(np.empty(x.shape, dtype), np.empty(len(x), np.int64))
        rescale_rows(x, scale, *made, np.iinfo(dtype).max, self._policy, 0, 0, len(x))
        return made

    def _embedded(self, ids: Array, first: int) -> Rows:
        places = np.broadcast_to(np.arange(first, first + ids.shape[1], dtype=np.int32), ids.shape)
        z, scale = np.empty((ids.size, self.shape.width), np.int32), np.empty(ids.size, np.int64)
        embed_rows(ids.reshape(-1), places.reshape(-1), *self._tables, z, scale, *self._embed, 0, ids.size)
        return self._rescaled(z, scale, np.int16)

    def _normed(self, name: str, x: Rows) -> Rows:
        made = Rows(np.empty(x.q.shape, np.int8), np.empty(len(x.q), np.int64))
        before, behind = self._norms[name]
        norm_rows(x.q, *before, *made, *behind, 0, len(x.q))
        return made

    def _narrow(self, name: str, x: Rows, q: Array, scale: Array, places: Array, relu: int = 0) -> None:
        """A linear layer's rows as int8, row i as row places[i] of q [.., groups, width]; a scale a group."""
        layer = self._layers[name].arguments()
        linear.rescaled_rows(*x, *layer, q, scale, places, 127, self._policy, relu, 0, len(x.q))

    def _summed(self, name: str, x: Rows, stream: Rows) -> Rows:
        made = Rows(np.empty(stream.q.shape, np.int16), np.empty(len(x.q), np.int64))
        layer = self._layers[name].arguments()
        linear.summed_rows(*stream, *x, *layer, *made, self._left, 32767, self._policy, 0, len(x.q))
        return made

    def _keys(self, name: str, x: Rows, into: Keys, places: Array) -> None:
        h, d = self.shape.heads, self.shape.head_width
        for part, q, scale in (("key", *into[:2]), ("value", *into[2:])):
            self._narrow(f"{name}.{part}", x, q.reshape(-1, h, d), scale.reshape(-1, h), places)

    def _attended(self, name: str, h: Rows, stream: Rows, keys: Keys, slots: Array, stop: Array) -> Rows:
        (texts, tokens), heads = stop.shape, self.shape.heads
        q = np.empty((texts * tokens, heads, self.shape.head_width), np.int8)
        scale = np.empty((texts * tokens, heads), np.int64)
        self._narrow(f"{name}.query", h, q, scale, np.arange(len(q)))
        z, of_z = np.empty((len(q), self.shape.width), np.int32), np.empty((texts, tokens), np.int64)
        q, scale = q.reshape(texts, tokens, *q.shape[1:]), scale.reshape(texts, tokens, heads)
        attention.attend_rows(q, scale, *keys, slots, stop, *self._attentions[name], z, of_z, 0, texts)
        return self._summed(f"{name}.out", self._rescaled(z, of_z.reshape(-1), np.int8), stream)

    def _fed(self, name: str, x: Rows) -> Rows:
        q, scale = np.empty((len(x.q), 1, self.shape.feed), np.int8), np.empty((len(x.q), 1), np.int64)
        self._narrow(f"{name}.feed_up", self._normed(f"{name}.feed_norm", x), q, scale, np.arange(len(q)), 1)
        return self._summed(f"{name}.feed_down", Rows(q[:, 0], scale[:, 0]), x)

    # -- texts ---------------------------------------------------------------------------------------

    def start(
        self, source: Sequence[Sequence[int]] = (), *, texts: int = 1, cache: bool = True, see: Observer | None = None
    ) -> State:
        if see or not cache or self.shape.translates != bool(len(source)):
            return super().start(source, texts=texts, cache=cache, see=see)
        if not self.shape.translates:
            none = np.zeros((texts, 0), np.int32)
            return FusedState(np.zeros(texts, np.int32), none, slots=np.arange(texts, dtype=np.int32))
        ids, lengths = padded(source)
        self._check_length(ids.shape[1], "a source")
        self._check_ids(ids)
        count = len(ids)
        slots, stop = np.arange(count, dtype=np.int32), np.array(np.broadcast_to(lengths[:, None], ids.shape))
        x = self._embedded(ids, 0)
        every, keys = np.arange(ids.size), self._room(*ids.shape)
        for i in range(self.shape.layers):
            name = f"encoder.{i}"
            h = self._normed(f"{name}.self_norm", x)
            self._keys(f"{name}.self_attention", h, keys, every)
            x = self._attended(f"{name}.self_attention", h, x, keys, slots, stop)
            x = self._fed(name, x)
        memory = self._normed("encoder_norm", x)
        sources = [self._room(*ids.shape) for _ in range(self.shape.layers)]
        for i, part in enumerate(sources):
            self._keys(f"decoder.{i}.cross_attention", memory, part, every)
        return FusedState(lengths, np.zeros((count, 0), np.int32), slots=slots, sources=sources)

    def step(self, state: State, ids: Array, *, last: bool = False, see: Observer | None = None) -> Any:
        if not isinstance(state, FusedState):
            return super().step(state, ids, last=last, see=see)
        if see:
            seen = super().step(state.plain(), ids, last=last, see=see)
            self._hidden(state, ids, last)
            return seen
        return self._made(self._hidden(state, ids, last))

    def next(self, state: State, ids: Array) -> Array:
        if not isinstance(state, FusedState):
            return super().next(state, ids)
        return self._best(self._hidden(state, ids, last=True))

    def _best(self, x: Rows) -> Array:
        made, output = np.empty(len(x.q), np.int32), self._output
        linear.best_rows(x.q, output.steps, output.about, self._start, made, 0, len(x.q))
        return made

    def _made(self, x: Rows) -> Scaled:
        z, scale = np.empty((len(x.q), self._output.n), np.int32), np.empty(len(x.q), np.int64)
        linear.plain_rows(*x, *self._output.arguments(), z, scale, 0, len(x.q))
        return Scaled(z, (scale & 0xFFFFFFFF).astype(np.int32), (scale >> 32).astype(np.int16))

    def _check_ids(self, ids: Array) -> None:
        if ids.size and not 0 <= int(ids.min()) <= int(ids.max()) < self.shape.vocabulary:
            raise ValueError(
                f"ids lie from {ids.min()} to {ids.max()}; the vocabulary has {self.shape.vocabulary} tokens"
            )

    def _hidden(self, state: FusedState, ids: Array, last: bool) -> Rows:
        """The tokens behind the last norm; ``state`` moves on."""
        new, before = ids.shape[1], state.length
        self._check_length(before + new, "a text")
        self._check_ids(ids)
        ids = np.ascontiguousarray(ids, np.int32)
        state.ids = np.concatenate([state.ids, ids], axis=1)
        stop = np.array(np.broadcast_to(np.arange(before + 1, before + new + 1, dtype=np.int32), ids.shape))
        seen = np.array(np.broadcast_to(state.seen[:, None], ids.shape))
        x = self._embedded(ids, before)
        for i in range(self.shape.layers):
            name = f"decoder.{i}"
            h = self._normed(f"{name}.self_norm", x)
            self._keep(state, i, h, new)
            x = self._attended(f"{name}.self_attention", h, x, state.own[i], state.slots, stop)
            if state.sources:
                h = self._normed(f"{name}.cross_norm", x)
                x = self._attended(f"{name}.cross_attention", h, x, state.sources[i], state.slots, seen)
            x = self._fed(name, x)
        if last and new > 1:
            x = Rows(*(np.ascontiguousarray(a[new - 1 :: new]) for a in x))
        return self._normed("decoder_norm", x)

    def _keep(self, state: FusedState, number: int, h: Rows, new: int) -> None:
        """The keys and values of the last ``new`` tokens go into the cache."""
        length = state.length
        if number == len(state.own):
            state.own.append(self._room(len(state.slots), max(ROOM, length)))
        old = state.own[number]
        if old[0].shape[1] < length:
            state.own[number] = self._room(len(old[0]), max(2 * old[0].shape[1], length))
            for a, b in zip(state.own[number], old, strict=True):
                a[:, : b.shape[1]] = b
        columns = state.own[number][0].shape[1]
        places = state.slots[:, None].astype(np.int64) * columns + np.arange(length - new, length)
        self._keys(f"decoder.{number}.self_attention", h, state.own[number], places.reshape(-1))

    def _room(self, texts: int, columns: int) -> Keys:
        q, scale = (texts, columns, self.shape.heads, self.shape.head_width), (texts, columns, self.shape.heads)
        return np.empty(q, np.int8), np.empty(scale, np.int64), np.empty(q, np.int8), np.empty(scale, np.int64)


def opened(model: PropagatedModel, backend: str = "cpu") -> IntegerTransformer:
    """The model, by fused kernels where they serve it: the same integers in either case.

    Raises ValueError where ``model`` is not whole or ``backend`` is unknown.
    """
    return FusedTransformer(model) if serves(model, backend) else IntegerTransformer(model, backend)

"""The Integer Transformer on the CPU at speed: the same integers, by kernels that each do several steps.

A linear layer leaves as int8 for the next one, or goes into the residual sum, while its rows are in the
cache; the search for the best token keeps no logits; nothing is checked twice. Models whose options or
sizes the kernels do not serve, traces, and decodings without a cache take the general way.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from intsim.compiling import compiles
from intsim.composites.attention import _cpu_propagated as attention
from intsim.composites.linear import _cpu_propagated as linear
from intsim.models.integer_transformer import IntegerTransformer, Scaled
from intsim.models.layout import Array
from intsim.models.transformer import Observer, State, padded
from intsim.models.transformer_checkpoint import attentions, linear_maps
from intsim.models.transformer_layout import PropagatedModel, used_norms
from intsim.numerics import Rounding, int16, uint8
from intsim.ops.propagate import WHOLE, Probabilities, _cpu_rows as rows
from intsim.ops.propagate._cpu_rows import embed_rows, norm_rows, rescale_rows

Keys = tuple[Array, Array, Array, Array]  # int8 [slots, columns, heads, width], packed scales [slots, heads, columns]; twice
ROOM = 16  # columns that a cache starts with; doubled when full


@dataclass(slots=True)
class FusedState(State):
    """slots: int32, a text's place in the arrays of keys and values, which may hold finished texts too."""

    slots: Array = field(default_factory=lambda: np.zeros(0, np.int32))
    sources: list[Keys] = field(default_factory=list)
    own: list[Keys] = field(default_factory=list)

    def chosen(self, rows: Array) -> State:
        rows = np.arange(len(self.ids))[rows]
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
                scale = packed[self.slots][:, :, :columns].swapaxes(1, 2)
                made += [q[self.slots][:, :columns], (scale & 0xFFFFFFFF).astype(np.int32), (scale >> 32).astype(np.int16)]
            return tuple(made)

        memory = [unpacked(part, part[0].shape[1]) for part in self.sources]
        kept = [unpacked(part, self.length) for part in self.own]
        return State(self.seen, self.ids, memory, kept)


def _at(part: Keys, slots: Array) -> Keys:
    return part[0][slots], part[1][slots], part[2][slots], part[3][slots]


def serves(model: PropagatedModel, backend: str) -> bool:
    """Whether the kernels are written for this model's options and sizes."""
    shape, options = model.shape, model.options
    return bool(
        backend == "cpu"
        and compiles()
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
                self._steps[f"{name}.attention"].kernel_record(h=shape.heads, m=1, t=1, c=1, d=1).polynomial, shape.heads
            )
            for name in attentions(shape)
        }
        p: Any = model.steps["embedding.embed"]
        self._embed = int(p.left_shift), int(p.factor_mantissa), int(p.factor_exponent)
        self._left = int(getattr(model.steps["stream.add"], "left_shift"))
        self._policy = int(self.options.policy)

    def _record(self, step: str, n: int) -> Any:
        return self._steps[step].kernel_record(m=1, n=n)

    # -- steps ---------------------------------------------------------------------------------------

    def _rows_of(self, x: Array, scale: tuple[Array, Array], dtype: Any, relu: bool = False) -> Scaled:
        made = Scaled(np.empty(x.shape, dtype), np.empty(len(x), np.int32), np.empty(len(x), np.int16))
        rescale_rows(x, *scale, *made, int(np.iinfo(dtype).max), self._policy, relu, 0, len(x))
        return made

    def _embedded(self, ids: Array, first: int) -> Scaled:
        places = np.broadcast_to(np.arange(first, first + ids.shape[1], dtype=np.int32), ids.shape)
        tables = [self._t[f"{name}.{part}"] for name in ("embedding", "positions") for part in ("weight", "mantissa", "exponent")]
        count = ids.size
        z, scale = np.empty((count, self.shape.width), np.int32), (np.empty(count, np.int32), np.empty(count, np.int16))
        embed_rows(np.ascontiguousarray(ids).reshape(-1), places.reshape(-1), *tables, z, *scale, *self._embed, 0, count)
        return self._rows_of(z, scale, np.int16)

    def _normed(self, name: str, x: Scaled) -> Scaled:
        count = len(x.q)
        made = Scaled(np.empty(x.q.shape, np.int8), np.empty(count, np.int32), np.empty(count, np.int16))
        before, behind = self._norms[name]
        norm_rows(x.q, *before, *made, *behind, 0, count)
        return made

    def _narrow(self, name: str, x: Scaled, groups: int, relu: int = 0) -> Scaled:
        """A linear layer's rows as int8, a scale for each of ``groups`` in a row."""
        layer, count = self._layers[name], len(x.q)
        q = np.empty((count, groups, layer.n // groups), np.int8)
        made = Scaled(q, np.empty((count, groups), np.int32), np.empty((count, groups), np.int16))
        linear.rescaled_rows(*x, *layer.arguments(), *made, 127, self._policy, relu, 0, count)
        return made

    def _summed(self, name: str, x: Scaled, stream: Scaled) -> Scaled:
        count = len(x.q)
        made = Scaled(np.empty(stream.q.shape, np.int16), np.empty(count, np.int32), np.empty(count, np.int16))
        arguments = self._layers[name].arguments()
        linear.summed_rows(*stream, *x, *arguments, *made, self._left, 32767, self._policy, 0, count)
        return made

    def _keys(self, name: str, x: Scaled, texts: int) -> Keys:
        made: list[Array] = []
        for part in ("key", "value"):
            part_q, mantissa, exponent = self._narrow(f"{name}.{part}", x, self.shape.heads)
            scale = ((exponent.astype(np.int64) << 32) + mantissa).reshape(texts, -1, self.shape.heads).swapaxes(1, 2)
            made += [part_q.reshape(texts, -1, *part_q.shape[1:]), np.ascontiguousarray(scale)]
        return made[0], made[1], made[2], made[3]

    def _attended(self, name: str, h: Scaled, stream: Scaled, keys: Keys, slots: Array, stop: Array) -> Scaled:
        texts, tokens = stop.shape
        q, mantissa, exponent = self._narrow(f"{name}.query", h, self.shape.heads)
        scale = ((exponent.astype(np.int64) << 32) + mantissa).reshape(texts, tokens, -1)
        z = np.empty((texts, tokens, self.shape.width), np.int32)
        of_z = np.empty((texts, tokens), np.int32), np.empty((texts, tokens), np.int16)
        attention.attend_rows(
            q.reshape(texts, tokens, *q.shape[1:]), scale, *keys, slots, stop, *self._attentions[name], z, *of_z, 0, texts
        )
        mixed = self._rows_of(z.reshape(texts * tokens, -1), (of_z[0].reshape(-1), of_z[1].reshape(-1)), np.int8)
        return self._summed(f"{name}.out", mixed, stream)

    def _fed(self, name: str, x: Scaled) -> Scaled:
        q, mantissa, exponent = self._narrow(f"{name}.feed_up", self._normed(f"{name}.feed_norm", x), 1, relu=1)
        hidden = Scaled(q[:, 0], mantissa[:, 0], exponent[:, 0])
        return self._summed(f"{name}.feed_down", hidden, x)

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
        for i in range(self.shape.layers):
            name = f"encoder.{i}"
            h = self._normed(f"{name}.self_norm", x)
            keys = self._keys(f"{name}.self_attention", h, count)
            x = self._attended(f"{name}.self_attention", h, x, keys, slots, stop)
            x = self._fed(name, x)
        memory = self._normed("encoder_norm", x)
        sources = [self._keys(f"decoder.{i}.cross_attention", memory, count) for i in range(self.shape.layers)]
        return FusedState(lengths, np.zeros((count, 0), np.int32), slots=slots, sources=sources)

    def step(self, state: State, ids: Array, *, last: bool = False, see: Observer | None = None) -> Any:
        if not isinstance(state, FusedState):
            return super().step(state, ids, last=last, see=see)
        if see:
            seen = super().step(state.plain(), ids, last=last, see=see)
            self._hidden(state, ids, last)
            return seen
        return self.logits(self._hidden(state, ids, last))

    def next(self, state: State, ids: Array) -> Array:
        if not isinstance(state, FusedState):
            return super().next(state, ids)
        x = self._hidden(state, ids, last=True)
        made, output = np.empty(len(x.q), np.int32), self._output
        linear.best_rows(x.q, output.steps, output.mantissa, output.less, self._start, made, 0, len(x.q))
        return made

    def logits(self, x: Scaled) -> Scaled:
        count = len(x.q)
        made = Scaled(np.empty((count, self._output.n), np.int32), np.empty(count, np.int32), np.empty(count, np.int16))
        linear.plain_rows(*x, *self._output.arguments(), *made, 0, count)
        return made

    def _check_ids(self, ids: Array) -> None:
        if ids.size and not 0 <= int(ids.min()) <= int(ids.max()) < self.shape.vocabulary:
            raise ValueError(f"ids lie from {ids.min()} to {ids.max()}; the vocabulary has {self.shape.vocabulary} tokens")

    def _hidden(self, state: FusedState, ids: Array, last: bool) -> Scaled:
        """The tokens behind the last norm; ``state`` moves on."""
        texts, new = ids.shape
        before = state.length
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
            self._keep(state, i, before, self._keys(f"{name}.self_attention", h, texts))
            x = self._attended(f"{name}.self_attention", h, x, state.own[i], state.slots, stop)
            if state.sources:
                h = self._normed(f"{name}.cross_norm", x)
                x = self._attended(f"{name}.cross_attention", h, x, state.sources[i], state.slots, seen)
            x = self._fed(name, x)
        if last and new > 1:
            x = Scaled(*(np.ascontiguousarray(a[new - 1 :: new]) for a in x))
        return self._normed("decoder_norm", x)

    def _keep(self, state: FusedState, number: int, before: int, made: Keys) -> None:
        texts, new = made[0].shape[:2]
        if number == len(state.own):
            state.own.append(self._room(texts, max(ROOM, new)))
        while state.own[number][0].shape[1] < before + new:
            old = state.own[number]
            larger = self._room(len(old[0]), 2 * old[0].shape[1])
            for a, b in zip(larger, old, strict=True):
                a[tuple(slice(n) for n in b.shape)] = b
            state.own[number] = larger
        k, of_k, v, of_v = state.own[number]
        columns = slice(before, before + new)
        k[state.slots, columns], v[state.slots, columns] = made[0], made[2]
        of_k[state.slots, :, columns], of_v[state.slots, :, columns] = made[1], made[3]

    def _room(self, texts: int, columns: int) -> Keys:
        def one() -> tuple[Array, Array]:
            q = np.zeros((texts, columns, self.shape.heads, self.shape.head_width), np.int8)
            return q, np.full((texts, self.shape.heads, columns), 2**30, np.int64)

        return (*one(), *one())

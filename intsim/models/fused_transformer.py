"""The Integer Transformer on the CPU at speed: the same integers, by kernels that each do many steps.

All layers are one call: a linear layer leaves as int8 for the next one, or goes into the residual sum, while
its rows are in the cache. The search for the best token keeps no logits; nothing is checked twice. Models
whose options or sizes the kernels do not serve, traces, and decodings without a cache take the general way.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from intsim.composites.attention import _cpu_layers as layers, _cpu_propagated as attention
from intsim.composites.linear import _cpu_propagated as linear
from intsim.models.integer_transformer import IntegerTransformer, Scaled
from intsim.models.layout import Array
from intsim.models.transformer import Observer, State, padded
from intsim.models.transformer_checkpoint import linear_maps
from intsim.models.transformer_layout import PropagatedModel, check
from intsim.numerics import Rounding, int16, uint8
from intsim.ops.propagate import WHOLE, Centring, Probabilities, _cpu_rows as rows
from intsim.ops.propagate._cpu_rows import embed_rows, rescale_rows

# int8 [layers, slots, columns, heads, width], packed scales as ``attend_rows`` takes them, a layer before; twice
Keys = tuple[Array, Array, Array, Array]
# the attentions of a layer: its name and the linear maps that the layer has of it
PARTS = ("self", ("key", "value", "query", "out")), ("cross", ("query", "out"))
ROOM = 16  # columns that a cache starts with; doubled when full


class Rows(NamedTuple):
    """A row a token, and its packed scale (``_cpu_scale``)."""

    q: Array
    scale: Array


@dataclass(slots=True)
class FusedState(State):
    """slots: int32, a text's place in the arrays of keys and values, which may hold finished texts too."""

    slots: Array = field(default_factory=lambda: np.zeros(0, np.int32))
    sources: Keys | None = None
    own: Keys | None = None

    def chosen(self, rows: Array) -> State:
        slots, sources, own = self.slots[rows], self.sources, self.own
        if len(np.unique(slots)) < len(slots):  # texts that go on from the same one part ways
            sources, own = _at(sources, slots), _at(own, slots)
            slots = np.arange(len(slots), dtype=np.int32)
        return FusedState(self.seen[rows], self.ids[rows], slots=slots, sources=sources, own=own)

    def plain(self) -> State:
        """The same as the general way keeps it."""

        def unpacked(part: Keys | None, columns: int) -> list[tuple[Array, ...]]:
            if part is None:
                return []
            made: list[list[Array]] = [[] for _ in part[0]]
            for q, packed in (part[:2], part[2:]):
                scale = packed[:, self.slots].swapaxes(2, 3)[:, :, :columns]
                scale = scale.reshape(*scale.shape[:3], -1)[..., : q.shape[3]]
                mantissa, exponent = (scale & 0xFFFFFFFF).astype(np.int32), (scale >> 32).astype(np.int16)
                for layer, *arrays in zip(made, q[:, self.slots, :columns], mantissa, exponent, strict=True):
                    layer += arrays
            return [tuple(layer) for layer in made]

        sources = 0 if self.sources is None else self.sources[0].shape[2]
        return State(self.seen, self.ids, unpacked(self.sources, sources), unpacked(self.own, self.length))


def _at(part: Keys | None, slots: Array) -> Keys | None:
    return part and (part[0].take(slots, 1), part[1].take(slots, 1), part[2].take(slots, 1), part[3].take(slots, 1))


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
        self._maps = {
            name: linear.layer(self._t[f"{name}.weight"], self._record(f"{name}.bias", n))
            for name, (n, _) in linear_maps(shape).items()
        }
        self._output = linear.layer(self._t["embedding.weight"], self._record("logits.bias", shape.vocabulary))
        self._decoder = self._side("decoder", PARTS if shape.translates else PARTS[:1])
        if shape.translates:
            self._encoder = self._side("encoder", PARTS[:1])
        self._none = self._keys(0, 0, 0)
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
        self._policy = int(self.options.policy)
        exact = int(self.options.centring == Centring.EXACT)
        self._behind = shape.feed, int(p.left_shift), shape.degree, self._policy, exact

    def _record(self, step: str, n: int) -> Any:
        return self._steps[step].kernel_record(m=1, n=n)

    def _side(self, side: str, parts: Sequence[tuple[str, tuple[str, ...]]]) -> tuple[Array, ...]:
        """The weights of encoder or decoder as ``layer_rows`` takes them."""
        maps, norms, heads = [], [], []
        for i in range(self.shape.layers):
            name = f"{side}.{i}"
            for part, wanted in parts:
                place = f"{name}.{part}_attention"
                maps += [f"{place}.{each}" for each in wanted]
                norms.append(f"{name}.{part}_norm")
                p = self._steps[f"{place}.attention"].kernel_record(h=self.shape.heads, m=1, t=1, c=1, d=1)
                heads.append(attention.head_arguments(p.polynomial, self.shape.heads))
            maps += [f"{name}.feed_up", f"{name}.feed_down"]
            norms.append(f"{name}.feed_norm")
        norms.append(f"{side}_norm")
        gains = [rows.norm_arguments(self._record(f"{name}.l1_norm", self.shape.width))[0] for name in norms]
        return (
            np.array([self._maps[name].numbers for name in maps]),
            np.array([gain[:2] for gain in gains]),
            np.array([gain[2:] for gain in gains]),
            np.array(heads),
        )

    # -- steps ---------------------------------------------------------------------------------------

    def _embedded(self, ids: Array, first: int) -> Rows:
        places = np.broadcast_to(np.arange(first, first + ids.shape[1], dtype=np.int32), ids.shape)
        z, scale = np.empty((ids.size, self.shape.width), np.int32), np.empty(ids.size, np.int64)
        embed_rows(ids.reshape(-1), places.reshape(-1), *self._tables, z, scale, *self._embed, 0, ids.size)
        made = Rows(np.empty(z.shape, np.int16), np.empty(ids.size, np.int64))
        rescale_rows(z, scale, *made, self._policy, 0, 0, ids.size)
        return made

    def _through(self, side: tuple[Array, ...], x: Rows, own: Keys, slots: Array, stop: Array, first: int,
                 sources: Keys, seen: Array) -> Rows:  # fmt: skip
        """x: the tokens of each text from its column ``first`` on."""
        made = Rows(np.empty(x.q.shape, np.int8), np.empty(len(x.q), np.int64))
        places = _places(own, slots, first, first + stop.shape[1])
        layers.layer_rows(*x, *side, *own, slots, stop, *places, *sources, seen, *self._behind, *made)
        return made

    def _keys(self, number: int, texts: int, columns: int) -> Keys:
        shape = self.shape
        scale = number, texts, attention.groups_of(shape.heads), attention.whole_registers(columns), linear.HEADS
        q = number, texts, columns, shape.heads, shape.head_width
        return np.empty(q, np.int8), np.empty(scale, np.int64), np.empty(q, np.int8), np.empty(scale, np.int64)

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
        keys, sources = self._keys(1, *ids.shape), self._keys(self.shape.layers, *ids.shape)
        memory = self._through(self._encoder, self._embedded(ids, 0), keys, slots, stop, 0, self._none, stop)
        places, spots = _places(sources, slots, 0, ids.shape[1])
        h, d = self.shape.heads, self.shape.head_width
        for i in range(self.shape.layers):
            for part, q, scale in (("key", *sources[:2]), ("value", *sources[2:])):
                of_layer, apart = (
                    self._maps[f"decoder.{i}.cross_attention.{part}"].numbers,
                    int(np.prod(scale.shape[3:])),
                )
                into = q[i].reshape(-1, h, d), scale[i].reshape(-1)
                linear.rescaled_rows(*memory, of_layer, *into, places, spots, apart, self._policy, 0, 0, len(places))
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
        linear.best_rows(x.q, output.numbers, output.least, made, 0, len(x.q))
        return made

    def _made(self, x: Rows) -> Scaled:
        z, scale = np.empty((len(x.q), self._output.n), np.int32), np.empty(len(x.q), np.int64)
        linear.plain_rows(*x, self._output.numbers, z, scale, 0, len(x.q))
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
        own = self._grown(state)
        sources = self._none if state.sources is None else state.sources
        x = self._through(self._decoder, self._embedded(ids, before), own, state.slots, stop, before, sources, seen)
        if last and new > 1:
            x = Rows(*(np.ascontiguousarray(a[new - 1 :: new]) for a in x))
        return x

    def _grown(self, state: FusedState) -> Keys:
        """The cache of keys and values, with room for all tokens."""
        old = state.own
        if old is None:
            state.own = self._keys(self.shape.layers, len(state.slots), max(ROOM, state.length))
        elif old[0].shape[2] < state.length:
            number, texts, columns = old[0].shape[:3]
            state.own = self._keys(number, texts, max(2 * columns, state.length))
            for part in (0, 2):
                state.own[part][:, :, :columns] = old[part]
                state.own[part + 1][:, :, :, : old[1].shape[3]] = old[part + 1]
        assert state.own is not None
        return state.own


def _places(keys: Keys, slots: Array, first: int, last: int) -> tuple[Array, Array]:
    """Where keys and values of the columns [first, last) of each slot go, and the scales of their first head."""
    which, own = slots[:, None].astype(np.int64), np.arange(first, last)
    slot = int(np.prod(keys[1].shape[2:]))
    return (which * keys[0].shape[2] + own).reshape(-1), (which * slot + own * linear.HEADS).reshape(-1)


def opened(model: PropagatedModel, backend: str = "cpu") -> IntegerTransformer:
    """The model, by fused kernels where they serve it: the same integers in either case.

    Raises ValueError where ``model`` is not whole or ``backend`` is unknown.
    """
    return FusedTransformer(model) if serves(model, backend) else IntegerTransformer(model, backend)

"""The fused kernels: the same integers as the reference, on every path."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from intsim.models.architecture import Task
from intsim.models.fused_transformer import FusedState, FusedTransformer, Rows, opened, serves
from intsim.models.generation import beam, greedy, stream
from intsim.models.integer_transformer import IntegerTransformer, Scaled
from intsim.models.trace import run as observe
from intsim.models.transformer_checkpoint import TransformerCheckpoint
from intsim.models.transformer_convert import convert
from intsim.models.transformer_layout import Options, PropagatedModel
from intsim.models.vocabulary import BEGIN, END
from intsim.numerics import Rounding, int8
from intsim.ops.propagate import Centring, Policy, Probabilities

SOURCES = [[5, 6, 7, 8, 9, 10], [11, 5], [12], [30, 31, 32, 33]]
IDS = np.array([[BEGIN, 9, 8, 30, 5]] * 4, np.int32)
VARIANTS = {
    "defaults": Options(),
    "always": Options(policy=Policy.ALWAYS),
    "shifts, rounded mean": Options(policy=Policy.POWERS_OF_TWO, centring=Centring.ROUNDED_MEAN),
}
KINDS: dict[str, dict[str, Any]] = {"translation": {}, "language model": {"task": Task.LANGUAGE_MODEL, "degree": 2}}


def converted(transformer: Any, options: Options | None = None, **changes: Any) -> PropagatedModel:
    shape, tensors = transformer(**({"width": 64, "feed": 48, "layers": 2, "positions": 40} | changes))
    return convert(TransformerCheckpoint("tiny", shape, tensors, "{}", "0"), options)


def logits(model: IntegerTransformer, cut: int = 0, ids: Any = IDS, **given: Any) -> Scaled:
    """In one step, or in two."""
    sources = [[*s, END] for s in SOURCES[: len(ids)]] if model.shape.translates else []
    state = model.start(sources, texts=len(ids), **given)
    made = [model.step(state, part).reshaped(len(ids), -1) for part in (ids[:, :cut], ids[:, cut:]) if part.shape[1]]
    return Scaled(*(np.concatenate(parts, axis=1) for parts in zip(*made, strict=True)))


def same(a: Scaled, b: Scaled) -> None:
    for x, y in zip(a, b, strict=True):
        assert x.dtype == y.dtype
        np.testing.assert_array_equal(x, y)


def test_a_small_model_equals_the_reference(transformer: Any) -> None:
    """Compiled and uncompiled."""
    model = converted(transformer, layers=1)
    wanted = logits(IntegerTransformer(model, "reference"), ids=IDS[:2, :3])
    same(logits(FusedTransformer(model), ids=IDS[:2, :3]), wanted)
    same(logits(FusedTransformer(model), 2, ids=IDS[:2, :3]), wanted)


@pytest.mark.compiled
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("variant", VARIANTS)
def test_logits_equal_the_reference_in_every_batch_with_and_without_cache(
    transformer: Any, kind: str, variant: str
) -> None:
    model = converted(transformer, VARIANTS[variant], **KINDS[kind])
    fused = opened(model)
    assert isinstance(fused, FusedTransformer)
    wanted = logits(IntegerTransformer(model, "reference"))
    assert len(np.unique(wanted.q)) > 100
    for cut in (0, 1, 3):
        same(logits(fused, cut), wanted)
    same(logits(fused, 2, cache=False), wanted)
    for i, source in enumerate(SOURCES):
        state = fused.start([[*source, END]] if fused.shape.translates else [])
        same(fused.step(state, IDS[i : i + 1]), Scaled(*(part[i] for part in wanted)))
    state = fused.start([[*s, END] for s in SOURCES] if fused.shape.translates else [], texts=4)
    assert fused.next(state, IDS).tolist() == wanted.q[:, -1].argmax(axis=-1).tolist()


@pytest.mark.compiled
def test_longer_texts_than_the_cache_begins_with(transformer: Any) -> None:
    model = converted(transformer)
    ids = np.random.default_rng(3).integers(4, 40, (4, 37)).astype(np.int32)
    wanted = logits(IntegerTransformer(model, "reference"), ids=ids)
    fused = FusedTransformer(model)
    same(logits(fused, ids=ids), wanted)
    for cut in (1, 15, 16, 20):
        same(logits(fused, cut, ids=ids), wanted)


@pytest.mark.compiled
def test_texts_go_on_apart_after_they_were_one(transformer: Any) -> None:
    model = converted(transformer)
    made = []
    for each in (FusedTransformer(model), IntegerTransformer(model, "reference")):
        state = each.start([[*s, END] for s in SOURCES])
        each.step(state, IDS[:, :3])
        state = state.chosen(np.array([3, 1, 3, 0, 1]))
        each.step(state, np.array([[7], [8], [9], [10], [11]], np.int32))
        state = state.chosen(np.array([4, 2]))
        made.append(each.step(state, np.array([[20], [21]], np.int32)))
    same(*made)


@pytest.mark.compiled
def test_generation_is_that_of_the_reference(transformer: Any) -> None:
    model = converted(transformer, seed=4)
    model.tensors["positions.exponent"] = model.tensors["positions.exponent"] - 4  # texts end at different places
    fused, reference = FusedTransformer(model), IntegerTransformer(model, "reference")
    wanted = greedy(reference, SOURCES)
    assert len({tuple(w) for w in wanted}) > 1
    assert greedy(fused, SOURCES) == wanted
    assert greedy(fused, SOURCES, batch=1) == wanted
    assert greedy(fused, SOURCES, cache=False) == wanted
    assert [list(stream(fused, s)) for s in SOURCES] == wanted
    assert [beam(fused, s, width=3) for s in SOURCES] == [beam(reference, s, width=3) for s in SOURCES]


def rows(x: Any) -> Rows:
    """All on one scale."""
    return Rows(x.astype(np.int8), np.full(len(x), (-20 << 32) + 2**30, np.int64))


@pytest.mark.compiled
def test_the_best_of_logits_that_are_all_negative(transformer: Any) -> None:
    """Columns that fill the last panel up are no tokens: their products are 0."""
    model = converted(transformer)
    model.tensors["embedding.weight"] = -np.abs(model.tensors["embedding.weight"])
    fused = FusedTransformer(model)
    negative = 0
    for shift in range(30):
        x = rows(np.random.default_rng(shift).integers(1, 128, (3, 64)))
        z = fused._made(x).q
        negative += int((z < 0).all())
        assert fused._best(x).tolist() == z.argmax(axis=-1).tolist()
    assert negative == 30


@pytest.mark.compiled
def test_the_lowest_of_equal_tokens_wins(transformer: Any) -> None:
    shape, tensors = transformer(width=64, feed=48)
    tensors["embedding.weight"][20:] = tensors["embedding.weight"][:20]
    fused = FusedTransformer(convert(TransformerCheckpoint("tiny", shape, tensors, "{}", "0")))
    x = rows(np.random.default_rng(1).integers(-127, 128, (100, 64)))
    wanted = fused._made(x).q.argmax(axis=-1)
    assert 10 < wanted.max() < 20
    assert fused._best(x).tolist() == wanted.tolist()


@pytest.mark.compiled
def test_a_trace_sees_what_the_general_way_shows(transformer: Any) -> None:
    model = converted(transformer)
    fused, general = (
        observe(FusedTransformer(model), SOURCES[0], [9, 8]),
        observe(IntegerTransformer(model, "reference"), SOURCES[0], [9, 8]),
    )
    assert list(fused) == list(general)
    for place, value in fused.items():
        same(value, general[place])
    model_ = FusedTransformer(model)
    state = model_.start([[*SOURCES[0], END]])
    assert isinstance(state, FusedState)
    model_.step(state, IDS[:1, :2])
    seen: list[str] = []
    traced = model_.step(state, IDS[:1, 2:], see=lambda place, _: seen.append(place))
    assert "decoder.1.feed_sum" in seen
    assert state.length == IDS.shape[1]
    same(traced, Scaled(*(part[0, 2:] for part in logits(IntegerTransformer(model, "reference"), ids=IDS[:1]))))


@pytest.mark.parametrize(
    "options",
    [
        Options(rounding=Rounding.TIES_TO_EVEN),
        Options(residual=int8),
        Options(probability=int8),
        Options(probabilities=Probabilities.EXPLICIT),
    ],
    ids=str,
)
def test_other_options_take_the_general_way(transformer: Any, options: Options) -> None:
    model = converted(transformer, options)
    assert not serves(model, "cpu")
    assert type(opened(model)) is IntegerTransformer


def test_other_sizes_and_backends_take_the_general_way(transformer: Any) -> None:
    assert not serves(converted(transformer, width=32), "cpu")
    assert not serves(converted(transformer, feed=40), "cpu")
    assert not serves(converted(transformer, norm_first=False), "cpu")
    assert not serves(converted(transformer), "reference")
    with pytest.raises(ValueError, match="backend is one of"):
        opened(converted(transformer), "abacus")


def test_texts_that_cannot_be_taken_are_refused(transformer: Any) -> None:
    model = FusedTransformer(converted(transformer, layers=1, positions=12))
    with pytest.raises(ValueError, match="a source has 13 tokens, the model has 12 positions"):
        model.start([[5] * 13])
    with pytest.raises(ValueError, match="text 1 has no tokens"):
        model.start([[]])
    with pytest.raises(ValueError, match="this model takes source texts"):
        model.start([])
    with pytest.raises(ValueError, match="ids lie from 5 to 40; the vocabulary has 40 tokens"):
        model.start([[5, 40]])
    state = model.start([[5, END]])
    with pytest.raises(ValueError, match="a text has 13 tokens"):
        model.step(state, np.full((1, 13), 5, np.int32))
    with pytest.raises(ValueError, match="ids lie from -1 to -1"):
        model.step(state, np.full((1, 1), -1, np.int32))

"""The Integer Transformer: the same bits on every backend, in every batch, with and without cache."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from intsim.models.architecture import Positions, Task
from intsim.models.float_transformer import FloatTransformer
from intsim.models.generation import beam, greedy, log_softmax, stream
from intsim.models.integer_transformer import IntegerTransformer, Scaled
from intsim.models.trace import run as observe, trace
from intsim.models.transformer_checkpoint import TransformerCheckpoint
from intsim.models.transformer_convert import convert, quantized
from intsim.models.transformer_layout import Granularity, Options, PropagatedModel
from intsim.models.transformer_parts import scales_of
from intsim.models.vocabulary import BEGIN, END
from intsim.numerics import Rounding, int8, int16
from intsim.ops.propagate import Centring, Policy, Probabilities

SOURCES = [[5, 6, 7, 8, 9, 10], [11, 5], [12], [30, 31, 32, 33]]
IDS = np.array([[BEGIN, 9, 8, 30, 5]] * 4, np.int32)
KINDS: dict[str, dict[str, Any]] = {
    "translation": {},
    "language model": {"task": Task.LANGUAGE_MODEL},
    "post-norm, sinusoids, degree 2": {"norm_first": False, "position_kind": Positions.SINUSOIDAL, "degree": 2},
}
VARIANTS = {
    "defaults": Options(),
    "int8 residual, int16 weights of the mix": Options(residual=int8, probability=int16),
    "a scale a tensor, explicit int8 probabilities": Options(
        weights=Granularity.TENSOR, probabilities=Probabilities.EXPLICIT, probability=int8
    ),
    "shifts, floor, rounded mean": Options(
        policy=Policy.POWERS_OF_TWO, rounding=Rounding.TOWARD_NEGATIVE, centring=Centring.ROUNDED_MEAN
    ),
    "always, half to even": Options(policy=Policy.ALWAYS, rounding=Rounding.TIES_TO_EVEN),
}


def converted(
    transformer: Any, options: Options | None = None, **changes: Any
) -> tuple[FloatTransformer, PropagatedModel]:
    shape, tensors = transformer(**changes)
    checkpoint = TransformerCheckpoint("tiny", shape, tensors, "{}", "0")
    return checkpoint.model(), convert(checkpoint, options)


def logits(model: IntegerTransformer, ids: Any = IDS, cut: int = 0, **given: Any) -> Scaled:
    """In one step, or in two."""
    sources = [[*s, END] for s in SOURCES[: len(ids)]] if model.shape.translates else []
    state = model.start(sources, texts=len(ids), **given)
    pieces = [model.step(state, part) for part in (ids[:, :cut], ids[:, cut:]) if part.shape[1]]
    made = [p.reshaped(len(ids), -1) for p in pieces]
    return Scaled(*(np.concatenate(parts, axis=1) for parts in zip(*made, strict=True)))


def same(a: Scaled, b: Scaled) -> None:
    for x, y in zip(a, b, strict=True):
        assert x.dtype == y.dtype
        np.testing.assert_array_equal(x, y)


@pytest.mark.compiled
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("variant", VARIANTS)
def test_backends_agree_to_the_bit(transformer: Any, kind: str, variant: str) -> None:
    _, model = converted(transformer, VARIANTS[variant], **KINDS[kind])
    wanted = logits(IntegerTransformer(model, "reference"))
    assert wanted.q.dtype == np.int32
    assert len(np.unique(wanted.q)) > 100
    same(logits(IntegerTransformer(model, "cpu")), wanted)


@pytest.mark.parametrize("kind", KINDS)
def test_a_tiny_model_on_every_backend_in_every_batch_with_and_without_cache(
    transformer: Any, backends: list[str], kind: str
) -> None:
    """The uncompiled job runs the programs as Python and on the CUDA simulator, the compiled one as kernels."""
    made = converted(transformer, width=4, layers=1, feed=4, vocabulary=32, **KINDS[kind])[1]
    texts = [[5, 6, 7, END], [12, END]]  # the second is padded
    ids = np.array([[BEGIN, 9, 8], [BEGIN, 30, 5]], np.int32)
    first = IntegerTransformer(made, "reference")
    wanted = first.step(first.start(texts if first.shape.translates else [], texts=2), ids).reshaped(2, -1)
    assert len(np.unique(wanted.q)) > 30
    for backend in backends:
        model = IntegerTransformer(made, backend)
        together = texts if model.shape.translates else []
        same(model.step(model.start(together, texts=2), ids).reshaped(2, -1), wanted)
        for cache in (True, False):
            state = model.start(together, texts=2, cache=cache)
            parts = [model.step(state, part, last=True) for part in (ids[:, :2], ids[:, 2:])]
            for number, part in zip((1, 2), parts, strict=True):
                same(part, Scaled(*(a[:, number] for a in wanted)))
        for i in range(2):
            alone = model.step(model.start(together[i : i + 1]), ids[i : i + 1])
            same(alone, Scaled(*(a[i] for a in wanted)))


@pytest.mark.compiled
@pytest.mark.parametrize("kind", KINDS)
def test_unbounded_integers_agree_too(transformer: Any, kind: str) -> None:
    _, model = converted(transformer, **KINDS[kind])
    same(logits(IntegerTransformer(model, "exact")), logits(IntegerTransformer(model, "cpu")))


@pytest.mark.compiled
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("backend", ["reference", "cpu"])
def test_cache_batch_and_padding_change_nothing(transformer: Any, kind: str, variant: str, backend: str) -> None:
    model = IntegerTransformer(converted(transformer, VARIANTS[variant], **KINDS[kind])[1], backend)
    ids = IDS if model.shape.translates else np.random.default_rng(2).integers(3, 40, IDS.shape).astype(np.int32)
    wanted = logits(model, ids)
    for cut in (1, 3):
        same(logits(model, ids, cut), wanted)
        same(logits(model, ids, cut, cache=False), wanted)
    for i, source in enumerate(SOURCES):  # alone: not padded, no batch mates
        state = model.start([[*source, END]] if model.shape.translates else [])
        alone = model.step(state, ids[i : i + 1])
        same(alone, Scaled(*(part[i] for part in wanted)))
    if model.shape.translates:  # the longest possible neighbour: all others are padded to the end
        longest = [7] * (model.shape.positions - 1)
        state = model.start([[*s, END] for s in [*SOURCES, longest]])
        padded = model.step(state, np.vstack([ids, ids[:1]])).reshaped(5, -1)
        same(Scaled(*(part[:4] for part in padded)), wanted)


@pytest.mark.compiled
def test_generation_is_the_same_on_every_path(transformer: Any) -> None:
    _, made = converted(transformer, seed=4)
    made.tensors["positions.exponent"] = made.tensors["positions.exponent"] - 4  # texts end at different places
    model = IntegerTransformer(made)
    wanted = greedy(model, SOURCES)
    assert len({tuple(w) for w in wanted}) > 1
    assert greedy(model, SOURCES, batch=1) == wanted
    assert greedy(model, SOURCES, cache=False) == wanted
    assert greedy(IntegerTransformer(made, "reference"), SOURCES) == wanted
    assert [list(stream(model, s)) for s in SOURCES] == wanted
    found = [beam(model, s, width=3) for s in SOURCES]
    assert found == [beam(model, s, width=3, cache=False) for s in SOURCES]
    assert found == [beam(IntegerTransformer(made, "reference"), s, width=3) for s in SOURCES]


@pytest.mark.compiled
@pytest.mark.parametrize("kind", KINDS)
def test_integers_stand_for_the_float_model(transformer: Any, kind: str) -> None:
    real, model = converted(transformer, width=32, **KINDS[kind])
    integer = IntegerTransformer(model)
    text = [9, 8, 30, 5]
    floats, places = (
        observe(real, SOURCES[0] if real.shape.translates else [], text),
        trace(integer, real, SOURCES[0] if real.shape.translates else [], text),
    )
    assert [p.name for p in places] == list(floats)
    assert {p.name.rpartition(".")[2] for p in places} >= {"embedding", "self_norm", "self_sum", "feed", "feed_sum"}
    for place in places:
        assert place.error is not None
        assert place.error < 0.06, place
    logs = [log_softmax(m.real(observe(m, SOURCES[0] if real.shape.translates else [], text)["logits"]))
            for m in (real, integer)]  # fmt: skip
    assert np.abs(logs[0] - logs[1]).max() < 0.15


@pytest.mark.compiled
def test_a_trace_changes_nothing_and_holds_integers(transformer: Any) -> None:
    model = IntegerTransformer(converted(transformer)[1])
    seen: list[Any] = []
    state = model.start([[*SOURCES[0], END]], see=lambda place, value: seen.append(value))
    traced = model.step(state, IDS[:1], see=lambda place, value: seen.append(value))
    assert {a.dtype.kind for value in seen for a in value} == {"i"}
    same(traced, model.step(model.start([[*SOURCES[0], END]]), IDS[:1]))


def test_the_best_token_is_the_lowest_of_equals(transformer: Any) -> None:
    model = IntegerTransformer(converted(transformer)[1])
    tied = Scaled(
        np.array([[3, 9, 9, 1], [-5, -7, -5, -5]], np.int32), np.full(2, 2**30, np.int32), np.zeros(2, np.int16)
    )
    assert model.best(tied).tolist() == [1, 0]


def test_weights_are_rounded_to_nearest_on_the_scale_of_their_row() -> None:
    weight = np.array([[1.0, -0.5, 0.25], [1e-3, 3e-3, -4e-3], [0.0, 0.0, 0.0]], np.float32)
    q, codes = quantized(weight, Granularity.ROW)
    assert q.tolist() == [[127, -64, 32], [32, 95, -127], [0, 0, 0]]  # 31.75 and 95.25
    mantissa, exponent = scales_of(codes)
    assert (mantissa * 2.0**exponent)[:2].tolist() == [127, 31744]  # of 31750 the first 12 bits
    one = quantized(weight, Granularity.TENSOR)
    assert one[0].tolist() == [[127, -64, 32], [0, 0, -1], [0, 0, 0]]
    assert one[1].shape == (1,)


def test_architectures_without_an_integer_form_are_refused(transformer: Any) -> None:
    from intsim.models.architecture import AttentionKind, NormKind

    for change in ({"attention": AttentionKind.SOFTMAX}, {"norm": NormKind.STANDARD}):
        with pytest.raises(ValueError, match="need polynomial attention and the l1 norm: train it with them"):
            converted(transformer, **change)


def test_texts_that_cannot_be_taken_are_refused(transformer: Any) -> None:
    model = IntegerTransformer(converted(transformer)[1])
    with pytest.raises(ValueError, match="a source has 13 tokens, the model has 12 positions"):
        model.start([[5] * 13])
    with pytest.raises(ValueError, match="text 1 has no tokens"):
        model.start([[]])
    state = model.start([[5, END]])
    with pytest.raises(ValueError, match="a text has 13 tokens"):
        model.step(state, np.full((1, 13), 5, np.int32))
    with pytest.raises(ValueError, match="ids"):
        model.step(state, np.full((1, 1), 40, np.int32))
    with pytest.raises(ValueError, match="backend is one of"):
        IntegerTransformer(converted(transformer)[1], "abacus")

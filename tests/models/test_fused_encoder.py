"""The fused kernels of the integer encoder: the same integers as the reference, on every path."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest

from intsim.backends import cpu
from intsim.compiling import kernel
from intsim.composites.linear import _cpu_row_column_vectors as vectors
from intsim.execute import run
from intsim.models import calibrate, convert
from intsim.models.encoder import IntegerEncoder
from intsim.models.fused_encoder import FusedEncoder, opened, serves
from intsim.models.layout import IntegerModel, Shape
from intsim.numerics import Rounding, int16
from intsim.ops.matmul import _cpu_tile as tiles
from intsim.ops.requantize import _cpu_wide as wide
from intsim.ops.softmax import _cpu_ibert_vectors as softmax
from intsim.registry import get
from tests.bench.bert import random_checkpoint

SHAPE = Shape(layers=2, heads=2, hidden=64, inner=128, vocabulary=50, positions=140, types=2, tokens=140)
SMALL = dataclasses.replace(SHAPE, layers=1, inner=64)
DRAW = np.random.default_rng(7)
EVEN = Rounding.TIES_TO_EVEN


def converted(shape: Shape = SHAPE, weights: str = "normal") -> IntegerModel:
    checkpoint = random_checkpoint(shape)
    for name, a in checkpoint.tensors.items():
        if name.endswith(".weight"):
            a *= 5
        if name.endswith(".weight") and weights == "uniform":  # too many large neighbours: they go by pairs
            a[...] = DRAW.uniform(-0.5, 0.5, a.shape)
        if name.endswith(".weight") and weights == "tame":  # one large element a row: none has a large neighbour
            a *= 0.2
            a[:, 0] = 5
    ids = DRAW.integers(0, shape.vocabulary, (2, 20)).astype(np.int32)
    return convert.convert(checkpoint, calibrate.ranges(checkpoint, ids))


def batch(shape: Shape, *lengths: int) -> tuple[Any, Any]:
    ids = DRAW.integers(0, shape.vocabulary, (len(lengths), max(lengths))).astype(np.int32)
    return ids, np.array(lengths, np.int32)


def test_a_small_model_equals_the_reference() -> None:
    """Compiled and uncompiled."""
    model = converted(SMALL)
    given = batch(SMALL, 3, 1)
    wanted = IntegerEncoder(model, "reference").run(*given)
    fused = opened(model)
    assert isinstance(fused, FusedEncoder)
    got = fused.run(*given)
    assert got.dtype == np.int32
    np.testing.assert_array_equal(got, wanted)


@pytest.mark.compiled
@pytest.mark.parametrize("weights", ["normal", "uniform", "tame"])
def test_every_length_and_batch_equals_the_reference(weights: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = converted(weights=weights)
    fused, reference = FusedEncoder(model), IntegerEncoder(model, "reference")
    for lengths in ((1,), (2,), (24, 25, 7), (64,), (65, 1, 63), (128, 140), tuple(range(1, 30))):
        given = batch(SHAPE, *lengths)
        wanted = reference.run(*given)
        assert len(np.unique(wanted)) > 30
        for threads in (1, 3):
            monkeypatch.setattr(cpu, "THREADS", threads)
            np.testing.assert_array_equal(fused.run(*given), wanted)
    sentences = [DRAW.integers(0, 50, n).astype(np.int32) for n in (5, 12, 1, 90)]
    np.testing.assert_array_equal(fused.embed(sentences, batch=3), reference.embed(sentences))


@pytest.mark.compiled
def test_heads_of_many_widths() -> None:
    for heads, hidden, inner in ((3, 192, 64), (1, 64, 192), (2, 256, 128)):
        shape = dataclasses.replace(SMALL, heads=heads, hidden=hidden, inner=inner)
        model, given = converted(shape), batch(shape, 33, 18)
        fused = opened(model)
        assert isinstance(fused, FusedEncoder)
        np.testing.assert_array_equal(fused.run(*given), IntegerEncoder(model, "reference").run(*given))


@pytest.mark.compiled
@pytest.mark.parametrize("value", [-128, 127])
def test_the_largest_products_of_probabilities_and_values(value: int) -> None:
    """Two equal tokens at places without a number: probabilities of 128 twice."""
    model = converted(SMALL)
    model.tensors["position.table"][:] = 0
    model.tensors["layer.0.value.bias"][:] = 2**20 * np.sign(value)
    ids, lengths, seen = np.full((1, 2), 7, np.int32), np.array([2], np.int32), {}
    wanted = IntegerEncoder(model, "reference").run(ids, lengths, lambda place, a, scale: seen.update({place: a}))
    assert (seen["layer.0.probabilities"] == 128).all()
    assert (seen["layer.0.value"] == value).all()
    np.testing.assert_array_equal(opened(model).run(ids, lengths), wanted)


@pytest.mark.parametrize(
    ("name", "bias"), [("query", 40_000), ("value", -200), ("up", 2**20), ("up", -(2**20)), ("down", -(2**24))]
)
def test_results_that_saturate(name: str, bias: int) -> None:
    model, given = converted(SMALL), batch(SMALL, 3)
    plain = IntegerEncoder(model, "reference").run(*given)
    model.tensors[f"layer.0.{name}.bias"][::3] = bias
    wanted = IntegerEncoder(model, "reference").run(*given)
    assert (wanted != plain).any()
    np.testing.assert_array_equal(opened(model).run(*given), wanted)


def test_embeddings_on_ties_and_beyond_int16() -> None:
    model = converted(SMALL)
    word: Any = model.steps["word.embedding"]
    model.steps["word.embedding"] = dataclasses.replace(word, shift=4)
    model.tensors["word.multiplier"][::2] = 8
    model.tensors["word.multiplier"][1::4] = 2**20
    given = batch(SMALL, 4, 3)
    np.testing.assert_array_equal(opened(model).run(*given), IntegerEncoder(model, "reference").run(*given))


def test_traces_and_odd_lengths_take_the_general_way() -> None:
    model = converted(SMALL)
    fused, (ids, lengths), seen = FusedEncoder(model), batch(SMALL, 4, 2), []
    wanted = IntegerEncoder(model, "reference").run(ids, lengths)
    np.testing.assert_array_equal(fused.run(ids, lengths, lambda place, a, scale: seen.append(place)), wanted)
    assert "layer.0.context" in seen
    with pytest.raises(ValueError, match="stop"):
        fused.run(ids, np.array([5, 2], np.int32))
    with pytest.raises(ValueError, match="has 141 tokens, the model takes at most 140"):
        fused.run(np.zeros((1, 141), np.int32), lengths[:1])
    with pytest.raises(ValueError, match="needs 0 to 49"):
        fused.run(ids + 50, lengths)


@pytest.mark.parametrize("place", ["embedding", "layer.0.attention_norm"])
def test_what_cannot_be_quantized_is_refused_as_by_the_general_way(place: str) -> None:
    model = converted(SMALL)
    step: Any = model.steps[f"{place}.requantize"]
    model.steps[f"{place}.requantize"] = dataclasses.replace(step, zero_point=np.full(64, -(2**16)))
    given = batch(SMALL, 2)
    for encoder in (IntegerEncoder(model, "reference"), FusedEncoder(model)):
        with pytest.raises(ValueError, match="-32767"):
            encoder.run(*given)


@pytest.mark.parametrize(
    ("step", "changes"),
    [
        ("layer.0.input.quantize", {"rounding": Rounding.TIES_TO_AWAY}),
        ("layer.0.scores.requantize", {"shift": 5}),
        ("layer.0.up.requantize", {"rounding": Rounding.TIES_TO_AWAY}),
        ("layer.0.value.requantize", {"dtype": int16}),
        ("layer.0.probabilities.softmax", {"rounding": Rounding.TOWARD_NEGATIVE}),
        ("layer.0.probabilities.softmax", {"c": 2**31}),
        ("layer.0.gelu.activation", {"c": -(2**40)}),
        ("layer.0.gelu.requantize", {"shift": np.array([20])}),
        ("layer.0.context.requantize", {"zero_point": np.array([2**30])}),
        ("layer.0.output.layernorm", {"k": 2}),
        ("layer.0.output_sum.add", {"zero_point": 1}),
        ("layer.0.context.matmul", {"a_zero_point": 1}),
        ("word.embedding", {"rounding": Rounding.TIES_TO_AWAY}),
        ("word.embedding", {"shift": 0}),
        ("embedding_sum.add", {"a_zero_point": 1}),
        ("embedding.layernorm", {"k": 1}),
        ("pooled.mean", {"zero_point": 1}),
    ],
    ids=str,
)
def test_other_parameters_take_the_general_way(step: str, changes: dict[str, Any]) -> None:
    model = converted(SMALL)
    assert serves(model)
    changed: Any = model.steps[step]
    model.steps[step] = dataclasses.replace(changed, **changes)
    assert not serves(model)
    assert type(opened(model)) is IntegerEncoder


def test_other_sizes_and_backends_take_the_general_way(model: Any) -> None:
    assert type(opened(model)) is IntegerEncoder  # 8 wide
    assert type(opened(converted(SMALL), "reference")) is IntegerEncoder
    with pytest.raises(ValueError, match="backend is one of"):
        opened(model, "abacus")


# -- the steps ---------------------------------------------------------------------------------------


def _by_columns(acc: Any, about: Any, out: Any) -> None:
    vectors.by_columns(acc.ctypes.data, acc.shape[0], about.ctypes.data, out.ctypes.data, 2 * out.shape[1])


def test_a_factor_a_column() -> None:
    """Ties, extremes of accumulator, multiplier and zero point, every shift from 32 on."""
    n = tiles.columns(tiles.rung(_machine()))
    columns = kernel(_by_columns, "test.by_columns")
    for _ in range(4):
        shift = DRAW.integers(32, 63, n)
        multiplier = DRAW.choice([2**30, -(2**30), 2**31 - 1, -(2**31) + 1, 3, 0], n)
        acc = DRAW.integers(-(2**31), 2**31, (60, n))
        step = np.maximum(1 << np.clip(shift - 31, 0, 30), 1)  # with 2**30: a multiple of half a result
        acc[:40] = np.clip(DRAW.integers(-40, 40, (40, n)) * step + DRAW.integers(-1, 2, (40, n)), -(2**31), 2**31 - 1)
        acc[-1], acc[-2] = -(2**31), 2**31 - 1
        acc = acc.astype(np.int32)
        p = get("requantize.single_rounding").params(multiplier, shift, DRAW.integers(-300, 300, n), dtype=int16)
        q = np.empty(acc.shape, np.int16)
        columns(acc, wide.about(tiles.rung(_machine()).lanes, p.multiplier, p.shift, p.zero_point), q)
        np.testing.assert_array_equal(q, run("requantize.single_rounding", acc, p=p, backend="reference"))


def _machine() -> Any:
    from intsim.compiling import this_machine

    return this_machine()


def _rows(q: Any, stop: Any, about: Any, exp: Any, out: Any) -> None:
    for i in range(q.shape[0]):
        softmax.softmax(q[i], np.int64(stop[i]), about, exp, out[i])


def _equal_softmax(p: Any, q: Any, stop: Any) -> Any:
    assert softmax.serves(p, {"n": q.shape[1]})
    size = -(-q.shape[1] // 16) * 16
    padded, made = np.full((len(q), size), 999, np.int16), np.full((len(q), size), 77, np.uint8)
    padded[:, : q.shape[1]] = q
    kernel(_rows, "test.softmax")(padded, stop, softmax.numbers(p), np.empty(size, np.int32), made)
    wanted = run("softmax.ibert", q, stop, p=p, backend="reference")
    lanes = tiles.rung(_machine()).lanes
    filled = np.arange(q.shape[1]) < -(-stop[:, None] // lanes) * lanes  # whole registers
    np.testing.assert_array_equal(made[:, : q.shape[1]][filled], wanted[filled])
    return wanted


@pytest.mark.parametrize("scale", [0.003, 0.0011, 0.05])
def test_softmax(scale: float) -> None:
    q = np.clip(np.rint(DRAW.normal(0, 2 / scale, (40, 203))), -(2**15), 2**15 - 1).astype(np.int16)
    q[0], q[1], q[2] = 0, -(2**15), 2**15 - 1
    q[3, 1:] = q[4, 2:] = -(2**15)  # one probability of 1, two of a half
    p = get("softmax.ibert").params.from_scale(scale, rounding=EVEN)
    assert _equal_softmax(p, q, DRAW.integers(1, 204, 40).astype(np.int32)).max() == 255


@pytest.mark.parametrize(("b", "below"), [(16386, 1646), (16390, 8165)])
def test_softmax_beside_ties(b: int, below: int) -> None:
    """A share so near to a tie that float32 takes it for one, or for the other side of it."""
    p = get("softmax.ibert").params(2**14, b, 1, rounding=EVEN)
    q = np.zeros((100, 2), np.int16)
    q[:, 1] = -np.arange(below - 50, below + 50)
    _equal_softmax(p, q, np.full(100, 2, np.int32))


def test_softmax_ties() -> None:
    """Exponentials 2c, c, c, ...: quotients of 256 by any total, of which some are ties."""
    p = get("softmax.ibert").params(1, 0, 512, rounding=EVEN)
    q = -DRAW.integers(0, 4, (300, 40)).astype(np.int16)
    q[:, 0] = 0
    q[150:, 9:] = -2000
    _equal_softmax(p, q, DRAW.integers(1, 41, 300).astype(np.int32))


def test_softmax_of_the_largest_numbers() -> None:
    p = get("softmax.ibert").params(2**15, 2**15, 2**30 - 1, rounding=EVEN)
    q = DRAW.integers(-(2**15), 2**15, (30, 2**13)).astype(np.int16)
    q[0] = 0
    q[1, 1:] = -DRAW.integers(0, 3, 2**13 - 1)
    q[2:, 5:] = -(2**15)
    _equal_softmax(p, q, DRAW.integers(2**13 - 9, 2**13 + 1, 30).astype(np.int32))
    assert not softmax.serves(p, {"n": 2**13 + 1})
    assert not softmax.serves(get("softmax.ibert").params(2**15, 2**15, 2**30, rounding=EVEN), {"n": 9})


def test_whole_parts_of_the_exponent() -> None:
    """Scores at multiples of ln2 and beside them."""
    one, every = np.float32(1), np.arange(1, 2**14)
    short = [n for n in every if (np.float32(n) * np.arange(1, 9, dtype=np.float32) * (one / np.float32(n)) % 1).any()]
    for ln2 in (1, 2, 3, 604, 1279, 2563, 2**14, *short[:: len(short) // 20 + 1]):
        p = get("softmax.ibert").params(ln2, 2 * ln2, 2**26, rounding=EVEN)
        steps = np.arange(600)[None] // 3 * ln2 + np.arange(600) % 3 - 1
        q = np.clip(2**15 - 1 - np.maximum(steps, 0), -(2**15), None).astype(np.int16)
        _equal_softmax(p, q, np.array([600], np.int32))

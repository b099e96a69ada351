"""Conversion: what the integers are, on whatever weights a checkpoint holds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from intsim.models import calibrate, convert
from intsim.models.checkpoint import read
from intsim.models.encoder import IntegerEncoder
from intsim.models.float_encoder import FloatEncoder, normalised


def test_weights_are_within_half_a_step(model: Any, checkpoint: Any) -> None:
    for i in range(model.shape.layers):
        for name in ("query", "down"):
            weight = model.tensors[f"layer.{i}.{name}.weight"]
            real = checkpoint.tensors[f"layer.{i}.{name}.weight"]
            scale = np.abs(real).max(axis=1, keepdims=True) / 127
            assert weight.dtype == np.int8
            assert np.abs(weight).max(axis=1).tolist() == [127] * len(weight)
            assert np.abs(weight * scale - real).max() <= 0.501 * scale.max()


def test_multipliers_stand_for_the_scales(model: Any, checkpoint: Any) -> None:
    """column / 2**shift turns int8 weight times int8 token into steps of the result."""
    real = np.abs(checkpoint.tensors["layer.0.up.weight"]).max(axis=1) / 127
    factor = real * model.scales["layer.0.attention_norm"] / 127 / model.scales["layer.0.up"]
    column = model.tensors["layer.0.up.column"] / 2.0 ** model.steps["layer.0.up.requantize"].shift
    np.testing.assert_allclose(column, factor, rtol=1e-3)
    assert 2**14 <= model.tensors["layer.0.up.column"].max() < 2**15


def test_the_bias_that_values_lose_comes_back(checkpoint: Any, texts: Any) -> None:
    """Without the correction the float model of the rounded biases would be another one."""
    ranges = calibrate.measure(checkpoint, texts)
    model = convert.convert(checkpoint, ranges)
    t = checkpoint.tensors
    grid = ranges.values["layer.0.value"] * convert.VALUE_HEADROOM / 127
    kept = model.tensors["layer.0.value.bias"] * grid
    wanted = t["layer.0.attention.bias"] + t["layer.0.attention.weight"] @ (t["layer.0.value.bias"] - kept)
    stored = model.tensors["layer.0.attention.bias"] * model.scales["embedding"]
    np.testing.assert_allclose(stored, wanted, atol=model.scales["embedding"])
    assert np.abs(wanted - t["layer.0.attention.bias"]).max() > 3 * model.scales["embedding"]


@pytest.mark.parametrize(
    "name", ["value.weight", "up.weight", "output.gamma", "query.weight query.bias key.weight key.bias", "down.weight"]
)
def test_dead_channels_and_dead_maps(checkpoint: Any, sentences: list[Any], texts: Any, name: str) -> None:
    for rows in (slice(2, 3), slice(None)):
        tensors = {k: v.copy() for k, v in checkpoint.tensors.items()}
        for layer in ("layer.0", "layer.1"):
            for part in name.split():
                tensors[f"{layer}.{part}"][rows] = 0
            if rows == slice(None) and name == "output.gamma":
                tensors[f"{layer}.{name}"][0] = 1
        made = type(checkpoint)(
            "dead", checkpoint.shape, checkpoint.eps, tensors, checkpoint.tokenizer, checkpoint.weight_bytes, "0"
        )
        model = convert.convert(made, calibrate.measure(made, texts))
        integer = normalised(IntegerEncoder(model).embed(sentences))
        assert (integer * normalised(FloatEncoder(made).embed(sentences))).sum(axis=1).min() > 0.98


def test_grids_that_do_not_fit_are_refused(checkpoint: Any, texts: Any) -> None:
    ranges = calibrate.measure(checkpoint, texts)
    tensors = {k: v.copy() for k, v in checkpoint.tensors.items()}
    tensors["layer.0.up.bias"][:] = 1e9
    made = type(checkpoint)("huge", checkpoint.shape, 0.0, tensors, checkpoint.tokenizer, 1, "0")
    with pytest.raises(ValueError, match=r"layer\.0\.up: the bias 1000000000\.0 leaves int32"):
        convert.convert(made, ranges)
    with pytest.raises(ValueError, match="a shift to the left"):
        convert.common_shift(np.array([1e9]), 15)


def test_common_shift_fills_the_bits() -> None:
    integers, shift = convert.common_shift(np.array([0.75, 0.001, 0.0]), 15)
    assert (integers.tolist(), shift) == ([24576, 33, 0], 15)
    assert convert.common_shift(np.zeros(2), 15)[1] == 0
    assert convert.common_shift(np.array([1e-30]), 15)[1] == 62


def test_calibration_needs_text(checkpoint: Any) -> None:
    with pytest.raises(ValueError, match="at least one sentence"):
        calibrate.measure(checkpoint, [])


def test_ranges_are_the_largest_magnitudes(checkpoint: Any, texts: Any, sentences: list[Any]) -> None:
    ranges = calibrate.measure(checkpoint, texts)
    seen: dict[str, list[Any]] = {}
    for s in sentences:
        FloatEncoder(checkpoint).run(s[None], lambda name, a: seen.setdefault(name, []).append(np.abs(a)))
    for name, top in ranges.largest.items():
        largest = max(float(a.max()) for a in seen[name])
        assert largest <= top * (1 + 1e-6) <= largest * 1.04, name
    values = np.vstack(seen["layer.1.value"]).max(axis=0)
    assert (values <= ranges.values["layer.1.value"] * (1 + 1e-6)).all()
    assert (ranges.values["layer.1.value"] <= values * 1.04).all()
    assert ranges.sentences == len(texts)


def test_text_beyond_the_calibration_saturates_and_does_not_fail(checkpoint: Any, sentences: list[Any]) -> None:
    ranges = calibrate.measure(checkpoint, ["a"])
    narrow = calibrate.Ranges(
        {name: top / 500 for name, top in ranges.largest.items()},
        {name: top / 500 for name, top in ranges.values.items()},
        1,
    )
    model = convert.convert(checkpoint, narrow)
    pooled = IntegerEncoder(model).embed(sentences)
    np.testing.assert_array_equal(pooled, IntegerEncoder(model, "reference").embed(sentences))
    ids = np.random.default_rng(5).integers(0, model.shape.vocabulary, (50, model.shape.tokens)).astype(np.int32)
    assert IntegerEncoder(model).run(ids, np.full(50, ids.shape[1], np.int32)).shape == (50, model.shape.hidden)


def test_one_layer_and_the_full_length(write: Any, tmp_path: Path) -> None:
    made = read(str(write(tmp_path / "c", num_hidden_layers=1, num_attention_heads=1)))
    model = convert.convert(made, calibrate.measure(made, ["a cat"]))
    ids = np.full((1, made.shape.tokens), 5, np.int32)
    integer = IntegerEncoder(model).run(ids, np.array([made.shape.tokens], np.int32))
    assert (normalised(integer) * normalised(FloatEncoder(made).run(ids))).sum() > 0.98

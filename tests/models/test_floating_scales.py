"""Scale Propagation with floating scales: the integers of the integer model, and readings that differ as they say."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from models.test_integer_transformer import IDS, KINDS, SOURCES, converted

from intsim.models.floating_scales import FloatingScales, Reading, Scaled
from intsim.models.integer_transformer import IntegerTransformer, Scaled as Integers
from intsim.models.transformer_layout import Options
from intsim.models.vocabulary import END
from intsim.numerics import int8


def run(model: Any) -> dict[str, Any]:
    """What is seen at every place."""
    seen: dict[str, Any] = {}
    sources = [[*s, END] for s in SOURCES] if model.shape.translates else []
    state = model.start(sources, texts=len(IDS), see=seen.__setitem__)
    for part in (IDS[:, :2], IDS[:, 2:]):
        seen["logits"] = model.step(
            state, part, see=lambda place, value: seen.__setitem__(f"{state.length} {place}", value)
        )
    return seen


class Recorded(IntegerTransformer):
    """Keeps every layer's call: (its name, what it was given, what it gave)."""

    def __init__(self, model: Any) -> None:
        super().__init__(model, "reference")
        self.calls: list[tuple[str, tuple[Any, ...], Any]] = []

    def __getattribute__(self, name: str) -> Any:
        found = super().__getattribute__(name)
        if name not in ("embed", "norm", "keys", "attend", "feed", "add", "narrow", "logits"):
            return found

        def call(*given: Any) -> Any:
            made = found(*given)
            self.calls.append((name, given, made))
            return made

        return call


def floating(value: Any) -> Any:
    """Integers with integer scales as whole numbers with float ones."""
    if isinstance(value, Integers):
        return Scaled(value.q.astype(np.float64), scale(value.mantissa, value.exponent))
    if isinstance(value, tuple):  # keys and values by head
        k, *s_k, v, a, b = value
        return k.astype(np.float64), scale(*s_k), v.astype(np.float64), scale(a, b)
    return value


def scale(mantissa: Any, exponent: Any) -> Any:
    return np.ldexp(mantissa.astype(np.float64), exponent.astype(np.int64))


@pytest.mark.parametrize("kind", KINDS)
def test_every_layer_gives_the_integers_of_the_integer_model(transformer: Any, kind: str) -> None:
    # Ratios differ by 2**-29 and what they are applied to is below 2**23: what is rounded differs by 2**-6, so
    # about one element in 64 may come out one apart, and may change a whole row behind a linear layer.
    _, model = converted(transformer, **KINDS[kind])
    integers, twin = Recorded(model), FloatingScales(model)
    run(integers)
    assert {name for name, _, _ in integers.calls} >= {"embed", "norm", "keys", "attend", "feed", "add", "logits"}
    for name, given, result in integers.calls:
        wanted, made = floating(result), getattr(twin, name)(*map(floating, given))
        for whole, s, q, made_s in zip(wanted[::2], wanted[1::2], made[::2], made[1::2], strict=True):
            apart = np.abs(whole - q)
            if name in ("attend", "feed"):
                assert apart.any(axis=-1).mean() <= 1 / 8, name
            else:
                assert apart.max() <= 1, name
                assert (apart > 0).mean() <= 1 / 64, name
            np.testing.assert_allclose(made_s, s, rtol=2.0**-20)  # a scale is a product of some ratios


def test_a_row_depends_on_its_own_tokens_alone_but_under_one_scale_a_tensor(transformer: Any) -> None:
    _, model = converted(transformer)
    for reading in Reading:
        twin = FloatingScales(model, reading)
        alone = twin.step(twin.start([SOURCES[1]]), IDS[:1]).q
        batch = twin.step(twin.start([SOURCES[1], SOURCES[0]]), IDS[:2]).q[: IDS.shape[1]]
        assert np.array_equal(alone, batch) == (reading is not Reading.TENSOR)


def test_the_literal_reading_gives_int8_between_all_operations(transformer: Any) -> None:
    _, model = converted(transformer)
    ours, literal = (run(FloatingScales(model, reading)) for reading in (Reading.OURS, Reading.LITERAL))
    sums = [place for place in ours if place.endswith(("sum", "embedding"))]
    assert sums
    assert all(np.abs(literal[place].q).max() <= int8.qmax for place in sums)
    assert any(np.abs(ours[place].q).max() > int8.qmax for place in sums)


@pytest.mark.parametrize("reading", Reading)
def test_every_reading_is_near_the_float_model(transformer: Any, reading: Reading) -> None:
    real, model = converted(transformer)
    twin = FloatingScales(model, reading)
    sources = [[*s, END] for s in SOURCES]
    wanted = real.real(real.step(real.start(sources), IDS))
    error = np.abs(twin.real(twin.step(twin.start(sources), IDS)) - wanted).max() / np.abs(wanted).max()
    assert error < 0.25
    assert error > 0


def test_a_sum_lies_on_the_smaller_scale() -> None:
    x = Scaled(np.array([[8.0, -8.0, 3.0]]), np.array([4.0]))
    y = Scaled(np.array([[1.0, 1.0, 1.0]]), np.array([1.0]))
    made = FloatingScales._sum(x, y)
    assert made.s.tolist() == [1.0]
    assert made.q.tolist() == [[3.0, -1.0, 2.0]]


def test_other_options_are_refused(transformer: Any) -> None:
    _, model = converted(transformer, Options(residual=int8))
    with pytest.raises(ValueError, match="with the default options"):
        FloatingScales(model)

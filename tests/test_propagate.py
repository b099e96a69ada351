"""Scale Propagation: what each op keeps of the real values, and a small layer of them against float64."""

from __future__ import annotations

import dataclasses
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import intsim.composites.attention.propagated as attention
import intsim.composites.linear.propagated as linear
from intsim.execute import run
from intsim.numerics import Rounding, int8, int16, int16_narrow, uint8
from intsim.ops.propagate import (
    ROUNDINGS,
    Activation,
    Centring,
    Policy,
    Probabilities,
    add,
    bias,
    constants,
    embed,
    join,
    l1_norm,
    polynomial,
    rescale,
)
from intsim.registry import get
from intsim.spec import scale as scales

Q8, WIDE = 127, 2**15 - 1


def real(q: Any, mantissa: Any, exponent: Any) -> Any:
    """What integers stand for, in float64; one scale a row."""
    s = np.ldexp(np.asarray(mantissa, np.float64), np.asarray(exponent, np.int64))
    return q / s.reshape(s.shape + (1,) * (np.ndim(q) - s.ndim))


def scale(*shape: int, of: float = 20.0) -> Any:
    mantissa, exponent = scales.of_real(np.full(shape, of))
    return mantissa.astype(np.int32), exponent.astype(np.int16)


def draw(generator: Any, top: int, *shape: int, dtype: Any = np.int32) -> Any:
    return generator.integers(-top, top + 1, shape).astype(dtype)


# -- laws, exactly ---------------------------------------------------------------------------------


def exact(mantissa: Any, exponent: Any) -> Fraction:
    return Fraction(int(mantissa)) * Fraction(2) ** int(exponent)


NEAREST = (Rounding.TIES_TO_AWAY, Rounding.TIES_TO_EVEN, Rounding.TIES_TO_POSITIVE, Rounding.TIES_TO_NEGATIVE)
ROWS = st.lists(st.integers(-(2**31) + 1, 2**31 - 1) | st.integers(-300, 300), min_size=1, max_size=5)
SCALES = st.tuples(st.integers(2**30, 2**31 - 1), st.integers(-60, 60))


@given(ROWS, SCALES, st.sampled_from([int8, int16, uint8]), st.sampled_from(Policy), st.sampled_from(ROUNDINGS))
def test_rescaling_stays_in_the_type_and_within_half_a_step(
    x: Any, s: Any, dtype: Any, policy: Any, rounding: Any
) -> None:
    activation = Activation.RELU if dtype is uint8 else Activation.NONE
    p = rescale.Params(dtype, policy, rounding, activation)
    of = np.array([s[0]], np.int32), np.array([s[1]], np.int16)
    q, *made = run("propagate.rescale", np.array([x], np.int32), *of, p=p)
    assert np.abs(q.astype(np.int64)).max() <= dtype.qmax
    step = 1 / exact(made[0][0], made[1][0])
    part = Fraction(1, 2) if rounding in NEAREST else 1
    for got, value in zip(q[0], x, strict=True):
        wanted = (max(value, 0) if dtype is uint8 else value) / exact(*s)
        assert abs(int(got) * step - wanted) <= step * (part + Fraction(dtype.qmax, 2**29))
    fits = max(abs(v) for v in x) <= dtype.qmax
    if policy == Policy.ALWAYS and rounding in NEAREST and (max(x) > 0 if dtype is uint8 else any(x)):
        assert np.abs(q.astype(np.int64)).max() == dtype.qmax
    if fits and policy != Policy.ALWAYS:
        assert (made[0][0], made[1][0]) == s


@given(st.lists(st.integers(-WIDE, WIDE), min_size=2, max_size=5), SCALES, SCALES, st.sampled_from(ROUNDINGS))
def test_a_residual_sum_does_not_ask_which_side_is_which(x: Any, a: Any, b: Any, rounding: Any) -> None:
    left, right = np.array([x], np.int16), np.array([x[::-1]], np.int16)
    of_a, of_b = ((np.array([m], np.int32), np.array([e], np.int16)) for m, e in (a, b))
    p = add.Params(int16_narrow, 0, rounding)
    one = run("propagate.add", left, *of_a, right.astype(np.int32), *of_b, p=p)
    other = run("propagate.add", right, *of_b, left.astype(np.int32), *of_a, p=p)
    assert all((v == w).all() for v, w in zip(one, other, strict=True))
    assert exact(one[1][0], one[2][0]) == min(exact(*a), exact(*b))


@given(ROWS, SCALES, SCALES)
def test_the_side_with_the_smaller_scale_is_untouched(x: Any, a: Any, b: Any) -> None:
    z = np.array([[x, [0] * len(x)]], np.int32)
    of = np.array([[a[0], b[0]]], np.int32), np.array([[a[1], b[1]]], np.int16)
    made, mantissa, exponent = run("propagate.join", z, *of, p=join.Params())
    assert exact(mantissa[0], exponent[0]) == min(exact(*a), exact(*b))
    assert (np.abs(made.astype(np.int64)) <= np.abs(z.astype(np.int64))).all(), "a match lets nothing grow"
    if exact(*a) <= exact(*b):
        assert (made == z).all()


def test_negating_the_input_negates_the_result_where_ties_go_away() -> None:
    x = draw(np.random.default_rng(3), 2**28, 40, 9)
    q, *s = run("propagate.rescale", x, *scale(40), p=rescale.Params())
    negated, *t = run("propagate.rescale", -x, *scale(40), p=rescale.Params())
    assert (negated == -q).all()
    assert all((a == b).all() for a, b in zip(s, t, strict=True))


# -- each op beside the real one -------------------------------------------------------------------


def test_bias_within_a_step_and_a_half() -> None:
    generator = np.random.default_rng(4)
    acc, of_x = draw(generator, 2**20, 30, 8), scale(30, of=7.3)
    of_w, b = generator.uniform(40, 90, 8), generator.normal(size=8)
    p = bias.Params.from_scales(scales.of_real(of_w), b)
    z, *s = run("propagate.bias", acc, *of_x, p=p)
    wanted = acc / (7.3 * of_w) + b
    # the channel's ratio, then one rounding a side; scales are within 2**-30
    assert (np.abs(real(z, *s) - wanted) <= real(1.5 + 2.0**-7, *s)[:, None]).all()


@pytest.mark.parametrize("dtype", [int8, int16])
def test_l1_norm_within_half_a_step_and_the_grid_of_the_centred_row(dtype: Any) -> None:
    generator = np.random.default_rng(5)
    x, weight, b = draw(generator, WIDE, 30, 16, dtype=np.int16), generator.normal(size=16), generator.normal(size=16)
    p = l1_norm.Params.from_real(weight, b, dtype=dtype)
    q, *s = run("propagate.l1_norm", x, p=p)
    gain = p.weight / np.ldexp(float(p.weight_mantissa), p.weight_exponent)
    c = x - x.mean(axis=1, keepdims=True)
    unit = c / np.abs(c).mean(axis=1, keepdims=True)
    grid = np.abs(unit).max(axis=1) * np.abs(gain).max() / WIDE
    allowed = real(0.5 + 2.0**-12, *s) + grid * (0.5 + 1 / Q8) + 2.0**-20
    assert (np.abs(real(q, *s) - (unit * gain + b)) <= allowed[:, None]).all()
    q, *s = run("propagate.l1_norm", x, p=dataclasses.replace(p, centring=Centring.ROUNDED_MEAN))
    mean = np.abs(gain).max() * (0.5 + 0.5 * np.abs(unit).max(axis=1)) / np.abs(c).mean(axis=1)  # half a step of x
    assert (np.abs(real(q, *s) - (unit * gain + b)) <= (allowed + mean)[:, None]).all()


def weights_of(t: Any, s_t: Any, b: float, delta: float, degree: int) -> Any:
    w = np.maximum(t / s_t + b, 0) ** degree + abs(delta)
    return w / w.sum(axis=1, keepdims=True)


@pytest.mark.parametrize("degree", [1, 2, 3, 4])
@pytest.mark.parametrize("dtype", [uint8, int8, int16])
@pytest.mark.parametrize("policy", Policy)
def test_polynomial_weights_within_their_bound(degree: int, dtype: Any, policy: Any) -> None:
    if degree == 4 and policy == Policy.ALWAYS:
        with pytest.raises(ValueError, match="degree <= 3 or policy != ALWAYS"):
            get("propagate.polynomial").check(polynomial.Params(4, policy=policy))
        return
    generator = np.random.default_rng(6)
    t, of_key, of_value = draw(generator, 9000, 20, 12), generator.uniform(20, 60, 12), generator.uniform(20, 60, 12)
    p = polynomial.Params.from_real(0.7, 0.05, degree, 16, dtype=dtype, policy=policy)
    key, value = ([part[None] for part in scales.of_real(v)] for v in (of_key, of_value))
    columns = [
        part.astype(kind) for pair in (key, value) for part, kind in zip(pair, (np.int32, np.int16), strict=True)
    ]
    w, *s = run("propagate.polynomial", t, *scale(20, of=30.0), *columns, p=p)
    wanted = weights_of(t, 30.0 * of_key * 4, 0.7, 0.05, degree)
    got = real(w, *s) * of_value  # what the values are multiplied by
    # r is within a step and a half of 127 (a power of two: of 64), in the numerator and in the sum; w within one
    levels, last = (63, dtype.qmax // 2) if policy == Policy.POWERS_OF_TWO else (Q8, dtype.qmax)
    assert np.abs(got - wanted).max() <= degree * 3 / levels + 3 / last
    explicit = dataclasses.replace(p, probabilities=Probabilities.EXPLICIT)
    w, *s = run("propagate.polynomial", t, *scale(20, of=30.0), *columns, p=explicit)
    assert np.abs(real(w, *s) * of_value - wanted).max() <= degree * 3 / levels + 3 / dtype.qmax


def test_embedding_is_a_sum_of_two_rows() -> None:
    generator = np.random.default_rng(7)
    table, places = draw(generator, Q8, 9, 6, dtype=np.int8), draw(generator, Q8, 5, 6, dtype=np.int8)
    of_table, of_places = scales.of_real(generator.uniform(50, 90, 9)), scales.of_real(generator.uniform(50, 90, 5))
    parts = [
        part.astype(kind)
        for pair in (of_table, of_places)
        for part, kind in zip(pair, (np.int32, np.int16), strict=True)
    ]
    ids, at = generator.integers(0, 9, 20).astype(np.int32), generator.integers(0, 5, 20).astype(np.int32)
    z, *s = run("propagate.embed", ids, at, table, *parts[:2], places, *parts[2:], p=embed.Params.from_real(6**0.5))
    wanted = real(table, *of_table)[ids] * 6**0.5 + real(places, *of_places)[at]
    assert np.abs(real(z, *s) - wanted).max() <= 2.0**-16  # 16 bits more than the tables have


# -- a layer ---------------------------------------------------------------------------------------

HEADS, D, BATCH, LENGTH = 2, 8, 3, 6
WIDTH = HEADS * D


class Layer:
    """x + out(attention(norm(x))), normed again: integers, and float64 on the same weights."""

    def __init__(self, **options: Any) -> None:
        generator = np.random.default_rng(8)
        self.options = options
        self.parts = {}
        for name in ("query", "key", "value", "out"):
            weight, b = generator.normal(0, WIDTH**-0.5, (WIDTH, WIDTH)), generator.normal(0, 0.1, WIDTH)
            of = scales.of_real(Q8 / np.abs(weight).max(axis=1))
            q = np.rint(weight * np.ldexp(of[0].astype(float), of[1])[:, None]).astype(np.int8)
            self.parts[name] = (q, real(q, *of), b, linear.Params.from_scales(of, b))
        self.gain, self.shift = generator.uniform(0.5, 1.5, WIDTH), generator.normal(0, 0.1, WIDTH)
        self.norm = l1_norm.Params.from_real(self.gain, self.shift)
        self.b, self.delta = np.array([1.0, 0.4]), np.array([0.05, 0.2])
        self.attention = attention.Params.from_real(self.b, self.delta, 3, D, **options)

    def _linear(self, name: str, x: Any, s: Any) -> Any:
        q, _, _, p = self.parts[name]
        return run("linear.propagated", x, *s, q, p=p)

    def _heads(self, name: str, x: Any, s: Any) -> Any:
        z, *s = self._linear(name, x, s)
        shape = (*z.shape[:-1], HEADS)
        s = [np.broadcast_to(part[..., None], shape) for part in s]
        return run("propagate.rescale", z.reshape(*shape, D), *s, p=rescale.Params())

    def integers(self, x: Any, s: Any, stop: Any) -> Any:
        h, *of = run("propagate.l1_norm", x, p=self.norm)
        parts = [part for name in ("query", "key", "value") for part in self._heads(name, h, of)]
        z, *of = run("attention.propagated", *parts, stop, p=self.attention)
        z, *of = run("propagate.rescale", z.reshape(x.shape), *of, p=rescale.Params())
        z, *of = self._linear("out", z, of)
        z, *of = run("propagate.add", x, *s, z, *of, p=add.Params())
        x, *of = run("propagate.rescale", z, *of, p=rescale.Params(int16))
        return run("propagate.l1_norm", x, p=self.norm)

    def _real_norm(self, x: Any) -> Any:
        c = x - x.mean(axis=-1, keepdims=True)
        gain = real(self.norm.weight[None], [self.norm.weight_mantissa], [self.norm.weight_exponent])[0]
        return c / np.abs(c).mean(axis=-1, keepdims=True) * gain + self.shift

    def reals(self, x: Any, stop: Any) -> Any:
        h = self._real_norm(x)
        heads = {}
        for name in ("query", "key", "value"):
            _, weight, b, _ = self.parts[name]
            heads[name] = (h @ weight.T + b).reshape(*x.shape[:-1], HEADS, D).swapaxes(-2, -3)
        t = heads["query"] @ heads["key"].swapaxes(-1, -2) / D**0.5
        w = np.maximum(t + self.b[:, None, None], 0) ** 3 + self.delta[:, None, None]
        w = w * (np.arange(x.shape[-2]) < stop[..., None])[..., None, :, :]
        mixed = (w / w.sum(axis=-1, keepdims=True)) @ heads["value"]
        _, weight, b, _ = self.parts["out"]
        return self._real_norm(x + mixed.swapaxes(-2, -3).reshape(x.shape) @ weight.T + b)


def inputs() -> Any:
    x = draw(np.random.default_rng(9), WIDE, BATCH, LENGTH, WIDTH, dtype=np.int16)
    return (
        x,
        scale(BATCH, LENGTH, of=16384.0),
        np.broadcast_to(np.arange(1, LENGTH + 1, dtype=np.int32), (BATCH, LENGTH)),
    )


def error(layer: Layer) -> float:
    """The rms of the difference over the rms of the result."""
    x, s, stop = inputs()
    wanted = layer.reals(real(x, *s), stop)
    got = real(*layer.integers(x, s, stop))
    return float(np.sqrt(np.mean((got - wanted) ** 2) / np.mean(wanted**2)))


@pytest.mark.parametrize("dtype", [uint8, int8, int16])
def test_a_layer_is_within_one_percent_of_float64(dtype: Any) -> None:
    assert error(Layer(dtype=dtype)) <= 0.01


def test_a_batch_a_cache_and_padding_give_the_same_integers() -> None:
    layer = Layer()
    generator = np.random.default_rng(10)
    parts = []
    for _ in range(3):
        parts += [draw(generator, Q8, BATCH, LENGTH, HEADS, D, dtype=np.int8)]
        of = scales.of_real(generator.uniform(20, 60, (BATCH, LENGTH, HEADS)))
        parts += [of[0].astype(np.int32), of[1].astype(np.int16)]
    stop = np.broadcast_to(np.arange(1, LENGTH + 1, dtype=np.int32), (BATCH, LENGTH)).copy()
    wanted = run("attention.propagated", *parts, stop, p=layer.attention)
    garbage = [np.concatenate([a, a[:, ::-1] if a.ndim == 4 else a], axis=1) for a in parts[3:]]  # room to spare
    assert_same(run("attention.propagated", *parts[:3], *garbage, stop, p=layer.attention), wanted)
    for at in range(BATCH):
        alone = run("attention.propagated", *(a[at] for a in parts), stop[at], p=layer.attention)
        assert_same(alone, [a[at] for a in wanted])
    for time in range(LENGTH):  # one query at a time, over the keys so far
        query, so_far = [a[:, time : time + 1] for a in parts[:3]], [a[:, : time + 1] for a in parts[3:]]
        assert_same(
            run("attention.propagated", *query, *so_far, p=layer.attention), [a[:, time : time + 1] for a in wanted]
        )
    shared = run("attention.propagated", *(a[:1] if i > 2 else a for i, a in enumerate(parts)), stop, p=layer.attention)
    assert_same([a[:1] for a in shared], [a[:1] for a in wanted])  # keys of one memory for all


def assert_same(got: Any, wanted: Any) -> None:
    assert all(a.shape == b.shape and (a == b).all() for a, b in zip(got, wanted, strict=True))


def test_explicit_probabilities_lose_what_the_scale_keeps() -> None:
    t, keys = np.zeros((1, 300), np.int32), [part[:, None].repeat(300, axis=1) for part in scale(1)]
    p = polynomial.Params.from_real(1.0, 0.0, 3, 4, dtype=int8)
    w, *s = run("propagate.polynomial", t, *scale(1), *keys, *keys, p=p)
    assert np.abs(real(w, *s) * 20.0 - 1 / 300).max() <= 2.0**-20
    w, *_ = run(
        "propagate.polynomial",
        t,
        *scale(1),
        *keys,
        *keys,
        p=dataclasses.replace(p, probabilities=Probabilities.EXPLICIT),
    )
    assert not w.any(), "127 / 300 is below half a step"


# -- what is refused -------------------------------------------------------------------------------


def test_what_cannot_be_a_scale_or_a_constant_is_named() -> None:
    for wrong in (0.0, -1.0, np.inf, np.nan):
        with pytest.raises(ValueError, match="a scale is positive and finite; got"):
            scales.of_real([1.0, wrong])
    with pytest.raises(ValueError, match="a constant is finite"):
        constants([1.0, np.inf])
    with pytest.raises(ValueError, match="a gain is finite"):
        l1_norm.Params.from_real([np.nan], [0.0])
    with pytest.raises(ValueError, match="a scale is positive and finite"):
        embed.Params.from_real(0.0)
    q, mantissa, exponent = constants([0.0, 0.0])
    assert not q.any()
    assert exact(mantissa, exponent) > 2**2047


def test_sizes_beyond_the_proof_are_refused() -> None:
    q, k = (np.zeros((n, 1, 1), np.int8) for n in (1, 513))
    of_q, of_k = scale(1, 1), scale(513, 1)
    p = attention.Params.from_real(1.0, 0.1, 3, 1, dtype=int16)
    with pytest.raises(ValueError, match="needs t <= 512 for int16 weights, got t = 513"):
        run("attention.propagated", q, *of_q, k, *of_k, k, *of_k, p=p)
    run("attention.propagated", q, *of_q, k, *of_k, k, *of_k, p=attention.Params.from_real(1.0, 0.1, 3, 1))
    x = np.zeros((1, 2**16), np.int8)
    with pytest.raises(ValueError, match="needs 1 <= k <= 65535, got k = 65536"):
        run("linear.propagated", x, *scale(1), x, p=linear.Params.from_scales(([2**30], [-25])))


def test_rescaling_to_an_unsigned_type_needs_the_activation() -> None:
    with pytest.raises(ValueError, match="needs dtype signed or activation = RELU"):
        get("propagate.rescale").check(rescale.Params(uint8))


def test_no_ratio_of_a_linear_layer_is_above_one() -> None:
    with pytest.raises(ValueError, match=r"ratio_mantissa \* 2\*\*ratio_exponent <= 1"):
        get("propagate.bias").check(bias.Params([2**30 + 1], [-30]))

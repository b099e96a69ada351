"""Attention: the wire against integers written out by hand, masks, grouped queries, a cache, real attention."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np
import pytest

from intsim.execute import run
from intsim.registry import get

NAMES = ("attention.ibert", "attention.gemmlowp", "attention.polynomial")
OPS = pytest.mark.parametrize("name", NAMES)


def integers(*shape: int, seed: int = 0) -> Any:
    return np.random.default_rng([seed, *shape]).integers(-128, 128, shape).astype(np.int8)


def params(name: str, c: int = 4) -> Any:
    return get(name).params.from_scales(0.02, 0.02, 0.03, 0.01, c)  # type: ignore[attr-defined]


def causal(m: int, past: int = 0) -> Any:
    return np.arange(past + 1, past + m + 1, dtype=np.int32)


def per_key_and_channel(t: int, d: int) -> Any:
    """attention.ibert with every parameter that may vary along a dimension doing so."""
    op = get("attention.ibert")
    draw = np.random.default_rng(5)
    p = params(op.name)
    score, logit, mix, out = (type(x) for x in (p.score, p.logit, p.mix, p.out))
    return op.params(
        score(-3, draw.integers(-128, 128, t)),
        logit(draw.integers(2**29, 2**30, t), draw.integers(31, 34, t), 11, dtype=p.logit.dtype),
        p.softmax,
        mix(0, draw.integers(-128, 128, d), a=p.mix.a),
        out(draw.integers(2**29, 2**30, d), draw.integers(36, 39, d), draw.integers(-9, 10, d)),
    )


def each(values: Any, count: int) -> list[int]:
    return [int(v) for v in np.broadcast_to(values, count)]


def by_hand(q: Any, k: Any, v: Any, visible: Any, p: Any) -> Any:
    """attention.ibert on Python integers, one row and one visible column at a time."""
    t, d = v.shape
    q, k, v = (a.astype(np.int64).tolist() for a in (q, k, v))
    key_zero, value_zero = each(p.score.b_zero_point, t), each(p.mix.b_zero_point, d)
    multiplier, shift, zero = (each(x, t) for x in (p.logit.multiplier, p.logit.shift, p.logit.zero_point))
    out_multiplier, out_shift, out_zero = (each(x, d) for x in (p.out.multiplier, p.out.shift, p.out.zero_point))
    rows = []
    for i, query in enumerate(q):
        logits = {}
        for j in np.flatnonzero(visible[i]).tolist():
            score = sum((a - p.score.a_zero_point) * (b - key_zero[j]) for a, b in zip(query, k[j], strict=True))
            logit = round(Fraction(score * multiplier[j], 2 ** shift[j])) + zero[j]
            logits[j] = min(max(logit, -(2**15)), 2**15 - 1)
        exps = {}
        for j, logit in logits.items():
            z, r = divmod(max(logits.values()) - logit, p.softmax.ln2)
            exps[j] = ((p.softmax.b - r) ** 2 + p.softmax.c) // 2**z
        share = {j: min(e * 256 // sum(exps.values()), 255) for j, e in exps.items()}
        mixed = [sum(s * (v[j][e] - value_zero[e]) for j, s in share.items()) for e in range(d)]
        rows.append(
            [
                min(max(round(Fraction(mixed[e] * out_multiplier[e], 2 ** out_shift[e])) + out_zero[e], -128), 127)
                for e in range(d)
            ]
        )
    return np.array(rows, np.int8)


def test_equals_integers_written_out_by_hand(backends: list[str]) -> None:
    q, k, v = integers(2, 3, 6, 4), integers(2, 3, 7, 4, seed=1), integers(2, 3, 7, 5, seed=2)
    stop = causal(6, past=1)
    mask = (np.random.default_rng(3).random((2, 1, 6, 7)) < 0.6).astype(np.uint8)
    mask[0, 0, 2] = 0  # a row that sees nothing
    for p in (params("attention.ibert"), per_key_and_channel(7, 5)):
        for seen in (mask, np.ones_like(mask)):
            visible = (seen != 0) & (np.arange(7) < stop[:, None])
            want = [[by_hand(q[b, h], k[b, h], v[b, h], visible[b, 0], p) for h in range(3)] for b in range(2)]
            assert len(np.unique(want)) > 20
            for backend in ["exact", *backends]:
                got = run("attention.ibert", q, k, v, stop, seen, p=p, backend=backend)
                assert got.dtype == np.int8
                assert (got == np.array(want)).all()


@OPS
def test_causal_is_each_prefix_on_its_own(name: str, backends: list[str]) -> None:
    q, k, v, p = integers(6, 4), integers(6, 4, seed=1), integers(6, 5, seed=2), params(name)
    for backend in backends:
        whole = run(name, q, k, v, causal(6), p=p, backend=backend)
        for i in range(6):
            alone = run(name, q[i : i + 1], k[: i + 1], v[: i + 1], p=p, backend=backend)
            assert (whole[i] == alone[0]).all()
    assert (whole != run(name, q, k, v, p=p)).any()


@OPS
def test_padding_and_batch_mates_do_not_matter(name: str, backends: list[str]) -> None:
    lengths, p = (3, 7, 1), params(name)
    q, k, v = integers(3, 2, 7, 4), integers(3, 2, 7, 4, seed=1), integers(3, 2, 7, 5, seed=2)
    stop = np.array(lengths, np.int32).reshape(3, 1, 1) * np.ones(7, np.int32)
    for backend in backends:
        batch = run(name, q, k, v, stop, p=p, backend=backend)
        for b, n in enumerate(lengths):
            for h in range(2):
                alone = run(name, q[b, h, :n], k[b, h, :n], v[b, h, :n], p=p, backend=backend)
                assert (batch[b, h, :n] == alone).all()


@OPS
def test_grouped_queries_equal_repeated_keys_and_values(name: str, backends: list[str]) -> None:
    batch, kv, group, m, t, c, d = 2, 2, 3, 4, 5, 4, 3
    q = integers(batch, kv, group, m, c)
    k, v = integers(batch, kv, 1, t, c, seed=1), integers(batch, kv, 1, t, d, seed=2)
    stop = np.array([[2, 3, 4, 5], [1, 1, 2, 5]], np.int32).reshape(batch, 1, 1, m)
    mask = (np.random.default_rng(4).random((batch, 1, 1, m, t)) < 0.7).astype(np.uint8)
    repeated = (np.repeat(a, group, axis=2) for a in (k, v))
    whole = run(name, q, *repeated, stop, mask, p=params(name), backend="reference")
    assert whole.shape == (batch, kv, group, m, d)
    assert (whole[:, 0] != whole[:, 1]).any()
    for backend in backends:
        assert (run(name, q, k, v, stop, mask, p=params(name), backend=backend) == whole).all()
        for at in np.ndindex(batch, kv, group):
            b, h, _ = at
            one = run(name, q[at], k[b, h, 0], v[b, h, 0], stop[b, 0, 0], mask[b, 0, 0], p=params(name))
            assert (one == whole[at]).all()


@OPS
@pytest.mark.parametrize("chunks", [(1,) * 7, (3, 1, 1, 2), (7,)], ids=str)
def test_a_cache_filled_step_by_step_equals_the_whole(name: str, chunks: tuple[int, ...], backends: list[str]) -> None:
    """A batch of 2 with 2 key heads and groups of 2; room for 10 keys, and garbage where none is written yet."""
    batch, kv, group, m, c, d, room = 2, 2, 2, 7, 4, 3, 10
    q = integers(batch, kv, group, m, c)
    k, v = integers(batch, kv, 1, m, c, seed=1), integers(batch, kv, 1, m, d, seed=2)
    p = params(name)
    whole = run(name, q, k, v, causal(m), p=p, backend="reference")
    for backend in backends:
        keys, values = integers(batch, kv, 1, room, c, seed=9), integers(batch, kv, 1, room, d, seed=8)
        past = 0
        for new in chunks:
            now = slice(past, past + new)
            keys[..., now, :], values[..., now, :] = k[..., now, :], v[..., now, :]
            got = run(name, q[..., now, :], keys, values, causal(new, past), p=p, backend=backend)
            assert (got == whole[..., now, :]).all(), (backend, past)
            past += new


def test_a_cache_with_parameters_per_key() -> None:
    q, k, v, room = integers(5, 4), integers(5, 4, seed=1), integers(5, 3, seed=2), 8
    p = per_key_and_channel(room, 3)
    keys, values = (np.concatenate([a, integers(room - 5, a.shape[1], seed=7)]) for a in (k, v))
    short = get("attention.ibert").params(
        type(p.score)(p.score.a_zero_point, p.score.b_zero_point[:5]),
        type(p.logit)(p.logit.multiplier[:5], p.logit.shift[:5], p.logit.zero_point, dtype=p.logit.dtype),
        *(p.softmax, p.mix, p.out),
    )
    want = run("attention.ibert", q, k, v, causal(5), p=short)
    assert (run("attention.ibert", q, keys, values, causal(5), p=p) == want).all()
    with pytest.raises(ValueError, match="b_zero_point has 8 values, needs 1 or n = 5"):
        run("attention.ibert", q, k, v, p=p)


@OPS
def test_any_mask_is_the_visible_columns_alone(name: str, backends: list[str]) -> None:
    q, k, v, p = integers(8, 4), integers(6, 4, seed=1), integers(6, 5, seed=2), params(name)
    mask = (np.random.default_rng(6).random((8, 6)) < 0.5).astype(np.uint8) * 255
    mask[:, 0], mask[0], mask[1] = 0, 0, 1  # left padding, a row that sees nothing, one that sees all
    stop = np.array([6, 6, 6, 5, 4, 3, 6, 2], np.int32)
    k_other, v_other = k.copy(), v.copy()
    k_other[0], v_other[0] = 127, -128
    nothing = run("requantize.single_rounding", np.zeros((1, 5), np.int32), p=p.out)[0]
    mask[1, 0] = 0
    for backend in backends:
        got = run(name, q, k, v, stop, mask, p=p, backend=backend)
        for i in range(8):
            seen = np.flatnonzero(mask[i, : stop[i]])
            alone = run(name, q[i : i + 1], k[seen], v[seen], p=p)[0] if seen.size else nothing
            assert (got[i] == alone).all(), (backend, i)
        assert (got == run(name, q, k_other, v_other, stop, mask, p=p, backend=backend)).all()


@OPS
def test_a_mask_that_says_what_stop_says(name: str, backends: list[str]) -> None:
    q, k, v, p = integers(2, 6, 4), integers(2, 6, 4, seed=1), integers(2, 6, 5, seed=2), params(name)
    mask = np.tri(6, dtype=np.uint8)
    for backend in backends:
        want = run(name, q, k, v, causal(6), p=p, backend=backend)
        assert (run(name, q, k, v, None, mask, p=p, backend=backend) == want).all()
        assert (run(name, q, k, v, causal(6), mask, p=p, backend=backend) == want).all()
        many = run(name, q[0], k[0], v[0], None, np.stack([mask, mask]), p=p, backend=backend)
        assert (many == want[0]).all()  # the mask alone may have a batch


@OPS
def test_with_stop_alone_it_is_its_stages_in_a_row(name: str) -> None:
    q, k, v, p = integers(2, 6, 4), integers(2, 6, 4, seed=1), integers(2, 6, 5, seed=2), params(name)
    logits = run("requantize.single_rounding", run("matmul.integer", q, k, p=p.score), p=p.logit)
    softmax = name.replace("attention", "softmax")
    probability, ties = run(softmax, logits, causal(6), p=p.softmax, flags=True)
    mixed = run("matmul.integer", probability, v.swapaxes(-1, -2), p=p.mix)
    out, flags = run(name, q, k, v, causal(6), p=p, flags=True)
    assert (out == run("requantize.single_rounding", mixed, p=p.out)).all()
    for flag, mask in ties.masks.items():  # no column was moved, so each flag stands where the softmax has it
        assert (flags.masks[f"softmax.{flag}"] == mask).all()


@OPS
def test_flags_by_stage_over_heads(name: str, backends: list[str]) -> None:
    q, k, v = integers(2, 2, 3, 4), integers(2, 1, 5, 4, seed=1), integers(2, 1, 5, 3, seed=2)
    p = get(name).params.from_scales(0.9, 0.9, 0.5, 0.01, 4)  # type: ignore[attr-defined]
    mask = np.array([[1, 1, 0, 1, 0]] * 3, np.uint8)
    for backend in backends:
        out, flags = run(name, q, k, v, None, mask, p=p, backend=backend, flags=True)
        assert (out == run(name, q, k, v, None, mask, p=p)).all()
        assert flags.counts["out.saturated:dtype"] > 0
        assert flags.counts["logit.saturated:dtype"] > 0
        assert flags.masks["logit.saturated:dtype"].shape == (2, 2, 3, 5)
        for b, h in np.ndindex(2, 2):
            _, one = run(name, q[b, h], k[b, 0], v[b, 0], None, mask, p=p, flags=True)
            assert all((flags.masks[f][b, h] == one.masks[f]).all() for f in one.masks)
        with pytest.raises(OverflowError, match=r"out\.saturated:dtype"):
            run(name, q, k, v, None, mask, p=p, backend=backend, refuse_overflow=True)


def test_stages_that_do_not_fit_are_refused() -> None:
    p = params("attention.ibert")
    shifted = type(p)(p.score, p.logit, p.softmax, type(p.mix)(1, a=p.mix.a), p.out)
    with pytest.raises(ValueError, match=r"attention\.ibert/1 .*needs mix"):
        run("attention.ibert", integers(2, 4), integers(3, 4), integers(3, 4), p=shifted)
    with pytest.raises(ValueError, match=r"attention\.ibert/1: stop\[0\] is 4; needs 1 to 3"):
        run("attention.ibert", integers(1, 4), integers(3, 4), integers(3, 4), np.array([4], np.int32), p=p)
    with pytest.raises(ValueError, match=r"attention\.ibert/1: the leading dimensions do not broadcast"):
        run("attention.ibert", integers(2, 1, 4), integers(3, 3, 4), integers(3, 4), p=p)


def real_attention(q: Any, k: Any, v: Any, visible: Any) -> Any:
    x = np.where(visible, q @ np.swapaxes(k, -1, -2) / np.sqrt(q.shape[-1]), -np.inf)
    e = np.exp(x - x.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True) @ v


@pytest.mark.parametrize(("name", "logit"), [("attention.ibert", 2.0**-8), ("attention.gemmlowp", 2.0**-4)])
def test_stays_near_real_attention(name: str, logit: float) -> None:
    """|v| times what the probabilities can be off by, and half a step of the result.

    Half a step in every logit scales a probability by at most exp(logit). I-BERT's exponential is
    off by 1 in 100 and its three constants by one step each, twice (numerator and total). A
    probability is then cut to 2**-8, and at most to 1 - 2**-8.
    """
    rng = np.random.default_rng(0)
    batch, heads, m, t, c, d = 2, 3, 12, 16, 32, 8
    real = [rng.normal(size=(batch, heads, n, w)) for n, w in ((m, c), (t, c), (t, d))]
    scale = [float(np.abs(a).max() / 127) for a in real]
    q, k, v = (np.rint(a / s).astype(np.int8) for a, s in zip(real, scale, strict=True))
    p = get(name).params.from_scales(*scale, scale[2], c, logit=logit)  # type: ignore[attr-defined]
    stop, mask = causal(m, past=t - m), np.triu(np.ones((m, t), np.uint8), 1 - m)
    mask[:, 2] = 0
    got = run(name, q, k, v, stop, mask, p=p) * scale[2]
    visible = (mask != 0) & (np.arange(t) < stop[:, None])
    want = real_attention(*(a * s for a, s in zip((q, k, v), scale, strict=True)), visible)
    share = np.expm1(logit) + (2 * (0.01 + 3 * logit) if name == "attention.ibert" else 0) + (t + 1) * 2.0**-8
    bound = np.abs(real[2]).max() * share + scale[2] / 2
    assert np.abs(got - want).max() <= bound
    assert np.abs(got - want).max() > bound / 100  # the bound says something
    assert np.abs(want).max() > 4 * bound  # and so does a result that keeps it

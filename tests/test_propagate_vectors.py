"""Propagated scales in vector instructions: equal to the programs at the ends of every range."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from intsim.composites.attention import propagated as attention
from intsim.composites.linear import _cpu_propagated as fused, propagated as linear
from intsim.execute import prepare
from intsim.numerics import int8, int16
from intsim.ops.propagate import CONSTANT, Activation, Centring, Policy, _cpu_scale as packed_scale
from intsim.ops.propagate import add, embed, l1_norm, rescale
from intsim.ops.propagate._cpu_rows import packed, unpack
from intsim.spec import scale

Draw = np.random.Generator
WAYS = ("spread", "ends", "small")


def integers(draw: Draw, shape: Any, low: int, high: int, dtype: Any) -> Any:
    """From the whole range, mostly at its ends, or mostly near 0: few bits, or many."""
    way = WAYS[draw.integers(3)]
    spread = draw.integers(low, high + 1, shape)
    if way == "ends":
        spread = np.where(draw.random(shape) < 0.8, draw.choice([low, low + 1, high, high - 1, 0], shape), spread)
    if way == "small":
        spread >>= draw.integers(0, 1 + high.bit_length(), (*shape[:-1], 1))
    return spread.astype(dtype)


def scales(draw: Draw, shape: Any, low: int = -2048, high: int = 2047) -> Any:
    near = draw.random() < 0.7
    middle = draw.integers(low + 40, high - 40) if near else 0
    exponent = middle + draw.integers(-40, 41, shape) if near else draw.integers(low, high + 1, shape)
    mantissa = draw.integers(2**30, 2**31, shape)
    ends = draw.choice([2**30, 2**31 - 1, 2**30 + 1], shape)
    return np.where(draw.random(shape) < 0.3, ends, mantissa).astype(np.int32), exponent.astype(np.int16)


def equal(op: str, p: Any, *arrays: Any) -> None:
    made = prepare(op, p=p)
    bound = {port: n for a, i in zip(arrays, made.op.inputs, strict=False) if a is not None
             for port, n in zip(i.core, a.shape[a.ndim - len(i.core) :], strict=True)}  # fmt: skip
    assert any(t.serves(p, bound) for t in made.op.tuned)
    for got, wanted in zip(made(*arrays), prepare(op, p=p, tuned=False)(*arrays), strict=True):
        np.testing.assert_array_equal(got, wanted)


SEEDS = given(seed=st.integers(0, 2**32 - 1), rows=st.integers(1, 7), registers=st.integers(1, 3))
FEW = settings(max_examples=25)


@SEEDS
@FEW
def test_rescale(seed: int, rows: int, registers: int) -> None:
    draw = np.random.default_rng(seed)
    x = integers(draw, (rows, 16 * registers), -(2**31) + 1, 2**31 - 1, np.int32)
    dtype, policy = (int8, int16)[draw.integers(2)], Policy(draw.integers(3))
    equal(
        "propagate.rescale",
        rescale.Params(dtype, policy, activation=Activation(draw.integers(2))),
        x,
        *scales(draw, rows),
    )


@pytest.mark.parametrize("policy", Policy)
@pytest.mark.parametrize("dtype", [int8, int16], ids=str)
def test_rescale_where_the_largest_just_fits(dtype: Any, policy: Policy) -> None:
    tops = np.array([(dtype.qmax << shift) + more for shift in range(14) for more in (-1, 0, 1)], np.int32)
    x = np.repeat(tops[:, None], 16, axis=1)
    equal("propagate.rescale", rescale.Params(dtype, policy), x, *scales(np.random.default_rng(1), len(x)))


@SEEDS
@FEW
def test_l1_norm(seed: int, rows: int, registers: int) -> None:
    draw, n = np.random.default_rng(seed), 16 * registers
    gain_m, gain_e = scales(draw, 1)
    bias_m, bias_e = scales(draw, 1)
    p = l1_norm.Params(
        draw.integers(-127, 128, n), int(gain_m[0]), int(gain_e[0]), draw.integers(-CONSTANT, CONSTANT + 1, n),
        int(bias_m[0]), int(bias_e[0]), (int8, int16)[draw.integers(2)], Centring(draw.integers(2)),
        Policy(draw.integers(3)),
    )  # fmt: skip
    if draw.random() < 0.5:  # the bias no finer than the rest, or about as fine
        p = replace(p, weight_exponent=-24, bias_exponent=int(draw.integers(-45, -10)))
    equal("propagate.l1_norm", p, integers(draw, (rows, n), -32767, 32767, np.int16))


@SEEDS
@FEW
def test_embed(seed: int, rows: int, registers: int) -> None:
    draw, n = np.random.default_rng(seed), 16 * registers
    factor_m, factor_e = scales(draw, 1, -60, 60)
    tables = [part for _ in range(2) for part in (integers(draw, (5, n), -128, 127, np.int8), *scales(draw, 5))]
    ids, places = (draw.integers(0, 5, rows).astype(np.int32) for _ in range(2))
    equal(
        "propagate.embed",
        embed.Params(int(draw.integers(17)), int(factor_m[0]), int(factor_e[0])),
        ids,
        places,
        *tables,
    )


@SEEDS
@FEW
def test_attention(seed: int, rows: int, registers: int) -> None:
    draw = np.random.default_rng(seed)
    (texts, keys, heads), c, d = (draw.integers(1, 4), draw.integers(1, 9), draw.integers(1, 7)), 32, 32 * registers

    def operand(tokens: int, width: int) -> Any:
        q = integers(draw, (texts, tokens, heads, width), -127, 127, np.int8)
        return q, *scales(draw, (texts, tokens, heads), -1024, 1023)

    stop = draw.integers(1, keys + 1, (texts, rows)).astype(np.int32)
    how = {"policy": Policy(draw.integers(3))}
    delta = draw.normal(size=heads) * (draw.random(heads) < 0.7)
    p = attention.Params.from_real(draw.normal(size=heads), delta, int(draw.integers(1, 4)), c, **how)
    arrays = (*operand(rows, c), *operand(keys, c), *operand(keys, d), stop)
    equal("attention.propagated", p, *arrays)
    equal("attention.propagated", p, *(a[0] for a in arrays))


@SEEDS
@FEW
def test_fused_linear_layers(seed: int, rows: int, registers: int) -> None:
    draw, n, k = np.random.default_rng(seed), 16 * registers, int(np.random.default_rng(seed).integers(1, 70))
    x, (x_m, x_e) = integers(draw, (rows, k), -128, 127, np.int8), scales(draw, rows, -1800, 1800)
    weight = integers(draw, (n, k), -127, 127, np.int8)
    middle = int(draw.integers(-60, -10))
    p = linear.Params.from_scales(
        scales(draw, n, middle - 50, middle + 50), draw.normal(size=n) * 2.0 ** draw.integers(-9, 30)
    )
    bias = prepare("propagate.bias", p=p.bias).kernel_record(m=1, n=n)
    layer, of_x = fused.layer(weight, bias), packed(x_m, x_e)
    z, *of_z = prepare("linear.propagated", p=p, tuned=False)(x, x_m, x_e, weight)

    def same(q: Any, made: Any, wanted: Any) -> None:
        np.testing.assert_array_equal(q, wanted[0].reshape(q.shape))
        parts = np.empty(made.shape, np.int32), np.empty(made.shape, np.int16)
        unpack(made, *parts)
        for got, part in zip(parts, wanted[1:], strict=True):
            np.testing.assert_array_equal(got, part.reshape(got.shape))

    plain, made = np.empty((rows, n), np.int32), np.empty(rows, np.int64)
    fused.plain_rows(x, of_x, layer.numbers, plain, made, 0, rows)
    same(plain, made, (z, *of_z))

    policy = Policy(draw.integers(3))
    for groups in {1, registers}:
        relu = int(draw.integers(2))
        q, made = np.empty((rows, groups, n // groups), np.int8), np.empty((rows, groups), np.int64)
        places = draw.permutation(rows)
        fused.rescaled_rows(
            x,
            of_x,
            layer.numbers,
            q,
            made.reshape(-1),
            places,
            groups * places,
            fused.HEADS,
            int(policy),
            relu,
            0,
            rows,
        )
        how = rescale.Params(int8, policy, activation=Activation(relu))
        parts = prepare("propagate.rescale", p=how, tuned=False)(
            z.reshape(-1, n // groups), *(np.repeat(part, groups) for part in of_z)
        )
        same(q[places], made[places], parts)

    stream, of_stream = integers(draw, (rows, n), -32767, 32767, np.int16), scales(draw, rows)
    if draw.random() < 0.7:  # near enough that both sides count
        of_stream = of_stream[0], (of_z[1] - 8 + draw.integers(-20, 20, rows)).astype(np.int16)
    of_stream = of_stream[0], np.clip(of_stream[1], -2000, 2000)
    q16, made = np.empty((rows, n), np.int16), np.empty(rows, np.int64)
    room = fused.room(layer.numbers[fused.DEPTH], layer.start.size, 1)
    fused.summed(stream, packed(*of_stream), x, of_x, layer.numbers, q16, made, 8, int(policy), 0, rows, *room)
    total = prepare("propagate.add", p=add.Params(), tuned=False)(stream, *of_stream, z, *of_z)
    same(q16, made, prepare("propagate.rescale", p=rescale.Params(int16, policy), tuned=False)(*total))


@SEEDS
@FEW
def test_the_best_column(seed: int, rows: int, registers: int) -> None:
    draw, n = np.random.default_rng(seed), int(np.random.default_rng(seed).integers(1, 60))
    x, weight = integers(draw, (rows, 30), -128, 127, np.int8), integers(draw, (n, 30), -127, 127, np.int8)
    if draw.random() < 0.5:  # ties
        weight[n // 2 :] = weight[: n - n // 2]
    p = linear.Params.from_scales(scales(draw, n, -60, 60))
    layer = fused.layer(weight, prepare("propagate.bias", p=p.bias).kernel_record(m=1, n=n))
    best = np.empty(rows, np.int32)
    fused.best_rows(x, layer.numbers, layer.least, best, 0, rows)
    z = prepare("linear.propagated", p=p, tuned=False)(x, *scales(draw, rows), weight)[0]
    np.testing.assert_array_equal(best, z.argmax(axis=-1))


@pytest.mark.parametrize("later", [17, 40, 70, 130])
def test_a_column_of_a_later_panel_that_is_best_by_one(later: int) -> None:
    """For results of 0, of 1 and below 0; equal ones do not count."""
    for first, more in ((5, 1), (0, 1), (-1, 1), (-9, 1), (5, 0), (-9, 0)):
        weight = np.full((150, 16), -20, np.int8)
        weight[3], weight[later] = first, first + more
        p = linear.Params.from_scales((np.full(150, 2**30, np.int32), np.full(150, -20, np.int16)))
        layer = fused.layer(weight, prepare("propagate.bias", p=p.bias).kernel_record(m=1, n=150))
        x, best = np.eye(2, 16, dtype=np.int8), np.empty(2, np.int32)
        fused.best_rows(x, layer.numbers, layer.least, best, 0, 2)
        assert best.tolist() == [later if more else 3] * 2


@given(seed=st.integers(0, 2**32 - 1))
@FEW
def test_packed_scales(seed: int) -> None:
    draw = np.random.default_rng(seed)
    (a, b), n = (tuple(int(part[0]) for part in scales(draw, 1)) for _ in range(2)), int(draw.integers(1, 2**53))
    n >>= int(draw.integers(0, 53))
    n = max(n, 1)

    def pair(made: tuple[Any, Any]) -> int:
        return (int(made[1]) << 32) + int(made[0])

    both = [tuple(np.int64(part) for part in s) for s in (a, b)]
    p, q = (int(packed(*s)) for s in (a, b))
    assert _call("multiply", p, q) == pair(scale.multiply(*both))
    assert _call("quotient", p, q) == pair(scale.quotient(*both))
    assert _call("of_integer", n) == pair(scale.of_integer(np.int64(n)))
    ratio = (b[0], int(draw.integers(-100, -20)))
    x = int(draw.integers(-(2**31) + 1, 2**31)) >> int(draw.integers(0, 31))
    from intsim.numerics import Rounding

    if abs(x) * ratio[0] * 2.0 ** ratio[1] < 2**40:
        wanted = scale.apply(np.int64(x), (np.int64(ratio[0]), np.int64(ratio[1])), Rounding.TIES_TO_AWAY)
        assert _call("apply", x, pair(ratio)) == int(wanted)


def _call(name: str, *values: int) -> int:
    """One of the instructions, from Python: on one scale, which must give what the lanes of a register give."""
    made = {int(_written(name, len(values), lanes)(*values)) for lanes in (0, 2, 8)}
    assert len(made) == 1, made
    return made.pop()


@cache
def _written(name: str, count: int, lanes: int) -> Any:
    from llvmlite import ir

    from intsim.compiling import native, this_machine

    def emit(builder: Any, _: Any, *arguments: Any) -> Any:
        if not lanes:
            return getattr(packed_scale.Scales(builder), name)(*arguments)
        wide = ir.VectorType(ir.IntType(64), lanes)
        spread = []
        for value in arguments:
            register = ir.Constant(wide, [1] * lanes)
            for lane in range(lanes):
                register = builder.insert_element(register, value, ir.IntType(32)(lane))
            spread.append(register)
        made = getattr(packed_scale.Scales(builder, wide), name)(*spread)
        return builder.extract_element(made, ir.IntType(32)(lanes - 1))

    return native(emit, count, this_machine())


@pytest.mark.parametrize("lanes", [4, 8, 16])
def test_channels_lie_by_turns(lanes: int) -> None:
    from intsim.ops.propagate._cpu_vectors import CHANNEL, channels

    numbers = np.arange(1, 33)
    made = channels(lanes, 2**30 + numbers, 30 + numbers % 5, -numbers)
    assert made.shape == (32 // lanes, CHANNEL, lanes // 2)
    for turn in range(32 // lanes):
        own = numbers[turn * lanes : (turn + 1) * lanes]
        np.testing.assert_array_equal(made[turn, 0], 2**30 + own[::2])
        np.testing.assert_array_equal(made[turn, 1], 2**30 + own[1::2])
        np.testing.assert_array_equal(made[turn, 4:6], (30 + own % 5).reshape(-1, 2).T)
        np.testing.assert_array_equal(made[turn, 2:4], 1 << (29 + own % 5).reshape(-1, 2).T)
        np.testing.assert_array_equal(made[turn, 6:8], own.reshape(-1, 2).T)
        np.testing.assert_array_equal(made[turn, 8].copy().view(np.int32), -own)


@pytest.mark.compiled
@pytest.mark.parametrize("name", ["spelled out", "sse2"])
def test_rows_of_other_machines(name: str) -> None:
    """The tests of this file with registers of 16 and of 4 lanes, by bytes and by pairs; uncompiled: that is quick."""
    tests = ("attention", "fused_linear_layers", "the_best_column", "l1_norm")
    chosen = [f"{__file__}::test_{test}" for test in tests]
    script = (
        "import pytest\nfrom intsim.backends import vectors\n"
        "every = (*vectors.RUNGS, vectors.Rung('spelled out', 16, quads=''))\n"
        f"vectors.RUNGS = tuple(r for r in every if r.name == {name!r})\n"
        f"raise SystemExit(pytest.main(['-q', '-n', '0', '-p', 'no:cacheprovider', *{chosen!r}]))\n"
    )
    environment = {**os.environ, "NUMBA_DISABLE_JIT": "1"}
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=False)
    assert "4 passed" in done.stdout, done.stdout + done.stderr

"""Gated units: a table of an op is the op, so the table variant is the others; and how near the real unit is."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from intsim import int8, int16, run, tabulate, uint8
from intsim.composites.gated import swiglu, table as by_table
from intsim.execute import reference
from intsim.numerics import IntType
from intsim.op import Elementwise, Op
from intsim.oracle import cases
from intsim.ops.activation import real_gelu, silu, table as lookup
from intsim.ops.mul import rescaled as mul
from intsim.registry import all_ops

EVERY = np.arange(-128, 128, dtype=np.int8).reshape(8, 32)
UP = np.ascontiguousarray(EVERY.T).reshape(8, 32)


def eight_bits(op: Op, p: Any) -> bool:
    t, out = op.inputs[0].type(p), op.outputs[0].type(p)
    fits = isinstance(out, IntType) and out.storage in ("int8", "uint8", "int16", "int32")
    return t in (int8, uint8) and fits


CASES = [
    pytest.param(op, case, id=case.id)
    for op in all_ops()
    if isinstance(op.program, Elementwise) and len(op.inputs) == 1 and op.inputs[0].dims == "m n"
    for case in cases.directed(op)
    if eight_bits(op, case.params)
]


@pytest.mark.parametrize(("op", "case"), CASES)
def test_a_table_of_an_elementwise_op_is_the_op(op: Op, case: Any) -> None:
    made = tabulate(op, p=case.params)
    t = IntType.parse(str(made.dtype))
    p = lookup.Params(op.inputs[0].type(case.params), t)
    got = run("activation.table", case.inputs[0], made, p=p, backend="exact")
    assert got.dtype == made.dtype
    assert np.array_equal(got, reference(op, *case.inputs, p=case.params)[0])


def test_the_table_cases_are_of_several_ops() -> None:
    assert {"activation.silu", "activation.logistic_gemmlowp"} <= {p.values[0].name for p in CASES}


def test_swiglu_by_a_table_is_swiglu() -> None:
    p = swiglu.Params.from_scales(0.06, 0.04, 0.1, hidden=2.0**-12)
    made = tabulate("activation.silu", p=p.silu)
    want = run("gated.swiglu", EVERY, UP, p=p)
    got = run("gated.table", EVERY, UP, made, p=by_table.Params(lookup.Params(int8, int16), p.mul))
    assert np.array_equal(got, want)
    assert len(np.unique(want)) > 50
    other = silu.Params.from_scales(0.07, 2.0**-12, x=int8, dtype=int16)
    shifted = run(
        "gated.table",
        EVERY,
        UP,
        tabulate("activation.silu", p=other),
        p=by_table.Params(lookup.Params(int8, int16), p.mul),
    )
    assert not np.array_equal(shifted, want)


def test_swiglu_stays_near_the_real_unit() -> None:
    """One rounding of the hidden SiLU, carried by up, then the two of the product: bounds of its stages."""
    gate, up, hidden, result = 0.06, 0.04, 2.0**-12, 0.5
    p = swiglu.Params.from_scales(gate, up, result, hidden=hidden)
    got = run("gated.swiglu", EVERY, UP, p=p).astype(float)
    g, u = EVERY * gate, UP * up
    real = g / (1 + np.exp(-g)) * u / result
    bound = silu.OP.oracle.bound(p.silu) * hidden * np.abs(u) / result + 1.0
    assert (np.abs(got - np.clip(real, -128, 127)) <= bound).all()


def test_geglu_is_a_table_of_the_real_gelu_rounded_once() -> None:
    gate, up, hidden, result = 2.0**-5, 0.04, 2.0**-12, 0.1
    made = np.rint(real_gelu(np.arange(-128, 128) * gate) / hidden).astype(np.int16)
    q = by_table.Params(lookup.Params(int8, int16), mul.Params.from_scales(hidden, up, result, a=int16))
    got = run("gated.table", EVERY, UP, made, p=q).astype(float)
    real = real_gelu(EVERY * gate) * (UP * up) / result
    assert (np.abs(got - np.clip(real, -128, 127)) <= 1.0 + 0.5 * hidden * np.abs(UP) * up / result).all()

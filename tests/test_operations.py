"""Derived from the registry: no op is named here."""

from __future__ import annotations

import importlib
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import intsim
from intsim.execute import prepare, reference, run
from intsim.numerics import FloatType
from intsim.op import Composition, Elementwise
from intsim.oracle import cases, golden
from intsim.params import Integer, kinds
from intsim.registry import all_ops, names, siblings
from strategies import accuracy_calls, calls

ALL = all_ops()
OPS = pytest.mark.parametrize("op", ALL, ids=lambda op: op.name)


def same(a: Any, b: Any) -> bool:
    a, b = (x if isinstance(x, tuple) else (x,) for x in (a, b))
    return len(a) == len(b) and all(
        x.dtype == y.dtype and x.shape == y.shape and x.tobytes() == y.tobytes() for x, y in zip(a, b, strict=True)
    )


@OPS
@given(data=st.data())
def test_all_implementations_equal_the_unbounded_spec(op: Any, backends: list[str], data: Any) -> None:
    x, p = data.draw(calls(op))
    want = reference(op, *x, p=p)
    for backend in backends:
        assert same(run(op, *x, p=p, backend=backend), want), backend


@OPS
def test_shipped_cases_on_all_implementations(op: Any, backends: list[str]) -> None:
    listed = [*cases.directed(op), *cases.random(op, 4, longest=4)]
    assert len(listed) > 4, "an op states at least one example"
    for case in listed:
        for backend in backends:
            assert same(run(op, *case.inputs, p=case.params, backend=backend), case.wanted), (case.id, backend)


@OPS
def test_leading_dimensions_are_calls_of_their_own(op: Any, backends: list[str]) -> None:
    for case in list(cases.random(op, 3, longest=3)):
        stacked = tuple(
            np.stack([a, np.flip(a, 0) if port.dims == "m n" else a])
            for a, port in zip(case.inputs, op.inputs, strict=True)
        )
        want = [reference(op, *(a[i] for a in stacked), p=case.params) for i in range(2)]
        for backend in backends:
            got = run(op, *stacked, p=case.params, backend=backend)
            got = got if isinstance(got, tuple) else (got,)
            for i in range(2):
                assert same(tuple(a[i] for a in got), want[i]), (case.id, backend)


@OPS
def test_flags_are_the_same_everywhere(op: Any, backends: list[str]) -> None:
    for case in list(cases.directed(op))[:6]:
        try:
            _, want = run(op, *case.inputs, p=case.params, backend="exact", flags=True)
        except ValueError:  # a rule of the contrast lies outside a limit across fields
            continue
        for backend in backends:
            _, got = run(op, *case.inputs, p=case.params, backend=backend, flags=True)
            assert got.counts == want.counts
            assert all((got.masks[k] == want.masks[k]).all() for k in want.masks)


@pytest.mark.parametrize("op", [op for op in ALL if op.oracle], ids=lambda op: op.name)
@given(data=st.data())
def test_stays_within_the_stated_bound_of_the_real_operation(op: Any, data: Any) -> None:
    x, p = data.draw(accuracy_calls(op))
    out = reference(op, *x, p=p)
    real = op.oracle.real(*(a.astype(np.float64) for a in x), p=p)
    value = op.oracle.value(*(a.astype(np.float64) for a in out), p=p)
    assert np.abs(value - real).max() <= op.oracle.bound(p)


def _laws() -> list[Any]:
    listed = []
    for op in ALL:
        family = importlib.import_module(op.spec.__module__.rpartition(".")[0])
        listed += [
            pytest.param(op, law, id=f"{op.name}-{law.__name__}")
            for law in family.LAWS
            if op.oracle and law.__name__ not in op.exempt
        ]
    return listed


@pytest.mark.parametrize(("op", "law"), _laws())
@given(data=st.data())
def test_keeps_the_laws_of_its_family(op: Any, law: Any, data: Any) -> None:
    x, p = data.draw(accuracy_calls(op))
    assert law(lambda q: reference(op, q, p=p)[0], x[0])


@pytest.mark.compiled  # the spec alone: once is enough
@OPS
def test_golden_file_is_what_the_spec_says_today(op: Any) -> None:
    path = golden.root() / golden.file_name(op)
    assert path.read_text() == golden.text(op), "a changed output bit is a new version: see CONTRIBUTING"


@OPS
def test_golden_cases_replay(op: Any, backends: list[str]) -> None:
    listed = golden.cases(op)
    assert len(listed) >= golden.RANDOM_CASES
    for case in listed:
        for backend in ["exact", *backends]:
            assert same(run(op, *case.inputs, p=case.params, backend=backend), case.expected), (case.id, backend)


@OPS
def test_says_what_it_is(op: Any) -> None:
    assert op.doc.splitlines()[0].endswith(".")
    assert op.cites
    assert op.name in names()
    if siblings(op) and op.family in {"requantize", "softmax", "quantize", "add"}:
        assert "Differs" in op.doc


@OPS
def test_wrong_dtypes_shapes_and_numbers_of_inputs_are_named(op: Any) -> None:
    case = next(cases.random(op, 1, longest=3))
    with pytest.raises(TypeError, match=rf"{op.id}: .* is complex128, needs"):
        run(op, *(a.astype(np.complex128) for a in case.inputs), p=case.params)
    with pytest.raises(TypeError, match=rf"{op.id}: takes at most"):
        run(op, *case.inputs, None, p=case.params)
    with pytest.raises(TypeError, match=f"{op.id}: needs {op.inputs[0].name}"):
        run(op, None, *case.inputs[1:], p=case.params)
    with pytest.raises(ValueError, match=f"{op.id}: {op.inputs[0].name} has shape"):
        run(op, case.inputs[0].reshape(-1)[0], *case.inputs[1:], p=case.params)
    with pytest.raises(TypeError, match=f"{op.id}: needs"):
        run(op, *case.inputs, p=None)


@OPS
def test_parameters_outside_their_range_are_named(op: Any) -> None:
    case = next(cases.random(op, 1, longest=3))
    for name, kind in kinds(op.params).items():
        if isinstance(kind, Integer) and kind.high < 2**62:
            p = _with(case.params, name, [kind.high + 1] if kind.per else kind.high + 1)
            with pytest.raises(
                ValueError, match=rf"{op.id} \(C\d+\): needs .*{name}.*; got .*{name} = {kind.high + 1}"
            ):
                run(op, *case.inputs, p=p)


def _with(params: Any, name: str, value: Any) -> Any:
    return type(params)(**{n: getattr(params, n) for n in kinds(params)} | {name: value})


@OPS
def test_read_only_strided_and_empty_inputs_work(op: Any, backends: list[str]) -> None:
    case = next(cases.random(op, 1, longest=3))
    frozen = tuple(a.copy() for a in case.inputs)
    for a in frozen:
        a.flags.writeable = False
    strided = tuple(np.repeat(a, 2, axis=-1)[..., ::2] if a.ndim else a for a in case.inputs)
    for backend in backends:
        assert same(run(op, *frozen, p=case.params, backend=backend), case.wanted)
        assert same(run(op, *strided, p=case.params, backend=backend), case.wanted)
    row = op.outputs[0].core[0]
    none = tuple(a[:0] if port.core[:1] == (row,) else a for a, port in zip(case.inputs, op.inputs, strict=True))
    for backend in backends:
        out = run(op, *none, p=case.params, backend=backend)
        assert (out if isinstance(out, tuple) else (out,))[0].shape[0] == 0


@OPS
def test_not_a_number_is_refused(op: Any) -> None:
    case = next(cases.random(op, 1, longest=3))
    for index, port in enumerate(op.inputs):
        if isinstance(port.type(case.params), FloatType):
            broken = list(case.inputs)
            broken[index] = np.full_like(broken[index], np.nan)
            with pytest.raises(
                ValueError, match=rf"{op.id}: {port.name}\[.*\] is nan; needs numbers that are {port.numbers}"
            ):
                run(op, *broken, p=case.params)


def test_equal_names_mean_equal_things_across_a_family() -> None:
    for op in ALL:
        for other in siblings(op):
            for name, kind in kinds(op.params).items():
                assert type(kinds(other.params).get(name, kind)) is type(kind), (op.name, other.name, name)


def test_every_program_kind_is_covered() -> None:
    assert {type(op.program).__name__ for op in ALL} == {"Elementwise", "Rowwise", "Contraction", "Composition"}
    assert any(isinstance(op.program, Elementwise) for op in ALL)
    assert any(isinstance(op.program, Composition) for op in ALL)


def test_public_names_load() -> None:
    for name in intsim.__all__:
        assert getattr(intsim, name) is not None
    assert callable(prepare)

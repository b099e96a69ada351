"""Graphs and frozen launches: one call that repeats a model on what its memory holds by then."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from cuda_callers import CALLERS, fetch, overwrite, usable

if not usable():
    pytest.skip("needs Numba's simulator or a GPU: the uncompiled job simulates it", allow_module_level=True)

import intsim
from intsim.backends.cuda_arrays import driver
from intsim.backends.cuda_queue import Queue
from intsim.graphs import capture, freeze, to_device
from intsim.registry import get, names

MATMUL, REQUANTIZE, SOFTMAX = (get(name) for name in ("matmul.integer", "requantize.single_rounding", "softmax.ibert"))
WEIGHTS = np.arange(-10, 10, dtype=np.int8).reshape(5, 4)
FIRST, SECOND = (np.resize(np.arange(low, 100, 7, dtype=np.int8), (3, 4)) for low in (-90, -20))


def model(backend: str, tuned: bool = False) -> Any:
    """Three ops."""
    product = intsim.prepare(MATMUL, p=MATMUL.params(3), backend=backend, tuned=tuned, constant={"b": WEIGHTS})
    smaller = intsim.prepare(
        REQUANTIZE, p=REQUANTIZE.params.from_scale(0.02, dtype=intsim.int16), backend=backend, tuned=tuned
    )
    softmax = intsim.prepare(SOFTMAX, p=SOFTMAX.params.from_scale(0.01), backend=backend, tuned=tuned)

    def whole(x: Any) -> Any:
        rows = smaller(product(x))
        return softmax(rows), rows

    return whole


@pytest.mark.parametrize("tuned", [True, False], ids=["tuned", "programs"])
@pytest.mark.parametrize("record", [capture, freeze])
@pytest.mark.parametrize("caller", [name for name in CALLERS if name in ("intsim", "torch", "numba")])
def test_a_recording_repeats_the_model_on_new_contents(record: Any, caller: str, tuned: bool) -> None:
    x = CALLERS[caller](FIRST)
    again = record(model("cuda", tuned), x)
    for values in (FIRST, SECOND, FIRST):
        overwrite(x, values)
        out = again()
        assert out is again.outputs
        for got, wanted in zip(out, model("reference")(values), strict=True):
            assert np.array_equal(fetch(got), wanted)
    assert again.launches == 3 or tuned  # which may pack or add up in launches of their own
    assert again.inputs == (x,)


def test_a_recording_repeats_on_a_chosen_stream() -> None:
    x = to_device(FIRST)
    again = capture(model("cuda"), x)
    overwrite(x, SECOND)
    driver().current().finish()
    out = again(stream=driver().current().stream())
    assert np.array_equal(fetch(out[0]), model("reference")(SECOND)[0])


def test_its_memory_is_its_own() -> None:
    """Calls between repetitions may not write to what a repetition reads or writes."""
    x, other = to_device(FIRST), to_device(SECOND)
    whole = model("cuda")
    again = capture(whole, x)
    kept = [fetch(a).copy() for a in again()]
    for _ in range(3):
        whole(other)
    assert all(np.array_equal(fetch(a), b) for a, b in zip(again.outputs, kept, strict=True))
    assert all(np.array_equal(fetch(a), b) for a, b in zip(again(), kept, strict=True))


def test_a_composition_is_recorded_with_its_stages() -> None:
    op = get("linear.single_rounding")
    from intsim.oracle import cases

    case = next(iter(cases.directed(op)))
    a, *rest = case.inputs
    names = [port.name for port in op.inputs][1:]
    linear = intsim.prepare(
        op, p=case.params, backend="cuda", tuned=False, constant=dict(zip(names, rest, strict=True))
    )
    x = to_device(a)
    again = capture(linear, x)
    assert again.launches == 2
    overwrite(x, a[::-1].copy())
    assert np.array_equal(fetch(again()), intsim.run(op, a[::-1].copy(), *rest, p=case.params, backend="reference"))


@pytest.mark.parametrize(
    ("function", "shown"),
    [
        (
            lambda x: intsim.run(MATMUL, x, WEIGHTS, p=MATMUL.params(), backend="cuda"),
            "cannot hold a copy from the host",
        ),
        (np.asarray, "cannot hold work of the host"),
        (lambda x: x + 1, "cannot hold work of the host"),
    ],
)
def test_work_of_the_host_is_refused(function: Any, shown: str) -> None:
    with pytest.raises(ValueError, match=shown):
        capture(function, to_device(FIRST))
    again = capture(model("cuda"), to_device(FIRST))  # and what comes after it is as before
    assert np.array_equal(fetch(again()[0]), model("reference")(FIRST)[0])


@pytest.mark.parametrize("record", [capture, freeze])
def test_host_arrays_are_refused(record: Any) -> None:
    with pytest.raises(TypeError, match=r"whole is recorded with arrays in a GPU's memory; intsim.to_device"):
        record(model("cuda"), FIRST)
    with pytest.raises(TypeError, match="recorded with arrays"):
        record(model("cuda"))


def test_what_is_made_once_is_kept_for_constants_alone() -> None:
    gpu = driver().current()
    a, b = to_device(FIRST), to_device(WEIGHTS)

    class Inputs:
        pass

    x = Inputs()
    x.a, x.b = a, b  # type: ignore[attr-defined]
    made: list[int] = []
    queue = Queue(gpu, gpu.stream(), None, x, {}, "")

    def make() -> int:
        made.append(1)
        return len(made)

    assert [queue.once("key", make, of=("b",)) for _ in range(2)] == [1, 2]
    b.constant = True
    assert [queue.once("key", make, of=("b",)) for _ in range(3)] == [3, 3, 3]
    assert queue.once("other", make, of=("b",)) == 4
    assert queue.once("key", make, of=("a", "b")) == 5
    assert queue.once("key", make, of=("a", "b")) == 6
    assert (queue.capability, queue.multiprocessors, queue.simulated) == (
        gpu.capability,
        gpu.multiprocessors,
        gpu.simulated,
    )
    assert not queue.capturing
    assert queue.empty((2, 3), np.int32).shape == (2, 3)


ATTENTION = [name for name in names() if name.startswith("attention.")]


@pytest.mark.parametrize("name", ATTENTION)
def test_attention_is_recorded_whatever_the_mask(name: str) -> None:
    """Queries, keys and values of two heads, every input on the GPU; then new contents, and those left out."""
    op = get(name)
    given, p = list(op.examples().values())[4]
    inputs = [np.stack([a, a[::-1]]) for a in given]
    for left_out in (0, 1):
        there = [to_device(np.ascontiguousarray(a)) for a in inputs[: len(inputs) - left_out]]
        again = capture(intsim.prepare(op, p=p, backend="cuda", tuned=False), *there)
        for first in (inputs[0], -1 - inputs[0]):
            overwrite(there[0], first)
            wanted = intsim.run(op, first, *inputs[1 : len(there)], p=p, backend="reference")
            for got, want in zip(_tuple(again()), _tuple(wanted), strict=True):
                assert np.array_equal(fetch(got), want)


def _tuple(made: Any) -> tuple[Any, ...]:
    return made if isinstance(made, tuple) else (made,)


def test_a_recording_keeps_what_only_addresses_tell_of() -> None:
    """Kernels that take addresses alone: the prepared op, its constants and the memory between its kernels stay."""
    import gc

    x = to_device(FIRST)
    again = capture(intsim.prepare(MATMUL, p=MATMUL.params(3), backend="cuda", constant={"b": WEIGHTS}), x)
    function, made = again._kept
    assert function.op is MATMUL
    assert any(a.pointer == again.outputs.pointer for a in made)
    del function, made
    gc.collect()
    others = [to_device(np.full((64,), 77, np.int8)) for _ in range(50)]  # what was given back would be theirs
    assert np.array_equal(fetch(again()), intsim.run(MATMUL, FIRST, WEIGHTS, p=MATMUL.params(3), backend="reference"))
    assert len(others) == 50

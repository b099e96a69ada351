"""Device arrays in and out of every op, without copies; what is refused, and how.

In the simulator the callers' arrays are objects with ``__cuda_array_interface__``; on a GPU the same tests also
run with PyTorch, Numba and DLPack alone.
"""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any

import numpy as np
import pytest

from conftest import SIMULATED
from cuda_callers import CALLERS, Foreign, fetch, usable

if not usable():
    pytest.skip("needs Numba's simulator or a GPU: the uncompiled job simulates it", allow_module_level=True)

import intsim
from intsim.backends import cuda, cuda_exchange, cuda_launch
from intsim.backends.cuda_arrays import DeviceArray, driver
from intsim.execute import reference
from intsim.graphs import to_device
from intsim.op import Composition, Elementwise
from intsim.oracle import cases
from intsim.registry import all_ops, get

MATMUL, GATHER = get("matmul.integer"), get("embedding.gather")
A = np.arange(-6, 6, dtype=np.int8).reshape(3, 4)
B = np.arange(8, dtype=np.int8).reshape(2, 4)
WANTED = reference(MATMUL, A, B, p=MATMUL.params())[0]


@pytest.fixture(params=CALLERS)
def put(request: pytest.FixtureRequest) -> Any:
    return CALLERS[request.param]


@pytest.mark.parametrize("op", all_ops(), ids=lambda op: op.name)
def test_every_op_takes_device_arrays_and_gives_device_arrays(op: Any) -> None:
    for case in (next(iter(cases.directed(op))), *cases.random(op, 2)):
        out = intsim.prepare(op, p=case.params, backend="cuda").outputs(*map(CALLERS["interface"], case.inputs))
        for port, got, wanted in zip(op.outputs, out, case.wanted, strict=True):
            assert isinstance(got, DeviceArray), port.name
            assert got.dtype == wanted.dtype
            assert fetch(got).tobytes() == wanted.tobytes(), case.id
            assert got.shape == wanted.shape


def test_what_comes_out_is_of_the_callers_library(put: Any) -> None:
    a = put(A)
    out = intsim.run("matmul.integer", a, put(B), p=MATMUL.params(), backend="cuda")
    assert np.array_equal(fetch(out), WANTED)
    if cuda_exchange.kind(a) in ("torch", "numba", "cupy"):
        assert cuda_exchange.kind(out) == cuda_exchange.kind(a)
    else:
        assert isinstance(out, DeviceArray)
        assert {"shape", "typestr", "data", "stream", "version"} <= set(out.__cuda_array_interface__)
    if SIMULATED:
        assert np.array_equal(np.from_dlpack(out), WANTED)


def test_device_and_host_arrays_may_be_mixed(put: Any) -> None:
    assert np.array_equal(fetch(intsim.run("matmul.integer", put(A), B, p=MATMUL.params(), backend="cuda")), WANTED)
    assert isinstance(intsim.run("matmul.integer", A, B, p=MATMUL.params(), backend="cuda"), np.ndarray)


@pytest.mark.parametrize(
    ("a", "b"),
    [((2, 3, 4), (2, 4)), ((2, 3, 4), (2, 2, 4)), ((2, 1, 3, 4), (5, 2, 4)), ((3, 4), (2, 2, 4)), ((0, 3, 4), (2, 4))],
    ids=str,
)
def test_leading_dimensions(a: Any, b: Any, put: Any) -> None:
    x, w = (np.resize(np.arange(-40, 51, dtype=np.int8), shape) for shape in (a, b))
    out = intsim.run("matmul.integer", put(x), put(w), p=MATMUL.params(3, [1, -2]), backend="cuda")
    wanted = intsim.run("matmul.integer", x, w, p=MATMUL.params(3, [1, -2]), backend="reference")
    assert tuple(out.shape) == wanted.shape
    assert np.array_equal(fetch(out), wanted)


def test_a_constant_is_put_on_the_device_once(monkeypatch: pytest.MonkeyPatch) -> None:
    bias, a = np.array([5, -5], np.int32), to_device(A)
    prepared = intsim.prepare("matmul.integer", p=MATMUL.params(), backend="cuda", constant={"b": B, "bias": bias})
    assert np.array_equal(fetch(prepared(a)), WANTED + bias)
    monkeypatch.setattr(cuda_exchange, "upload", None)  # nothing is copied from here on
    assert np.array_equal(fetch(prepared(a)), WANTED + bias)


@pytest.mark.parametrize("backend", ["cpu", "reference", "cuda"])
def test_constants_are_left_out_of_the_call(backend: str) -> None:
    prepared = intsim.prepare("matmul.integer", p=MATMUL.params(), backend=backend, constant={"b": B})
    assert np.array_equal(prepared(A), WANTED)
    assert np.array_equal(prepared(A, np.array([1, 2], np.int32)), WANTED + np.array([1, 2]))
    with pytest.raises(ValueError, match="constant names 'c'"):
        intsim.prepare("matmul.integer", p=MATMUL.params(), backend=backend, constant={"c": B})
    with pytest.raises(TypeError, match="takes at most 3 inputs"):
        prepared(A, None, A)


def test_a_constant_is_checked_once_and_other_inputs_each_time(put: Any) -> None:
    table = np.arange(8, dtype=np.int8).reshape(4, 2)
    look_up = intsim.prepare("embedding.gather", p=GATHER.params(), backend="cuda", constant={"table": table})
    assert np.array_equal(fetch(look_up(put(np.array([3, 0], np.int32)))), table[[3, 0]])
    for ids, shown in (
        (np.array([0, 4], np.int32), r"ids\[1\] is 4"),
        (np.array([-1, 0], np.int32), r"ids\[0\] is -1"),
    ):
        with pytest.raises(ValueError, match=rf"{shown}; needs 0 to 3"):
            look_up(put(ids))


def test_floats_are_checked_on_the_device(put: Any) -> None:
    op = get("quantize.affine")
    case = next(iter(cases.directed(op)))
    x = case.inputs[0].copy()
    good = [put(a) for a in case.inputs]
    assert np.array_equal(fetch(intsim.run(op, *good, p=case.params, backend="cuda")), case.wanted[0])
    x.reshape(-1)[1] = np.nan
    with pytest.raises(ValueError, match="is nan; needs numbers that are not NaN"):
        intsim.run(op, put(x), *good[1:], p=case.params, backend="cuda")


@pytest.mark.parametrize("value", [-np.inf, -1.5, -0.0, 0.0, 1e-45, 1.0, 3e38, np.inf, np.nan])
def test_the_order_of_floats_on_the_device_is_that_of_their_checks(value: float) -> None:
    from intsim.binding import _FLOATS, _PLACES

    x = np.array([1.0, value], np.float32)
    for numbers, good in _FLOATS.items():
        assert to_device(x).within(*_PLACES[numbers]) == bool(good(x).all()), numbers


def test_views_stay_on_the_device_and_all_else_is_done_on_the_host() -> None:
    host = np.arange(24, dtype=np.int16).reshape(2, 3, 4)
    a = to_device(host)
    for got, wanted in [
        (a.swapaxes(-1, -2), host.swapaxes(-1, -2)),
        (a.swapaxes(0, 1).reshape(6, -1), host.swapaxes(0, 1).reshape(6, -1)),
        (a[1], host[1]),
        (a[1, 2], host[1, 2]),
        (a.broadcast_to((5, 2, 3, 4)), np.broadcast_to(host, (5, 2, 3, 4))),
        (a.reshape((4, 6)).view(np.uint16), host.reshape(4, 6).view(np.uint16)),
    ]:
        assert isinstance(got, DeviceArray)
        assert np.array_equal(np.asarray(got), wanted)
        assert np.array_equal(np.asarray(got.in_order()), wanted)
    for done, wanted in [(a != 3, host != 3), (a + a, host + host), (a[..., -1], host[..., -1]), (a[-1], host[-1])]:
        assert isinstance(done, np.ndarray)
        assert np.array_equal(done, wanted)
    with pytest.raises(ValueError, match=r"has no shape \(5, -?\d+\)"):
        a.reshape(5, -1)
    assert "shape=(2, 3, 4), dtype=int16" in repr(a)


# -- what is refused -----------------------------------------------------------------------------------


def test_strides_that_are_not_c_order_are_refused() -> None:
    if SIMULATED:
        turned: Any = Foreign(np.asfortranarray(A))
    else:
        import torch

        turned = torch.from_numpy(np.ascontiguousarray(A.T)).cuda().T
    with pytest.raises(ValueError, match=r"matmul.integer/1: a has strides \(1, 3\) .* needs C order: .*contiguous"):
        intsim.run("matmul.integer", turned, to_device(B), p=MATMUL.params(), backend="cuda")


@pytest.mark.parametrize("backend", ["cpu", "reference", "exact"])
def test_device_arrays_are_refused_where_they_cannot_be_read(backend: str) -> None:
    with pytest.raises(TypeError, match=f"a lies in a GPU's memory: backend='cuda' .*, '{backend}' needs a copy"):
        intsim.run("matmul.integer", to_device(A), B, p=MATMUL.params(), backend=backend)


def test_arrays_of_two_gpus_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    other = to_device(B)
    monkeypatch.setattr(cuda_exchange, "_index", lambda a: int(a is other))
    with pytest.raises(ValueError, match=r"matmul.integer/1: .* several GPUs \(a on GPU 0, b on GPU 1\): copy"):
        intsim.run("matmul.integer", to_device(A), other, p=MATMUL.params(), backend="cuda")


def test_wrong_types_and_shapes_are_refused_as_on_the_host(put: Any) -> None:
    with pytest.raises(TypeError, match="a is int32, needs int8"):
        intsim.run("matmul.integer", put(A.astype(np.int32)), put(B), p=MATMUL.params(), backend="cuda")
    with pytest.raises(ValueError, match="b has k = 2, but a has k = 4"):
        intsim.run("matmul.integer", put(A), put(np.ascontiguousarray(B[:, :2])), p=MATMUL.params(), backend="cuda")


def test_no_room_is_said_in_bytes_and_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    a, b, gpu = A.copy(), to_device(B), driver().current()
    there = to_device(a)

    def full(size: int) -> Any:
        raise MemoryError("out of memory")

    monkeypatch.setattr(gpu, "allocate", full, raising=False)
    with pytest.raises(MemoryError, match=r"GPU 0 \(.*\) has no room for 8 bytes, an array of shape \(2,\)"):
        intsim.run("matmul.integer", there, b, p=MATMUL.params(), backend="cuda")
    assert np.array_equal(a, A)
    assert np.array_equal(np.asarray(there), A)


def test_a_grid_that_no_gpu_runs_is_refused() -> None:
    gpu = driver().current()
    loaded = cuda_launch.loader(gpu)
    kernel = cuda.device_kernel("matmul.integer", MATMUL.program)
    for grid, block, shown in [
        ((1, 65536), 1, r"a grid of \(1, 65536, 1\) blocks"),
        ((2**31,), 1, "a grid of"),
        (0, 1, "a grid of"),
        (1, (64, 32), "2048 threads a block"),
    ]:
        with pytest.raises(ValueError, match=shown):
            loaded.call(kernel, grid, block, ())


@pytest.mark.parametrize("shape", [(1, 1), (1, 70_000), (70_000, 1), (3, 2**31 - 1), (2**31 - 1, 3), (17, 33)], ids=str)
def test_every_shape_has_a_grid_that_covers_it(shape: tuple[int, int]) -> None:
    gpu = driver().current()
    out: Any = DeviceArray(gpu, 0, shape, np.int8, 1, None)
    for program in (get("requantize.power_of_two").program, get("softmax.ibert").program):
        grid, block = cuda.spread(program, out, gpu)
        assert all(1 <= n <= most for n, most in zip(grid, cuda_launch.MOST_BLOCKS, strict=False))
        assert np.prod(block) <= cuda_launch.MOST_THREADS
        if isinstance(program, Elementwise):
            assert grid[0] * block[0] >= shape[1]  # rows are walked
        else:
            assert grid[0] * block[0] >= shape[0]


def test_rows_beyond_the_grid_are_walked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cuda, "MOST_ROWS_OF_BLOCKS", 1)
    x = np.arange(-100, 100, dtype=np.int32).reshape(100, 2)
    p = get("requantize.power_of_two").params(2)
    wanted = intsim.run("requantize.power_of_two", x, p=p, backend="reference")
    assert np.array_equal(fetch(intsim.run("requantize.power_of_two", to_device(x), p=p, backend="cuda")), wanted)
    w = np.resize(np.arange(-9, 9, dtype=np.int8), (100, 4))
    wanted = intsim.run("matmul.integer", w, B, p=MATMUL.params(), backend="reference")
    assert np.array_equal(intsim.run("matmul.integer", w, B, p=MATMUL.params(), backend="cuda", tuned=False), wanted)


def test_a_composition_has_no_kernel() -> None:
    op = next(op for op in all_ops() if isinstance(op.program, Composition))
    with pytest.raises(TypeError, match="its stages have kernels"):
        cuda.device_kernel(op.name, op.program)


def test_streams_are_taken_as_every_library_gives_them() -> None:
    class Numbered:
        def __init__(self, **said: Any) -> None:
            self.__dict__ = said

    class Standard:
        def __cuda_stream__(self) -> tuple[int, int]:
            return 0, 7

    given = [(5, 5), (0, 1), (Standard(), 7), (Numbered(cuda_stream=9), 9), (Numbered(ptr=0), 1)]
    for stream, number in [*given, (Numbered(handle=Numbered(value=4)), 4)]:
        assert cuda_exchange.stream_handle(stream) == number
    with pytest.raises(TypeError, match="a stream is an int or has __cuda_stream__; got str"):
        cuda_exchange.stream_handle("main")
    with pytest.raises(ValueError, match="only the cuda backend works on a stream"):
        intsim.prepare("matmul.integer", p=MATMUL.params(), stream=5)


@pytest.mark.skipif(not SIMULATED, reason="invents stream numbers, which a GPU would refuse")
def test_work_is_ordered_after_the_stream_that_an_array_names(monkeypatch: pytest.MonkeyPatch) -> None:
    gpu = driver().current()
    waited: list[tuple[int, int]] = []
    monkeypatch.setattr(gpu, "wait", lambda stream, other: waited.append((stream, other)), raising=False)
    b = to_device(B)
    out = intsim.run("matmul.integer", Foreign(A, stream=42), b, p=MATMUL.params(), backend="cuda")
    assert out.__cuda_array_interface__["stream"] == 42
    assert (42, b.stream) in waited
    chosen = intsim.prepare("matmul.integer", p=MATMUL.params(), backend="cuda", stream=77)
    assert chosen(Foreign(A, stream=42), b).stream == 77


def test_flags_of_device_arrays() -> None:
    op = get("requantize.single_rounding")
    acc = np.array([[-24, -8, 8, 24, 5000]], np.int32)
    out, flags = intsim.run(op, to_device(acc), p=op.params(1, 4), backend="cuda", flags=True)
    assert np.asarray(out).tolist() == [[-2, 0, 0, 2, 127]]
    assert flags.counts == {"saturated:dtype": 1, "tie:rounding": 5}


@pytest.mark.parametrize(
    "arguments", [["check", "cuda"], ["check", "x.py:y", "--device", "cuda"], ["selftest", "--devices", "cuda"]]
)
def test_without_a_gpu_one_sentence_and_exit_2(arguments: list[str]) -> None:
    hidden = {"NUMBA_ENABLE_CUDASIM": "0", "CUDA_VISIBLE_DEVICES": "-1"}
    done = subprocess.run(
        [sys.executable, "-m", "intsim", *arguments],
        env=os.environ | hidden,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 2
    assert "the cuda backend needs an NVIDIA GPU and its driver: none was found" in done.stderr
    assert "Traceback" not in done.stderr

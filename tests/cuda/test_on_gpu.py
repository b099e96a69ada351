"""What only a real GPU shows: no room, other contexts, other GPUs, large grids, and kernels that start early."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from conftest import SIMULATED
from cuda_callers import CALLERS, Foreign, fetch, usable

if SIMULATED or not usable():
    pytest.skip("needs a GPU, which CI has not", allow_module_level=True)

import intsim
from intsim.backends import cuda_exchange
from intsim.backends.cuda_arrays import DeviceArray, driver
from intsim.numerics import int32
from intsim.op import Rowwise
from intsim.registry import all_ops, get

MATMUL = get("matmul.integer")
A, B = np.arange(-6, 6, dtype=np.int8).reshape(3, 4), np.arange(8, dtype=np.int8).reshape(2, 4)
WANTED = A.astype(np.int32) @ B.T.astype(np.int32)


@pytest.fixture(autouse=True)
def still_works() -> Iterator[None]:
    """Whatever was refused, the next call is right."""
    yield
    assert np.array_equal(intsim.run(MATMUL, A, B, p=MATMUL.params(), backend="cuda"), WANTED)


@pytest.mark.parametrize("library", [name for name in CALLERS if name != "interface"])
def test_no_room_for_a_result_is_said_in_bytes(library: str) -> None:
    """2**20 by 2**20 sums of one product: 4 TiB, of two operands of 1 MiB."""
    a = CALLERS[library](np.ones((2**20, 1), np.int8))
    with pytest.raises(MemoryError, match=r"GPU 0 \(.*\) has no room for 4,398,046,511,104 bytes, an array of shape"):
        intsim.run(MATMUL, a, a, p=MATMUL.params(), backend="cuda")
    assert (fetch(a._a if library == "dlpack" else a) == 1).all()


def test_no_room_for_host_arrays_leaves_them_as_they_are() -> None:
    a = np.ones((2**20, 1), np.int8)
    with pytest.raises(MemoryError, match="has no room for"):
        intsim.run(MATMUL, a, a, p=MATMUL.params(), backend="cuda")
    assert (a == 1).all()


@pytest.mark.skipif(
    int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1")) > 1,
    reason="fills the GPU, where tests beside it free memory: pytest -n 0 tests/cuda/test_on_gpu.py",
)
def test_no_room_on_a_full_gpu() -> None:
    """Other arrays take all but a GiB or two: an input does not fit, and what is freed can be used again."""
    gpu, held = driver().current(), []
    for size in (2**34, 2**32, 2**30):
        while True:
            try:
                held.append(gpu.allocate(size))
            except MemoryError:
                break
    held.pop()
    x = np.zeros((2**17, 2**14), np.int8)
    p, table = get("activation.table").params(), np.arange(-128, 128, dtype=np.int8)
    with pytest.raises(MemoryError, match=r"has no room for 2,147,483,648 bytes, an array of shape \(131072, 16384\)"):
        intsim.run("activation.table", x, table, p=p, backend="cuda")
    held.clear()
    assert (intsim.run("activation.table", x[:9], table, p=p, backend="cuda") == 0).all()


def test_memory_of_another_context_is_refused() -> None:
    from cuda.bindings import driver as cu

    def done(answer: Any) -> Any:
        assert answer[0] == cu.CUresult.CUDA_SUCCESS, answer
        return answer[1] if len(answer) == 2 else None

    driver().current()
    before = done(cu.cuCtxGetCurrent())
    other = done(cu.cuCtxCreate(None, 0, done(cu.cuDeviceGet(0))))
    address = done(cu.cuMemAlloc(64))
    done(cu.cuCtxSetCurrent(before))
    try:
        foreign = Foreign(A, data=(int(address), False))
        with pytest.raises(ValueError, match="belongs to another CUDA context: intsim works in the primary one"):
            intsim.run(MATMUL, foreign, B, p=MATMUL.params(), backend="cuda")
    finally:
        done(cu.cuCtxDestroy(other))
        done(cu.cuCtxSetCurrent(before))


def test_host_memory_under_a_device_arrays_name_is_refused() -> None:
    with pytest.raises(ValueError, match="is no address that the GPU's driver knows: is it host memory"):
        intsim.run(MATMUL, Foreign(A), B, p=MATMUL.params(), backend="cuda")


@pytest.mark.parametrize("shape", [(70_001, 3), (3, 70_001), (1_000_003, 1)], ids=str)
def test_more_rows_than_a_grid_has_are_all_done(shape: tuple[int, int]) -> None:
    x = np.resize(np.arange(-997, 998, dtype=np.int32), shape)
    for op in ("requantize.power_of_two", "reduce.argmax"):
        p = get(op).params(2) if op.startswith("requantize") else get(op).params(x=int32)
        wanted = intsim.run(op, x, p=p, backend="cpu")
        got = intsim.run(op, intsim.to_device(x), p=p, backend="cuda", tuned=False)
        assert np.array_equal(np.asarray(got), wanted)


@pytest.mark.parametrize("lanes", ["a warp", "a block"])
@pytest.mark.parametrize("op", [op for op in all_ops() if isinstance(op.program, Rowwise)], ids=lambda op: op.name)
def test_long_rows_by_many_lanes(op: Any, lanes: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from intsim.backends import cuda
    from intsim.oracle import cases, selftest

    made = (selftest.enlarged(c, (5, 301, 3, 35, 33)) for c in cases.directed(op))
    listed = [case for case in made if case is not None][:3]
    assert listed
    ours = cuda.lanes_a_row
    monkeypatch.setattr(cuda, "lanes_a_row", lambda *given: ours(*given) and (32 if lanes == "a warp" else 256))
    for case in listed:
        got = intsim.prepare(op, p=case.params, backend="cuda", tuned=False).outputs(
            *map(intsim.to_device, case.inputs)
        )
        for a, wanted in zip(got, case.wanted, strict=True):
            assert np.array_equal(np.asarray(a), wanted), case.id


@pytest.mark.parametrize("size", [(1, 1), (1000, 1003)], ids=str)
def test_kernels_that_start_early_see_what_was_written_before(size: tuple[int, int]) -> None:
    """20 halvings and 20 rows of sums, one after the other; again and again with other contents."""
    halve = intsim.prepare(
        "requantize.power_of_two", p=get("requantize.power_of_two").params(1, dtype=int32), backend="cuda"
    )
    last = intsim.prepare("reduce.sum", p=get("reduce.sum").params(x=int32), backend="cuda")

    def chain(a: Any) -> Any:
        for _ in range(20):
            a = halve(a)
        return a, last(a)

    rng, x = np.random.default_rng(0), intsim.to_device(np.zeros(size, np.int32))
    for run in (lambda: chain(x), intsim.freeze(chain, x), intsim.capture(chain, x)):
        for _ in range(5):
            host = rng.integers(-(2**31), 2**31, size).astype(np.int32)
            x.gpu.upload(x.pointer, host, x.stream)
            got, total = run()
            wanted = host
            for _ in range(20):
                wanted = intsim.run("requantize.power_of_two", wanted, p=halve.p, backend="cpu")
            assert np.array_equal(np.asarray(got), wanted)
            assert np.array_equal(np.asarray(total), wanted.sum(axis=1, dtype=np.int64).astype(np.int32))


def _gpus() -> int:
    from numba import cuda

    return len(cuda.gpus)


@pytest.mark.skipif(_gpus() < 2, reason="needs two GPUs")
def test_arrays_of_two_gpus() -> None:
    a, b = intsim.to_device(A, 0), intsim.to_device(B, 1)
    with pytest.raises(ValueError, match=r"several GPUs \(a on GPU 0, b on GPU 1\): copy them to one"):
        intsim.run(MATMUL, a, b, p=MATMUL.params(), backend="cuda")


@pytest.mark.skipif(_gpus() < 2, reason="needs two GPUs")
@pytest.mark.parametrize("library", ["intsim", "torch"])
def test_each_gpu_works_on_its_own_arrays(library: str) -> None:
    for index in (1, 0, 1):
        if library == "torch":
            import torch

            a, b = (torch.from_numpy(x).to(f"cuda:{index}") for x in (A, B))
        else:
            a, b = (intsim.to_device(x, index) for x in (A, B))
        out = intsim.run(MATMUL, a, b, p=MATMUL.params(), backend="cuda")
        assert np.array_equal(fetch(out), WANTED)
        assert cuda_exchange._index(out) == index
        again = intsim.capture(intsim.prepare(MATMUL, p=MATMUL.params(), backend="cuda"), a, b)()
        assert np.array_equal(fetch(again), WANTED)
        assert library == "torch" or isinstance(out, DeviceArray)

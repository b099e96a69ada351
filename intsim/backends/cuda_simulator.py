"""The GPU that Numba's simulator stands for: host memory, kernels as Python, one stream after the other."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
from numba import cuda

from intsim.backends.cuda_arrays import DeviceArray, Host
from intsim.backends.cuda_launch import Call, Kernel

CAPABILITY = (9, 0)  # so that every tuned kernel can be tried that has a body in Python


class SimulatedGpu:
    """Stands for the GPU with number ``index``."""

    name, capability, multiprocessors, simulated, early = "Numba's simulator", CAPABILITY, 2, True, False

    def __init__(self, index: int) -> None:
        self.index = index

    def stream(self) -> int:
        return 1

    def wait(self, stream: int, other: int) -> None:
        pass  # every launch is over when it returns

    def capturing(self, stream: int) -> bool:
        return False  # no graphs: what is recorded is repeated

    def synchronize(self, stream: int) -> None:
        pass

    def finish(self) -> None:
        pass

    def allocate(self, size: int) -> tuple[int, Any]:
        memory = np.empty(max(size, 1), np.uint8)
        return memory.ctypes.data, memory

    def upload(self, address: int, a: Host, stream: int) -> None:
        host(address, a.shape, a.dtype)[...] = a

    def download(self, address: int, a: Host, stream: int) -> None:
        a[...] = host(address, a.shape, a.dtype)

    def view(self, a: Any, stream: int) -> tuple[int, tuple[int, ...], tuple[int, ...], Any]:
        said = a.__cuda_array_interface__
        dtype, shape = np.dtype(said["typestr"]), tuple(said["shape"])
        seen = host(said["data"][0], shape, dtype, said.get("strides"))
        return said["data"][0], shape, tuple(s // dtype.itemsize for s in seen.strides), dtype

    def export(self, a: DeviceArray, stream: int | None, **asked: Any) -> Any:
        return host(a.pointer, a.shape, a.dtype).__dlpack__(**asked)

    def load(self, kernel: Kernel, arguments: tuple[Any, ...]) -> Any:
        return cuda.jit(kernel.function)

    def dynamic_shared(self, loaded: Any, size: int) -> None:
        pass

    def launch(self, call: Call, stream: int) -> None:
        call.loaded[call.grid, call.block, 0, call.shared](*map(_on_host, call.packed))

    def capture(self, work: Callable[[int], None]) -> Callable[[int], None] | None:
        """None: there is no graph here, the recorded launches are repeated."""
        work(self.stream())
        return None


def host(address: int, shape: Any, dtype: Any, strides: Any = None) -> Host:
    """The simulated device memory at ``address``."""

    class View:
        __array_interface__ = {
            "data": (address, False),
            "shape": tuple(shape),
            "typestr": np.dtype(dtype).str,
            "strides": strides,
            "version": 3,
        }

    return np.asarray(View())


def _on_host(value: Any) -> Any:
    if isinstance(value, DeviceArray):
        return host(value.pointer, value.shape, value.dtype)
    if isinstance(value, tuple):
        made = [_on_host(v) for v in value]
        return type(value)(*made) if hasattr(value, "_fields") else tuple(made)
    return value


@cache
def gpu(index: int) -> SimulatedGpu:
    return SimulatedGpu(index)


def index_of(address: int) -> int:
    return 0


def current() -> SimulatedGpu:
    return gpu(0)


def version() -> str:
    """Of the driver: there is none."""
    return "simulated"

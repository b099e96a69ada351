"""Where launches go: to a stream, and into a recording where one is being made."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from typing import Any

import numpy as np

from intsim.backends.cuda_arrays import DeviceArray, Gpu, recording
from intsim.backends.cuda_exchange import empty, upload
from intsim.backends.cuda_launch import Call, Dims, Kernel, loader

_RECORDING: ContextVar[list[Call] | None] = ContextVar("recording", default=None)


def issue(gpu: Gpu, stream: int, kernel: Kernel, grid: Dims, block: Dims, arguments: tuple[Any, ...]) -> None:
    """Launches ``kernel`` on ``stream`` and does not wait for it."""
    _send(gpu, stream, loader(gpu).call(kernel, grid, block, arguments))


def _send(gpu: Gpu, stream: int, call: Call) -> None:
    gpu.launch(call, stream)
    recording = _RECORDING.get()
    if recording is not None:
        recording.append(call)


@contextlib.contextmanager
def recorded() -> Iterator[list[Call]]:
    """The launches that are issued inside the block, in order."""
    calls: list[Call] = []
    token = _RECORDING.set(calls)
    try:
        yield calls
    finally:
        _RECORDING.reset(token)


class Queue:
    """What a tuned kernel launches with: one call of an op, on one stream of one GPU.

    record: the parameters as the kernel's record, its arrays on the GPU.
    """

    __slots__ = ("_kept", "_library", "gpu", "record", "stream", "x")

    def __init__(self, gpu: Gpu, stream: int, record: Any, x: Any, kept: dict[Any, Any], library: str) -> None:
        self.gpu, self.stream, self.record, self.x = gpu, stream, record, x
        self._kept, self._library = kept, library

    @property
    def capability(self) -> tuple[int, int]:
        return self.gpu.capability

    @property
    def multiprocessors(self) -> int:
        return self.gpu.multiprocessors

    @property
    def simulated(self) -> bool:
        return self.gpu.simulated

    @property
    def capturing(self) -> bool:
        """Whether the launches go into a graph: then nothing may be copied from the host."""
        return recording(self.gpu, self.stream)

    def launch(self, kernel: Kernel, grid: Dims, block: Dims, *arguments: Any, shared: int = 0) -> None:
        """Launches and does not wait. shared: bytes of dynamic shared memory."""
        _send(self.gpu, self.stream, loader(self.gpu).call(kernel, grid, block, arguments, shared))

    def empty(self, shape: tuple[int, ...], dtype: Any) -> DeviceArray:
        """Memory for an intermediate result, uninitialised."""
        return empty(self.gpu, shape, dtype, self.stream, self._library)

    def upload(self, a: np.ndarray[Any, Any]) -> DeviceArray:
        """A copy of a host array on the GPU; inside ``once``, since it is no part of a captured graph."""
        return upload(self.gpu, a, self.stream)

    def once(self, key: Any, make: Callable[[], Any], of: tuple[str, ...] = ()) -> Any:
        """``make()``, kept from call to call where the inputs named in ``of`` are constant; else made anew."""
        sources = [getattr(self.x, name) for name in of]
        if not all(a.constant for a in sources):
            return make()
        whole = (key, self.gpu.index, *(a.pointer for a in sources))
        if whole not in self._kept:
            self._kept[whole] = make()
        return self._kept[whole]

"""Arrays in a GPU's memory, and what a GPU (or its simulation) can do."""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable, Sequence
from contextvars import ContextVar
from typing import Any, Protocol

import numpy as np

Host = np.ndarray[Any, Any]
DLPACK_CUDA = (2, 13)  # device types of DLPack: device memory, managed memory

CAPTURE: ContextVar[int | None] = ContextVar("capture", default=None)  # the stream whose work is being recorded

# The arrays made while work is being recorded: a recording keeps them, since kernels may know their addresses alone.
MADE: ContextVar[list[Any] | None] = ContextVar("made", default=None)


class Gpu(Protocol):
    """One GPU, or its simulation: memory, streams, kernels."""

    index: int
    name: str
    capability: tuple[int, int]
    multiprocessors: int
    simulated: bool
    early: bool  # a kernel may start while the one before it ends

    def stream(self) -> int: ...  # intsim's own, for host arrays
    def wait(self, stream: int, other: int) -> None: ...
    def capturing(self, stream: int) -> bool: ...
    def synchronize(self, stream: int) -> None: ...
    def finish(self) -> None: ...
    def allocate(self, size: int) -> tuple[int, Any]: ...  # address, and what keeps the memory
    def upload(self, address: int, a: Host, stream: int) -> None: ...
    def download(self, address: int, a: Host, stream: int) -> None: ...
    def view(self, a: Any, stream: int) -> tuple[int, tuple[int, ...], tuple[int, ...], Any]: ...
    def export(self, a: DeviceArray, stream: int | None, **asked: Any) -> Any: ...
    def load(self, kernel: Any, arguments: tuple[Any, ...]) -> Any: ...
    def launch(self, call: Any, stream: int) -> None: ...
    def dynamic_shared(self, loaded: Any, size: int) -> None: ...
    def capture(self, work: Callable[[int], None]) -> Callable[[int], None] | None: ...


def driver() -> Any:
    """The module that reaches the GPU, or the one that stands for it where Numba's simulator is on."""
    from numba import config

    return importlib.import_module(f"intsim.backends.cuda_{'simulator' if config.ENABLE_CUDASIM else 'driver'}")


def recording(gpu: Gpu, stream: int) -> bool:
    """Whether work on ``stream`` is being recorded, so that nothing may be read or copied on the host."""
    return CAPTURE.get() is not None or gpu.capturing(stream)


class DeviceArray(np.lib.mixins.NDArrayOperatorsMixin):
    """An array in a GPU's memory.

    Its views (reshape, swapaxes, one index of each leading axis) stay there; any other operation of NumPy
    copies to the host and works on the copy.

    pointer: the address of the first element. strides: in elements; ``contiguous`` where they are C order.
    stream: the stream on which the contents are ready. owner: keeps the memory alive.
    holds: the least and the greatest value that it can have, where that is known.
    constant: nothing writes to it as long as it lives.
    """

    __slots__ = (
        "constant",
        "contiguous",
        "dtype",
        "gpu",
        "holds",
        "owner",
        "pointer",
        "shape",
        "size",
        "stream",
        "strides",
    )

    def __init__(
        self,
        gpu: Gpu,
        pointer: int,
        shape: Sequence[int],
        dtype: Any,
        stream: int,
        owner: Any,
        strides: Sequence[int] | None = None,
    ) -> None:
        self.gpu, self.pointer, self.stream, self.owner = gpu, pointer, stream, owner
        self.shape, self.dtype = tuple(map(int, shape)), np.dtype(dtype)
        self.size = math.prod(self.shape)
        ordered = c_strides(self.shape)
        self.strides = ordered if strides is None else tuple(strides)
        self.contiguous = self.strides == ordered or _same_order(self.shape, self.strides, ordered)
        self.holds: tuple[int, int] | None = None
        self.constant = False

    @property
    def ndim(self) -> int:
        return len(self.shape)

    @property
    def nbytes(self) -> int:
        return self.size * int(self.dtype.itemsize)

    def _like(
        self, pointer: int, shape: Sequence[int], strides: Sequence[int] | None, dtype: Any = None
    ) -> DeviceArray:
        made = DeviceArray(self.gpu, pointer, shape, dtype or self.dtype, self.stream, self, strides)
        made.holds, made.constant = (None if dtype else self.holds), self.constant
        return made

    def reshape(self, *shape: Any) -> DeviceArray:
        """The same elements in C order with another shape; a view."""
        wanted = list(shape[0] if len(shape) == 1 and not isinstance(shape[0], int) else shape)
        if -1 in wanted:
            known = math.prod(n for n in wanted if n != -1)
            wanted[wanted.index(-1)] = self.size // max(known, 1)
        if math.prod(wanted) != self.size:
            raise ValueError(f"an array of shape {self.shape} has no shape {tuple(wanted)}")
        whole = self.in_order()
        return whole._like(whole.pointer, wanted, None)

    def view(self, dtype: Any) -> DeviceArray:
        """The same bytes as elements of another type of the same width."""
        assert np.dtype(dtype).itemsize == self.dtype.itemsize
        return self._like(self.pointer, self.shape, self.strides, dtype)

    def swapaxes(self, first: int, second: int) -> DeviceArray:
        shape, strides = list(self.shape), list(self.strides)
        for order in (shape, strides):
            order[first], order[second] = order[second], order[first]
        return self._like(self.pointer, shape, strides)

    def broadcast_to(self, shape: Sequence[int]) -> DeviceArray:
        """A view in which axes of length 1, and new leading ones, are repeated without being stored."""
        new = len(shape) - self.ndim
        pairs = zip(self.shape, self.strides, shape[new:], strict=True)
        strides = [0] * new + [0 if n == 1 and m != 1 else s for n, s, m in pairs]
        return self._like(self.pointer, shape, strides)

    def __getitem__(self, at: Any) -> Any:
        """The part at one index of each of the first axes; for any other index a part of a copy on the host."""
        at = at if isinstance(at, tuple) else (at,)
        if not all(isinstance(i, (int, np.integer)) and 0 <= i < n for i, n in zip(at, self.shape, strict=False)):
            return self.to_host()[at]
        offset = sum(int(i) * s for i, s in zip(at, self.strides, strict=False))
        address = self.pointer + offset * self.dtype.itemsize
        return self._like(address, self.shape[len(at) :], self.strides[len(at) :])

    def in_order(self) -> DeviceArray:
        """Itself where its elements lie in C order, else a copy in which they do."""
        if self.contiguous:
            return self
        from intsim.backends.cuda_moves import copied

        return copied(self)

    def within(self, low: int, high: int) -> bool:
        """Whether every element lies in ``low`` to ``high``; floats by their place in the order of all floats.

        Reads the device's memory, so it waits for the stream; True, unread, while a graph is captured.
        """
        if self.holds is not None and low <= self.holds[0] and self.holds[1] <= high:
            return True
        if self.dtype.kind in "iu" and low <= np.iinfo(self.dtype).min and np.iinfo(self.dtype).max <= high:
            return True
        if self.size == 0 or recording(self.gpu, self.stream):
            return True
        from intsim.backends.cuda_moves import extremes

        least, most = extremes(self.in_order())
        good = low <= least and most <= high
        if good and self.constant:
            self.holds = (low, high)
        return good

    def to_host(self) -> Host:
        """A copy in NumPy. Waits for the stream. Raises ValueError while a graph is captured."""
        if recording(self.gpu, self.stream):
            raise ValueError("a graph cannot hold work of the host: the captured function reads a device array there")
        whole, made = self.in_order(), np.empty(self.shape, self.dtype)
        if self.size:
            self.gpu.download(whole.pointer, made, self.stream)
        return made

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Host:
        made = self.to_host()
        return made if dtype is None else made.astype(dtype)

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **options: Any) -> Any:
        return getattr(ufunc, method)(*(i.to_host() if isinstance(i, DeviceArray) else i for i in inputs), **options)

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        width = self.dtype.itemsize
        return {
            "shape": self.shape,
            "typestr": self.dtype.str,
            "data": (self.pointer, False),
            "strides": None if self.contiguous else tuple(s * width for s in self.strides),
            "stream": self.stream,
            "version": 3,
        }

    def __dlpack_device__(self) -> tuple[int, int]:
        return (1, 0) if self.gpu.simulated else (DLPACK_CUDA[0], self.gpu.index)

    def __dlpack__(self, *, stream: int | None = None, **asked: Any) -> Any:
        return self.gpu.export(self, stream, **asked)

    def __repr__(self) -> str:
        return f"DeviceArray(shape={self.shape}, dtype={self.dtype}, gpu={self.gpu.index})"


def _same_order(shape: Sequence[int], strides: Sequence[int], ordered: Sequence[int]) -> bool:
    """Whether these strides reach the elements in the same order: those of a length of 1 do not matter."""
    return 0 in shape or all(n == 1 or a == b for n, a, b in zip(shape, strides, ordered, strict=True))


def c_strides(shape: Sequence[int]) -> tuple[int, ...]:
    """The strides, in elements, of an array in C order."""
    strides, step = [], 1
    for n in reversed(shape):
        strides.append(step)
        step *= n
    return tuple(reversed(strides))

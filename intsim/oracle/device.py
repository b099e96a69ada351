"""Cases for kernels that work in a GPU's memory: inputs and output buffers there, guard bytes around all of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from intsim.backends import cuda_exchange
from intsim.backends.cuda_arrays import DeviceArray, Gpu, driver
from intsim.binding import Array
from intsim.oracle.buffers import GUARD, POISON
from intsim.oracle.cases import Case

FAR = 256 - GUARD  # bytes more before an array: GPU kernels rely on the alignment that allocations have


class DeviceGuarded:
    """A poisoned array in a GPU's memory with guard bytes before and after it; or one that holds ``contents``."""

    def __init__(self, gpu: Gpu, shape: tuple[int, ...], dtype: Any, contents: Array | None = None) -> None:
        size = int(np.prod(shape)) * np.dtype(dtype).itemsize
        self._first, self._last = GUARD + FAR, GUARD + FAR + size
        whole = np.full(size + 2 * GUARD + FAR, POISON, np.uint8)
        if contents is not None:
            whole[self._first : self._last] = np.ascontiguousarray(contents).reshape(-1).view(np.uint8)
        self._whole = cuda_exchange.upload(gpu, whole, gpu.stream())
        self.array = DeviceArray(gpu, self._whole.pointer + self._first, shape, dtype, gpu.stream(), self._whole)

    @property
    def intact(self) -> bool:
        """Whether every guard byte is as it was."""
        bytes_now = self._whole.to_host()
        return bool((bytes_now[: self._first] == POISON).all() and (bytes_now[self._last :] == POISON).all())

    def overlaps(self, a: DeviceArray) -> bool:
        first, last = a.pointer, a.pointer + a.nbytes
        return bool(a.size and first < self.array.pointer + self.array.nbytes and self.array.pointer < last)


@dataclass(eq=False)
class DeviceCase(Case):
    """A case as a kernel on a GPU gets it: the inputs are DeviceArrays, ready for every stream."""

    host: Case | None = None
    placed: list[DeviceGuarded] = field(default_factory=list)  # the inputs
    handed_out: list[DeviceGuarded] = field(default_factory=list)  # what ``buffers`` gave

    def buffers(self) -> Any:
        """Poisoned DeviceArrays for the outputs: one, or a tuple. Bytes around them are watched."""
        assert self.host is not None
        gpu = driver().current()
        made = [DeviceGuarded(gpu, a.shape, a.dtype) for a in self.host.wanted]
        self.handed_out.extend(made)
        return made[0].array if len(made) == 1 else tuple(g.array for g in made)

    @property
    def intact(self) -> bool:
        return all(g.intact for g in (*self.placed, *self.handed_out))


def on_gpu(case: Case) -> DeviceCase:
    """``case`` with its inputs in the memory of the current GPU."""
    gpu = driver().current()
    placed = [DeviceGuarded(gpu, a.shape, a.dtype, a) for a in case.inputs]
    inputs: Any = tuple(g.array for g in placed)
    return DeviceCase(
        case.op, case.id, case.comment, case.params, inputs, case.expected, case.given, case.serves, [], case, placed
    )


def wait() -> None:
    """Until the GPU has done all that was started. Raises where a kernel went wrong."""
    driver().current().finish()


def fetched(returned: Any) -> Any:
    """What a backend returned, with arrays that lie on a GPU as DeviceArrays; others as they are."""
    many = isinstance(returned, (tuple, list))
    made = [_seen(one) for one in (returned if many else (returned,))]
    return tuple(made) if many else made[0]


def _seen(one: Any) -> Any:
    if not cuda_exchange.on_device(one):
        return one
    _, stream = cuda_exchange.place(["output"], [one])
    return cuda_exchange.received("output", one, stream, any_order=True)


def to_host(arrays: Sequence[Any]) -> tuple[Array, ...]:
    return tuple(a.to_host() if isinstance(a, DeviceArray) else a for a in arrays)

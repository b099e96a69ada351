"""Running an op on a GPU: arrays stay there from the caller's hand to the result, with no copy on the way.

Host arrays are copied there and back; where they are small, as int64, so that one kernel serves all types.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from intsim.backends import cuda, cuda_exchange
from intsim.backends.cuda_arrays import CAPTURE, DeviceArray, Gpu, driver
from intsim.backends.cuda_queue import Queue
from intsim.backends.widening import SMALL
from intsim.binding import Array, Bound, fold, foldable
from intsim.numerics import IntType
from intsim.op import Contraction, Op, Tuned
from intsim.records import fields_class
from intsim.resident import broadcast, resident


@dataclass(frozen=True, slots=True)
class Place:
    """Where one call runs: a GPU and a stream.

    library: whose arrays come back; "" for DeviceArrays. allocator: whose memory the outputs are; "" for the driver's.
    """

    gpu: Gpu
    stream: int
    library: str = ""
    allocator: str = ""


class OnGpu:
    """What an op with its parameters keeps on GPUs: records, neutral inputs, prepacked weights.

    record(sizes) is the host's record of the parameters; tuned(sizes, leading) finds a tuned kernel.
    """

    def __init__(
        self,
        op: Op,
        p: Any,
        record: Callable[[dict[str, int]], Any],
        tuned: Callable[..., Tuned | None],
        stream: Any,
    ) -> None:
        self.op, self.p, self._host_record, self._tuned = op, p, record, tuned
        self._stream = None if stream is None else cuda_exchange.stream_handle(stream)
        self._records: dict[Any, Any] = {}
        self._fills: dict[Any, DeviceArray] = {}
        self._kept: dict[Any, Any] = {}

    def place(self, arrays: Sequence[Any]) -> Place:
        """Where a call with these inputs runs. Raises ValueError where they lie on several GPUs."""
        given = [a for a in arrays if cuda_exchange.on_device(a)]
        if not given:
            gpu = driver().current()
            return Place(gpu, gpu.stream())
        names = [port.name for port in self.op.inputs]
        try:
            gpu, stream = cuda_exchange.place(names[: len(arrays)], arrays[: len(names)])
        except ValueError as wrong:
            raise ValueError(f"{self.op.id}: {wrong}") from None
        if self._stream is not None and CAPTURE.get() is None:
            stream = self._stream
        passed = next((a for a in given if not getattr(a, "constant", False)), given[0])
        library = "" if isinstance(passed, DeviceArray) else cuda_exchange.kind(passed)
        return Place(gpu, stream, library, cuda_exchange.allocator(passed))

    def constants(self, arrays: Mapping[str, Any]) -> dict[str, DeviceArray]:
        """Inputs that never change, on the GPU of those that lie on one, else on the current one."""
        place = self.place([a for a in arrays.values() if cuda_exchange.on_device(a)])
        made = {}
        for name, a in arrays.items():
            if not cuda_exchange.on_device(a):
                a = cuda_exchange.upload(place.gpu, np.asarray(a), place.stream)
            made[name] = cuda_exchange.received(f"{self.op.id}: {name}", a, place.stream)
            made[name].constant = True
        place.gpu.synchronize(place.stream)  # ready for every stream from here on
        return made

    def received(self, arrays: Sequence[Any], place: Place) -> list[Any]:
        """The inputs with those that lie on the GPU as DeviceArrays; others, which are the host's, as they are."""
        return [
            cuda_exchange.received(f"{self.op.id}: {port.name}", a, place.stream) if cuda_exchange.on_device(a) else a
            for port, a in zip(self.op.inputs, arrays, strict=False)
        ] + list(arrays[len(self.op.inputs) :])

    def handed_back(self, out: Sequence[Any], arrays: Sequence[Any], place: Place) -> tuple[Any, ...]:
        """The outputs as the caller gets them: on the GPU where an input of the call lies there, constants aside."""
        there = [a for a in arrays if cuda_exchange.on_device(a)]
        if all(getattr(a, "constant", False) for a in there) and len(there) < sum(a is not None for a in arrays):
            return tuple(a.to_host() if resident(a) else a for a in out)
        whole = (a if resident(a) else cuda_exchange.upload(place.gpu, np.asarray(a), place.stream) for a in out)
        return tuple(cuda_exchange.returned(a, place.library) for a in whole)

    def run(self, bound: Bound, place: Place) -> tuple[Any, ...]:
        """The outputs for bound inputs: DeviceArrays where an input is one, else arrays of the host."""
        if any(resident(a) for a in bound.arrays):
            there: Any = tuple(self._uploaded(i, a, place) for i, a in enumerate(bound.arrays))
            return self._run(Bound(there, bound.size, bound.loop), place)
        shapes = [bound.loop + port.shape(self.p, bound.size) for port in self.op.outputs]
        sizes = [a.size for a in bound.arrays] + [int(np.prod(shape)) for shape in shapes]
        small = max(sizes) <= SMALL and self._tuned(bound.size, place.gpu) is None
        given = tuple(_bits(a).astype(np.int64) if small else a for a in bound.arrays)
        there = tuple(cuda_exchange.upload(place.gpu, a, place.stream) for a in given)
        out = self._run(Bound(there, bound.size, bound.loop), place, wide=small)
        return tuple(_narrowed(a.to_host(), port.storage(self.p)) for a, port in zip(out, self.op.outputs, strict=True))

    def _uploaded(self, index: int, a: Any, place: Place) -> DeviceArray:
        if resident(a):
            made: DeviceArray = a
            return made
        port = self.op.inputs[index]
        fixed = a.base is None and not a.flags.writeable  # nothing writes to it: kept as long as it lives
        if not fixed and (port.fill is None or a.size == 0 or (a != a.flat[0]).any()):
            return cuda_exchange.upload(place.gpu, a, place.stream)
        # else what an optional input is filled with
        key = (place.gpu.index, id(a)) if fixed else (place.gpu.index, index, a.shape, int(a.flat[0]))
        if key not in self._fills:
            self._fills[key] = cuda_exchange.upload(place.gpu, a, place.stream)
            self._fills[key].constant = True
            if fixed:
                weakref.finalize(a, self._fills.pop, key, None)
            else:
                self._fills[key].holds = (int(a.flat[0]), int(a.flat[0]))
        return cuda_exchange.received(port.name, self._fills[key], place.stream)

    def _run(self, bound: Bound, place: Place, wide: bool = False) -> tuple[DeviceArray, ...]:
        op, p = self.op, self.p
        out = tuple(self._empty(port, bound, place, wide) for port in op.outputs)
        if out[0].size == 0:
            return out
        if bound.loop and foldable(op, bound):
            arrays, size = fold(op, bound)
            flat = [a.reshape(port.shape(p, size)) for a, port in zip(out, op.outputs, strict=True)]
            self._launch(arrays, flat, size, place)
        elif not bound.loop:
            self._launch(bound.arrays, out, bound.size, place)
        else:
            whole = [
                broadcast(a, bound.loop + a.shape[a.ndim - len(port.core) :])
                for port, a in zip(op.inputs, bound.arrays, strict=True)
            ]
            tuned = self._tuned(bound.size, place.gpu, leading=True)
            if tuned is not None:
                given = whole if tuned.strided else [a.in_order() for a in whole]
                self._launch(given, out, bound.size, place, leading=True)
            else:
                for at in np.ndindex(bound.loop):
                    self._launch([a[at] for a in whole], [a[at] for a in out], bound.size, place)
        return out

    def _empty(self, port: Any, bound: Bound, place: Place, wide: bool) -> DeviceArray:
        shape, stored = bound.loop + port.shape(self.p, bound.size), port.storage(self.p)
        made = cuda_exchange.empty(place.gpu, shape, np.int64 if wide else stored, place.stream, place.allocator)
        t = port.type(self.p)
        made.holds = port.bounds(self.p, bound.size) if isinstance(t, IntType) and not port.packed(self.p) else None
        return made

    def _launch(
        self, arrays: Sequence[Any], out: Sequence[Any], size: dict[str, int], place: Place, leading: bool = False
    ) -> None:
        op = self.op
        x = fields_class(*(port.name for port in op.inputs))(*map(_bits, arrays))
        y = fields_class(*(port.name for port in op.outputs))(*map(_bits, out))
        rec = self._host_record(size)
        queue = Queue(place.gpu, place.stream, self._record(rec, size, place), x, self._kept, place.allocator)
        tuned = self._tuned(size, place.gpu, leading=leading)
        if tuned is not None:
            tuned.load()(x, y, rec, queue)
        else:
            assert not leading
            cuda.run(
                op.name, op.program, queue, x, y, size[op.program.over] if isinstance(op.program, Contraction) else 0
            )

    def _record(self, rec: Any, size: dict[str, int], place: Place) -> Any:
        key = place.gpu.index, tuple(sorted(size.items()))
        if key not in self._records:
            self._records[key] = _resident_record(rec, place)
        return self._records[key]


def _resident_record(rec: Any, place: Place) -> Any:
    """The record with its arrays on the GPU."""
    if isinstance(rec, np.ndarray):
        made = cuda_exchange.upload(place.gpu, rec, place.stream)
        made.constant = True
        return made
    if isinstance(rec, tuple):
        return type(rec)(*(_resident_record(v, place) for v in rec))
    return rec


def _bits(a: Any) -> Any:
    """Floats as their bits, as programs take them."""
    return a.view(np.int32) if a.dtype == np.float32 else a


def _narrowed(a: Array, storage: str) -> Array:
    if a.dtype == storage:
        return a
    return a.astype(np.int32).view(np.float32) if storage == "float32" else a.astype(storage)


def entered(*arrays: Any) -> tuple[tuple[Any, ...], Callable[[Any], Any]]:
    """Arrays of a caller for a model of many ops, and what turns its result into an array of the caller's library.

    Those that lie on a GPU become DeviceArrays, and every op then gives DeviceArrays; host arrays stay as they are.
    """
    there = [a for a in arrays if cuda_exchange.on_device(a)]
    if not there:
        return arrays, lambda out: out
    _, stream = cuda_exchange.place([f"input {i}" for i in range(len(arrays))], arrays)
    library = "" if isinstance(there[0], DeviceArray) else cuda_exchange.kind(there[0])
    made = tuple(
        cuda_exchange.received(f"input {i}", a, stream) if cuda_exchange.on_device(a) else a
        for i, a in enumerate(arrays)
    )
    return made, lambda out: cuda_exchange.returned(out, library)


def constants(tensors: Mapping[str, Array]) -> dict[str, Any]:
    """Weights on the current GPU, as arrays that no op writes to."""
    gpu = driver().current()
    made: dict[str, Any] = {}
    for name, a in tensors.items():
        made[name] = cuda_exchange.upload(gpu, a, gpu.stream())
        made[name].constant = True
    return made


def host_copies(arrays: Sequence[Any]) -> tuple[Any, ...]:
    """The arrays with those that lie on a GPU copied to the host."""
    if not any(cuda_exchange.on_device(a) for a in arrays):
        return tuple(arrays)
    _, stream = cuda_exchange.place([str(i) for i in range(len(arrays))], arrays)
    return tuple(
        cuda_exchange.received(str(i), a, stream).to_host() if cuda_exchange.on_device(a) else a
        for i, a in enumerate(arrays)
    )

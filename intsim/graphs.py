"""Work on a GPU, recorded once and repeated: what a call costs from Python is then paid once.

graph = intsim.capture(model, tokens)   # runs it, then captures it in a CUDA graph
tokens.copy_(next_tokens)               # new contents, the same memory
graph()                                 # the whole model again; the outputs lie where they lay
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from intsim.backends import cuda_exchange
from intsim.backends.cuda_arrays import CAPTURE, MADE, Gpu
from intsim.backends.cuda_launch import Call
from intsim.backends.cuda_queue import recorded


class Recording:
    """Work that can be repeated on what its arrays hold by then.

    inputs: the arrays it reads. outputs: what the function returned; every repetition writes to the same memory.
    launches: how many kernels it starts.
    """

    def __init__(
        self, gpu: Gpu, stream: int, inputs: tuple[Any, ...], outputs: Any, calls: list[Call], kept: Any
    ) -> None:
        self.inputs, self.outputs, self.launches = inputs, outputs, len(calls)
        self._gpu, self._stream, self._calls = gpu, stream, calls
        self._kept = kept  # the function with its constants, and all arrays that it made
        self._again: Callable[[int], None] | None = None

    def __call__(self, stream: Any = None) -> Any:
        """Starts it again and does not wait; returns ``outputs``. stream: in place of the inputs' own."""
        where = self._where() if stream is None else cuda_exchange.stream_handle(stream)
        if self._again is not None:
            self._again(where)
        else:
            for call in self._calls:
                self._gpu.launch(call, where)
        if where != self._stream:
            self._gpu.wait(self._stream, where)  # the outputs say that they are ready on this one
        return self.outputs

    def _where(self) -> int:
        return cuda_exchange.stream_of(self.inputs[0], self._gpu.index)


def capture(function: Callable[..., Any], *arrays: Any) -> Recording:
    """A CUDA graph of all that ``function(*arrays)`` starts on the GPU: a model, or any calls of ops.

    arrays: device arrays. The function runs once before (kernels are compiled, inputs checked, constants copied)
    and once into the graph; repetitions check nothing. Raises ValueError where it copies to or from the host,
    and TypeError where an array is on the host.
    """
    gpu = _gpu_of(function, arrays)
    function(*arrays)
    made: list[Any] = []

    def work(stream: int) -> None:
        with cuda_exchange.working_on(gpu, stream):
            made.extend(_recorded(function, arrays, stream))

    again = gpu.capture(work)
    recording = Recording(gpu, gpu.stream(), arrays, *made)
    recording._again = again
    return recording


def freeze(function: Callable[..., Any], *arrays: Any) -> Recording:
    """As ``capture``, with no graph: the launches are repeated one by one, their arguments packed once.

    For one op (``freeze(prepared, x)``): of anything else that the function starts, only intsim's kernels repeat.
    """
    gpu = _gpu_of(function, arrays)
    function(*arrays)
    stream = cuda_exchange.stream_of(arrays[0], gpu.index)
    return Recording(gpu, stream, arrays, *_recorded(function, arrays, stream))


def _gpu_of(function: Any, arrays: tuple[Any, ...]) -> Gpu:
    name = getattr(function, "__name__", type(function).__name__)
    if not arrays or not all(cuda_exchange.on_device(a) for a in arrays):
        raise TypeError(f"{name} is recorded with arrays in a GPU's memory; intsim.to_device copies one there")
    return cuda_exchange.place([f"input {i}" for i in range(len(arrays))], arrays)[0]


def _recorded(function: Callable[..., Any], arrays: tuple[Any, ...], stream: int) -> tuple[Any, list[Call], Any]:
    made: list[Any] = []
    token, token_of_made = CAPTURE.set(stream), MADE.set(made)
    try:
        with recorded() as calls:
            return function(*arrays), calls, (function, made)
    finally:
        CAPTURE.reset(token)
        MADE.reset(token_of_made)


def to_device(a: Any, gpu: int | None = None) -> Any:
    """A copy of a host array in a GPU's memory, a DeviceArray; on the current GPU where no number is given."""
    import numpy as np

    from intsim.backends.cuda_arrays import driver

    there: Gpu = driver().current() if gpu is None else driver().gpu(gpu)
    return cuda_exchange.upload(there, np.asarray(a), there.stream())

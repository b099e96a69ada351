"""Arrays in and out: read from and given back to whatever library made them, without copies.

Anything with ``__cuda_array_interface__`` or DLPack can be passed in. What comes out is an array of
the caller's library (PyTorch, CuPy, Numba), else a DeviceArray, which offers both protocols.
"""

from __future__ import annotations

import contextlib
import math
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from intsim.backends.cuda_arrays import CAPTURE, DLPACK_CUDA, MADE, DeviceArray, Gpu, Host, driver, recording

LEGACY_STREAM = 1  # the default stream, as both protocols number it
_TORCH = {n: np.dtype(n) for n in ["int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64", "float32"]}

# -- in ----------------------------------------------------------------------------------------------


def on_device(a: Any) -> bool:
    """Whether ``a`` lies in a GPU's memory, by what its protocols say."""
    if isinstance(a, (np.ndarray, DeviceArray)):
        return isinstance(a, DeviceArray)
    if kind(a) == "torch":
        return bool(a.is_cuda)  # PyTorch's own words: the protocols cost it 5 to 20 us
    if hasattr(a, "__cuda_array_interface__"):
        return True
    return hasattr(a, "__dlpack_device__") and a.__dlpack_device__()[0] in DLPACK_CUDA


def received(name: str, a: Any, stream: int, *, any_order: bool = False) -> DeviceArray:
    """``a`` as it lies on its GPU; work on ``stream`` sees its contents. any_order: strides are taken as they are.

    Raises ValueError for strides other than C order, memory of another context, or what is no device memory.
    """
    if isinstance(a, DeviceArray):
        if a.stream == stream:
            return a.in_order()
        if not a.constant:  # a constant was waited for when it was made
            a.gpu.wait(stream, a.stream)
        made = a._like(a.pointer, a.shape, a.strides)
        made.stream = stream
        return made.in_order()
    gpu = driver().gpu(_index(a))
    if kind(a) == "torch" and not a.is_neg():
        made = _from_torch(gpu, a, stream)
    else:
        pointer, shape, strides, dtype = gpu.view(a, stream)
        made = DeviceArray(gpu, pointer, shape, dtype, stream, a, strides)
    if not made.contiguous and not any_order:
        raise ValueError(
            f"{name} has strides {made.strides} (elements) for shape {made.shape}, needs C order: "
            "pass a contiguous copy (.contiguous() in PyTorch, ascontiguousarray in CuPy)"
        )
    return made


def _from_torch(gpu: Gpu, a: Any, stream: int) -> DeviceArray:
    name = str(a.dtype).removeprefix("torch.")
    if name not in _TORCH:
        raise TypeError(f"a tensor of {a.dtype}: intsim takes integers and float32")
    gpu.wait(stream, stream_of(a, gpu.index))
    return DeviceArray(gpu, a.data_ptr(), a.shape, _TORCH[name], stream, a, a.stride())


def _index(a: Any) -> int:
    """The number of the GPU that holds ``a``."""
    if isinstance(a, DeviceArray):
        return a.gpu.index
    if kind(a) == "torch":
        return int(a.get_device())
    if hasattr(a, "__dlpack_device__"):
        return int(a.__dlpack_device__()[1])
    return int(driver().index_of(a.__cuda_array_interface__["data"][0]))


def place(names: Sequence[str], arrays: Sequence[Any]) -> tuple[Gpu, int]:
    """The GPU that holds all of ``arrays``, and the stream of the one who calls.

    Raises ValueError where they lie on more than one GPU.
    """
    held = {name: _index(a) for name, a in zip(names, arrays, strict=True) if on_device(a)}
    if len(set(held.values())) > 1:
        listed = ", ".join(f"{name} on GPU {index}" for name, index in held.items())
        raise ValueError(f"the arrays lie on several GPUs ({listed}): copy them to one")
    gpu: Gpu = driver().gpu(next(iter(held.values())))
    captured = CAPTURE.get()
    first = next(a for a in arrays if on_device(a))
    return gpu, stream_of(first, gpu.index) if captured is None else captured


def stream_of(a: Any, index: int) -> int:
    """The stream on which the owner of ``a`` works."""
    if isinstance(a, DeviceArray):
        return a.stream
    if kind(a) == "torch":
        return _torch_stream(index)
    said = getattr(a, "__cuda_array_interface__", {}).get("stream")
    return LEGACY_STREAM if said is None else int(said)


def allocator(a: Any) -> str:
    """The library whose memory ``a`` is."""
    while isinstance(a, DeviceArray):
        a = a.owner
    return kind(a)


def _torch_stream(index: int) -> int:
    torch = sys.modules["torch"]
    quick = getattr(torch._C, "_cuda_getCurrentRawStream", None)  # 0.2 us, where the public way takes 4
    return int(quick(index) if quick else torch.cuda.current_stream(index).cuda_stream) or LEGACY_STREAM


def stream_handle(stream: Any) -> int:
    """A stream as a number: from an int, or an object of CUDA's stream protocol, PyTorch, CuPy or Numba."""
    if isinstance(stream, int):
        return stream or LEGACY_STREAM
    if hasattr(stream, "__cuda_stream__"):
        said = stream.__cuda_stream__
        return int((said() if callable(said) else said)[1]) or LEGACY_STREAM
    for name in ("cuda_stream", "ptr", "handle"):
        if hasattr(stream, name):
            handle = getattr(stream, name)
            return int(getattr(handle, "value", handle) or 0) or LEGACY_STREAM
    raise TypeError(f"a stream is an int or has __cuda_stream__; got {type(stream).__name__}")


@contextlib.contextmanager
def working_on(gpu: Gpu, stream: int) -> Iterator[None]:
    """Inside the block ``stream`` is the current one of every library that is there: their work goes to it too."""
    with contextlib.ExitStack() as stack:
        if not gpu.simulated and "torch" in sys.modules:
            torch = sys.modules["torch"]
            stack.enter_context(torch.cuda.stream(torch.cuda.ExternalStream(stream, gpu.index)))
        if not gpu.simulated and "cupy" in sys.modules:
            stack.enter_context(sys.modules["cupy"].cuda.ExternalStream(stream, gpu.index))
        yield


# -- out ---------------------------------------------------------------------------------------------


def kind(a: Any) -> str:
    """The library that ``a`` comes from."""
    return type(a).__module__.partition(".")[0]


Made = tuple[Any, int]  # an array of a library, and its address


def _torch(gpu: Gpu, shape: Sequence[int], dtype: np.dtype[Any], stream: int) -> Made:
    torch = sys.modules["torch"]
    with contextlib.ExitStack() as stack:
        if _torch_stream(gpu.index) != stream:
            outer = torch.cuda.ExternalStream(0 if stream == LEGACY_STREAM else stream, gpu.index)
            stack.enter_context(torch.cuda.stream(outer))
        made = torch.empty(tuple(shape), dtype=getattr(torch, dtype.name), device=f"cuda:{gpu.index}")
    return made, made.data_ptr()


def _cupy(gpu: Gpu, shape: Sequence[int], dtype: np.dtype[Any], stream: int) -> Made:
    cupy = sys.modules["cupy"]
    with cupy.cuda.Device(gpu.index), cupy.cuda.ExternalStream(0 if stream == LEGACY_STREAM else stream):
        made = cupy.empty(tuple(shape), dtype)
    return made, made.data.ptr


def _numba(gpu: Gpu, shape: Sequence[int], dtype: np.dtype[Any], stream: int) -> Made:
    from numba import cuda

    with cuda.gpus[gpu.index]:
        made = cuda.device_array(tuple(shape), dtype, stream=cuda.external_stream(stream))
    return made, made.__cuda_array_interface__["data"][0]


_MAKERS: dict[str, Callable[..., Made]] = {"torch": _torch, "cupy": _cupy, "numba": _numba, "numba_cuda": _numba}


def empty(gpu: Gpu, shape: Sequence[int], dtype: Any, stream: int, library: str = "") -> DeviceArray:
    """Uninitialised memory, from the allocator of ``library`` where intsim knows it, else from the driver.

    Raises MemoryError where the GPU has no room for it.
    """
    dtype = np.dtype(dtype)
    size = math.prod(shape) * dtype.itemsize
    if library not in _MAKERS and "torch" in sys.modules and CAPTURE.get() is None and gpu.capturing(stream):
        library = "torch"  # a graph of PyTorch's: what is freed here is still written to when the graph runs
    try:
        if library in _MAKERS and not gpu.simulated and CAPTURE.get() is None:  # a graph keeps memory of its own
            owner, address = _MAKERS[library](gpu, shape, dtype, stream)
        else:
            address, owner = gpu.allocate(size)
    except Exception as error:  # each library has an error of its own for it
        if "memory" not in f"{type(error).__name__} {error}".lower():
            raise
        raise MemoryError(
            f"GPU {gpu.index} ({gpu.name}) has no room for {size:,} bytes, an array of shape {tuple(shape)}"
        ) from None
    made = DeviceArray(gpu, address, shape, dtype, stream, owner)
    recorded = MADE.get()
    if recorded is not None:
        recorded.append(made)
    return made


def upload(gpu: Gpu, a: Host, stream: int) -> DeviceArray:
    """A copy of ``a`` on the GPU. Raises ValueError while a graph is captured: the copy would not be part of it."""
    if recording(gpu, stream):
        raise ValueError("a graph cannot hold a copy from the host: pass device arrays (and constant=... for weights)")
    made = empty(gpu, a.shape, a.dtype, stream)
    if a.size:
        gpu.upload(made.pointer, np.ascontiguousarray(a), stream)
    return made


def returned(a: DeviceArray, library: str) -> Any:
    """What the caller gets: an array of their own library, else a DeviceArray; the memory is the same."""
    if library and kind(a.owner) == library and tuple(a.owner.shape) == a.shape:
        return a.owner  # as it was allocated
    made = DeviceArray(a.gpu, a.pointer, a.shape, a.dtype, a.stream, a.owner, a.strides)
    if library in _ADOPTERS and not a.gpu.simulated:
        return _ADOPTERS[library](made)
    return made  # without what intsim knows of its values: others may write to it


def _adopted_by_torch(a: DeviceArray) -> Any:
    return sys.modules["torch"].from_dlpack(a)


def _adopted_by_cupy(a: DeviceArray) -> Any:
    return sys.modules["cupy"].asarray(a)


def _adopted_by_numba(a: DeviceArray) -> Any:
    from numba import cuda

    return cuda.as_cuda_array(a, sync=False)  # its work goes to the stream that the array names


_ADOPTERS: dict[str, Callable[[DeviceArray], Any]] = {
    "torch": _adopted_by_torch,
    "cupy": _adopted_by_cupy,
    "numba": _adopted_by_numba,
    "numba_cuda": _adopted_by_numba,
}

"""The real GPU: all that needs NVIDIA's driver is in this file (so CI, which has none, cannot run it).

Array protocols are read and offered by ``cuda.core``; launches, memory and graphs use ``cuda.bindings``.
"""

from __future__ import annotations

import re
import threading
import weakref
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from cuda.bindings import driver as cu
from cuda.core import Buffer
from cuda.core import Device as CoreDevice
from cuda.core.utils import StridedMemoryView

from intsim.backends.cuda_arrays import DeviceArray, Host, c_strides
from intsim.backends.cuda_compile import Kernel, compiled
from intsim.backends.cuda_exchange import LEGACY_STREAM
from intsim.backends.cuda_launch import Call

LEAST_CAPABILITY = (7, 0)
EARLY = (
    (9, 0),
    12030,
)  # compute capability, and the driver's CUDA, from which on graphs know of kernels that start early
MOST_KEPT = 1024  # launch configurations
_LAUNCHING = threading.Lock()
_SUCCESS = cu.CUresult.CUDA_SUCCESS

_RUINED = (
    cu.CUresult.CUDA_ERROR_ILLEGAL_ADDRESS,
    cu.CUresult.CUDA_ERROR_LAUNCH_FAILED,
    cu.CUresult.CUDA_ERROR_LAUNCH_TIMEOUT,
    cu.CUresult.CUDA_ERROR_MISALIGNED_ADDRESS,
    cu.CUresult.CUDA_ERROR_ILLEGAL_INSTRUCTION,
)


class GpuError(RuntimeError):
    """The driver refused, or a kernel went wrong."""


def _done(answer: Any) -> Any:
    """What a driver function returns besides its status. Raises GpuError or MemoryError with the driver's words."""
    status, *rest = answer
    if status != _SUCCESS:
        words = cu.cuGetErrorString(status)[1].decode()
        if status == cu.CUresult.CUDA_ERROR_OUT_OF_MEMORY:
            raise MemoryError(words)
        if status in _RUINED:
            words += "; a kernel went wrong and this process can no longer use the GPU: start a new one"
        raise GpuError(f"{status.name}: {words}")
    return rest[0] if len(rest) == 1 else rest


class RealGpu:
    """The GPU with number ``index``. Raises GpuError where its compute capability is too low."""

    simulated = False

    def __init__(self, index: int) -> None:
        _done(cu.cuInit(0))
        self.index = index
        self._device = CoreDevice(index)
        major, minor = self._device.compute_capability
        self.capability = (int(major), int(minor))
        self.name = str(self._device.name)
        if self.capability < LEAST_CAPABILITY:
            raise GpuError(
                f"{self.name} has compute capability {major}.{minor}: intsim needs {LEAST_CAPABILITY[0]}."
                f"{LEAST_CAPABILITY[1]} or higher"
            )
        self.early = self.capability >= EARLY[0] and _done(cu.cuDriverGetVersion()) >= EARLY[1]
        self._number = _done(cu.cuDeviceGet(index))
        self._context = _done(cu.cuDevicePrimaryCtxRetain(self._number))
        self.multiprocessors = int(self._device.properties.multiprocessor_count)
        self._enter()
        flag = cu.CUstream_flags.CU_STREAM_NON_BLOCKING
        self._stream = int(_done(cu.cuStreamCreate(flag)))
        self._early: dict[tuple[int, ...], Any] = {}  # launch configurations
        self._orders = _done(cu.cuEventCreate(cu.CUevent_flags.CU_EVENT_DISABLE_TIMING))

    def _enter(self) -> None:
        _done(cu.cuCtxSetCurrent(self._context))

    def stream(self) -> int:
        return self._stream

    def wait(self, stream: int, other: int) -> None:
        if stream != other:
            self._enter()
            _done(cu.cuEventRecord(self._orders, other))
            _done(cu.cuStreamWaitEvent(stream, self._orders, 0))

    def capturing(self, stream: int) -> bool:
        status, said = cu.cuStreamIsCapturing(stream)[:2]
        return bool(status == cu.CUresult.CUDA_SUCCESS and int(said) != 0)

    def synchronize(self, stream: int) -> None:
        self._enter()
        _done(cu.cuStreamSynchronize(stream))

    def finish(self) -> None:
        self._enter()
        _done(cu.cuCtxSynchronize())

    def allocate(self, size: int) -> tuple[int, Any]:
        """Plain device memory: freeing it waits for the GPU, so no stream can still be writing to it."""
        self._enter()
        return (block := _Block(self._context, max(size, 1))).address, block

    def upload(self, address: int, a: Host, stream: int) -> None:
        self._enter()
        _done(cu.cuMemcpyHtoDAsync(address, a.ctypes.data, a.nbytes, stream))
        _done(cu.cuStreamSynchronize(stream))  # the host array may change or go after this

    def download(self, address: int, a: Host, stream: int) -> None:
        self._enter()
        _done(cu.cuMemcpyDtoHAsync(a.ctypes.data, address, a.nbytes, stream))
        _done(cu.cuStreamSynchronize(stream))

    def view(self, a: Any, stream: int) -> tuple[int, tuple[int, ...], tuple[int, ...], Any]:
        """Address, shape, strides in elements, dtype; ``stream`` waits for whatever fills the array."""
        said = getattr(a, "__cuda_array_interface__", None)
        if said is not None:
            seen = StridedMemoryView.from_cuda_array_interface(a, -1)
            filled_on = said.get("stream")
            if filled_on is not None:
                self.wait(stream, int(filled_on))
        else:
            self._enter()
            seen = StridedMemoryView.from_dlpack(a, stream)
        shape = tuple(seen.shape)
        if seen.ptr and np.prod(shape):
            self._own(seen.ptr)
        strides = c_strides(shape) if seen.strides is None else tuple(seen.strides)
        return int(seen.ptr), shape, strides, seen.dtype

    def _own(self, address: int) -> None:
        """Raises ValueError where ``address`` is no memory of this GPU's primary context."""
        attribute = cu.CUpointer_attribute
        status, owner = cu.cuPointerGetAttribute(attribute.CU_POINTER_ATTRIBUTE_CONTEXT, address)
        if status != cu.CUresult.CUDA_SUCCESS:
            raise ValueError(f"{address:#x} is no address that the GPU's driver knows: is it host memory?")
        if int(owner) not in (0, int(self._context)):  # 0: from a pool, which belongs to the device
            raise ValueError(
                "the array belongs to another CUDA context: intsim works in the primary one, as PyTorch and CuPy do"
            )

    def export(self, a: DeviceArray, stream: int | None, **asked: Any) -> Any:
        """A DLPack capsule, after ``stream`` (as DLPack numbers it; -1: as it is) waits for the contents."""
        if stream != -1:
            self.wait(LEGACY_STREAM if stream is None else int(stream), a.stream)
        buffer = Buffer.from_handle(a.pointer, max(a.nbytes, 1), owner=a)
        seen = StridedMemoryView.from_buffer(buffer, a.shape, a.strides, dtype=a.dtype)
        return seen.__dlpack__(stream=-1, **asked)

    def load(self, kernel: Kernel, arguments: tuple[Any, ...]) -> Any:
        """(function, kernel handle) in this GPU's context."""
        self._enter()
        code = compiled(kernel, arguments, self.capability)
        library = _done(cu.cuLibraryLoadData(code.cubin, [], [], 0, [], [], 0))
        handle = _done(cu.cuLibraryGetKernel(library, code.entry.encode()))
        return _done(cu.cuKernelGetFunction(handle)), handle, set()

    def dynamic_shared(self, loaded: Any, size: int) -> None:
        _, handle, granted = loaded
        if size not in granted:
            attribute = cu.CUfunction_attribute.CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES
            _done(cu.cuKernelSetAttribute(attribute, size, handle, self._number))
            granted.clear()
            granted.add(size)

    def launch(self, call: Call, stream: int) -> None:
        if call.early:
            self._launch_early(call, stream)
            return
        slots = call.packed.address
        status = cu.cuLaunchKernel(call.loaded[0], *call.grid, *call.block, call.shared, stream, slots, 0)[0]
        if status != _SUCCESS:  # another context may be the current one
            self._enter()
            _done(cu.cuLaunchKernel(call.loaded[0], *call.grid, *call.block, call.shared, stream, slots, 0))

    def _launch_early(self, call: Call, stream: int) -> None:
        """What is done before a kernel runs is done while the one before it ends; the kernel waits for that itself."""
        key = *call.grid, *call.block, call.shared
        with _LAUNCHING:  # the stream is a field of what is kept
            if key not in self._early:
                if len(self._early) == MOST_KEPT:
                    self._early.clear()
                self._early[key] = _starting_early(key)
            self._early[key].hStream = stream
            status = cu.cuLaunchKernelEx(self._early[key], call.loaded[0], call.packed.address, 0)[0]
            if status != _SUCCESS:
                self._enter()
                _done(cu.cuLaunchKernelEx(self._early[key], call.loaded[0], call.packed.address, 0))

    def capture(self, work: Callable[[int], None]) -> Callable[[int], None] | None:
        """A CUDA graph of what ``work(stream)`` launches on ``stream``: call it with a stream to run it."""
        self._enter()
        stream, relaxed = self._stream, cu.CUstreamCaptureMode.CU_STREAM_CAPTURE_MODE_RELAXED
        _done(cu.cuStreamBeginCapture(stream, relaxed))
        try:
            work(stream)
        except BaseException:
            cu.cuStreamEndCapture(stream)
            raise
        graph = _done(cu.cuStreamEndCapture(stream))
        ready = _done(cu.cuGraphInstantiate(graph, 0))
        _done(cu.cuGraphDestroy(graph))
        return _Graph(self, ready)


def _starting_early(key: tuple[int, ...]) -> Any:
    attribute, config = cu.CUlaunchAttribute(), cu.CUlaunchConfig()
    attribute.id = cu.CUlaunchAttributeID.CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_STREAM_SERIALIZATION
    attribute.value.programmaticStreamSerializationAllowed = 1
    config.gridDimX, config.gridDimY, config.gridDimZ, *block, config.sharedMemBytes = key
    config.blockDimX, config.blockDimY, config.blockDimZ = block
    config.attrs, config.numAttrs = [attribute], 1
    return config


class _Graph:
    def __init__(self, gpu: RealGpu, ready: Any) -> None:
        self._gpu, self._ready = gpu, ready
        weakref.finalize(self, cu.cuGraphExecDestroy, ready)

    def __call__(self, stream: int) -> None:
        if cu.cuGraphLaunch(self._ready, stream)[0] != _SUCCESS:  # another context may be the current one
            self._gpu._enter()
            _done(cu.cuGraphLaunch(self._ready, stream))


class _Block:
    """A piece of device memory, freed when nothing refers to it."""

    def __init__(self, context: Any, size: int) -> None:
        self.address = int(_done(cu.cuMemAlloc(size)))
        weakref.finalize(self, _free, context, self.address)


def _free(context: Any, address: int) -> None:
    cu.cuCtxSetCurrent(context)
    cu.cuMemFree(address)


@cache
def gpu(index: int) -> RealGpu:
    return RealGpu(index)


def index_of(address: int) -> int:
    """The GPU whose memory holds ``address``. Raises ValueError where none does."""
    if not address:  # an empty array has none
        return current().index
    status, index = cu.cuPointerGetAttribute(cu.CUpointer_attribute.CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL, address)
    if status != cu.CUresult.CUDA_SUCCESS:
        raise ValueError(f"{address:#x} is no address that the GPU's driver knows: is it host memory?")
    return int(index)


def current() -> RealGpu:
    """The GPU that this thread works with; the first where it has chosen none."""
    _done(cu.cuInit(0))
    status, number = cu.cuCtxGetDevice()
    return gpu(int(number) if status == cu.CUresult.CUDA_SUCCESS else 0)


def version() -> str:
    """Of the CUDA interface that the driver offers, and of the driver where the system tells it."""
    offered = _done(cu.cuDriverGetVersion())
    made = f"CUDA {offered // 1000}.{offered % 1000 // 10}"
    said = Path("/proc/driver/nvidia/version")
    found = re.search(r"\b\d{3}\.\d+(\.\d+)?\b", said.read_text()) if said.is_file() else None
    return f"{found.group()}, {made}" if found else made

"""From a Python function to machine code for a GPU, without one: Numba makes PTX, nvJitLink links it.

The code is kept on disk under a digest of the package's kernel sources and of the compilers' versions.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.metadata
import os
import re
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from intsim.backends.cuda_arrays import DeviceArray
from intsim.compiling import cache_folder, digest

_COMPILING = threading.Lock()
_USED = re.compile(
    r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads\n.*?Used (\d+) registers"
)


class Kernel:
    """A Python function as a CUDA kernel, not yet compiled: not decorated with ``cuda.jit``.

    name: what tells it from every other kernel, across processes. A function that a factory makes needs one
        (or a ``__qualname__`` of its own): what it closes over is part of the kernel.
    launch_bounds: the most threads a block, or a tuple of them and the least blocks a multiprocessor.
    early: it calls ``wait_for_kernels_before`` before anything else, and may be started while they run.
    """

    def __init__(
        self,
        function: Callable[..., None],
        name: str | None = None,
        *,
        launch_bounds: Any = None,
        max_registers: int | None = None,
        early: bool = False,
    ) -> None:
        if name is None and "<locals>" in function.__qualname__:
            raise ValueError(f"{function.__qualname__} is made by a factory: give it a name that tells it from others")
        self.function = function
        self.name = name or f"{function.__module__}.{function.__qualname__}"
        self.launch_bounds, self.max_registers, self.early = launch_bounds, max_registers, early

    def __repr__(self) -> str:
        return f"Kernel({self.name})"


@dataclass(frozen=True, slots=True)
class Compiled:
    """Machine code, and the name of its entry."""

    cubin: bytes
    entry: str


@dataclass(frozen=True, slots=True)
class Built(Compiled):
    """What a compilation says: PTX and the linker's notes."""

    ptx: str
    log: str

    def _used(self) -> tuple[int, ...]:
        """What a thread uses, as the notes say. Raises ValueError where they say nothing."""
        found = _USED.search(self.log.partition(f"entry function '{self.entry}'")[2])
        if found is None:
            raise ValueError(f"the linker did not say what {self.entry} uses: {self.log!r}")
        return tuple(map(int, found.groups()))

    @property
    def registers(self) -> int:
        """A thread's."""
        return self._used()[3]

    @property
    def stack(self) -> int:
        """Bytes of local memory of a thread: arrays that left the registers, calls."""
        return self._used()[0]

    @property
    def spilled(self) -> int:
        """Bytes of a thread's registers that go to memory and come back."""
        return self._used()[1] + self._used()[2]


def types_of(value: Any) -> Any:
    """What of an argument decides the machine code: types and numbers of dimensions, as nested tuples."""
    if isinstance(value, (DeviceArray, np.ndarray)):
        return value.dtype.str, len(value.shape)
    if isinstance(value, tuple):
        return type(value).__name__, tuple(map(types_of, value))  # a class of named fields has them in its name
    if isinstance(value, np.generic):
        return value.dtype.str
    if isinstance(value, int):
        return "int"
    raise TypeError(f"a kernel takes arrays, integers and tuples of them, not a {type(value).__name__}")


def compiled(kernel: Kernel, arguments: tuple[Any, ...], capability: tuple[int, int]) -> Compiled:
    """The machine code of ``kernel`` for arguments of these types; from the disk where it was made before."""
    words = kernel.name, types_of(arguments), capability, kernel.launch_bounds, kernel.max_registers, _compilers()
    key = hashlib.sha256(f"{digest()}|{words}".encode()).hexdigest()
    place = cache_folder() / "cuda" / f"{key[:40]}.kernel"
    try:
        entry, _, cubin = place.read_bytes().partition(b"\0")
        return Compiled(cubin, entry.decode())
    except OSError:
        made = build(kernel, arguments, capability)
    with contextlib.suppress(OSError):  # a folder that cannot be written costs a compilation a process, never the run
        place.parent.mkdir(parents=True, exist_ok=True)
        _write(place, made.entry.encode() + b"\0" + made.cubin)
    return made


def _write(place: Path, data: bytes) -> None:
    """All at once: another process may be writing the same kernel, and names its entry otherwise."""
    new = place.with_name(f"{place.name}.{os.getpid()}.{threading.get_ident()}")
    new.write_bytes(data)
    new.replace(place)


@cache
def _compilers() -> str:
    return " ".join(importlib.metadata.version(name) for name in ("numba-cuda", "cuda-core"))


def build(kernel: Kernel, arguments: tuple[Any, ...], capability: tuple[int, int]) -> Built:
    """Compiles for GPUs of this compute capability; no GPU is needed, and the disk is not looked at."""
    from cuda.core import Linker, LinkerOptions, ObjectCode
    from numba import typeof, types
    from numba.cuda.compiler import _compile_pyfunc_with_fixup

    signature = types.void(*(typeof(_example(a)) for a in arguments))
    target: Any = (*capability, "a") if capability >= (9, 0) else capability  # "a": wgmma and the tensor copy engine
    with _COMPILING, _for_target(capability):
        library, _ = _compile_pyfunc_with_fixup(
            kernel.function, signature, device=False, abi="numba", cc=target, launch_bounds=kernel.launch_bounds
        )
        ptx = str(library.get_asm_str(cc=target))
    options = LinkerOptions(
        arch="sm_" + "".join(map(str, target)), max_register_count=kernel.max_registers, ptxas_options="-v"
    )
    linker = Linker(ObjectCode.from_ptx(ptx.encode()), options=options)
    cubin = bytes(linker.link("cubin").code)
    log = linker.get_info_log() + linker.get_error_log()
    entry = ptx.partition(".entry ")[2].partition("(")[0].strip()
    return Built(cubin, entry, ptx, log)


@contextlib.contextmanager
def _for_target(capability: tuple[int, int]) -> Iterator[None]:
    """Numba asks the driver for a device when a kernel calls a function, though the target is given."""
    from numba.cuda import dispatcher

    class Target:
        compute_capability = capability

    asked = dispatcher.get_current_device
    dispatcher.get_current_device = lambda: Target
    try:
        yield
    finally:
        dispatcher.get_current_device = asked


def _example(value: Any) -> Any:
    """A value of the same type, for a compiler that looks at types only."""
    if isinstance(value, (DeviceArray, np.ndarray)):
        return np.empty((0,) * value.ndim, value.dtype)
    if isinstance(value, tuple):
        made = [_example(v) for v in value]
        return type(value)(*made) if hasattr(value, "_fields") else tuple(made)
    return value if isinstance(value, np.generic) else int(value)

"""The one place that decides how integer functions are compiled and what of it is kept on disk.

Numba's own ``cache=True`` returns stale results after an edit in a callee's file, and never finds a
kernel made by a factory. So kernels are stored here under a digest of everything that can change
them: the kernel sources of this package and the versions of Numba, llvmlite, NumPy and Python.
"""

from __future__ import annotations

import hashlib
import inspect
import os
import platform
import sys
from collections.abc import Callable
from dataclasses import astuple, dataclass
from functools import cache
from pathlib import Path
from typing import Any, TypeAlias, TypeVar, cast

import llvmlite
import numba
import numba.extending
import numpy
from numba.core import caching
from numba.core.runtime import rtsys

from intsim.linking import OPTIONS, Linked

F = TypeVar("F", bound=Callable[..., Any])

Int: TypeAlias = Any  # one int64 in a program: a Python int, a NumPy scalar, or a machine register

# What a kernel is made of. Models, oracle and command line hold no kernel code.
_KERNEL_SOURCES = ("scalar", "ops", "composites", "backends", "compiling.py", "linking.py", "numerics.py", "records.py")


def portable(function: F) -> F:
    """Compile ``function`` on first use, as a part of the kernel that calls it and for that kernel's target.

    A CUDA kernel that names a CPU-jitted function gets it recompiled as a device function, but
    only where it carries no signature; so none is given.
    """
    if numba.config.DISABLE_JIT:
        return function
    made: Any = Linked(function)
    return cast(F, made)


def kernel(function: F, name: str) -> F:
    """``function`` compiled for the CPU and kept on disk under ``name``, which must be unique."""
    made = numba.njit(function, **OPTIONS)
    if not numba.config.DISABLE_JIT:
        made._cache = _DiskCache(function, name)
    compiled: F = made
    return compiled


def compiles() -> bool:
    """Whether kernels are compiled; else they run as Python."""
    return not numba.config.DISABLE_JIT


_ahead = [False]


def compile_ahead() -> None:
    """From here on this process waits for whatever it has to compile: it warms the cache for others."""
    _ahead[0] = True


def at_hand(function: Any) -> bool:
    """Whether a ``kernel`` would start at once: compiled in this process, or kept on disk for some argument types.

    Or whether the process is there to compile it.
    """
    return compiles() and (_ahead[0] or bool(function.overloads) or function._cache.exists())


@dataclass(frozen=True, slots=True)
class Machine:
    """What code is generated for, in the words of LLVM: a triple, a CPU's name, features as "+avx2,-sse4a"."""

    triple: str
    cpu: str
    features: str


@cache
def this_machine() -> Machine:
    """The machine that kernels are compiled for here: the host's, or what NUMBA_CPU_NAME and NUMBA_CPU_FEATURES say."""
    from numba.core.registry import cpu_target

    return _machine_of(cpu_target.target_context.codegen())


def _machine_of(codegen: Any) -> Machine:
    """What Numba's ``codegen`` generates for; without AMX where the operating system grants none."""
    triple, cpu, features = codegen.magic_tuple()
    if "+amx-tile" in features and not _tiles_granted():
        features = features.replace("+amx-tile", "-amx-tile")
    return Machine(triple, cpu, features)


@cache
def _tiles_granted() -> bool:
    """Whether this process may use the tile registers of AMX. Linux wants to be asked before the first use.

    A forked child inherits the answer, a new program asks again.
    """
    if sys.platform != "linux" or platform.machine() != "x86_64":
        return False
    import ctypes

    arch_prctl, request_permission, tile_data = 158, 0x1023, 18  # arch/x86/include/uapi/asm/prctl.h
    call = ctypes.CDLL(None).syscall
    call.restype = ctypes.c_long
    return bool(call(*map(ctypes.c_long, (arch_prctl, request_permission, tile_data))) == 0)


def instructions(emit: Callable[..., Any], arguments: int) -> Any:
    """A function of ``arguments`` int64s for kernels, whose body ``emit(builder, machine, *values)`` writes.

    It returns the int64 that ``emit`` returns, or 0 where it returns None. ``emit`` must choose
    instructions by ``machine`` alone: one that the selected CPU lacks ends the process. Where the JIT is
    off, LLVM compiles the function by itself.
    """
    if numba.config.DISABLE_JIT:
        return _called(emit, arguments)
    int64 = numba.types.int64

    def typed(_context: Any, *_: Any) -> Any:
        def lower(context: Any, builder: Any, _signature: Any, values: Any) -> Any:
            made = emit(builder, _machine_of(context.codegen()), *values)
            return context.get_constant(int64, 0) if made is None else made

        return int64(*[int64] * arguments), lower

    positional = inspect.Parameter.POSITIONAL_OR_KEYWORD
    names = ["context", *(f"x{i}" for i in range(arguments))]
    typed.__signature__ = inspect.Signature([inspect.Parameter(n, positional) for n in names])  # type: ignore[attr-defined]
    return numba.extending.intrinsic(typed)


def _called(emit: Callable[..., Any], arguments: int) -> Callable[..., int]:
    """The same function for Python to call, where kernels run as Python."""

    @cache
    def made() -> Any:
        return native(emit, arguments, this_machine())

    return lambda *values: int(made()(*values))


def assembled(emit: Callable[..., Any], arguments: int, machine: Machine) -> tuple[Any, Any]:
    """LLVM's module and target machine of the function that ``instructions`` describes."""
    from llvmlite import binding, ir

    binding.initialize_all_targets()
    binding.initialize_all_asmprinters()
    int64, module = ir.IntType(64), ir.Module()
    function = ir.Function(module, ir.FunctionType(int64, [int64] * arguments), "instructions")
    builder = ir.IRBuilder(function.append_basic_block())
    made = emit(builder, machine, *function.args)
    builder.ret(int64(0) if made is None else made)
    target = binding.Target.from_triple(machine.triple)
    return (
        binding.parse_assembly(str(module)),
        target.create_target_machine(cpu=machine.cpu, features=machine.features, opt=3),
    )


def native(emit: Callable[..., Any], arguments: int, machine: Machine) -> Callable[..., int]:
    """The function that ``instructions`` describes, compiled without Numba for a machine that can run it."""
    import ctypes

    from llvmlite import binding

    engine = binding.create_mcjit_compiler(*assembled(emit, arguments, machine))
    engine.finalize_object()
    call = ctypes.CFUNCTYPE(*[ctypes.c_int64] * (arguments + 1))(engine.get_function_address("instructions"))
    call.engine = engine  # type: ignore[attr-defined]  # the code lives as long as whoever can call it
    return call


def cache_root() -> Path:
    """Where everything lies that is made once and kept: $INTSIM_CACHE_DIR, else the user's cache folder."""
    chosen = os.environ.get("INTSIM_CACHE_DIR")
    return Path(chosen) if chosen else Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "intsim"


def cache_folder() -> Path:
    """Where compiled kernels lie."""
    return cache_root() / f"kernels-{digest()[:16]}"


@cache
def digest() -> str:
    """A hash of the kernel sources of this package and of the compiler's versions."""
    package = Path(__file__).parent
    seen = hashlib.sha256(
        "|".join((numba.__version__, llvmlite.__version__, numpy.__version__, sys.version, platform.machine())).encode()
    )
    for source in _KERNEL_SOURCES:
        root = package / source
        for file in sorted(root.rglob("*.py")) if root.is_dir() else [root]:
            seen.update(file.relative_to(package).as_posix().encode() + b"\0" + file.read_bytes())
    return seen.hexdigest()


class _Locator:
    """Where one function's compiled code lies; nothing else of Numba's search for a folder is used."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def ensure_cache_path(self) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)

    def get_cache_path(self) -> str:
        return str(self._folder)


class _Storage(caching.CompileResultCacheImpl):  # type: ignore[misc]  # Numba has no types
    def __init__(self, folder: Path) -> None:
        self._locator = _Locator(folder)


class _DiskCache(caching.FunctionCache):  # type: ignore[misc]  # Numba has no types
    """Numba's cache with this module's key in place of the function's file, line and closure."""

    def __init__(self, function: Callable[..., Any], name: str) -> None:
        folder = cache_folder()
        self._name, self._py_func, self._cache_path = name, function, str(folder)
        self._impl, self._seen = _Storage(folder), False
        self._cache_file = caching.IndexDataCacheFile(str(folder), name, digest())
        self.enable()

    def exists(self) -> bool:
        """Asked before every call of a kernel that no call has needed yet: the disk is looked at until it is there."""
        self._seen = self._seen or Path(self._cache_file._index_path).exists()
        return self._seen

    def _index_key(self, sig: Any, codegen: Any) -> Any:
        return sig, astuple(_machine_of(codegen))

    # A folder that cannot be read or written costs a compilation a process, never the run.

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        # Numba's own method first loads everything that a compilation could need, a quarter of a second. Finished
        # code needs the runtime for arrays and nothing else; where it is not found, the compilation loads the rest.
        rtsys.initialize(target_context)
        try:
            return self._load_overload(sig, target_context)
        except OSError:
            return None

    def save_overload(self, sig: Any, data: Any) -> None:
        try:
            super().save_overload(sig, data)
        except OSError:
            self.disable()

"""The one place that decides how integer functions are compiled and what of it is kept on disk.

Numba's own ``cache=True`` returns stale results after an edit in a callee's file, and never finds a
kernel made by a factory. So kernels are stored here under a digest of everything that can change
them: the kernel sources of this package and the versions of Numba, llvmlite, NumPy and Python.
"""

from __future__ import annotations

import hashlib
import os
import platform
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

import llvmlite
import numba
import numpy
from numba.core import caching
from numba.core.runtime import rtsys

F = TypeVar("F", bound=Callable[..., Any])

Int: TypeAlias = Any  # one int64 in a program: a Python int, a NumPy scalar, or a machine register

# What a kernel is made of. Models, oracle and command line hold no kernel code.
_KERNEL_SOURCES = ("scalar", "ops", "backends", "compiling.py", "numerics.py", "records.py")


def portable(function: F) -> F:
    """Compile ``function`` on first use, for the target of whoever calls it.

    A CUDA kernel that names a CPU-jitted function gets it recompiled as a device function, but
    only where it carries no signature; so none is given.
    """
    made: F = numba.njit(function, nogil=True, no_cfunc_wrapper=True)
    return made


def kernel(function: F, name: str) -> F:
    """``function`` compiled for the CPU and kept on disk under ``name``, which must be unique."""
    made = numba.njit(function, nogil=True, no_cfunc_wrapper=True)
    if not numba.config.DISABLE_JIT:
        made._cache = _DiskCache(function, name)
    compiled: F = made
    return compiled


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
        self._impl = _Storage(folder)
        self._cache_file = caching.IndexDataCacheFile(str(folder), name, digest())
        self.enable()

    def _index_key(self, sig: Any, codegen: Any) -> Any:
        return sig, codegen.magic_tuple()

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

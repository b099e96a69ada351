"""Device arrays of callers: what the simulator can stand for, and what a GPU's libraries offer."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from typing import Any

import numpy as np

from conftest import SIMULATED


def usable() -> bool:
    """Whether device arrays can be made here."""
    if SIMULATED:
        return True
    if importlib.util.find_spec("numba_cuda") is None:
        return False
    from numba import cuda

    return bool(cuda.is_available())


class Foreign:
    """An array of some library: all that is known of it is ``__cuda_array_interface__``."""

    def __init__(self, a: np.ndarray[Any, Any], stream: int | None = None, **said: Any) -> None:
        self.a, self._said = a, {"stream": stream, **said}

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        return {**self.a.__array_interface__, "version": 3, **self._said}


def _interface(a: np.ndarray[Any, Any]) -> Any:
    if SIMULATED:
        return Foreign(a)
    from intsim.graphs import to_device

    kept = to_device(a)

    class Only:
        __cuda_array_interface__ = kept.__cuda_array_interface__
        keeps = kept

    return Only()


def _own(a: np.ndarray[Any, Any]) -> Any:
    from intsim.graphs import to_device

    return to_device(a)


def _torch(a: np.ndarray[Any, Any]) -> Any:
    import torch

    return torch.from_numpy(np.ascontiguousarray(a)).cuda()


def _numba(a: np.ndarray[Any, Any]) -> Any:
    from numba import cuda

    return cuda.to_device(np.ascontiguousarray(a))


class _DlpackOnly:
    def __init__(self, a: np.ndarray[Any, Any]) -> None:
        self._a = _torch(a)

    def __dlpack_device__(self) -> Any:
        return self._a.__dlpack_device__()

    def __dlpack__(self, **asked: Any) -> Any:
        return self._a.__dlpack__(**asked)


def fetch(a: Any) -> np.ndarray[Any, Any]:
    """On the host, whatever it is."""
    if hasattr(a, "copy_to_host"):
        return np.asarray(a.copy_to_host())
    if hasattr(a, "cpu"):
        return np.asarray(a.cpu().numpy())
    return np.asarray(a)


def overwrite(a: Any, values: np.ndarray[Any, Any]) -> None:
    """New contents, the same memory."""
    if hasattr(a, "to_host"):
        a.gpu.upload(a.pointer, values, a.stream)
    elif hasattr(a, "copy_to_device"):
        a.copy_to_device(values)
    elif hasattr(a, "a"):
        a.a[...] = values
    else:
        import torch

        a.copy_(torch.from_numpy(values))


CALLERS: dict[str, Callable[[np.ndarray[Any, Any]], Any]] = {"interface": _interface, "intsim": _own}
if usable() and not SIMULATED:
    CALLERS |= {"numba": _numba}
    if importlib.util.find_spec("torch") is not None:
        CALLERS |= {"torch": _torch, "dlpack": _DlpackOnly}

"""intsim's own backends, judged like any other."""

from __future__ import annotations

import importlib.metadata
import importlib.util
from collections.abc import Mapping, Sequence
from typing import Any

from intsim import registry
from intsim.oracle.adapter import Capability
from intsim.oracle.cases import Case
from intsim.execute import run


def no_gpu() -> str:
    """Why no CUDA kernel can run here, in one sentence; empty where one can."""
    if importlib.util.find_spec("numba_cuda") is None:
        return "the cuda backend needs numba-cuda: pip install 'intsim[cuda]'"
    from intsim.backends import cuda

    return cuda.missing()


def gpu_versions() -> dict[str, str]:
    """What a result on the current GPU depends on: the device, its driver, the compiler."""
    from intsim.backends.cuda_arrays import driver

    gpu = driver().current()
    return {
        "numba-cuda": importlib.metadata.version("numba-cuda"),
        "device": f"{gpu.name} (compute capability {gpu.capability[0]}.{gpu.capability[1]})",
        "driver": driver().version(),
    }


class Builtin:
    """The ``cpu``, ``cuda`` or ``reference`` backend."""

    def __init__(self, name: str) -> None:
        if name == "cuda" and (reason := no_gpu()):
            raise ValueError(reason)
        self.name = name

    def capabilities(self) -> Sequence[Capability]:
        return [Capability(name) for name in registry.names()]

    def versions(self) -> Mapping[str, str]:
        import numba
        import numpy

        versions = {"numpy": numpy.__version__, "numba": numba.__version__}
        return versions | (gpu_versions() if self.name == "cuda" else {})

    def run(self, case: Case) -> Any:
        return run(case.op, *case.inputs, p=case.params, backend=self.name)

"""intsim's own backends, judged like any other."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping, Sequence
from typing import Any

from intsim import registry
from intsim.oracle.adapter import Capability
from intsim.oracle.cases import Case
from intsim.execute import run


def _need_cuda() -> None:
    """Raises ValueError, in one sentence, where no CUDA kernel can run."""
    if importlib.util.find_spec("numba_cuda") is None:
        raise ValueError("the cuda backend needs numba-cuda: pip install 'intsim[cuda]'")
    from numba import cuda

    if not cuda.is_available():
        raise ValueError("the cuda backend needs an NVIDIA GPU and its driver: none was found (nvidia-smi shows both)")


class Builtin:
    """The ``cpu``, ``cuda`` or ``reference`` backend."""

    def __init__(self, name: str) -> None:
        if name == "cuda":
            _need_cuda()
        self.name = name

    def capabilities(self) -> Sequence[Capability]:
        return [Capability(name) for name in registry.names()]

    def versions(self) -> Mapping[str, str]:
        import numba
        import numpy

        return {"numpy": numpy.__version__, "numba": numba.__version__}

    def run(self, case: Case) -> Any:
        return run(case.op, *case.inputs, p=case.params, backend=self.name)

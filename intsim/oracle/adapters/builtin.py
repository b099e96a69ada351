"""intsim's own backends, judged like any other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from intsim import registry
from intsim.oracle.adapter import Capability
from intsim.oracle.cases import Case
from intsim.execute import run


class Builtin:
    """The ``cpu``, ``cuda`` or ``reference`` backend."""

    def __init__(self, name: str) -> None:
        self.name = name

    def capabilities(self) -> Sequence[Capability]:
        return [Capability(name) for name in registry.names()]

    def versions(self) -> Mapping[str, str]:
        import numba
        import numpy

        return {"numpy": numpy.__version__, "numba": numba.__version__}

    def run(self, case: Case) -> Any:
        return run(case.op, *case.inputs, p=case.params, backend=self.name)

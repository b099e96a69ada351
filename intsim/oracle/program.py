"""A program in any language as a backend under test: it speaks ``intsim.oracle.protocol`` on stdin and stdout.

    intsim check "stdio:./simulator --fast"

Its answer to "start" holds "ops", the names of what it serves: ["requantize.power_of_two"]. A case's ``op`` is one
of them, its ``attributes`` are {"version": the op's, "params": the parameters as golden files write them}. Inputs
and outputs are in the order of the op's ports, which ``intsim ops show`` prints.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence

from intsim import registry
from intsim.binding import Array
from intsim.oracle import golden
from intsim.oracle.adapter import Capability
from intsim.oracle.cases import Case
from intsim.oracle.protocol import Worker


class Program:
    """The adapter of a command line. Raises ValueError where that has no words or the program serves no known op."""

    def __init__(self, command: str) -> None:
        words = shlex.split(command)
        if not words:
            raise ValueError("stdio: needs a command, as in stdio:./simulator")
        self.name = words[0]
        self._worker = Worker(words, words[0])

    @property
    def timeout(self) -> float:
        """Seconds for one answer."""
        return self._worker.timeout

    @timeout.setter
    def timeout(self, seconds: float) -> None:
        self._worker.timeout = seconds

    def capabilities(self) -> Sequence[Capability]:
        served = self._worker.start().get("ops")
        if not isinstance(served, list) or not served:
            raise ValueError(f'{self.name} names no ops: its answer to "start" needs "ops": ["family.variant"]')
        return [Capability(registry.get(str(name)).name) for name in served]

    def versions(self) -> Mapping[str, str]:
        self.capabilities()
        return self._worker.versions()

    def run(self, case: Case) -> tuple[Array, ...]:
        attributes = {"version": case.op.version, "params": golden.encode_params(case.params)}
        wanted = [(a.dtype.name, a.shape) for a in case.wanted]
        return tuple(self._worker.call(case.op.name, attributes, case.inputs, wanted))

"""C libraries, loaded by ctypes: CMSIS-NN in two builds, gemmlowp's steps, and Deeploy's kernels.

    intsim check c:libcmsis_nn_double.so --profile cmsis_nn_double

A profile says which functions the library holds: one module beside this one a library, with their
signatures. ``tests/conformance/c_libraries.py`` builds them from their public sources; such a library
names its source and commit in the symbol ``intsim_source``, and of any other the file's digest is shown.
"""

from __future__ import annotations

import ctypes
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

from intsim.oracle.adapter import Capability, System, Unsupported
from intsim.oracle.adapters import _cmsis_nn, _deeploy, _gemmlowp
from intsim.oracle.cases import Case

BUILD = "python tests/conformance/c_libraries.py"
STAMP = "intsim_source"  # "NAME COMMIT"

SYSTEM = System(
    title="C library",
    runs="C library",
    needs=BUILD,
    source="ARM-software/CMSIS-NN Source; google/gemmlowp fixedpoint/fixedpoint.h; "
    "pulp-platform/Deeploy TargetLibraries/Generic",
    profiles={
        "cmsis_nn_double": "CMSIS-NN, portable C, the default build: gemmlowp's double rounding",
        "cmsis_nn_single": "CMSIS-NN, portable C, built with CMSIS_NN_USE_SINGLE_ROUNDING",
        "gemmlowp": "gemmlowp's fixed-point steps, portable C++: ops that consist of them",
        "deeploy": "Deeploy's Generic C kernels, int8, built so that signed integers wrap",
    },
    left={**_cmsis_nn.LEFT, **_gemmlowp.LEFT, **_deeploy.LEFT},
)
_KERNELS: Mapping[str, ModuleType] = {
    "cmsis_nn_double": _cmsis_nn,
    "cmsis_nn_single": _cmsis_nn,
    "gemmlowp": _gemmlowp,
    "deeploy": _deeploy,
}


@dataclass
class Backend:
    """The adapter. library: path of the shared library. profile: which functions it holds, see ``SYSTEM``.

    Raises ValueError where the file does not exist, is no library for this machine, or lacks a function.
    """

    library: str
    profile: str = "cmsis_nn_double"
    name: str = field(init=False)
    _functions: SimpleNamespace = field(init=False, repr=False)
    _versions: Mapping[str, str] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self.name = f"c:{self.library}"
        opened = _opened(self.library)
        self._functions = _functions(opened, self.library, self.profile)
        self._versions = _stamped(opened) or {"library": f"sha256:{_digest(self.library)[:12]}"}

    def capabilities(self) -> Sequence[Capability]:
        made: Sequence[Capability] = _KERNELS[self.profile].capabilities(self.profile)
        return made

    def versions(self) -> Mapping[str, str]:
        return self._versions

    def run(self, case: Case) -> Any:
        if case.op.name not in {c.op for c in self.capabilities()}:
            raise Unsupported(f"no function of {self.profile} computes {case.op.name}")
        return _KERNELS[self.profile].run(self._functions, case)


def _opened(library: str) -> Any:
    path = Path(library)
    if not path.is_file():
        raise ValueError(f"there is no file {library}; {BUILD} builds the libraries that intsim knows")
    try:
        return ctypes.CDLL(str(path.resolve()))
    except OSError as refused:
        raise ValueError(f"{library} is no shared library that this machine can load: {refused}") from None


def _functions(opened: Any, library: str, profile: str) -> SimpleNamespace:
    """The functions of ``profile`` by name, with their signatures."""
    made = SimpleNamespace()
    missing = []
    for name, (result, arguments) in _KERNELS[profile].SIGNATURES.items():
        try:
            function = getattr(opened, name)
        except AttributeError:
            missing.append(name)
            continue
        function.restype, function.argtypes = result, arguments
        setattr(made, name, function)
    if missing:
        others = f" and {len(missing) - 1} others" if len(missing) > 1 else ""
        raise ValueError(
            f"{library} has no function {missing[0]}{others} of profile {profile!r}: choose the profile that it was "
            f"built for ({', '.join(_KERNELS)}), or build it with {BUILD}"
        )
    return made


def _stamped(opened: Any) -> dict[str, str]:
    """What the build wrote into the library: its source's name and commit; nothing where it did not."""
    try:
        first = ctypes.c_char.in_dll(opened, STAMP)
    except ValueError:
        return {}
    name, _, commit = ctypes.string_at(ctypes.addressof(first)).decode().partition(" ")
    return {name: commit[:12] + ("-changed" if commit.endswith("-changed") else "")}


def _digest(library: str) -> str:
    return hashlib.sha256(Path(library).read_bytes()).hexdigest()

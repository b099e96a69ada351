"""Published research code that no package holds: loaded from a checkout of its repository, its files unchanged.

Single modules are imported, under a name of their own, without the ``__init__`` of the folders above
them (those pull in training code). Nothing is added to ``sys.path``.
"""

from __future__ import annotations

import hashlib
import importlib
import math
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from functools import cache
from importlib import metadata
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest import mock

from intsim.binding import Array
from intsim.oracle.cases import Case


@dataclass(frozen=True, slots=True)
class Checkout:
    """What a repository holds at the commit that intsim was compared with.

    repository: "owner/name" on GitHub. commit: the first 7 digits. folder: of the modules, in the repository.
    files: SHA-256 of each module that runs, by file name.
    """

    name: str
    repository: str
    commit: str
    folder: str
    files: Mapping[str, str]

    @property
    def needs(self) -> str:
        """The commands that make the checkout, and the one that judges it."""
        last = self.repository.split("/")[1]
        return (
            f"git clone https://github.com/{self.repository} && git -C {last} checkout {self.commit}, "
            f"then intsim check {self.name}:{last}"
        )

    def at(self, place: str) -> Path:
        """The folder of the modules in the checkout at ``place``. Raises ValueError where they are not there."""
        if not place:
            raise ValueError(f"{self.name} is judged in a checkout of {self.repository}: {self.needs}")
        root = Path(place).expanduser()
        if not root.is_dir():
            raise ValueError(f"there is no folder {place}: {self.needs}")
        missing = [file for file in self.files if not (root / self.folder / file).is_file()]
        if missing:
            raise ValueError(
                f"{place} is no checkout of {self.repository}: it has no {self.folder}/{missing[0]}; {self.needs}"
            )
        return (root / self.folder).resolve()

    def version(self, folder: Path) -> str:
        """The commit; where a file is not as it is there, that file and its SHA-256."""
        for file, known in self.files.items():
            made = hashlib.sha256((folder / file).read_bytes()).hexdigest()
            if made != known:
                return f"not {self.commit}: {file} has SHA-256 {made[:16]}"
        return self.commit


@cache
def module(folder: Path, name: str) -> ModuleType:
    """The module ``name`` of ``folder``, with its relative imports. Raises ValueError where a package is missing."""
    alias = f"_intsim_checkout_{hashlib.sha256(str(folder).encode()).hexdigest()[:16]}"
    package = sys.modules.get(alias)
    if package is None:
        package = ModuleType(alias)
        package.__path__ = [str(folder)]
        sys.modules[alias] = package
    try:
        return importlib.import_module(f"{alias}.{name}")
    except ModuleNotFoundError as missing:
        if (missing.name or "").startswith(alias):
            raise
        raise ValueError(f"{folder / name}.py needs the package {missing.name}: pip install it") from missing


@cache
def torch() -> Any:
    """PyTorch, which the modules are written in."""
    try:
        return importlib.import_module("torch")
    except ImportError as missing:
        raise ValueError("this published code needs the package torch: pip install 'intsim[torch]'") from missing


def torch_version() -> str:
    """Its version, without importing it."""
    try:
        return metadata.version("torch")
    except metadata.PackageNotFoundError:
        raise ValueError("this published code needs the package torch: pip install 'intsim[torch]'") from None


@contextmanager
def on_cpu() -> Iterator[None]:
    """Here ``tensor.cuda()``, which the modules call on some of their constants, leaves a tensor where it is."""
    tensor = torch().Tensor
    with mock.patch.object(tensor, "cuda", lambda self, *_, **__: self), torch().no_grad():
        yield


WIDEST = 22  # bits of a short scale: an int32 times it is exact in float64


def short_scale(low: Fraction, holds: Callable[[float], bool]) -> float | None:
    """The scale of the fewest fraction bits, just above ``low``, for which ``holds``; None where WIDEST do not do.

    Such a scale times an integer is exact in float64, and so is the quotient that takes it back: the
    published modules, which carry real = scale * q, then see the integers themselves.
    """
    for bits in range(64):
        numerator = math.ceil(low * 2**bits)
        candidate = Fraction(numerator, 2**bits)
        if numerator >= 2**WIDEST:
            break
        if candidate > 0 and holds(float(candidate)):
            return float(candidate)
    return None


def whole(y: Array, case: Case) -> Array:
    """``y`` as the type of the case's result. Raises ValueError where it holds other numbers than such integers."""
    made: Array = y.astype(case.op.outputs[0].storage(case.params))
    if not (made == y).all():
        raise ValueError(f"the published module gave numbers that are no {made.dtype}")
    return made

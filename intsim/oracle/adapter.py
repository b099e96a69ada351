"""What a backend under test looks like: a function of a case, and a statement of what it can do."""

from __future__ import annotations

import importlib
import importlib.util
import pkgutil
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from intsim.oracle.cases import Case


class Unsupported(Exception):
    """Raised by a backend for a case that it does not serve: counted and shown, never taken for a pass."""


@dataclass(frozen=True, slots=True)
class Capability:
    """One op that a backend serves.

    only: fields (dotted through stages) and dimensions held to the values that it serves; cases are
        drawn inside them. cases: how many pseudorandom ones. longest: the largest dimension drawn.
    directed: further cases of the backend's own, for what its users meet.
    serves: what the backend calls it; two capabilities with one op and other names are two rows of a report,
        and ``Case.serves`` says which of them is judged.
    defect: where the backend departs from its own documentation here, with the evidence; the variant states it.
    """

    op: str
    only: Mapping[str, Sequence[Any]] = field(default_factory=dict)
    cases: int = 12
    longest: int = 24
    directed: Callable[[], Iterable[Case]] = tuple
    serves: str = ""
    defect: str = ""


@runtime_checkable
class Adapter(Protocol):
    """A backend under test. ``run`` gives one array, or one an output in the order of the op's ports."""

    name: str

    def capabilities(self) -> Sequence[Capability]: ...

    def versions(self) -> Mapping[str, str]: ...

    def run(self, case: Case) -> Any: ...


@dataclass(frozen=True, slots=True)
class FunctionAdapter:
    """A decorated function as an adapter."""

    name: str
    function: Callable[[Case], Any]
    ops: tuple[Capability, ...]

    def capabilities(self) -> Sequence[Capability]:
        return self.ops

    def versions(self) -> Mapping[str, str]:
        return {}

    def run(self, case: Case) -> Any:
        return self.function(case)

    def __call__(self, case: Case) -> Any:
        return self.function(case)


def adapter(*ops: str | Capability, name: str | None = None) -> Callable[[Callable[[Case], Any]], FunctionAdapter]:
    """Makes a function of a case into a backend under test.

        @intsim.adapter("requantize.single_rounding")
        def backend(case):
            return my_kernel(case.acc, case.params.multiplier, case.params.shift)

    ops: names of the ops that it serves, or Capability objects. The function gets a Case and returns
    an array (NumPy, or anything with ``__dlpack__`` or ``__array__``), or a tuple of them for an op
    with several outputs. It raises intsim.Unsupported for what it does not serve.
    """
    if not ops or callable(ops[0]):
        raise TypeError('name the ops that the backend serves: @intsim.adapter("requantize.single_rounding")')
    listed = tuple(op if isinstance(op, Capability) else Capability(op) for op in ops)
    return lambda function: FunctionAdapter(name or function.__name__, function, listed)


@dataclass(frozen=True, slots=True)
class System:
    """A published implementation that intsim reproduces: what its adapter module states as ``SYSTEM``.

    title: as its makers write it. runs: "wheel", "isolated environment", "C library" or "source checkout".
    needs: the command that installs it. source: where the code that was read is (repository and path).
    requirement: what its isolated environment holds, as pip writes it ("name==version").
    profiles: its kernels that differ in bits, by name, each with a sentence; the first is the default.
    left: operators that no variant states, each with the reason.
    by_processor: rows that only some processors make.
    """

    title: str
    runs: str
    needs: str
    source: str
    profiles: Mapping[str, str] = field(default_factory=dict)
    left: Mapping[str, str] = field(default_factory=dict)
    requirement: str = ""
    by_processor: tuple[str, ...] = ()


BUILT_IN = ("cpu", "cuda", "reference")
PROGRAM = "stdio:"
_C_LIBRARY = "c:"


def systems() -> tuple[str, ...]:
    """The names of the third-party systems: the modules of ``intsim.oracle.adapters`` that state a SYSTEM."""
    from intsim.oracle import adapters

    found = (module.name for module in pkgutil.iter_modules(adapters.__path__))
    return tuple(sorted(name for name in found if not name.startswith("_") and name != "builtin"))


def system(name: str) -> System:
    """What the adapter module ``name`` states. Nothing of the system itself is imported."""
    stated: System = importlib.import_module(f"intsim.oracle.adapters.{name}").SYSTEM
    return stated


def checkouts() -> tuple[str, ...]:
    """Those of ``systems`` that are no package: their code is judged in a checkout, named "SYSTEM:FOLDER"."""
    return tuple(name for name in systems() if system(name).runs == "source checkout")


def published(target: str) -> str:
    """The name of the system that ``target`` stands for; ``target`` itself where it is none."""
    if target.startswith(_C_LIBRARY):
        return "c_library"
    name = target.partition(":")[0]
    return name if name in checkouts() else target


def load(target: str, profile: str | None = None, python: str | None = None) -> Adapter:
    """The adapter that a command line names.

    target: a built-in backend, a third-party system, "c:LIBRARY.so", "SYSTEM:FOLDER" for one that is a source
        checkout, "stdio:COMMAND", "FILE.py:NAME" or "package.module:NAME".
    profile: which of a system's kernels; None for its first. python: the Python that holds a system which
        runs in an isolated environment; None for the environment that intsim made. Raises ValueError where the
        file, module, name, profile or environment does not exist or is no adapter.
    """
    if python is not None and (target not in systems() or system(target).runs != "isolated environment"):
        raise ValueError(f"{target} runs in no environment of its own: no Python can be chosen for it")
    if target.startswith(_C_LIBRARY):
        return _published("c_library", profile, library=target.removeprefix(_C_LIBRARY))
    if published(target) in checkouts():
        return _published(published(target), profile, folder=target.partition(":")[2])
    if target in systems() and target != "c_library":
        return _published(target, profile, **({} if python is None else {"python": python}))
    if profile is not None:
        raise ValueError(f"{target} has no profiles")
    if target in BUILT_IN:
        from intsim.oracle.adapters.builtin import Builtin

        return Builtin(target)
    if target.startswith(PROGRAM):
        from intsim.oracle.program import Program

        return Program(target.removeprefix(PROGRAM))
    where, _, name = target.rpartition(":")
    if not where:
        known = ", ".join([*BUILT_IN, *(n for n in systems() if n not in {"c_library", *checkouts()})])
        placed = ", ".join(f"{n}:FOLDER" for n in checkouts())
        raise ValueError(
            f"{target!r} is no backend: give one of {known}, c:LIBRARY.so, {placed}, stdio:COMMAND, FILE.py:NAME or "
            "package.module:NAME"
        )
    made = getattr(_module(where), name, None)
    if made is None:
        raise ValueError(f"{where} has no {name!r}")
    made = made() if isinstance(made, type) else made
    if not isinstance(made, Adapter):
        raise ValueError(f"{target} is a {type(made).__name__}, not a backend: decorate it with @intsim.adapter(...)")
    return made


def _published(name: str, profile: str | None, **place: str) -> Adapter:
    module = importlib.import_module(f"intsim.oracle.adapters.{name}")
    known = module.SYSTEM.profiles
    if profile is not None and profile not in known:
        there = f"it has {', '.join(known)}" if known else "it has none"
        raise ValueError(f"{module.SYSTEM.title} has no profile {profile!r}: {there}")
    chosen = {"profile": profile or next(iter(known))} if known else {}
    made: Adapter = module.Backend(**place, **chosen)
    return made


def _module(where: str) -> Any:
    if not where.endswith(".py"):
        try:
            return importlib.import_module(where)
        except ModuleNotFoundError as missing:
            if missing.name and where.startswith(missing.name):
                raise ValueError(f"there is no module {where!r}") from None
            raise
    path = Path(where)
    if not path.is_file():
        raise ValueError(f"there is no file {where}")
    sys.path.insert(0, str(path.parent.resolve()))  # the file may import its neighbours
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    spec.loader.exec_module(module)
    return module

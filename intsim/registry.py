"""All operations, by name. The name says where the module lies, so a variant is found by its file alone."""

from __future__ import annotations

import difflib
import importlib
import importlib.util
import pkgutil
from functools import cache

from intsim.op import Op

_OPS: dict[str, Op] = {}
_HOMES = ("intsim.ops", "intsim.composites")


def register(op: Op) -> Op:
    """Enters ``op``; called once at the end of its module."""
    home = op.spec.__module__
    if not home.endswith("." + op.name):
        raise ValueError(f"{op.name} is defined in {home}: an op's name is its folder and file")
    if op.name in _OPS:
        raise ValueError(f"{op.name} is registered twice")
    _OPS[op.name] = op
    return op


@cache
def names() -> tuple[str, ...]:
    """The names of all ops, from the files that hold them; imports families, not variants."""
    found = []
    for home in _HOMES:
        package = importlib.import_module(home)
        for family in pkgutil.iter_modules(package.__path__):
            folder = importlib.import_module(f"{home}.{family.name}")
            found += [f"{family.name}.{m.name}" for m in pkgutil.iter_modules(folder.__path__) if m.name[0] != "_"]
    return tuple(sorted(found))


def get(name: str) -> Op:
    """The op called ``name``, with or without its version ("softmax.ibert", "softmax.ibert/1").

    Raises ValueError where there is none, and names the nearest.
    """
    plain, _, version = name.partition("/")
    if plain not in _OPS:
        home = next((home for home in _HOMES if _there(home, plain)), None)
        if home is None:
            near = difflib.get_close_matches(plain, names(), n=3, cutoff=0.4)
            hint = f" Did you mean {', '.join(near)}?" if near else ""
            raise ValueError(f"no op is called {name!r}.{hint} All of them: intsim ops list")
        importlib.import_module(f"{home}.{plain}")
    op = _OPS[plain]
    if version and int(version) != op.version:
        raise ValueError(f"{plain} is at version {op.version}; version {version} is not in this release")
    return op


def _there(home: str, name: str) -> bool:
    """Whether a variant lies under ``home``: a family may have some of its own arithmetic and some made of ops."""
    parts = name.split(".")
    if len(parts) != 2 or not all(part.isidentifier() and part[0] != "_" for part in parts):
        return False  # the modules with an underscore are no variants
    family = importlib.util.find_spec(f"{home}.{parts[0]}")
    return family is not None and importlib.util.find_spec(f"{home}.{name}") is not None


def all_ops() -> tuple[Op, ...]:
    """Every op, in order of name."""
    return tuple(get(name) for name in names())


def siblings(op: Op) -> tuple[Op, ...]:
    """The other variants of the op's family."""
    return tuple(o for o in all_ops() if o.family == op.family and o is not op)

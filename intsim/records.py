"""Named tuples that kernels take, one class a list of field names.

Numba compiles anew for each class that it meets, and its disk cache stores a class by the name
under which it can be imported. So the class of the fields ("acc", "bias") is this module's
attribute ``Fields__acc__bias``, made when it is first asked for.
"""

from __future__ import annotations

from functools import cache
from typing import Any, NamedTuple

_PREFIX = "Fields__"


class TypeRecord(NamedTuple):
    """What a kernel knows of an IntType."""

    bits: int
    qmin: int
    qmax: int


@cache
def fields_class(*names: str) -> Any:
    """The named tuple class with these fields. Raises ValueError for a name that every tuple has a method of."""
    taken = {"index", "count"} & set(names)
    if taken:
        raise ValueError(f"{taken.pop()!r} is a method of every tuple: a kernel could not read a field of that name")
    made: Any = NamedTuple(_PREFIX + "__".join(names), [(n, Any) for n in names])  # type: ignore[misc]  # names are data
    made.__module__, made.__qualname__ = __name__, made.__name__
    return made


def __getattr__(name: str) -> Any:
    if not name.startswith(_PREFIX):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return fields_class(*filter(None, name.removeprefix(_PREFIX).split("__")))  # none: no fields

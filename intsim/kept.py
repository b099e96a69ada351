"""Inputs that no call changes, and what tuned kernels of the CPU make of them once.

An input is constant in a call where the kernel gets the very array that was frozen when the op was prepared.
Nobody else can write to that array, so what was made of it never goes stale.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import numpy as np

from intsim.op import Op

Made = TypeVar("Made")


def frozen(a: Any) -> Any:
    """``a`` as no call changes it any more, C-contiguous: a read-only copy.

    Not copied is an array that owns its memory and is marked read-only. What is no array of the host stays as it is.
    """
    if a is None or hasattr(a, "__cuda_array_interface__"):
        return a
    if type(a) is np.ndarray and a.flags.owndata and a.flags.c_contiguous and not a.flags.writeable:
        return a
    copy = np.array(a, order="C")
    copy.flags.writeable = False
    return copy


class Kept:
    """One call's view of what is kept: ``constant`` names the inputs that no call changes."""

    __slots__ = ("_made", "constant")

    def __init__(self, constant: frozenset[str], made: dict[str, Any]) -> None:
        self.constant, self._made = constant, made

    @classmethod
    def of(cls, op: Op, arrays: Sequence[Any], frozen: dict[str, Any], made: dict[str, Any]) -> Kept:
        """For a call with ``arrays``; made: what earlier calls left, of the same op, parameters and ``frozen``."""
        names = (port.name for port, a in zip(op.inputs, arrays, strict=True) if a is frozen.get(port.name))
        return cls(frozenset(names), made)

    def once(self, key: str, make: Callable[[], Made], of: Sequence[str]) -> Made:
        """``make()``, kept from call to call where all inputs named in ``of`` are constant; else made anew.

        It may depend on these inputs, on the parameters and on ``key``, and on nothing else of the call.
        """
        if not self.constant.issuperset(of):
            return make()
        if key not in self._made:
            self._made[key] = make()
        made: Made = self._made[key]
        return made

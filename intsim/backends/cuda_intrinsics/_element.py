"""A value in a register as an op's program sees it: an array of which one element is there."""

from __future__ import annotations

from typing import Any, NamedTuple

from numba import config

__all__ = ["OneElement"]


class OneElement(NamedTuple):
    """``array[i, j]`` is the value for any i and j: so an op's ``element`` runs on what is in no memory."""

    value: Any

    def __getitem__(self, at: Any) -> Any:
        return tuple.__getitem__(self, 0)


if not config.ENABLE_CUDASIM:
    import operator

    from numba.cuda import types
    from numba.cuda.extending import overload

    @overload(operator.getitem, strict=False)  # type: ignore[untyped-decorator]  # Numba has no types
    def _any_index(array: Any, at: Any) -> Any:
        if isinstance(array, types.BaseNamedTuple) and array.instance_class is OneElement:
            return lambda array, at: array.value
        return None

"""Arrays that begin with a line of the cache."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from intsim.backends.lines import LINE, WORTH, empty


@pytest.mark.parametrize("dtype", [np.int8, np.int32, np.int64])
def test_a_large_array_begins_with_a_line(dtype: Any) -> None:
    for extra in range(5):
        made = empty((extra + 1, WORTH), dtype)
        made[...] = 7
        assert made.shape == (extra + 1, WORTH)
        assert made.dtype == dtype
        assert made.flags.c_contiguous
        assert made.flags.writeable
        assert made.ctypes.data % LINE == 0
        assert (made == 7).all()


def test_a_small_one_is_as_numpy_makes_it() -> None:
    for shape in ((), (0,), (3, 0), (WORTH - 1,)):
        made = empty(shape, np.uint8)
        assert made.shape == shape
        assert made.flags.owndata

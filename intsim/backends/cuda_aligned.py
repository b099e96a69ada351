"""Arrays for kernels that load and store 16 bytes at once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from intsim.backends.cuda_moves import COPY, copied


def aligned(a: Any) -> Any:
    """``a``, or a copy that begins at a multiple of 16 bytes."""
    return a if a.pointer % 16 == 0 else copied(a)


def fill(queue: Any, out: Any, work: Callable[[Any], None]) -> None:
    """``work(out)``, by way of other memory where ``out`` does not begin at a multiple of 16 bytes."""
    if out.pointer % 16 == 0:
        work(out)
        return
    made = queue.empty(out.shape, out.dtype)
    work(made)
    lead = (1,) * 5
    flat = made.reshape(-1), out.reshape(-1), (*lead, out.size), (*(0 for _ in lead), 1)
    queue.launch(COPY, min(-(-out.size // 128), 2048), 128, *flat)

"""Whether two outputs are equal to the bit, and where they are not. There is no tolerance to set."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any

import numpy as np

from intsim.binding import Array
from intsim.op import Port
from intsim.oracle.buffers import POISON
from intsim.oracle.cases import Case
from intsim.params import Integer, Stage, kinds

SHOWN = 3  # differing elements in a report


class Verdict(Enum):
    """What became of a case. The text is what a report says."""

    CONFORMS = "conforms"
    MISMATCH = "differs"
    WRONG_SHAPE = "wrong shape"
    WRONG_DTYPE = "wrong dtype"
    WRONG_COUNT = "wrong number of outputs"
    NOT_AN_ARRAY = "not an array"
    RETURNED_INPUT = "returned its input buffer"
    CHANGED_INPUT = "changed its input"
    OUT_OF_BOUNDS = "wrote outside its output"
    NOT_REPEATABLE = "gave another result the second time"
    RAISED = "raised"
    TIMED_OUT = "timed out"
    CRASHED = "crashed"
    UNSUPPORTED = "unsupported"

    @property
    def failed_to_run(self) -> bool:
        return self in (Verdict.RAISED, Verdict.TIMED_OUT, Verdict.CRASHED)

    @property
    def judged(self) -> bool:
        return not self.failed_to_run and self is not Verdict.UNSUPPORTED


@dataclass(frozen=True, slots=True)
class Difference:
    """One element that differs: its index, what goes into it by name, what came and what was wanted."""

    index: tuple[int, ...]
    inputs: Mapping[str, Any]
    got: int | float
    wanted: int | float


@dataclass(frozen=True, slots=True)
class Judgement:
    """The verdict on one case. text: details in one or a few lines."""

    case: Case
    verdict: Verdict
    text: str = ""
    output: str = ""
    wrong: int = 0
    total: int = 0
    differences: tuple[Difference, ...] = ()


def as_arrays(returned: Any) -> tuple[Array, ...] | None:
    """What a backend returned as NumPy arrays, copied from a GPU only; None where it is nothing of that kind."""
    made = []
    for one in returned if isinstance(returned, (tuple, list)) else (returned,):
        if isinstance(one, (np.ndarray, np.generic)):
            made.append(np.asarray(one))
        elif hasattr(one, "to_host"):
            made.append(one.to_host())
        elif hasattr(one, "__dlpack__"):
            made.append(np.from_dlpack(one))
        elif hasattr(one, "__array__"):
            made.append(np.asarray(one))
        else:
            return None
    return tuple(made)


def compare(case: Case, got: tuple[Array, ...], wanted: tuple[Array, ...] | None = None) -> Judgement:
    """Judges the outputs of one case: number, shapes, dtypes, then every bit."""
    wanted = case.wanted if wanted is None else wanted
    if len(got) != len(wanted):
        names = ", ".join(port.name for port in case.op.outputs)
        return Judgement(case, Verdict.WRONG_COUNT, f"got {len(got)} outputs, wanted {len(wanted)} ({names})")
    for port, a, b in zip(case.op.outputs, got, wanted, strict=True):
        if a.shape != b.shape:
            return Judgement(case, Verdict.WRONG_SHAPE, f"{port.name}: got {a.shape}, wanted {b.shape} ({port.dims})")
        if a.dtype != b.dtype:
            return Judgement(case, Verdict.WRONG_DTYPE, f"{port.name}: got {a.dtype}, wanted {b.dtype}")
    total = sum(b.size for b in wanted)
    for port, a, b in zip(case.op.outputs, got, wanted, strict=True):
        unequal = bits(a) != bits(b)
        wrong = int(unequal.sum())
        if wrong:
            places = [tuple(map(int, at)) for at in np.argwhere(unequal)[:SHOWN]]
            shown = tuple(Difference(at, _into(case, port, at), a[at].item(), b[at].item()) for at in places)
            return Judgement(case, Verdict.MISMATCH, _describe(a, b, unequal), port.name, wrong, b.size, shown)
    return Judgement(case, Verdict.CONFORMS, total=total)


def bits(a: Array) -> Array:
    """The bits of ``a`` as integers: -0.0 is not 0.0, and a NaN equals itself."""
    return a.view(f"int{8 * a.dtype.itemsize}") if a.dtype.kind == "f" else a


def _describe(got: Array, wanted: Array, unequal: Array) -> str:
    """What the differing elements have in common."""
    if (np.ascontiguousarray(got[unequal]).view(np.uint8) == POISON).all():
        return "all of them still hold the poison: the kernel did not write them"
    if got.dtype.kind == "f":
        return ""
    gap = got[unequal].astype(object) - wanted[unequal].astype(object)
    least, most = min(gap), max(gap)
    by = f"always by {least:+d}" if least == most else f"by {least:+d} to {most:+d}"
    if set(gap) <= {-1, 1}:
        away = sum(1 for g, w in zip(got[unequal], wanted[unequal], strict=True) if abs(int(g)) > abs(int(w)))
        by += f" ({away} of {len(gap)} away from zero)" if least != most else ""
    return by


def _into(case: Case, port: Port, at: tuple[int, ...]) -> dict[str, Any]:
    """The inputs and per-dimension parameters that go into one element of an output."""
    where = dict(zip(port.core, at[len(at) - len(port.core) :], strict=True))
    found: dict[str, Any] = {}
    for source, a in zip(case.op.inputs, case.inputs, strict=True):
        index = tuple(where.get(d, slice(None)) for d in source.core)
        value = a[(..., *index)]
        found[source.name] = value.item() if value.ndim == 0 or value.size == 1 else _short(value)
    found.update(_parameters(case.params, where))
    return found


def _parameters(params: Any, where: Mapping[str, int]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, kind in kinds(params).items():
        value = getattr(params, name)
        if isinstance(kind, Integer) and kind.per:
            found[name] = int(value[where.get(kind.per, 0) if value.size > 1 else 0])
        elif isinstance(kind, Stage):
            inner = {k: where[v] for k, v in kind.dims.items() if v in where}
            found |= {f"{name}.{k}": v for k, v in _parameters(value, {**where, **inner}).items()}
        elif isinstance(kind, Integer):
            found[name] = value
    return found


def _short(value: Array) -> str:
    flat = value.reshape(-1)
    if flat.size <= 8:
        return str(flat.tolist())
    return f"[{', '.join(map(str, flat[:4].tolist()))}, ... {flat.size} values]"

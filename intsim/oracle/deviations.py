"""What a backend may do instead: the changes of one rule, and the siblings, that a case can tell from its op.

A deviation is data, not arithmetic: another value of one parameter, or another variant of the family
that takes the same inputs. What it would give is what the spec gives for it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from intsim import registry
from intsim.execute import Prepared
from intsim.numerics import unlimited
from intsim.op import Op
from intsim.oracle.cases import Case
from intsim.params import Choice, Integer, Params, Stage, kinds


@dataclass(frozen=True, slots=True)
class Deviation:
    """name: "rounding=TIES_TO_AWAY", or the sibling's. op, params: what is computed instead."""

    name: str
    op: Op
    params: Any


def deviations(op: Op, p: Params) -> Iterator[Deviation]:
    """Every deviation by one change from ``op`` with ``p``; some may lie outside a limit across fields."""
    for name, changed in changes(p):
        yield Deviation(name, op, changed)
    for sibling in siblings(op):
        filled = fill(sibling, p)
        if filled is not None:
            yield Deviation(sibling.name, sibling, filled)


def changes(p: Params) -> Iterator[tuple[str, Any]]:
    """(name, parameters) for each other value of one rule, at any depth.

    A rule has its other options, an accumulator the type that nothing leaves, a zero point 0 and its
    negative.
    """
    for name, kind in kinds(p).items():
        value = getattr(p, name)
        match kind:
            case Choice(role="rule", options=options):
                others = [(f"{name}={o.name}", o) for o in options if o != value]
            case Choice(role="accumulator", options=options):
                others = [(f"{name}=unlimited", unlimited)] if unlimited in options and value != unlimited else []
            case Integer() if name.endswith("zero_point"):
                others = [(f"{name}=0", 0 * value), (f"{name} negated", -value)] if np.any(value) else []
            case Stage():
                others = [(f"{name}.{inner}", changed) for inner, changed in changes(value)]
            case _:
                continue
        for text, other in others:
            try:
                changed = dataclasses.replace(p, **{name: other})  # type: ignore[type-var]  # a dataclass by convention
            except (ValueError, TypeError):  # outside the range of the field
                continue
            yield text, changed


def siblings(op: Op) -> Iterator[Op]:
    """The other variants of the family that take the same inputs and give the same number of outputs."""
    for other in registry.siblings(op):
        if [(i.name, i.dims) for i in other.inputs] == [(i.name, i.dims) for i in op.inputs] and [
            o.dims for o in other.outputs
        ] == [o.dims for o in op.outputs]:
            yield other


def fill(sibling: Op, p: Params) -> Any | None:
    """The sibling's parameters by equal names, which mean equal things in a family; None where they do not suffice."""
    given = {name: getattr(p, name) for name in kinds(p)}
    wanted = dataclasses.fields(sibling.params)  # type: ignore[arg-type]  # a dataclass by convention
    needed = [f.name for f in wanted if f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING]
    if not set(needed) <= set(given):
        return None
    try:
        return sibling.params(**{f.name: given[f.name] for f in wanted if f.name in given})
    except (ValueError, TypeError):
        return None


def told_apart(case: Case) -> list[str]:
    """The names of the deviations whose outputs differ from the case's in some element."""
    wanted = case.wanted
    found = []
    for deviation in deviations(case.op, case.params):
        try:
            got = Prepared(deviation.op, deviation.params, "reference", tuned=False).outputs(*case.inputs)
        except (ValueError, TypeError, OverflowError):  # it has no such case: a backend cannot do this instead
            continue
        if any(not np.array_equal(_bits(a), _bits(b)) for a, b in zip(got, wanted, strict=True)):
            found.append(deviation.name)
    return sorted(found)


def _bits(a: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Values to compare: integers as they are (types may differ), floats by their bits."""
    return a.view(np.uint32) if a.dtype == np.float32 else a

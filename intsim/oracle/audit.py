"""Whether the golden cases of an op are worth replaying: what they tell apart, and what they never reach."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator, Sequence
from typing import Any

from intsim.execute import Prepared
from intsim.flags import flags_of
from intsim.numerics import IntType
from intsim.op import Composition, Op
from intsim.oracle.cases import Case
from intsim.params import Choice, kinds


def audit(op: Op, cases: Sequence[Case]) -> list[str]:
    """What the cases of ``op`` do not show, a line each; empty where they show all of it.

    For every rule that is a parameter, each two of its options must differ in some case; a result
    type must be left and saturated, an accumulator overflowed, and every integer input must reach
    both ends of its type.
    """
    return [*_rules(op, cases), *_overflow(op, cases), *_extremes(op, cases)]


def _first(op: Op, case: Case, p: Any) -> bytes | None:
    """All output bits for other parameters; None where they lie outside the limits."""
    try:
        return b"".join(a.tobytes() for a in Prepared(op, p, "reference", tuned=False).outputs(*case.inputs))
    except (ValueError, TypeError, OverflowError):
        return None


def _rules(op: Op, cases: Sequence[Case]) -> Iterator[str]:
    for name, kind in kinds(op.params).items():
        if not isinstance(kind, Choice) or kind.role != "rule":
            continue
        told: set[frozenset[Any]] = set()
        for case in cases:
            results = {o: _first(op, case, dataclasses.replace(case.params, **{name: o})) for o in kind.options}
            for a, b in itertools.combinations(kind.options, 2):
                if results[a] is not None and results[b] is not None and results[a] != results[b]:
                    told.add(frozenset((a, b)))
        for a, b in itertools.combinations(kind.options, 2):
            if frozenset((a, b)) not in told:
                yield f"no case tells {name}={a.name} from {name}={b.name}"


def _counts(op: Op, case: Case) -> dict[str, int]:
    return flags_of(lambda p: Prepared(op, p, "reference", tuned=False).outputs(*case.inputs)[0], case.params).counts


def _overflow(op: Op, cases: Sequence[Case]) -> Iterator[str]:
    if isinstance(op.program, Composition):
        return  # its stages have cases of their own
    seen: dict[str, int] = {}
    for case in cases:
        try:
            counts = _counts(op, case)
        except (ValueError, OverflowError):  # the contrast lies outside a limit across fields
            continue
        for name, n in counts.items():
            word, field = name.split(":")
            name = f"overflows {field}" if word in ("wrapped", "clipped") else f"saturates {field}"
            if word != "tie":
                seen[name] = seen.get(name, 0) + n
    yield from (f"no case {name}" for name, n in seen.items() if n == 0)


def _extremes(op: Op, cases: Sequence[Case]) -> Iterator[str]:
    for index, port in enumerate(op.inputs):
        low = high = False
        integer = False
        for case in cases:
            t, a = port.type(case.params), case.inputs[index]
            if not isinstance(t, IntType) or port.below or port.upto or port.packed(case.params) or not a.size:
                continue
            integer = True
            least, most = t.qmin if port.low is None else port.low, t.qmax if port.high is None else port.high
            low, high = low or int(a.min()) == least, high or int(a.max()) == most
        if integer and not (low and high):
            yield f"no case has the {'lowest' if not low else 'highest'} value of {port.name}"

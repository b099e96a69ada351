"""Cases: one call of one op with a reason to exist, and what its outputs must be."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from intsim.binding import Array, bind
from intsim.op import Op
from intsim.oracle import draw
from intsim.oracle.buffers import Guarded
from intsim.oracle.source import Rejected, Stream
from intsim.execute import reference

# Input elements up to which the spec runs on unbounded integers; above, on int64, which the tests prove equal.
EXACT_WORK = 2**7


@dataclass(eq=False)
class Case:
    """A call of an op.

    op, params, inputs: what is called; inputs are arrays in port order, optional ones filled in.
    id: "family.variant/version/slug", stable. comment: why the case exists.
    expected: the outputs, where a golden file states them; else the spec's.
    The inputs are attributes too, by name: ``case.acc``.
    """

    op: Op
    id: str
    comment: str
    params: Any
    inputs: tuple[Array, ...]
    expected: tuple[Array, ...] | None = None
    given: frozenset[str] = field(default_factory=frozenset)  # names of the inputs that were not filled in
    serves: str = ""  # which operator of a system is judged: the capability's ``serves``
    guarded: list[Guarded] = field(default_factory=list)  # what ``buffers`` handed out

    @cached_property
    def wanted(self) -> tuple[Array, ...]:
        """The outputs to the bit, in port order."""
        if self.expected is not None:
            return self.expected
        work = sum(a.size for a in self.inputs)
        return reference(self.op, *self.inputs, p=self.params, exact=work <= EXACT_WORK)

    def buffers(self) -> Any:
        """Poisoned arrays for the outputs, for a kernel that writes into memory it is given: one array, or a tuple.

        Bytes around them are watched, and elements that stay poisoned come out as differences.
        """
        made = [Guarded(a.shape, a.dtype) for a in self.wanted]
        self.guarded.extend(made)
        return made[0].array if len(made) == 1 else tuple(g.array for g in made)

    def __getattr__(self, name: str) -> Any:
        for port, a in zip(self.__dict__["op"].inputs, self.__dict__["inputs"], strict=True):
            if port.name == name:
                return a
        raise AttributeError(f"{self.__dict__['op'].id} has no input {name!r}")


def make(
    op: Op, slug: str, comment: str, arrays: tuple[Any, ...], p: Any, expected: tuple[Array, ...] | None = None
) -> Case:
    """A case from a call; the optional inputs that are None are filled in."""
    op.check(p)
    given = frozenset(port.name for port, a in zip(op.inputs, arrays, strict=False) if a is not None)
    return Case(op, f"{op.id}/{slug}", comment, p, bind(op, arrays, p).arrays, expected, given)


def slug(text: str) -> str:
    """``text`` as the last part of a case's id."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")


def directed(op: Op) -> Iterator[Case]:
    """The examples that the variant states, in its order."""
    for comment, (arrays, p) in op.examples().items():
        yield make(op, slug(comment), comment, arrays, p)


def random(
    op: Op,
    count: int,
    *,
    seed: str = "intsim",
    longest: int = 8,
    only: draw.Only | None = None,
    label: str = "random",
) -> Iterator[Case]:
    """``count`` pseudorandom cases, "label-0" and on; the same for the same seed, on every machine.

    Raises ValueError where ``only`` leaves nothing that the limits allow.
    """
    for index in range(count):
        for attempt in range(200):
            try:
                arrays, p = draw.call(op, Stream(f"{seed}|{op.id}|{index}|{attempt}"), longest=longest, only=only)
            except Rejected:
                continue
            yield make(op, f"{label}-{index}", f"pseudorandom, seed {seed!r}", arrays, p)
            break
        else:
            raise ValueError(f"{op.id}: no draw inside the limits in 200 attempts; held fields: {dict(only or {})}")

"""Every way to run an op, side by side: devices, threads, tuned kernels. One hash an op, or the place where they part.

The spec on integers is what all are held against; a tuned kernel that no case reaches is named, not passed over.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import math
import multiprocessing
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numba import config

from intsim import registry
from intsim.backends import cpu
from intsim.binding import Array
from intsim.execute import NotServed, Prepared
from intsim.op import Op, Tuned
from intsim.oracle import cases, golden
from intsim.oracle.cases import Case
from intsim.params import Integer, Stage, kinds

RANDOM = 4
# Lengths of the dimensions of larger cases, in the op's order: tails of every tile, one row, many rows; a head; and
# what ops of four or five dimensions take, whose product would be too large with those.
LENGTHS = (
    (37, 45, 70), (130, 200, 144), (1, 512, 512), (256, 256, 512), (70, 64, 200, 48),
    (17, 5, 64, 40, 32), (40, 6, 32, 100, 48),
)  # fmt: skip
MOST = 2**27  # the product of all lengths of a larger case: what the spec does in seconds
ENOUGH = 2  # larger cases for each tuned kernel
CHOSEN = "chosen"  # the kernel that a caller gets who asks for none


@dataclass(frozen=True, slots=True)
class Way:
    """One way to run an op. tile: a tuned kernel, CHOSEN, or "" for the program. there: arrays lie on the device."""

    device: str
    threads: int = 1
    tile: str = ""
    there: bool = False

    def __str__(self) -> str:
        words = [self.device + (" arrays" if self.there else "")]
        words += [f"{self.threads} threads"] if self.device == "cpu" else []
        return ", ".join([*words, self.tile.rpartition(".")[2] or "program"])


@dataclass(slots=True)
class Row:
    """What became of one op. runs: how often a case ran; parted: what differed, a line each; unreached: kernels."""

    op: str  # with its version
    hash: str = ""
    cases: int = 0
    elements: int = 0  # of all outputs
    inputs: str = ""  # a hash of the cases, so that a record says what it is a record of
    ways: list[Way] = field(default_factory=list)
    runs: int = 0
    parted: list[str] = field(default_factory=list)
    unreached: list[str] = field(default_factory=list)


def run(
    op: Op, *, devices: Sequence[str] = ("cpu",), threads: Sequence[int] = (1,), tiles: bool = True, count: int = RANDOM
) -> Row:
    """Runs every case of ``op`` in every way, and compares each output with the spec's to the bit.

    devices: "cpu" and "cuda". threads: how many on the CPU. tiles: each tuned kernel alone as well.
    count: pseudorandom cases.
    """
    row = Row(op.id)
    stated = [*(golden.cases(op) or cases.directed(op)), *cases.random(op, count, label="drawn")]
    # the JIT off, a program is Python: then the larger case is a small one
    large = list(reaching(op, None, stated, "cpu", LENGTHS[:1] if config.DISABLE_JIT else LENGTHS[1:]))[:1]
    tuned = [t for t in op.tuned if tiles and t.backend in devices]
    reach = {t.where: list(reaching(op, t, stated, t.backend)) for t in tuned}
    for t in tuned:
        if not reach[t.where]:
            why = t.not_simulated if t.backend == "cuda" and _simulated() else ""
            row.unreached.append(f"{t.where}: {why or 'no case reaches it'}")
    tiled = [case for listed in reach.values() for case in listed]
    digests = {id(case): _digest(case.wanted) for case in (*stated, *large, *tiled)}
    # A hash of the cases that every way meets: the same on every machine, whatever tuned kernels it has.
    row.hash = _joined(digests[id(case)] for case in (*stated, *large))
    row.inputs = _joined(f"{_digest(case.inputs)} {case.params}" for case in (*stated, *large))
    row.cases = len(stated) + len(large) + len(tiled)
    row.elements = sum(a.size for case in (*stated, *large, *tiled) for a in case.wanted)
    for way in _ways(devices, threads):
        row.ways.append(way)
        for case in large if way.there else [*stated, *large]:
            _compare(row, op, way, case, digests[id(case)])
        if tiles:
            row.ways.append(dataclasses.replace(way, tile=CHOSEN))
            for case in (*([] if way.there else stated), *large, *tiled):
                _compare(row, op, row.ways[-1], case, digests[id(case)])
    for t in tuned:
        for way in _ways([t.backend], threads):
            row.ways.append(dataclasses.replace(way, tile=t.where))
            for case in reach[t.where]:
                _compare(row, op, row.ways[-1], case, digests[id(case)])
    return row


def _ways(devices: Sequence[str], threads: Sequence[int]) -> Iterator[Way]:
    if "cpu" in devices:
        yield from (Way("cpu", n) for n in threads)
    if "cuda" in devices:
        yield Way("cuda")
        yield Way("cuda", there=True)


def _compare(row: Row, op: Op, way: Way, case: Case, wanted: str) -> None:
    row.runs += 1
    try:
        got = _digest(_outputs(op, way, case))
    except Exception as error:  # a kernel that raises is a finding, not the end
        row.parted.append(f"{way}: {case.id} raised {type(error).__name__}: {error}")
        return
    if got != wanted:
        row.parted.append(f"{way}: {case.id} differs")


def _outputs(op: Op, way: Way, case: Case) -> tuple[Array, ...]:
    with in_threads(way.threads):
        prepared = Prepared(op, case.params, way.device, True if way.tile == CHOSEN else way.tile or False)
        if not way.there:
            return prepared.outputs(*case.inputs)
        from intsim.graphs import to_device

        return tuple(np.asarray(a) for a in prepared.outputs(*map(to_device, case.inputs)))


@contextlib.contextmanager
def in_threads(count: int) -> Iterator[None]:
    """CPU kernels run in ``count`` threads, however little there is to do."""
    before = cpu.THREADS, cpu.WORTH_A_THREAD
    cpu.THREADS, cpu.WORTH_A_THREAD = count, 1
    try:
        yield
    finally:
        cpu.THREADS, cpu.WORTH_A_THREAD = before


def reaching(
    op: Op,
    tile: Tuned | None,
    stated: Sequence[Case],
    device: str,
    sizes: Sequence[Sequence[int]] = LENGTHS,
    *,
    every: bool = False,
) -> Iterator[Case]:
    """Larger cases, made of the stated ones, that the tuned kernel serves; any larger ones where there is none.

    A few of them; every: all.
    """
    found = 0
    if tile is not None and tile.example is not None:
        stated = [cases.make(op, "of-the-kernel", "", *tile.example()), *stated]
    for lengths in sizes:
        for case in stated:
            made = enlarged(case, lengths, pairs=bool(tile and tile.leading))
            if made is None or (tile and not _served(op, tile, made, device)):
                continue
            yield made
            found += 1
            if not every:
                break
        if found >= ENOUGH and not every:
            return


def _served(op: Op, tile: Tuned, case: Case, device: str) -> bool:
    try:
        return Prepared(op, case.params, device, tile.where).serves(*case.inputs)
    except NotServed:
        return False


def _simulated() -> bool:
    from intsim.backends.cuda_arrays import driver

    return bool(driver().current().simulated)


def enlarged(case: Case, lengths: Sequence[int], pairs: bool = False) -> Case | None:
    """``case`` with its values repeated over larger dimensions; None where a limit forbids it.

    pairs: twice, along a leading dimension. Only places and lengths change, so that every value stays one that
    the case already had.
    """
    op, size = case.op, {}
    free = [d for d in op.dims if d not in op.sizes or op.sizes[d].derived is None]
    for index, d in enumerate(free):
        bounds = op.sizes.get(d)
        length = lengths[index % len(lengths)]
        size[d] = max(bounds.low, min(length, bounds.high)) if bounds else length
    try:
        p = _stretched(case.params, size)
        for d, bounds in op.sizes.items():
            if bounds.derived is not None:
                size[d] = bounds.derived(p, size)
        if math.prod(size.values()) > MOST:
            return None
        arrays = tuple(
            _spread(a, port.shape(p, size), index)
            for index, (port, a) in enumerate(zip(op.inputs, case.inputs, strict=True))
        )
        if pairs:
            arrays = tuple(np.stack([a, np.roll(a, 1)]) for a in arrays)
        return cases.make(
            op, f"{case.id.rpartition('/')[2]}-{'x'.join(map(str, lengths))}{'-twice' * pairs}", "", arrays, p
        )
    except (ValueError, TypeError, OverflowError):  # a derived size, a sum over the dimension, a limit
        return None


def _spread(a: Array, shape: tuple[int, ...], index: int) -> Array:
    """The elements of ``a`` again and again, in an order that no tile repeats."""
    if not a.size:
        raise ValueError("no element to repeat")
    count = int(np.prod(shape))
    place = (np.arange(count) * 7919 + np.arange(count) // 61 + index) % a.size
    made: Array = a.reshape(-1)[place].reshape(shape)
    return made


def _stretched(p: Any, size: dict[str, int]) -> Any:
    """Parameters with a value per element of a dimension repeated to its new length."""
    changed: dict[str, Any] = {}
    for name, kind in kinds(p).items():
        value = getattr(p, name)
        if isinstance(kind, Integer) and kind.per and value.size > 1:
            changed[name] = np.resize(value, size[kind.per])
        elif isinstance(kind, Stage):
            changed[name] = _stretched(value, size | {k: size[v] for k, v in kind.dims.items() if v in size})
    return dataclasses.replace(p, **changed)


def _digest(arrays: Sequence[Array]) -> str:
    seen = hashlib.sha256()
    for a in arrays:
        seen.update(f"{a.dtype.str}{a.shape}".encode() + np.ascontiguousarray(a).tobytes())
    return seen.hexdigest()


def _joined(digests: Any) -> str:
    return hashlib.sha256("\n".join(digests).encode()).hexdigest()


def rows(names: Sequence[str], jobs: int, **chosen: Any) -> Iterator[Row]:
    """The rows of these ops as they are done; each of ``jobs`` processes takes one op at a time."""
    if jobs == 1:
        yield from (run(registry.get(name), **chosen) for name in names)
        return
    with ProcessPoolExecutor(jobs, mp_context=multiprocessing.get_context("spawn")) as pool:
        waiting = [pool.submit(_one, name, chosen) for name in names]
        for done in as_completed(waiting):
            yield done.result()


def _one(name: str, chosen: dict[str, Any]) -> Row:
    return run(registry.get(name), **chosen)

"""Inputs and parameters of any op, drawn from what it declares: no op is named here.

Half of the draws put all numbers of a kind at the edges of their range at once: random values alone
miss the corners where a limit is too wide.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from intsim.binding import Array
from intsim.numerics import FloatType
from intsim.op import Op, Port
from intsim.oracle.source import Source, choose
from intsim.params import Choice, Integer, Params, Real, Stage, bounded, conditions, kinds

Only = Mapping[str, Sequence[Any]]  # field (dotted through stages) -> the values that it may have


def call(op: Op, source: Source, *, longest: int = 5, only: Only | None = None) -> tuple[tuple[Array | None, ...], Any]:
    """(inputs, params) inside every limit; each free dimension is at most ``longest``.

    only: fields held to some values, and dimensions (by name) held to some lengths.
    """
    only = only or {}
    size: dict[str, int] = {}
    for d in op.dims:
        bounds = op.sizes.get(d)
        if bounds is None or bounds.derived is None:
            low, high = (max(bounds.low, 1), min(bounds.high, longest)) if bounds else (1, longest)
            size[d] = choose(source, only[d]) if d in only else source.integer(low, high)
    p = params(op.params, source, size, only)
    for d, bounds in op.sizes.items():
        if bounds.derived is not None:
            size[d] = bounds.derived(p, size)
    return inputs(op, source, p, size), p


def params(cls: type[Params], source: Source, size: Mapping[str, int], only: Only) -> Any:
    """Parameters inside every limit, or ``source.reject()``."""
    made: dict[str, Any] = {}
    corner = source.integer(0, 1) == 1
    declared = kinds(cls)
    # Choices first: the range of a number may be that of a type beside it.
    for name, kind in sorted(declared.items(), key=lambda item: isinstance(item[1], Integer)):
        match kind:
            case Choice(options=options):
                made[name] = choose(source, list(only.get(name, options)))
            case Stage(params=inner, dims=dims, fixed=fixed):
                stage_size = dict(size) | {k: size[v] for k, v in dims.items()}
                held = {f.removeprefix(f"{name}."): v for f, v in only.items() if f.startswith(f"{name}.")}
                held |= {f: (v,) for f, v in fixed.items()}
                made[name] = params(inner, source, stage_size, held)
            case Integer():
                if name in only:
                    made[name] = choose(source, only[name])
                    continue
                kind = bounded(kind, _Partial(made))
                assert isinstance(kind, Integer)
                count = choose(source, (1, size[kind.per])) if kind.per else 1
                values = integers(source, count, kind.low, kind.high, corner)
                made[name] = values if kind.per else values[0]
            case Real():
                pass
    p = cls(**{f.name: made[f.name] for f in dataclasses.fields(cls) if f.name in made})  # type: ignore[arg-type]  # a dataclass by convention
    if not all(test(p) for *_, test in conditions(cls)):
        source.reject()
    return p


class _Partial:
    """The fields made so far, as attributes."""

    def __init__(self, made: dict[str, Any]) -> None:
        self.__dict__ = made


def inputs(
    op: Op, source: Source, p: Any, size: Mapping[str, int], *, all_given: bool = False
) -> tuple[Array | None, ...]:
    """One array a port; an optional one is left out in half of the draws."""
    corner = source.integer(0, 1) == 1
    made: list[Array | None] = []
    for port in op.inputs:
        if port.fill is not None and not all_given and source.integer(0, 1) == 1:
            made.append(None)
            continue
        made.append(_array(port, source, p, size, corner))
    return tuple(made)


def _array(port: Port, source: Source, p: Any, size: Mapping[str, int], corner: bool) -> Array:
    shape, storage = port.shape(p, size), port.storage(p)
    count = int(np.prod(shape))
    if isinstance(port.type(p), FloatType):
        bits = [_float_bits(source, port.numbers, corner) for _ in range(count)]
        return np.array(bits, np.uint32).view(np.float32).reshape(shape)
    low, high = port.bounds(p, size)
    return np.array(integers(source, count, low, high, corner), storage).reshape(shape)


def integers(source: Source, count: int, low: int, high: int, corner: bool) -> list[int]:
    """Edges, powers of two and their neighbours, small numbers, any numbers; in a corner the edges alone."""
    edges = sorted({low, high, *(v for v in (0, 1, -1) if low <= v <= high)})
    if corner:
        return [edges[i] for i in source.integers(count, 0, len(edges) - 1)]
    made = []
    for kind in source.integers(count, 0, 3):
        if kind == 0:
            made.append(edges[source.integer(0, len(edges) - 1)])
        elif kind == 1:
            power = 1 << source.integer(0, max(abs(low), abs(high), 1).bit_length())
            value = (power if source.integer(0, 1) else -power) + source.integer(-1, 1)
            made.append(min(max(value, low), high))
        elif kind == 2:
            made.append(source.integer(max(low, -64), min(high, 64)) if low <= 64 and high >= -64 else low)
        else:
            made.append(source.integer(low, high))
    return made


# 0, -0, 1/2, 1, -5/2, the smallest subnormal, the smallest normal, the largest, infinities
_FLOAT_EDGES = (
    0,
    1 << 31,
    0x3F00_0000,
    0x3F80_0000,
    0xC020_0000,
    1,
    0x0080_0000,
    0x7F7F_FFFF,
    0x7F80_0000,
    0xFF80_0000,
)


def _float_bits(source: Source, numbers: str, corner: bool) -> int:
    kind = 0 if corner else source.integer(0, 2)
    if kind == 0:
        bits = _FLOAT_EDGES[source.integer(0, len(_FLOAT_EDGES) - 1)]
    elif kind == 1:  # quarters between -150 and 150: ties for scales that are powers of two
        bits = int(np.float32(source.integer(-600, 600) / 4).view(np.uint32))
    else:
        bits = source.integer(0, 2**32 - 1)
    value = np.uint32(bits).view(np.float32)
    if numbers == "positive" and not (np.isfinite(value) and value > 0):
        # any mantissa, an exponent between 2**-12 and 2**4
        return (source.integer(115, 131) << 23) + choose(source, (0, 1 << 22, source.integer(0, 2**23 - 1)))
    if (numbers in ("finite", "not negative") and not np.isfinite(value)) or np.isnan(value):
        bits = bits & 0x807F_FFFF | 0x3F80_0000  # the same mantissa, near 1
    if numbers == "not negative":
        return bits & (2**31 - 1)
    return bits

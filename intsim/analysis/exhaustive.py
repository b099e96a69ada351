"""Two ways to requantize on every int32 accumulator, by a GPU, one by one.

``requantizers`` finds the same by thresholds where both are monotone; this trusts nothing but what it runs.
The parameters are compiled in, so that the compiler folds rounding rules and shifts: 2**32 accumulators take a
few milliseconds.

Where an op has a form in 32-bit words (``intsim.ops.requantize._cuda_narrow``), that form runs, three times as
fast as the program; ``narrow_differs`` shows for any parameters that it gives what the program gives, and
``by_program`` leaves it out.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from intsim.numerics import int32
from intsim.op import Elementwise
from intsim.params import Params, record
from intsim.registry import get

LOWEST, HIGHEST = -(2**31), 2**31 - 1


def differences(
    one: tuple[str, Params],
    other: tuple[str, Params],
    low: int = LOWEST,
    high: int = HIGHEST,
    *,
    by_program: bool = False,
) -> tuple[int, int | None]:
    """On how many accumulators of [low, high] two ops differ, and the least of them.

    one, other: the name of an elementwise op with int32 accumulators and its parameters, one for all channels.
    by_program: run the programs alone.
    Raises ValueError for another op, RuntimeError where there is no GPU.
    """
    return _found(_form(*one, by_program), _form(*other, by_program), low, high)


def narrow_differs(name: str, p: Params, low: int = LOWEST, high: int = HIGHEST) -> tuple[int, int | None]:
    """On how many accumulators of [low, high] the 32-bit form of an op differs from its program, and the least.

    Raises ValueError where the op has no such form for these parameters.
    """
    narrow, program = _form(name, p, False), _form(name, p, True)
    if narrow[1] == program[1]:
        raise ValueError(f"{name}: no 32-bit form serves these parameters")
    return _found(narrow, program, low, high)


def _found(one: tuple[Any, str], other: tuple[Any, str], low: int, high: int) -> tuple[int, int | None]:
    from intsim.analysis._cuda_exhaustive import comparison
    from intsim.backends.cuda_arrays import driver
    from intsim.backends.cuda_queue import Queue

    forms = one[0], other[0], f"{one[1]} {other[1]}"
    gpu = driver().current()
    queue = Queue(gpu, gpu.stream(), None, None, {}, "")
    found = queue.upload(np.array([0, HIGHEST + 1], np.int64))
    threads = 256 if high - low > 2**20 else 32
    blocks = min(16 * gpu.multiprocessors, (high - low) // threads + 1)
    queue.launch(comparison(*forms, least=False), blocks, threads, found, low, high)
    if found.to_host()[0] == 0:
        return 0, None
    queue.launch(comparison(*forms, least=True), blocks, threads, found, low, high)
    count, least = found.to_host().tolist()
    return count, least


def _form(name: str, p: Params, by_program: bool) -> tuple[Any, str]:
    """The result for an accumulator as a function for kernels, and what tells it from any other."""
    from intsim.analysis._cuda_exhaustive import of_program
    from intsim.ops.requantize._cuda_narrow import BY_NAME

    element, record_of = _program(name, p)
    narrow = BY_NAME[name](p) if name in BY_NAME and not by_program else None
    if narrow is not None:
        return narrow, f"narrow {name} {record_of}"
    return of_program(element, record_of, get(name).outputs[0].type(p).bits), f"{name} {record_of}"


def _program(name: str, p: Params) -> tuple[Any, Any]:
    op = get(name)
    if not isinstance(op.program, Elementwise) or [port.name for port in op.inputs] != ["acc"]:
        raise ValueError(f"{op.id}: needs an elementwise op whose one input is acc")
    if op.inputs[0].type(p) != int32:
        raise ValueError(f"{op.id}: needs int32 accumulators")
    op.check(p)
    return op.program.element, _constants(record(p, {"n": 1}))


def _constants(value: Any) -> Any:
    """A record whose arrays are tuples: Numba compiles a tuple of numbers in."""
    if isinstance(value, np.ndarray):
        return tuple(int(v) for v in value)
    if isinstance(value, tuple):
        return type(value)(*map(_constants, value))
    return int(value)

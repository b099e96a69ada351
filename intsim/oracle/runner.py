"""Running a backend on one case, in this process or in one of its own that may crash or hang."""

from __future__ import annotations

import importlib
import multiprocessing
import signal
import traceback
from collections.abc import Mapping
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any, Protocol

import numpy as np

from intsim import registry
from intsim.binding import Array
from intsim.oracle.adapter import Adapter, Unsupported, load
from intsim.oracle.cases import Case
from intsim.oracle.compare import Verdict, as_arrays, bits
from intsim.oracle.protocol import WorkerFailed


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a call: arrays, or a verdict that needs no comparison, with its reason."""

    arrays: tuple[Array, ...] | None = None
    verdict: Verdict | None = None
    text: str = ""


class Runner(Protocol):
    def call(self, case: Case) -> Outcome: ...

    def close(self) -> None: ...


def call(adapter: Adapter, case: Case, device: str = "cpu") -> Outcome:
    """Runs ``adapter`` on ``case`` and watches what no comparison sees: inputs changed, or handed back.

    device: "cuda" puts the inputs, and the output buffers that a kernel asks for, into a GPU's memory.
    """
    before = [a.copy() for a in case.inputs]
    try:
        given = case if device == "cpu" else _device().on_gpu(case)
        returned = adapter.run(given)
        if device != "cpu":
            _device().wait()
        returned = returned if _on_host(returned) else _device().fetched(returned)
        arrays = as_arrays(returned)
    except Unsupported as reason:
        return Outcome(verdict=Verdict.UNSUPPORTED, text=str(reason))
    except WorkerFailed as failed:
        return Outcome(verdict=failed.verdict, text=str(failed))
    except Exception as error:  # whatever a backend raises is a verdict on it, not the end of the run
        where = traceback.extract_tb(error.__traceback__)[-1]
        text = f"{type(error).__name__}: {error} ({where.name}, line {where.lineno})"
        return Outcome(verdict=Verdict.RAISED if device == "cpu" else _how_it_left_the_gpu(), text=text)
    if arrays is None:
        return Outcome(
            verdict=Verdict.NOT_AN_ARRAY,
            text="return a NumPy array, or anything with __dlpack__, __cuda_array_interface__ or __array__; "
            "a tuple of them for several outputs",
        )
    return _watched(case, given, returned, arrays, before)


def _watched(case: Case, given: Any, returned: Any, arrays: tuple[Array, ...], before: list[Array]) -> Outcome:
    """What became of the memory that the backend was given."""
    after = case.inputs if given is case else _device().to_host(given.inputs)
    for index, (port, a, b) in enumerate(zip(case.op.inputs, after, before, strict=True)):
        if given is case:
            shared = any(np.shares_memory(a, out) for out in arrays)
        else:
            whole = returned if isinstance(returned, tuple) else (returned,)
            shared = any(given.placed[index].overlaps(out) for out in whole if hasattr(out, "pointer"))
        if shared:
            return Outcome(
                verdict=Verdict.RETURNED_INPUT, text=f"the output is the memory of {port.name}: allocate one"
            )
        if not np.array_equal(bits(a), bits(b)):
            return Outcome(verdict=Verdict.CHANGED_INPUT, text=f"{port.name} is not what it was before the call")
    if not (given.intact if given is not case else all(g.intact for g in case.guarded)):
        beside = "an input or the output buffer in the GPU's memory" if given is not case else "the output buffer"
        return Outcome(verdict=Verdict.OUT_OF_BOUNDS, text=f"guard bytes beside {beside} were overwritten")
    return Outcome(arrays=arrays)


def _device() -> Any:
    """The module that needs CUDA, imported only when a GPU is asked for."""
    return importlib.import_module("intsim.oracle.device")


def _on_host(returned: Any) -> bool:
    several = returned if isinstance(returned, (tuple, list)) else (returned,)
    return not any(
        hasattr(one, "__cuda_array_interface__") or getattr(one, "__dlpack_device__", lambda: (1, 0))()[0] != 1
        for one in several
    )


def _how_it_left_the_gpu() -> Verdict:
    """CRASHED where no further call can use the GPU: the process has to be started anew."""
    try:
        _device().wait()
    except Exception:  # each library has its own
        return Verdict.CRASHED
    return Verdict.RAISED


class InProcess:
    """Calls in this process: fast, for backends that are trusted not to crash."""

    def __init__(self, adapter: Adapter, device: str = "cpu") -> None:
        self._adapter, self._device = adapter, device

    def call(self, case: Case) -> Outcome:
        return call(self._adapter, case, self._device)

    def close(self) -> None:
        pass


LOADS_IN = 60.0  # seconds at least: a backend may import a whole framework, on a busy machine


class Isolated:
    """Calls in a process of their own, each under a time limit; it is started anew after a crash."""

    def __init__(self, target: str, timeout: float, profile: str | None = None, device: str = "cpu") -> None:
        self._target, self._timeout, self._profile, self._device = target, timeout, profile, device
        self._context = multiprocessing.get_context("spawn")
        self._start()

    def _start(self) -> None:
        self._pipe, theirs = self._context.Pipe()
        self._process = self._context.Process(
            target=_serve, args=(self._target, self._profile, self._device, theirs), daemon=True
        )
        self._process.start()
        theirs.close()
        limit = max(self._timeout, LOADS_IN)
        ready = self._receive(limit)
        if ready is None or isinstance(ready, Outcome):
            self.close()
            late = f"the backend did not load in {limit:.0f} s; a larger --timeout gives it longer"
            raise ChildFailed(ready.text if ready else late, ready is None)
        self.names, self.versions = ready

    def _receive(self, timeout: float) -> Any:
        """What the other side sent; None where it said nothing in time."""
        try:
            return self._pipe.recv() if self._pipe.poll(timeout) else None
        except (EOFError, ConnectionResetError):
            self._process.join()
            return Outcome(verdict=Verdict.CRASHED, text=_ending(self._process.exitcode))

    def call(self, case: Case) -> Outcome:
        try:
            self._pipe.send((case.op.name, case.id, case.comment, case.params, case.inputs, case.given, case.serves))
            got = self._receive(self._timeout)
        except BrokenPipeError:
            self._process.join()
            got = Outcome(verdict=Verdict.CRASHED, text=_ending(self._process.exitcode))
        if got is None:
            got = Outcome(verdict=Verdict.TIMED_OUT, text=f"no answer in {self._timeout:g} s (see --timeout)")
        if got.verdict in (Verdict.CRASHED, Verdict.TIMED_OUT):
            self.close()
            self._start()
        assert isinstance(got, Outcome)
        return got

    def close(self) -> None:
        self._process.kill()
        self._process.join()
        self._pipe.close()


class ChildFailed(Exception):
    """A backend could not be loaded. timed_out: it hung."""

    def __init__(self, text: str, timed_out: bool = False) -> None:
        super().__init__(text)
        self.timed_out = timed_out


def _ending(code: int | None) -> str:
    if code is not None and code < 0:
        return f"the process was ended by {signal.Signals(-code).name}"
    return f"the process ended with exit code {code}"


def _serve(target: str, profile: str | None, device: str, pipe: Connection) -> None:
    """The other side: loads the backend, then answers a case with an outcome until the pipe closes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent to handle
    try:
        adapter = load(target, profile)
        pipe.send(([c.op for c in adapter.capabilities()], _versions(adapter)))
    except BaseException as error:  # also SystemExit at import: the other side must hear of it
        pipe.send(Outcome(verdict=Verdict.RAISED, text=f"{type(error).__name__}: {error}"))
        return
    while True:
        try:
            name, id_, comment, params, inputs, given, serves = pipe.recv()
        except EOFError:
            return
        case = Case(registry.get(name), id_, comment, params, inputs, given=given, serves=serves)
        outcome = call(adapter, case, device)
        if outcome.arrays is not None:
            outcome = Outcome(tuple(np.ascontiguousarray(a) for a in outcome.arrays))
        pipe.send(outcome)


def _versions(adapter: Adapter) -> Mapping[str, str]:
    return dict(adapter.versions())

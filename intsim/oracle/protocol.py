"""Calls into another process by JSON lines on its stdin and stdout: protocol version 1.

For what cannot run in this Python: a system whose packages conflict with others, a program in another
language, a simulator of hardware. Each request and each answer is one JSON object on one line of UTF-8.

    -> {"say": "start", "id": 1, "version": 1}
    <- {"id": 1, "version": 1, "name": "my simulator", "versions": {"my-tools": "2.0"}}
    -> {"say": "case", "id": 2, "op": "CLZ", "attributes": {}, "inputs": [ARRAY], "outputs": [KIND]}
    <- {"id": 2, "outputs": [ARRAY]}
    or {"id": 2, "unsupported": "why it does not serve this call"}
    or {"id": 2, "error": "what went wrong"}
    -> {"say": "stop", "id": 3}        no answer: the worker ends

An ARRAY is {"dtype": "int8", "shape": [2, 3], "hex": "00ff..."}: the elements in C order, each in little-endian
bytes, two hexadecimal digits a byte. A dtype is bool, int8 to int64, uint8 to uint64, float32 or float64. A
KIND is {"dtype": ..., "shape": ...}: what is wanted. ``op`` and ``attributes`` are those that worker and
adapter agree on. A worker answers each request once, in order, with the id that it has; it writes nothing
else on stdout (stderr is free: its last lines are shown when it fails).

Whatever a worker does wrong is a WorkerFailed that says so, never a hang: it died, was silent, wrote what
is no answer, or speaks another version. It is ended then, and the next call starts a new one.
"""

from __future__ import annotations

import json
import os
import selectors
import signal
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from typing import IO, Any

import numpy as np

from intsim.binding import Array
from intsim.oracle.adapter import Unsupported
from intsim.oracle.compare import Verdict

VERSION = 1
LONGEST = 2**30  # bytes of an answer: beyond it a worker writes without end
DTYPES = ("bool", *(f"{u}int{b}" for u in ("", "u") for b in (8, 16, 32, 64)), "float32", "float64")
_CHUNK = 1 << 20


class WorkerFailed(Exception):
    """A worker did not answer as the protocol says. verdict: what a report calls that."""

    def __init__(self, text: str, verdict: Verdict = Verdict.RAISED) -> None:
        super().__init__(text)
        self.verdict = verdict


def encode(a: Array) -> dict[str, Any]:
    """``a`` as the protocol writes it."""
    a = np.asarray(a)
    if a.dtype.name not in DTYPES:
        raise TypeError(f"the protocol has no arrays of {a.dtype}; it has {', '.join(DTYPES)}")
    little = a.astype(a.dtype.newbyteorder("<"), copy=False)
    return {"dtype": a.dtype.name, "shape": list(a.shape), "hex": little.tobytes().hex()}


def decode(stated: Any) -> Array:
    """The array that ``stated`` writes. Raises ValueError, with the reason, where it writes none."""
    if not isinstance(stated, dict) or set(stated) != {"dtype", "shape", "hex"}:
        raise ValueError(f"an array is an object with dtype, shape and hex, got {_short(stated)}")
    dtype, shape = stated["dtype"], stated["shape"]
    if dtype not in DTYPES:
        raise ValueError(f"an array has no dtype {_short(dtype)}; it is one of {', '.join(DTYPES)}")
    if not isinstance(shape, list) or not all(type(n) is int and n >= 0 for n in shape):
        raise ValueError(f"a shape is a list of whole numbers, got {_short(shape)}")
    try:
        data = bytes.fromhex(stated["hex"])
    except (TypeError, ValueError):
        raise ValueError(f"hex holds hexadecimal digits, got {_short(stated['hex'])}") from None
    kind = np.dtype(dtype).newbyteorder("<")
    needs = int(np.prod(shape, dtype=object)) * kind.itemsize
    if len(data) != needs:
        raise ValueError(f"{dtype} of shape {shape} has {needs} bytes, got {len(data)}")
    return np.frombuffer(data, kind).astype(dtype).reshape(shape)


class Worker:
    """A program that speaks the protocol. It starts with the first call.

    command: the program and its arguments. name: what messages call it. timeout: seconds for one answer.
    environment: its environment variables (default: those of this process).
    """

    def __init__(
        self,
        command: Sequence[str | os.PathLike[str]],
        name: str,
        timeout: float = 60.0,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self._command, self._name, self.timeout = list(command), name, timeout
        self._environment = environment
        self._process: subprocess.Popen[bytes] | None = None
        self._log: IO[bytes] | None = None
        self._count = 0
        self._started: dict[str, Any] = {}

    def versions(self) -> Mapping[str, str]:
        """What the worker says it is made of. Raises WorkerFailed where it does not start."""
        stated = self.start().get("versions", {})
        return {str(k): str(v) for k, v in stated.items()} if isinstance(stated, dict) else {}

    def start(self) -> Mapping[str, Any]:
        """Its answer to "start". Raises WorkerFailed where it gives none, or speaks another version."""
        self._start()
        return self._started

    def call(
        self,
        op: str,
        attributes: Mapping[str, Any],
        inputs: Sequence[Array],
        outputs: Sequence[tuple[str, tuple[int, ...]]],
    ) -> list[Array]:
        """The arrays that the worker computes. outputs: dtype and shape of each.

        Raises Unsupported where the worker does not serve the call, WorkerFailed where it does not answer.
        """
        self._start()
        answer = self._ask(
            "case",
            op=op,
            attributes=dict(attributes),
            inputs=[encode(a) for a in inputs],
            outputs=[{"dtype": dtype, "shape": list(shape)} for dtype, shape in outputs],
        )
        if "unsupported" in answer:
            raise Unsupported(str(answer["unsupported"]))
        made = answer.get("outputs")
        if not isinstance(made, list):
            raise self._failure(f"answered {_short(answer)}, which has no outputs")
        try:
            return [decode(one) for one in made]
        except ValueError as wrong:
            raise self._failure(f"answered with no array: {wrong}") from None

    def close(self) -> None:
        """Ends the worker."""
        if self._process is not None:
            if self._process.poll() is None:
                try:  # it may end by itself, and close what it holds
                    self._write(b'{"say": "stop", "id": 0}\n')
                    self._process.wait(1)
                except (OSError, subprocess.TimeoutExpired):
                    self._process.kill()
            self._end()

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def __del__(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._end()

    def _write(self, line: bytes) -> None:
        assert self._process is not None
        assert self._process.stdin is not None
        os.write(self._process.stdin.fileno(), line)

    def _start(self) -> None:
        if self._process is not None:
            return
        self._log = tempfile.TemporaryFile()  # not a pipe: one that nobody reads would stop the worker  # noqa: SIM115
        try:
            self._process = subprocess.Popen(
                self._command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._log,
                bufsize=0,
                env=None if self._environment is None else dict(self._environment),
            )
        except OSError as missing:
            self._log.close()
            raise WorkerFailed(f"{self._name} cannot be started: {missing}") from None
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            os.set_blocking(pipe.fileno(), False)
        self._count = 0
        answer = self._ask("start", version=VERSION)
        if answer.get("version") != VERSION:
            raise self._failure(
                f"speaks version {_short(answer.get('version'))} of the protocol, this release speaks {VERSION}"
            )
        self._started = answer

    def _ask(self, say: str, **fields: Any) -> dict[str, Any]:
        self._count += 1
        line = self._exchange(json.dumps({"say": say, "id": self._count, **fields}).encode() + b"\n", say)
        try:
            answer = json.loads(line)
        except ValueError:  # also what is no UTF-8
            raise self._failure(f"wrote {_short(line)} where an answer was due: no JSON") from None
        if not isinstance(answer, dict):
            raise self._failure(f"answered {_short(answer)}: an answer is an object")
        if answer.get("id") != self._count:
            raise self._failure(f"answered request {_short(answer.get('id'))} where {self._count} was asked")
        if "error" in answer:
            raise self._failure(f"failed: {answer['error']}")
        return answer

    def _exchange(self, request: bytes, say: str) -> bytes:
        """Writes ``request`` and reads one line, both at once: a worker may write before it has read all."""
        assert self._process is not None
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        deadline = time.monotonic() + self.timeout
        left, got = memoryview(request), bytearray()
        with selectors.DefaultSelector() as ready:
            ready.register(self._process.stdout, selectors.EVENT_READ)
            ready.register(self._process.stdin, selectors.EVENT_WRITE)
            while b"\n" not in got[-_CHUNK:]:
                wait = deadline - time.monotonic()
                if wait <= 0:
                    raise self._failure(f"gave no answer to {say!r} in {self.timeout:g} s", Verdict.TIMED_OUT)
                for key, _ in ready.select(wait):
                    if key.fileobj is self._process.stdin:
                        try:
                            left = left[os.write(key.fd, left[:_CHUNK]) :]
                        except BrokenPipeError:
                            raise self._died(say) from None
                        if not left:
                            ready.unregister(self._process.stdin)
                        continue
                    chunk = os.read(key.fd, _CHUNK)
                    if not chunk:
                        raise self._died(say)
                    got += chunk
                    if len(got) > LONGEST:
                        raise self._failure(f"wrote more than {LONGEST} bytes without an end of line")
        line, _, rest = bytes(got).partition(b"\n")
        if rest:
            raise self._failure(f"wrote {_short(rest)} after its answer: one line a request")
        if left:
            raise self._failure(f"wrote {_short(line)} before it had read the request")
        return line

    def _died(self, say: str) -> WorkerFailed:
        assert self._process is not None
        try:
            code = self._process.wait(1)
        except subprocess.TimeoutExpired:
            return self._failure(f"closed its stdin or stdout during {say!r}, and goes on running")
        how = f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
        return self._failure(f"{how} during {say!r}", Verdict.CRASHED)

    def _failure(self, text: str, verdict: Verdict = Verdict.RAISED) -> WorkerFailed:
        """The error to raise, with the worker's last words; the worker is ended."""
        assert self._process is not None
        self._process.kill()
        tail = self._end()
        return WorkerFailed(f"{self._name} {text}{f'; its stderr ends: {tail}' if tail else ''}", verdict)

    def _end(self) -> str:
        """Closes everything of a worker that has ended or was killed; the last lines of its stderr."""
        assert self._process is not None
        assert self._log is not None
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()
        size = self._log.seek(0, os.SEEK_END)
        self._log.seek(max(0, size - 2000))
        lines = [line for line in self._log.read().decode(errors="replace").splitlines() if line.strip()]
        self._log.close()
        self._process = self._log = None
        return " | ".join(lines[-3:])


def _short(value: Any, most: int = 80) -> str:
    text = repr(bytes(value[:most]) if isinstance(value, (bytes, bytearray)) else value)
    return text if len(text) <= most else f"{text[:most]}..."

"""Workers behind the protocol: what a right one says, and every way of being wrong. No way may hang."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from intsim.cli import main
from intsim.oracle import environments, judge, protocol
from intsim.oracle.adapter import Unsupported, adapter
from intsim.oracle.cases import Case
from intsim.oracle.compare import Verdict
from intsim.oracle.environments import InstallFailed
from intsim.oracle.protocol import Worker, WorkerFailed, decode, encode

# A worker in plain Python; each test replaces what it says to a case, to the start, or in between.
PROGRAM = """
import json, os, signal, sys, time
def say(o):
    sys.stdout.write((o if isinstance(o, str) else json.dumps(o)) + "\\n")
    sys.stdout.flush()
count = 0
for line in sys.stdin:
    r = json.loads(line)
    if r["say"] == "start":
        START
    elif r["say"] == "case":
        CASE
    else:
        break
"""
RIGHT_START = 'say({"id": r["id"], "version": 1, "versions": {"echo": "2.0"}})'
RIGHT_CASE = 'say({"id": r["id"], "outputs": r["inputs"]})'

Started = Callable[..., Worker]


@pytest.fixture
def started(tmp_path: Path) -> Iterator[Started]:
    made: list[Worker] = []

    def start(case: str = RIGHT_CASE, start: str = RIGHT_START, timeout: float = 20.0) -> Worker:
        file = tmp_path / f"worker{len(made)}.py"
        file.write_text(PROGRAM.replace("START", start).replace("CASE", case))
        made.append(Worker([sys.executable, "-I", file], "the echo", timeout))
        return made[-1]

    yield start
    for worker in made:
        worker.close()


def ask(worker: Worker, a: Any = (1, -2)) -> list[np.ndarray[Any, Any]]:
    return worker.call("ECHO", {"n": 1}, [np.asarray(a)], [("int64", (2,))])


def short(worker: Worker, seconds: float) -> None:
    """A limit for its next answers; its start, which a busy machine delays, has more time."""
    worker.timeout = 20.0
    worker.start()
    worker.timeout = seconds


@pytest.mark.parametrize("dtype", protocol.DTYPES)
def test_arrays_come_back_bit_for_bit(started: Started, dtype: str) -> None:
    raw, worker = np.arange(1, 25).astype(dtype), started()
    for a in (raw, raw.reshape(2, 3, 4), raw[::2], raw[:0].reshape(0, 3), raw[5], raw.reshape(4, 6).T):
        (back,) = ask(worker, a)
        assert (back.dtype, back.shape) == (a.dtype, a.shape)
        assert back.tobytes() == a.tobytes()


def test_bytes_are_little_endian_in_the_order_of_c() -> None:
    assert encode(np.array([[1, -2]], np.int16)) == {"dtype": "int16", "shape": [1, 2], "hex": "0100feff"}
    assert encode(np.array([[1, -2]], ">i2").T)["hex"] == "0100feff"
    assert decode({"dtype": "float32", "shape": [1], "hex": "0000803f"})[0] == 1


def test_one_worker_serves_many_calls_and_says_its_versions(started: Started) -> None:
    worker = started("count += 1; say({'id': r['id'], 'outputs': [], 'op': r['op']} if count < 50 else 'x')")
    assert worker.versions() == {"echo": "2.0"}
    for _ in range(49):
        assert worker.call("ECHO", {}, [], []) == []
    with pytest.raises(WorkerFailed):
        worker.call("ECHO", {}, [], [])


def test_a_large_request_and_a_large_answer(started: Started) -> None:
    a = np.arange(1_500_000)  # many times what a pipe holds
    np.testing.assert_array_equal(ask(started(), a)[0], a)


def test_unsupported_is_not_a_failure(started: Started) -> None:
    worker = started('say({"id": r["id"], "unsupported": "K is not 32"})')
    for _ in range(2):
        with pytest.raises(Unsupported, match="K is not 32"):
            ask(worker)


FAILURES = {
    "ends": ("os._exit(3)", "ended with exit code 3 during 'case'", Verdict.CRASHED),
    "ends well, but early": ("sys.exit(0)", "ended with exit code 0 during 'case'", Verdict.CRASHED),
    "is killed": ("os.kill(os.getpid(), signal.SIGSEGV)", "ended by SIGSEGV during 'case'", Verdict.CRASHED),
    "raises": ("raise KeyError('seven')", "its stderr ends: .*KeyError: 'seven'", Verdict.CRASHED),
    "closes stdout": ("os.close(1); time.sleep(60)", "closed its stdin or stdout", Verdict.RAISED),
    "hangs": ("time.sleep(60)", "no answer to 'case' in 0.7 s", Verdict.TIMED_OUT),
    "half a line": ("sys.stdout.write('{'); sys.stdout.flush(); time.sleep(60)", "no answer", Verdict.TIMED_OUT),
    "prints": ("say('Loading ...')", "wrote b'Loading ...' where an answer was due: no JSON", Verdict.RAISED),
    "prints no UTF-8": ("os.write(1, b'\\xff\\xfe\\n')", "no JSON", Verdict.RAISED),
    "says a list": ("say([1])", r"answered \[1\]: an answer is an object", Verdict.RAISED),
    "another id": ("say({'id': 1, 'outputs': []})", "answered request 1 where 2 was asked", Verdict.RAISED),
    "no id": ("say({'outputs': []})", "answered request None", Verdict.RAISED),
    "twice": (
        "os.write(1, (json.dumps({'id': 2, 'outputs': []}) + '\\n') .encode() * 2)",
        "after its answer",
        Verdict.RAISED,
    ),
    "an error": ("say({'id': 2, 'error': 'no such op'})", "failed: no such op", Verdict.RAISED),
    "no outputs": ("say({'id': 2})", "which has no outputs", Verdict.RAISED),
    "no array": ("say({'id': 2, 'outputs': [7]})", "answered with no array", Verdict.RAISED),
}


@pytest.mark.parametrize("way", FAILURES)
def test_each_failure_is_named_and_the_next_call_starts_anew(started: Started, way: str) -> None:
    case, says, verdict = FAILURES[way]
    worker = started(case)
    for _ in range(2):  # the second time with a new process, which fails the same way: not by what was left over
        short(worker, 0.7 if verdict is Verdict.TIMED_OUT else 20.0)
        with pytest.raises(WorkerFailed, match=f"(?s)the echo .*{says}") as failed:
            ask(worker)
        assert failed.value.verdict is verdict


def test_a_late_answer_is_not_taken_for_the_next_one(started: Started, tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    slow = f"time.sleep(0 if os.path.exists({str(mark)!r}) else 1.5); {RIGHT_CASE}"
    worker = started(slow)
    short(worker, 0.7)
    with pytest.raises(WorkerFailed, match="no answer"):
        ask(worker, [1])
    mark.touch()
    worker.timeout = 20.0
    np.testing.assert_array_equal(ask(worker, [2])[0], [2])


def test_an_answer_too_many_is_found_with_the_next_request(started: Started) -> None:
    worker = started(f"{RIGHT_CASE}; time.sleep(0.3); say({{'id': r['id'], 'outputs': []}})")
    ask(worker)
    with pytest.raises(WorkerFailed, match=r"answered request 2 where 3 was asked|after its answer"):
        ask(worker)


def test_a_worker_that_never_reads_does_not_hang(started: Started) -> None:
    worker = started(start=f"{RIGHT_START}; time.sleep(60)")
    short(worker, 0.7)
    with pytest.raises(WorkerFailed, match="no answer"):
        ask(worker, np.zeros(1_000_000))


def test_a_worker_that_writes_without_end_is_stopped(started: Started, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(protocol, "LONGEST", 5_000_000)
    with pytest.raises(WorkerFailed, match="more than 5000000 bytes"):
        ask(started("while True: os.write(1, b'x' * 65536)"))


@pytest.mark.parametrize("version", ["2", "'1'", "None"])
def test_another_version_is_refused(started: Started, version: str) -> None:
    worker = started(start=f'say({{"id": r["id"], "version": {version}}})')
    with pytest.raises(WorkerFailed, match="of the protocol, this release speaks 1"):
        worker.versions()


def test_a_program_that_does_not_exist_is_named(tmp_path: Path) -> None:
    with pytest.raises(WorkerFailed, match="the sim cannot be started"):
        Worker([tmp_path / "absent"], "the sim").versions()


@pytest.mark.parametrize(
    ("stated", "says"),
    [
        ({"dtype": "int8", "shape": [2], "hex": "00"}, r"int8 of shape \[2\] has 2 bytes, got 1"),
        ({"dtype": "int8", "shape": [1], "hex": "0000"}, r"int8 of shape \[1\] has 1 bytes, got 2"),
        ({"dtype": "int8", "shape": [1], "hex": "zz"}, "hexadecimal digits"),
        ({"dtype": "int8", "shape": [-1], "hex": ""}, "whole numbers"),
        ({"dtype": "int8", "shape": [True], "hex": "00"}, "whole numbers"),
        ({"dtype": "int8", "shape": 1, "hex": "00"}, "whole numbers"),
        ({"dtype": "object", "shape": [1], "hex": "00"}, "no dtype 'object'"),
        ({"dtype": ["int8"], "shape": [1], "hex": "00"}, "no dtype"),
        ({"dtype": "int8", "shape": [2**40, 2**40], "hex": "00"}, "bytes, got 1"),
        ({"dtype": "int8", "shape": [1]}, "object with dtype, shape and hex"),
        ("00", "object with dtype"),
    ],
)
def test_what_is_no_array_is_refused(stated: Any, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        decode(stated)


def test_an_array_that_the_protocol_cannot_write_is_refused() -> None:
    with pytest.raises(TypeError, match="no arrays of complex128"):
        encode(np.zeros(1, complex))


@pytest.mark.parametrize(
    ("case", "verdict", "limit"), [("os._exit(3)", "crashed", 20.0), ("time.sleep(60)", "timed out", 0.7)]
)
def test_the_judge_gives_up_on_a_worker_that_dies_or_hangs(
    started: Started, case: str, verdict: str, limit: float
) -> None:
    worker = started(case)

    @adapter("requantize.power_of_two")
    def backend(case: Case) -> Any:
        short(worker, limit)
        return worker.call("X", {}, list(case.inputs), [])

    made = judge.check(backend)
    assert made.exit_code == judge.FAILED_TO_RUN
    assert {j.verdict.value for j in made.failures} == {verdict}
    assert len(made.failures) == judge.PATIENCE


def test_a_worker_in_another_language(tmp_path: Path) -> None:
    """The lines are plain enough for a shell."""
    script = tmp_path / "worker.sh"
    script.write_text(
        "read line\n"
        'echo \'{"id": 1, "version": 1}\'\n'
        "read line\n"
        'echo \'{"id": 2, "outputs": [{"dtype": "uint8", "shape": [2], "hex": "07ff"}]}\'\n'
    )
    with Worker(["sh", script], "the shell") as worker:
        np.testing.assert_array_equal(ask(worker)[0], np.array([7, 255], np.uint8))


# -- environments of their own -------------------------------------------------------------------------

NEEDED = "tosa-tools==2026.8.0"


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("INTSIM_CACHE_DIR", str(tmp_path))
    monkeypatch.delenv("INTSIM_TOSA_PYTHON", raising=False)
    return tmp_path


@pytest.fixture
def steps(cache: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The commands of an installation, which are not run: the first makes the folder, as venv does."""
    done: list[str] = []

    def step(command: list[str], **options: Any) -> subprocess.CompletedProcess[str]:
        done.append(" ".join(command[1:4]))
        if "venv" in command:
            (Path(command[-1]) / "bin").mkdir(parents=True)
            (Path(command[-1]) / "bin" / "python").symlink_to(sys.executable)
        return subprocess.CompletedProcess(command, 0, "")

    monkeypatch.setattr(environments.subprocess, "run", step)
    return done


def test_an_environment_is_made_once_and_found(steps: list[str]) -> None:
    with pytest.raises(ValueError, match=r"'intsim check tosa --install', or name a Python .* INTSIM_TOSA_PYTHON"):
        environments.python("tosa", NEEDED)
    made = environments.install(NEEDED, quiet=True)
    assert environments.install(NEEDED, quiet=True) == made
    assert environments.python("tosa", NEEDED) == made
    assert [s.split()[:2] for s in steps] == [["-m", "venv"], ["-m", "pip"]]
    version = f"py{sys.version_info.major}.{sys.version_info.minor}"
    assert made.parents[1].name == f"tosa-tools-2026.8.0-{version}"


def test_what_a_killed_installation_left_is_not_taken_for_good(steps: list[str]) -> None:
    place = environments.folder(NEEDED)
    (place / "bin").mkdir(parents=True)
    (place / "bin" / "python").symlink_to(sys.executable)
    (place / "left over").touch()
    with pytest.raises(ValueError, match="--install"):
        environments.python("tosa", NEEDED)
    environments.install(NEEDED, quiet=True)
    assert len(steps) == 2
    assert not (place / "left over").exists()


@pytest.mark.parametrize("interruption", [KeyboardInterrupt, OSError("disk full")])
def test_an_interrupted_installation_leaves_nothing(
    steps: list[str], monkeypatch: pytest.MonkeyPatch, interruption: Any
) -> None:
    make = environments.subprocess.run

    def interrupted(command: list[str], **options: Any) -> Any:
        if "pip" in command:
            raise interruption
        return make(command, **options)

    monkeypatch.setattr(environments.subprocess, "run", interrupted)
    with pytest.raises((KeyboardInterrupt, InstallFailed)):
        environments.install(NEEDED, quiet=True)
    assert not environments.folder(NEEDED).exists()


def test_a_failed_pip_says_what_it_said_and_leaves_nothing(steps: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    make = environments.subprocess.run

    def failing(command: list[str], **options: Any) -> Any:
        made = make(command, **options)
        return subprocess.CompletedProcess(command, 1, "ERROR: no network\n") if "pip" in command else made

    monkeypatch.setattr(environments.subprocess, "run", failing)
    with pytest.raises(
        InstallFailed, match=r"pip install tosa-tools==2026.8.0 ended with exit code 1: ERROR: no network"
    ):
        environments.install(NEEDED, quiet=True)
    assert not environments.folder(NEEDED).exists()
    done = CliRunner().invoke(main, ["check", "tosa", "--install"])
    assert done.exit_code == judge.USAGE
    assert "tosa could not be installed: pip install" in done.output


def test_an_environment_whose_python_is_gone_is_made_anew(steps: list[str], tmp_path: Path) -> None:
    made = environments.install(NEEDED, quiet=True)
    made.unlink()
    made.symlink_to(tmp_path / "removed")
    with pytest.raises(ValueError, match="--install"):
        environments.python("tosa", NEEDED)
    assert environments.install(NEEDED, quiet=True).resolve().exists()


def test_another_python_can_be_named(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INTSIM_TOSA_PYTHON", sys.executable)
    assert environments.python("tosa", NEEDED) == Path(sys.executable)
    assert environments.python("tosa", NEEDED, "/bin/sh") == Path("/bin/sh")  # the option before the variable
    monkeypatch.setenv("INTSIM_TOSA_PYTHON", str(cache))
    with pytest.raises(ValueError, match=r"\$INTSIM_TOSA_PYTHON names .* which is no program"):
        environments.python("tosa", NEEDED)


@pytest.mark.parametrize(
    ("arguments", "says", "code"),
    [
        (["tosa"], "make it once by 'intsim check tosa --install'", judge.USAGE),
        (["tosa", "--python", "/absent"], "--python names '/absent', which is no program", judge.USAGE),
        (["tosa", "--python", sys.executable], "No module named 'tosa_reference_model'", judge.FAILED_TO_RUN),
        (["tosa", "--python", sys.executable, "--install"], "give one of them", judge.USAGE),
        (["reference", "--python", sys.executable], "runs in no environment of its own", judge.USAGE),
        (["reference", "--install"], "there is nothing to install", judge.USAGE),
    ],
)
def test_the_command_line_says_what_is_missing(cache: Path, arguments: list[str], says: str, code: int) -> None:
    done = CliRunner().invoke(main, ["check", *arguments])
    assert (done.exit_code, says in done.output) == (code, True), done.output


def test_the_answers_of_the_docstring_are_json() -> None:
    """The lines that ``intsim.oracle.protocol`` shows are what it speaks."""
    shown = [
        line.split(maxsplit=1)[1]
        for line in (protocol.__doc__ or "").splitlines()
        if line.strip()[:3] in ("-> ", "<- ", "or ")
    ]
    spoken = [json.loads(text.replace("ARRAY", "0").replace("KIND", "0").split("        ")[0]) for text in shown]
    assert [s.get("say") for s in spoken] == ["start", None, "case", None, None, None, "stop"]

"""Judging kernels that work in a GPU's memory: each way to go wrong has its verdict."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from cuda_callers import fetch, usable

if not usable():
    pytest.skip("needs Numba's simulator or a GPU: the uncompiled job simulates it", allow_module_level=True)

import intsim
from intsim.backends.cuda_arrays import DeviceArray, driver
from intsim.cli import main
from intsim.graphs import to_device
from intsim.oracle import cases, device, judge
from intsim.oracle.adapter import adapter
from intsim.oracle.compare import Verdict
from intsim.oracle.runner import InProcess, call
from intsim.registry import get

OP = "requantize.power_of_two"


def result(case: Any) -> DeviceArray:
    out: DeviceArray = intsim.run(case.op, *case.inputs, p=case.params, backend="cuda")
    return out


def put(a: DeviceArray, values: Any, at: int = 0) -> None:
    """Writes ``values`` at ``at`` bytes after the beginning of ``a``, wherever that is."""
    values = np.ascontiguousarray(values)
    a.gpu.upload(a.pointer + at, values, a.stream)


def right(case: Any) -> Any:
    return result(case)


def into_the_buffer(case: Any) -> Any:
    out = case.buffers()
    put(out, fetch(result(case)))
    return out


def never_writes(case: Any) -> Any:
    return case.buffers()


def leaves_the_last_row(case: Any) -> Any:
    out = case.buffers()
    put(out, fetch(result(case))[:-1])
    return out


def beyond_the_output(case: Any) -> Any:
    out = into_the_buffer(case)
    put(out, np.zeros(1, np.uint8), out.nbytes)
    return out


def before_an_input(case: Any) -> Any:
    put(case.inputs[0], np.zeros(4, np.uint8), -4)
    return result(case)


def changes_its_input(case: Any) -> Any:
    out = fetch(result(case))
    put(case.inputs[0], fetch(case.inputs[0]) + 1)
    return out


def gives_its_input(case: Any) -> Any:
    return case.inputs[0]


def off_by_one(case: Any) -> Any:
    return to_device(fetch(result(case)) ^ 1)


def raises(case: Any) -> Any:
    raise RuntimeError("no such kernel")


def gives_text(case: Any) -> Any:
    return "done"


VERDICTS = {
    right: Verdict.CONFORMS,
    into_the_buffer: Verdict.CONFORMS,
    never_writes: Verdict.MISMATCH,
    leaves_the_last_row: Verdict.MISMATCH,
    beyond_the_output: Verdict.OUT_OF_BOUNDS,
    before_an_input: Verdict.OUT_OF_BOUNDS,
    changes_its_input: Verdict.CHANGED_INPUT,
    gives_its_input: Verdict.RETURNED_INPUT,
    off_by_one: Verdict.MISMATCH,
    raises: Verdict.RAISED,
    gives_text: Verdict.NOT_AN_ARRAY,
}


@pytest.mark.parametrize("function", VERDICTS, ids=lambda f: f.__name__)
def test_every_way_to_go_wrong_has_its_verdict(function: Any) -> None:
    backend = adapter(OP)(function)
    report = judge.check(backend, runner=InProcess(backend, "cuda"))
    assert {j.verdict for j in report.rows[0].judgements} == {VERDICTS[function]}
    texts = {j.text for j in report.failures}
    if "writes" in function.__name__ or "leaves" in function.__name__:
        assert texts == {"all of them still hold the poison: the kernel did not write them"}
    if VERDICTS[function] is Verdict.OUT_OF_BOUNDS:
        assert texts == {"guard bytes beside an input or the output buffer in the GPU's memory were overwritten"}


def test_inputs_lie_on_the_device_and_the_case_on_the_host_stays_as_it_is() -> None:
    case = next(iter(cases.directed(get("matmul.integer"))))
    there = device.on_gpu(case)
    for name, a, b in zip(("a", "b", "bias"), there.inputs, case.inputs, strict=True):
        assert isinstance(a, DeviceArray)
        assert getattr(there, name) is a
        assert (a.pointer - a.owner.pointer) % 256 == 0  # as aligned as the memory around it
        assert np.array_equal(fetch(a), b)
    assert there.buffers().shape == case.wanted[0].shape
    assert not case.guarded


def test_a_context_that_a_kernel_ruined_is_a_crash(monkeypatch: pytest.MonkeyPatch) -> None:
    """The process has to be started anew, which ``Isolated`` does for a crash."""
    case = next(iter(cases.directed(get(OP))))
    gpu = driver().current()
    ruined: list[bool] = []

    def finish() -> None:
        if ruined:
            raise RuntimeError("an illegal memory access was encountered")

    def ruins(case: Any) -> Any:
        ruined.append(True)
        return result(case)

    monkeypatch.setattr(gpu, "finish", finish, raising=False)
    outcome = call(adapter(OP)(ruins), case, "cuda")
    assert outcome.verdict is Verdict.CRASHED
    assert "illegal memory access" in outcome.text


@pytest.mark.compiled
def test_from_the_command_line_in_a_process_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _from_the_command_line(tmp_path)


def test_from_the_command_line(tmp_path: Path) -> None:
    _from_the_command_line(tmp_path, "--in-process")


def _from_the_command_line(tmp_path: Path, *options: str) -> None:
    (tmp_path / "mine.py").write_text(
        f"import intsim\n@intsim.adapter({OP!r})\ndef good(case):\n"
        "    return intsim.run(case.op, *case.inputs, p=case.params, backend='cuda')\n"
        f"@intsim.adapter({OP!r})\ndef lazy(case):\n    return case.buffers()\n"
    )
    good = CliRunner().invoke(main, ["check", f"{tmp_path}/mine.py:good", "--device", "cuda", *options])
    assert good.exit_code == 0, good.output
    lazy = CliRunner().invoke(main, ["check", f"{tmp_path}/mine.py:lazy", "--device", "cuda", *options])
    assert lazy.exit_code == 1
    assert "still hold the poison" in lazy.output
    assert f"repeat: intsim check {tmp_path}/mine.py:lazy --device cuda --case '{OP}/1/" in lazy.output

"""A backend under test: what it says when it is right, and every way of being wrong."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result

import intsim
from intsim.cli import main
from intsim.oracle import judge, runner
from intsim.oracle.adapter import Capability, load
from intsim.oracle.compare import Verdict, as_arrays, compare
from intsim.oracle import cases
from intsim.registry import get

HEAD = """
import os, time
import numpy as np
import intsim
"""

RIGHT = """
@intsim.adapter("requantize.power_of_two")
def backend(case):
    return intsim.run(case.op, *case.inputs, p=case.params, backend="reference")
"""


def invoke(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["check", *arguments])


def written(folder: Path, text: str) -> str:
    (folder / "mykernel.py").write_text(HEAD + text)
    return f"{folder / 'mykernel.py'}:backend"


def test_a_right_backend_conforms(tmp_path: Path) -> None:
    done = invoke(written(tmp_path, RIGHT))
    assert done.exit_code == 0, done.output
    assert "conforms (exit 0)" in done.output
    assert "proof of life: 1 planted wrong expectations, all caught" in done.output


def test_half_away_instead_of_half_even_is_shown(tmp_path: Path) -> None:
    target = written(
        tmp_path,
        """
@intsim.adapter("requantize.single_rounding")
def backend(case):
    p = case.params
    if p.rounding != intsim.Rounding.TIES_TO_EVEN:
        raise intsim.Unsupported("ties to even only")
    away = type(p)(p.multiplier, p.shift, p.zero_point, p.dtype, intsim.Rounding.TIES_TO_AWAY, p.zero_point_added)
    return intsim.run(case.op, *case.inputs, p=away, backend="reference")
""",
    )
    done = invoke(target)
    assert done.exit_code == 1
    text = done.output
    assert "-- requantize.single_rounding/1/ties-at-1-16-ties-to-even" in text
    assert "2 of 17 elements of q differ" in text
    assert "q[0, 4]: got -1, wanted 0    from  acc=-8  multiplier=1  shift=4  zero_point=0" in text
    repeat = "--case 'requantize.single_rounding/1/ties-at-1-16-ties-to-even'"
    assert f"repeat: intsim check {target} {repeat}" in text
    again = invoke(target, "--case", "requantize.single_rounding/1/ties-at-1-16-ties-to-even")
    assert again.exit_code == 1
    assert "2 of 17 elements of q differ" in again.output
    assert "unsupported" in text


BODY = """
@intsim.adapter("requantize.power_of_two")
def backend(case):
    good = intsim.run(case.op, *case.inputs, p=case.params, backend="reference")
"""

WRONG = {
    "raises": ("    raise RuntimeError('no device')", 3, "RAISED  RuntimeError: no device"),
    "wrong shape": ("    return good[:, :-1]", 1, "WRONG SHAPE  q: got ("),
    "wrong dtype": ("    return good.astype(np.float64)", 1, "WRONG DTYPE  q: got float64, wanted int"),
    "wrong count": ("    return good, good", 1, "WRONG NUMBER OF OUTPUTS  got 2 outputs, wanted 1 (q)"),
    "nothing": ("    return None", 1, "NOT AN ARRAY  return a NumPy array"),
    "its input": ("    return case.acc", 1, "RETURNED ITS INPUT BUFFER  the output is the memory of acc"),
    "changes its input": ("    case.acc[...] = 0\n    return good", 1, "CHANGED ITS INPUT  acc is not what it was"),
    "supports nothing": (
        "    raise intsim.Unsupported('later')",
        5,
        "VACUOUS: requantize.power_of_two/1: no case was judged (unsupported: later)",
    ),
    "not repeatable": (
        "    count = vars(np).setdefault('calls', [])\n    count.append(1)\n    return good + (len(count) == 2)",
        1,
        "GAVE ANOTHER RESULT THE SECOND TIME",
    ),
    "out of bounds": (
        "    q = case.buffers()\n    q[...] = good\n    q.base[63] = 0\n    return q",
        1,
        "WROTE OUTSIDE ITS OUTPUT",
    ),
    "an unwritten element": (
        "    q = case.buffers()\n    q.flat[1:] = good.flat[1:]\n    return q",
        1,
        "MISMATCH  1 of",
    ),
    "crashes": ("    os.abort()", 3, "CRASHED  the process was ended by SIGABRT"),
    "exits": ("    os._exit(7)", 3, "CRASHED  the process ended with exit code 7"),
}


@pytest.mark.parametrize("kind", WRONG)
def test_every_way_of_being_wrong_has_its_verdict_and_exit_code(kind: str, tmp_path: Path) -> None:
    body, code, text = WRONG[kind]
    target = written(tmp_path, BODY + body + "\n")
    one = ["--case", "requantize.power_of_two/1/ties-at-1-16-toward-negative"] if kind in ("crashes", "exits") else []
    done = invoke(target, *one)
    assert text in done.output, done.output
    assert done.exit_code == code
    assert "conforms" not in done.output


def test_a_hang_is_a_result(tmp_path: Path) -> None:
    target = written(tmp_path, BODY + "    time.sleep(60)\n")
    done = invoke(target, "--timeout", "4", "--case", "requantize.power_of_two/1/ties-at-1-16-toward-negative")
    assert "TIMED OUT  no answer in 4 s" in done.output, done.output
    assert done.exit_code == 3


def test_a_right_kernel_that_fills_buffers_conforms(tmp_path: Path) -> None:
    done = invoke(written(tmp_path, BODY + "    q = case.buffers()\n    q[...] = good\n    return q\n"))
    assert done.exit_code == 0, done.output


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("backend = 3", "is a int, not a backend"),
        ("", "has no 'backend'"),
        ("raise RuntimeError('broken import')", "RuntimeError: broken import"),
        ("@intsim.adapter()\ndef backend(case): pass", "name the ops that the backend serves"),
    ],
)
def test_what_is_no_backend_is_refused(text: str, reason: str, tmp_path: Path) -> None:
    done = invoke(written(tmp_path, text))
    assert reason in done.output
    assert done.exit_code == 2


def test_a_backend_that_never_loads_is_told_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner, "LOADS_IN", 1.0)
    done = invoke(written(tmp_path, "time.sleep(60)\n" + RIGHT), "--timeout", "2")
    assert "did not load in 2 s; a larger --timeout gives it longer" in done.output
    assert done.exit_code == 3


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (("nobackend",), "is no backend: give one of cpu"),
        (("./missing.py:backend",), "there is no file ./missing.py"),
        (("no.such.module:backend",), "there is no module 'no.such.module'"),
        (("cpu", "--op", "softmax.iber"), "Did you mean softmax.ibert"),
        (("cpu", "--case", "nothing/1/x"), "no op is called"),
        (("reference", "--case", "softmax.ibert/1/none"), "there is no case"),
    ],
)
def test_a_wrong_command_line_selects_nothing_silently(arguments: tuple[str, ...], reason: str) -> None:
    done = invoke(*arguments)
    assert reason in done.output
    assert done.exit_code == 2


def test_our_own_backend_conforms_on_one_family() -> None:
    done = invoke("cpu", "--op", "requantize")
    assert done.exit_code == 0, done.output
    assert "requantize.single_rounding/1" in done.output
    assert "softmax" not in done.output


@pytest.mark.compiled
def test_without_a_gpu_one_sentence_says_so() -> None:
    from numba import cuda

    if cuda.is_available():
        assert invoke("cuda", "--op", "add").exit_code == 0
    else:
        done = invoke("cuda")
        assert done.exit_code == 2
        assert "needs an NVIDIA GPU and its driver" in done.output


def test_in_process_and_from_python() -> None:
    @intsim.adapter("add.matched", name="mine")
    def backend(case: intsim.Case) -> Any:
        return intsim.run(case.op, case.a, case.b, p=case.params)

    report = intsim.check(backend)
    report.raise_for_mismatch()
    assert report.exit_code == 0
    assert "mine conforms" in str(report)

    @intsim.adapter("add.matched")
    def wrong(case: intsim.Case) -> Any:
        return backend(case) ^ 1

    with pytest.raises(AssertionError, match="elements of q differ"):
        intsim.check(wrong).raise_for_mismatch()
    assert "repeat: intsim.check(adapter, case='add.matched/1/" in intsim.check(wrong).details()
    with pytest.raises(AssertionError, match="serves no operation"):
        intsim.check(backend, ops=["softmax"]).raise_for_mismatch()


def test_a_judge_that_is_asleep_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    from intsim.oracle.compare import Judgement

    monkeypatch.setattr(judge, "compare", lambda case, got, wanted=None: Judgement(case, Verdict.CONFORMS, total=1))
    report = intsim.check(load("reference"), ops=["add.matched"])
    assert report.exit_code == 5
    assert "a planted wrong expectation was not caught" in str(report)


def test_capabilities_hold_fields_and_dimensions() -> None:
    capability = Capability("matmul.integer", {"acc": (intsim.int32,), "m": (1,)}, cases=5)
    seen = [case for case in judge.cases_for(capability) if case is not None]
    assert len(seen) >= 5
    assert {(case.params.acc, case.a.shape[0]) for case in seen} == {(intsim.int32, 1)}
    with pytest.raises(ValueError, match="no draw inside the limits"):
        list(cases.random(get("matmul.integer"), 1, only={"a": (intsim.uint8,), "a_zero_point": (-1,)}))


def test_the_comparer_sees_every_bit() -> None:
    case = next(cases.random(get("dequantize.affine"), 1))
    (x,) = case.wanted
    assert compare(case, (x.copy(),)).verdict is Verdict.CONFORMS
    zero = np.zeros_like(x)
    minus = np.negative(zero)
    assert compare(case, (minus,), (zero,)).verdict is Verdict.MISMATCH
    nan = np.full_like(x, np.nan)
    assert compare(case, (nan.copy(),), (nan,)).verdict is Verdict.CONFORMS
    case = next(cases.random(get("requantize.single_rounding"), 1, only={"dtype": (intsim.int8,)}))
    (q,) = case.wanted
    for bit in range(8):
        planted = q.copy()
        planted.view(np.uint8).flat[-1] ^= 1 << bit
        found = compare(case, (planted,))
        assert (found.verdict, found.wrong) == (Verdict.MISMATCH, 1)
    low, high = np.full_like(q, -128), np.full_like(q, 127)
    assert "always by +255" in compare(case, (high,), (low,)).text  # 8-bit subtraction would say -1


def test_what_counts_as_an_array() -> None:
    class Dlpack:
        def __init__(self) -> None:
            self.a = np.arange(3, dtype=np.int8)

        def __dlpack__(self, **options: Any) -> Any:
            return self.a.__dlpack__(**options)

        def __dlpack_device__(self) -> Any:
            return self.a.__dlpack_device__()

    class ArrayLike:
        def __array__(self, dtype: Any = None, copy: Any = None) -> Any:
            return np.arange(3, dtype=np.int8)

    for value in (Dlpack(), ArrayLike(), np.arange(3, dtype=np.int8)):
        made = as_arrays(value)
        assert made is not None
        assert made[0].tolist() == [0, 1, 2]
    assert as_arrays("text") is None
    assert as_arrays((np.int8(3), ArrayLike())) is not None

"""A program that speaks the protocol, judged from the command line: no NumPy, nothing of intsim in it."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from intsim.cli import main
from intsim.oracle import judge

# Leading zeros of int32, in plain Python; ANSWER turns a list of integers into the answer's
PROGRAM = """
import json, os, struct, sys, time
OPS = ["bits.leading_zeros"]
def served(values): ANSWER
for line in sys.stdin:
    r = json.loads(line)
    if r["say"] == "start":
        say = {"version": 1, "versions": {"sim": "0.3"}, "ops": OPS}
    elif r["say"] == "case":
        if r["attributes"] != {"version": 1, "params": {"x": "int32"}}:
            say = {"unsupported": "int32 only"}
        else:
            x, y = r["inputs"][0], r["outputs"][0]
            values = [v for v, in struct.iter_unpack("<i", bytes.fromhex(x["hex"]))]
            say = {"outputs": [{**y, "hex": b"".join(struct.pack("<i", v) for v in served(values)).hex()}]}
    else:
        break
    sys.stdout.write(json.dumps({"id": r["id"], **say}) + "\\n")
    sys.stdout.flush()
"""
RIGHT = "return [32 - (v & 0xFFFFFFFF).bit_length() for v in values]"


def check(folder: Path, answer: str = RIGHT, ops: str = '["bits.leading_zeros"]', *options: str) -> Result:
    file = folder / "the simulator.py"  # a space: the command is split as a shell does
    file.write_text(PROGRAM.replace("ANSWER", answer).replace('["bits.leading_zeros"]', ops))
    return CliRunner().invoke(main, ["check", f"stdio:{shlex.join([sys.executable, str(file)])}", *options])


def test_a_right_program_conforms(tmp_path: Path) -> None:
    done = check(tmp_path)
    assert done.exit_code == judge.CONFORMS, done.output
    assert "sim 0.3" in done.output
    assert "int32 only" not in done.output  # what it does not serve is counted, no failure


def test_a_wrong_program_differs(tmp_path: Path) -> None:
    done = check(tmp_path, "return [32 - abs(v).bit_length() for v in values]")
    assert done.exit_code == judge.MISMATCH, done.output
    assert "bits.leading_zeros" in done.output


@pytest.mark.parametrize(
    ("answer", "says", "limit"),
    [("os._exit(7)", "exit code 7", "20"), ("time.sleep(60)", "no answer to 'case' in 6 s", "6")],
)
def test_a_program_that_dies_or_hangs_has_failed(tmp_path: Path, answer: str, says: str, limit: str) -> None:
    done = check(tmp_path, answer, '["bits.leading_zeros"]', "--timeout", limit)
    assert done.exit_code == judge.FAILED_TO_RUN, done.output
    assert says in done.output


@pytest.mark.parametrize(
    ("ops", "says"), [('["bits.magic"]', "bits.magic"), ("[]", "names no ops"), ("None", "names no ops")]
)
def test_a_program_that_serves_nothing_known_is_refused(tmp_path: Path, ops: str, says: str) -> None:
    done = check(tmp_path, ops=ops)
    assert done.exit_code == judge.USAGE
    assert says in done.output


def test_a_program_that_is_not_there_is_named(tmp_path: Path) -> None:
    done = CliRunner().invoke(main, ["check", f"stdio:{tmp_path}/absent"])
    assert done.exit_code == judge.FAILED_TO_RUN
    assert "cannot be started" in done.output
    assert CliRunner().invoke(main, ["check", "stdio:"]).exit_code == judge.USAGE

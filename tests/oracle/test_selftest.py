"""Every way to run an op gives one hash; a way that does not is found; a kernel that nothing reaches is named."""

from __future__ import annotations

import dataclasses
import json
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result

from conftest import SIMULATED, UNCOMPILED
from intsim.backends import cpu
from intsim.cli import main
from intsim.op import Op, Tuned
from intsim.oracle import cases, golden, selftest, selftest_record
from intsim.registry import all_ops, get

DEVICES = ["cpu", *(["cuda"] if SIMULATED else [])]
README = Path(__file__).parents[2] / "README.md"
FEW = ["requantize.power_of_two", "embedding.gather", "softmax.gemmlowp"]


def invoke(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["selftest", "--jobs", "1", *arguments])


@pytest.mark.parametrize("name", FEW)
def test_every_way_gives_the_same_bits(name: str) -> None:
    row = selftest.run(get(name), devices=DEVICES, threads=(1, 2), count=2)
    assert not row.parted
    assert len(row.ways) >= 2 * len(DEVICES)
    assert row.runs >= row.cases * 2
    assert row.hash == selftest.run(get(name), threads=(1,), tiles=False, count=2).hash


def wrong(x: Any, out: Any, p: Any, *queue: Any) -> None:
    """A tuned kernel that gives one number for all."""
    out[0][...] = 1


def never(p: Any, size: Any) -> bool:
    return False


def with_tuned(where: str, serves: Any) -> Op:
    return dataclasses.replace(get("requantize.power_of_two"), tuned=(Tuned("cpu", where, serves),))


def test_a_tuned_kernel_that_is_wrong_is_found_and_named() -> None:
    op = with_tuned(f"{__name__}:wrong", lambda p, size: size["n"] > 40)
    row = selftest.run(op, threads=(1,))
    assert row.parted
    assert all(line.endswith(" differs") for line in row.parted), row.parted
    assert {line.split(": ")[0].split(", ")[-1] for line in row.parted} == {"test_selftest:wrong", "chosen"}
    with pytest.raises(ValueError, match=r"not recorded: requantize.power_of_two/1 gave different bits"):
        selftest_record.of([row], ["cpu"], [1], {})


def test_a_tuned_kernel_that_raises_is_found() -> None:
    row = selftest.run(with_tuned("intsim.oracle.selftest:nothing", lambda p, size: True), threads=(1,))
    assert row.parted
    assert all("raised AttributeError" in line for line in row.parted)


def test_a_tuned_kernel_that_no_case_reaches_is_named() -> None:
    row = selftest.run(with_tuned(f"{__name__}:wrong", never), threads=(1,))
    assert not row.parted
    assert row.unreached == [f"{__name__}:wrong: no case reaches it"]


@pytest.mark.parametrize("op", all_ops(), ids=lambda op: op.name)
def test_larger_cases_are_made_of_values_that_the_case_had(op: Op) -> None:
    for lengths in (selftest.LENGTHS[0], (9, 11, 7)):  # five dimensions of the first are more than is worth a run
        made = [m for case in cases.directed(op) if (m := selftest.enlarged(case, lengths))]
        if made:
            break
    for case in made[:3]:
        assert case.id.endswith("-" + "x".join(map(str, lengths)))
        assert sum(a.size for a in case.inputs) >= 37
    assert made, "no directed case of this op can be made larger"


def test_a_larger_case_along_a_leading_dimension() -> None:
    case = next(iter(cases.directed(get("matmul.integer"))))
    made = selftest.enlarged(case, (3, 5, 7), pairs=True)
    assert made is not None
    assert [a.shape[0] for a in made.inputs] == [2, 2, 2]
    assert made.inputs[0].shape[1:] == (3, 7) or made.inputs[0].shape[1:] == (3, 5)


@pytest.mark.skipif(UNCOMPILED, reason="Python runs one thread at a time; the compiled job counts them")
def test_as_many_threads_as_are_asked_for() -> None:
    seen: set[int] = set()
    gate = threading.Barrier(3, timeout=60)

    def part(first: int, last: int) -> None:
        if first < 3:
            gate.wait()  # three at once, or nobody
        seen.add(threading.get_ident())

    before = cpu.THREADS
    with selftest.in_threads(3):
        assert cpu.THREADS == 3
        cpu.shared_out(part, 6, 1000)
    assert len(seen) >= 3
    assert before == cpu.THREADS


# -- the command, and its record -----------------------------------------------------------------------


def test_the_command_prints_a_hash_an_op_and_keeps_nothing() -> None:
    done = invoke("--op", "requantize.power_of_two", "--threads", "1,2")
    assert done.exit_code == 0, done.output
    row = selftest.run(get("requantize.power_of_two"), threads=(1, 2))
    assert row.hash[:16] in done.output
    assert "1 ops with one hash, 0 that differ" in done.output


def test_the_record_is_written_read_and_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("intsim.registry.names", lambda: ("requantize.power_of_two", "requantize.dyadic"))
    file, document = tmp_path / "records" / "selftest.json", tmp_path / "README.md"
    done = invoke("--threads", "1", "--record", "--file", str(file))
    assert done.exit_code == 0, done.output
    record = selftest_record.read(file)
    assert record is not None
    assert list(record.ops) == ["requantize.dyadic/1", "requantize.power_of_two/1"]
    assert record.threads == [1]
    assert record.versions["numpy"] == np.__version__
    document.write_text("# x\n")
    refused = invoke("--update", str(document), "--file", str(file))
    assert refused.exit_code == 2
    assert "has no lines" in refused.output
    document.write_text(f"# x\n{selftest_record.START}\n{selftest_record.END}\ny\n")
    assert "written" in invoke("--update", str(document), "--file", str(file)).output
    assert "is up to date" in invoke("--update", str(document), "--file", str(file)).output
    shown = document.read_text()
    assert shown.endswith("\ny\n")
    assert f"`{record.ops['requantize.dyadic/1'].hash[:16]}`" in shown
    file.write_text(json.dumps({"schema": 1, "ops": []}))
    damaged = invoke("--update", str(document), "--file", str(file))
    assert damaged.exit_code == 4
    assert "is not the record of a selftest" in damaged.output


@pytest.mark.parametrize(
    ("arguments", "shown"),
    [
        (["--devices", "gpu"], "there is no device 'gpu'; there are cpu, cuda"),
        (["--devices", ","], "--devices names none"),
        (["--threads", "two"], "--threads takes numbers"),
        (["--threads", "0"], "from 1 to 1024"),
        (["--op", "nothing"], "no op is called 'nothing'"),
        (["--record", "--op", "add"], "--record takes all ops"),
        (["--update", "x.md", "--file", "none.json"], "there is no record yet"),
    ],
)
def test_what_is_refused(arguments: list[str], shown: str) -> None:
    done = invoke(*arguments)
    assert done.exit_code == 2
    assert shown in done.output


def test_the_readme_shows_the_record() -> None:
    record = selftest_record.read()
    assert record is not None
    assert "cuda" in record.devices
    _, _, rest = README.read_text().partition(selftest_record.START)
    shown, end, _ = rest.partition(selftest_record.END)
    assert end
    assert shown.strip() == selftest_record.markdown(record), "run: intsim selftest --update README.md"


@pytest.mark.compiled
def test_the_recorded_hashes_are_those_of_today(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the spec, where the cases are still the same: another hash would mean that bits changed."""
    record = selftest_record.read()
    assert record is not None
    monkeypatch.setattr(selftest, "_compare", lambda *_: None)
    compared = 0
    for op in all_ops():
        row = selftest.run(op, devices=("cpu",), threads=(1,), tiles=False)
        entry = record.ops.get(op.id)
        if entry is not None and entry.inputs == row.inputs:
            assert entry.hash == row.hash, op.id
            compared += 1
    assert compared > 0
    assert golden.root() in selftest_record.path().parents

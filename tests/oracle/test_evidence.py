"""What was measured: written, read back, shown; a damaged file or document loses nothing."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from intsim.cli import main
from intsim.oracle import evidence, evidence_tables
from intsim.oracle.evidence import Line
from intsim.oracle.golden import GoldenError

LINE = Line(
    system="onnxruntime",
    profile="",
    serves="MatMulInteger",
    op="matmul.integer/1",
    params="a=int8|uint8",
    defect="",
    cases=7,
    elements=1234567,
    mismatches=0,
    unsupported=1,
    versions={"onnxruntime": "1.31.1"},
    date="2026-11-22",
    machine="x86_64 some",
)


def changed(**fields: object) -> Line:
    return dataclasses.replace(LINE, **fields)  # type: ignore[arg-type]  # fields by name


def invoke(*arguments: object) -> tuple[int, str]:
    done = CliRunner().invoke(main, ["profiles", *map(str, arguments)])
    return done.exit_code, done.output


def test_lines_of_a_system_replace_those_that_were_there(tmp_path: Path) -> None:
    file = tmp_path / "deep" / "lines.json"
    assert evidence.read(file) == []
    other = changed(system="litert", profile="xnnpack")
    evidence.write(file, [LINE, changed(serves="QGemm")])
    evidence.write(file, [other])
    evidence.write(file, [changed(elements=5)])
    assert evidence.read(file) == [other, changed(elements=5)]
    assert list(file.parent.iterdir()) == [file], "nothing is left beside it"


def test_a_damaged_file_is_an_error(tmp_path: Path) -> None:
    file = tmp_path / "lines.json"
    for text in ("{", "{}", json.dumps({"lines": [{"system": "x"}]})):
        file.write_text(text)
        with pytest.raises(GoldenError, match="is not a file of measured lines"):
            evidence.read(file)


def test_the_tables_show_every_line_and_add_them_up() -> None:
    lines = [LINE, changed(serves="QGemm", elements=3, mismatches=2, defect="rounds twice")]
    made = evidence_tables.markdown(lines)
    assert "| ONNX Runtime 1.31.1 | 2 | 14 | 1,234,570 | 2 | 2026-11-22 | wheel |" in made
    assert "| MatMulInteger | matmul.integer/1 | a=int8\\|uint8 | 7 | 1,234,567 | 0 |" in made
    assert "- ONNX Runtime 1.31.1, QGemm: rounds twice" in made
    flat = evidence_tables.rows(lines, ["onnxruntime"])
    assert flat[0][:3] == ("ONNX Runtime 1.31.1", "MatMulInteger", "matmul.integer/1")
    assert any(row[3].startswith("left: ") for row in flat)
    assert all(len(row) == len(evidence_tables.HEADER) for row in flat)
    assert any("not measured: " in row[3] for row in evidence_tables.rows([], ["litert"]))


def test_a_c_library_goes_by_its_profile_and_a_commit_by_seven_digits() -> None:
    line = changed(system="c_library", profile="gemmlowp", versions={"commit": "16e86622f000"})
    assert "| gemmlowp 16e8662 | 1 |" in evidence_tables.markdown([line])


def test_a_document_without_the_marks_is_left_alone(tmp_path: Path) -> None:
    document = tmp_path / "README.md"
    document.write_text("words\n")
    code, output = invoke("--update", document)
    assert (code, "has no lines" in output) == (2, True)
    assert document.read_text() == "words\n"
    document.write_text(f"before\n{evidence_tables.START}\nstale words\n{evidence_tables.END}\nafter\n")
    assert "written" in invoke("--update", document)[1]
    assert "is up to date" in invoke("--update", document)[1]
    text = document.read_text()
    assert text.startswith("before\n")
    assert text.endswith("after\n")
    assert "stale words" not in text


def test_the_command_line() -> None:
    code, output = invoke("--system", "onnxruntime")
    assert code == 0
    assert "matmul.integer/1" in output
    assert "litert" not in output.lower()
    assert {entry["system"] for entry in json.loads(invoke("--json", "--system", "qonnx")[1])} == {"qonnx"}
    code, output = invoke("--system", "none")
    assert (code, "there is no system 'none'" in output) == (2, True)
    code, output = invoke("measure", "none")
    assert (code, "there is no system 'none'" in output) == (2, True)
    done = CliRunner().invoke(main, ["check", "onnxruntime", "--record", "x.json", "--op", "matmul"])
    assert (done.exit_code, "--record takes a whole check" in done.output) == (2, True)

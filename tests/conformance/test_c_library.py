"""Loading C libraries: structures, errors, a crash as a verdict, and what was recorded of the real ones.

The libraries themselves are no packages: ``c_libraries.py`` builds and judges them, by hand. Here functions
in Python stand in (``c_functions``), called through the same C interface, and a library of our own where
there is a C compiler.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import intsim
from conformance import c_functions
from intsim.composites.linear import double_rounding
from intsim.numerics import Scaling
from intsim.ops.matmul import integer
from intsim.ops.softmax import itamax
from intsim.oracle import cases, evidence, judge
from intsim.oracle.adapter import Capability, load, system
from intsim.oracle.adapters import _cmsis_nn_signatures as signatures, _gemmlowp, c_library
from intsim.oracle.cases import Case
from intsim.oracle.runner import ChildFailed, Isolated

SYSTEM = system("c_library")
A_LIBRARY = np._core._multiarray_umath.__file__  # any that this machine loads


# -- what was recorded -----------------------------------------------------------------------------


@pytest.mark.parametrize("profile", SYSTEM.profiles)
def test_the_recorded_figures_are_those_of_this_release(profile: str) -> None:
    """Every operator of the profile has a line of no mismatch, for the same variant and parameters."""
    served: dict[tuple[str, str], list[Any]] = {}
    for capability in c_library._KERNELS[profile].capabilities(profile):
        op = intsim.get(capability.op)
        served.setdefault((capability.serves, op.id), []).append(capability)
    lines = {(line.serves, line.op): line for line in evidence.read() if line.place == ("c_library", profile)}
    assert set(lines) == set(served)
    for place, line in lines.items():
        assert (line.mismatches, line.params) == (0, evidence._held(served[place])), place
        assert line.elements >= 100_000, place
        assert line.cases >= 5, place
        assert list(line.versions) != ["library"], "a library that says what it was made of"


# -- structures: the header has int32 fields, and pointers and int64 lie at multiples of their size ----

POINTER = ctypes.sizeof(ctypes.c_void_p)
LAYOUTS: dict[str, dict[str, int]] = {
    "Context": {"buf": 0, "size": POINTER, "": 2 * POINTER},
    "Dims": {"n": 0, "h": 4, "w": 8, "c": 12, "": 16},
    "Activation": {"min": 0, "max": 4, "": 8},
    "FullyConnected": {"input_offset": 0, "filter_offset": 4, "output_offset": 8, "activation": 12, "": 20},
    "BatchMatmul": {"adj_x": 0, "adj_y": 1, "fc_params": 4, "": 24},
    "PerTensor": {"multiplier": 0, "shift": 4, "": 8},
    "PerChannel": {"multiplier": 0, "shift": POINTER, "": 2 * POINTER},
    "SoftmaxTables": {"exp_lut": 0, "one_by_one_lut": POINTER, "": 2 * POINTER},
}


@pytest.mark.parametrize("name", LAYOUTS)
def test_a_structure_lies_in_memory_as_the_header_says(name: str) -> None:
    made = getattr(signatures, name)
    offsets = {field[0]: getattr(made, field[0]).offset for field in made._fields_}
    assert offsets | {"": ctypes.sizeof(made)} == LAYOUTS[name]


# -- functions restated in Python, called through C ------------------------------------------------


@pytest.fixture
def restated(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    def made(profile: str, **replaced: Any) -> Any:
        functions = {**c_functions.PROFILES[profile](), **replaced}
        opened = c_functions.library(A_LIBRARY, c_library._KERNELS[profile].SIGNATURES, functions)
        monkeypatch.setattr(c_library, "_opened", lambda library: opened)
        return load(f"c:{A_LIBRARY}", profile)

    return made


def few(capability: Capability) -> Iterator[Case]:
    """The first two of a capability's own cases and every fifth, where they are small; and some drawn ones."""
    for i, case in enumerate(capability.directed()):
        if (i < 2 or i % 5 == 0) and sum(a.size for a in case.inputs) <= 2**17:
            yield case
    yield from cases.random(intsim.get(capability.op), min(capability.cases, 5), longest=9, only=capability.only)


@pytest.mark.parametrize("profile", SYSTEM.profiles)
def test_every_function_is_called_as_its_header_says(restated: Any, profile: str) -> None:
    backend = restated(profile)
    for capability in backend.capabilities():
        judged = 0
        for case in few(capability):
            case.serves = capability.serves
            try:
                got = backend.run(case)
            except intsim.Unsupported:
                continue
            np.testing.assert_array_equal(got, case.wanted[0], err_msg=f"{capability.serves} {case.id}", strict=True)
            judged += 1
        assert judged >= 3, capability.serves


@pytest.mark.parametrize(("tilt", "conforms"), [(0, True), (1, False)])
def test_a_wrong_layer_is_found(restated: Any, tilt: int, conforms: bool) -> None:
    function = c_functions.cmsis_nn(Scaling.DOUBLE_ROUNDING, tilt)["arm_fully_connected_s8"]
    made = judge.check(restated("cmsis_nn_double", arm_fully_connected_s8=function), ops=["linear.double_rounding"])
    wrong = {row.serves for row in made.rows if row.failures}
    assert wrong == (set() if conforms else {"arm_fully_connected_s8"})


def test_the_other_build_is_found(restated: Any) -> None:
    functions = c_functions.PROFILES["cmsis_nn_single"]()
    made = judge.check(restated("cmsis_nn_double", **functions), ops=["add", "mul", "requantize"])
    wrong = {row.serves for row in made.rows if row.failures}
    assert wrong == {row.serves for row in made.rows} - {"arm_nn_requantize_s64"}


def absent(*_: Any) -> int:
    return -2  # ARM_CMSIS_NN_NO_IMPL_ERROR


@pytest.fixture
def backend(restated: Any) -> Any:
    return restated("cmsis_nn_double", arm_elementwise_mul_s8=absent)


def test_a_status_is_an_error(backend: Any) -> None:
    op, a = intsim.get("mul.rescaled"), np.ones((1, 3), np.int8)
    case = cases.make(op, "one", "one", (a, a), op.params(2**30, 31))
    with pytest.raises(RuntimeError, match="returned status -2"):
        backend.run(case)


def test_a_library_without_a_stamp_is_named_by_its_digest(backend: Any) -> None:
    (version,) = backend.versions().items()
    assert version[0] == "library"
    assert version[1].startswith("sha256:")


def test_what_c_does_not_define_is_unsupported(backend: Any) -> None:
    ones = np.ones((1, 512), np.int8)
    one = ones[:, :1]
    softmax, mul = intsim.get("softmax.gemmlowp"), intsim.get("mul.rescaled")
    refused = {
        "512 times the largest": (softmax, (ones,), softmax.params.from_scale(0.1)),
        "no end before": (softmax, (ones, np.array([3], np.int32)), softmax.params.from_scale(0.1)),
        "leaves int32": (mul, (one, one), mul.params(2**31 - 1, 0, scaling=Scaling.SINGLE_ROUNDING)),
        "one zero point": (
            double_rounding.OP,
            (one, np.ones((2, 1), np.int8)),
            double_rounding.Params.from_scales(1.0, 1.0, 9.0, integer.Params(0, [1, 2])),
        ),
        "one multiplier for all": (
            double_rounding.OP,
            (one, np.ones((2, 1), np.int8)),
            double_rounding.Params.from_scales(1.0, [1.0, 2.0], 9.0),
        ),
        "no function of cmsis_nn_double computes": (itamax.OP, (one,), itamax.Params()),
    }
    for reason, (op, arrays, p) in refused.items():
        with pytest.raises(intsim.Unsupported, match=reason):
            backend.run(cases.make(op, "refused", reason, arrays, p))


# -- what cannot be loaded -------------------------------------------------------------------------


def test_a_missing_file_is_named() -> None:
    with pytest.raises(
        ValueError, match=r"there is no file nowhere\.so; python tests/conformance/c_libraries\.py builds"
    ):
        load("c:nowhere.so")


def test_a_file_that_is_no_library_is_named(tmp_path: Path) -> None:
    file = tmp_path / "text.so"
    file.write_text("not a library")
    with pytest.raises(ValueError, match=r"text\.so is no shared library that this machine can load"):
        load(f"c:{file}")


@pytest.mark.parametrize("profile", SYSTEM.profiles)
def test_a_missing_function_is_named(profile: str) -> None:
    first = next(iter(c_library._KERNELS[profile].SIGNATURES))
    with pytest.raises(ValueError, match=f"has no function {first} and .* others of profile '{profile}': choose"):
        load(f"c:{A_LIBRARY}", profile)


def test_an_unknown_profile_is_refused() -> None:
    with pytest.raises(ValueError, match="has no profile 'none': it has cmsis_nn_double, "):
        load(f"c:{A_LIBRARY}", "none")


def test_what_the_child_process_could_not_load_is_said() -> None:
    with pytest.raises(ChildFailed, match=r"ValueError: there is no file nowhere\.so"):
        Isolated("c:nowhere.so", 60.0)


# -- a library of our own --------------------------------------------------------------------------

COMPILER = shutil.which(os.environ.get("CC", "cc"))
STEPS = r"""
#include <stdint.h>
#include <stdlib.h>

const char intsim_source[] = "own 0123456789abcdef";

void intsim_high_multiply(const int32_t *a, const int32_t *b, int32_t *out, int64_t n) {
  for (int64_t i = 0; i < n; i++) {
    int64_t high = ((int64_t)a[i] * b[i] + (1 << 30)) >> 31;
    out[i] = high > INT32_MAX ? INT32_MAX : (int32_t)high;
  }
}

void intsim_rounding_shift(const int32_t *x, const int32_t *shift, int32_t *out, int64_t n) {
  for (int64_t i = 0; i < n; i++) {
    int64_t half = shift[i] ? INT64_C(1) << (shift[i] - 1) : 0;
    out[i] = (int32_t)((x[i] + half - (x[i] < 0 && half)) >> shift[i]);
  }
}

void intsim_exp(const int32_t *x, int32_t *out, int64_t n) { abort(); }
void intsim_one_over_one_plus(const int32_t *x, int32_t *out, int64_t n) { abort(); }
void intsim_logistic(const int32_t *x, int32_t *out, int64_t n) { abort(); }
void intsim_tanh(const int32_t *x, int32_t *out, int64_t n) { abort(); }
"""


@pytest.fixture(scope="module")
def own_library(tmp_path_factory: pytest.TempPathFactory) -> str:
    if COMPILER is None:
        pytest.skip("no C compiler here: a crash inside a library is not shown")
    folder = tmp_path_factory.mktemp("own")
    (folder / "steps.c").write_text(STEPS)
    command = [COMPILER, "-O1", "-fPIC", "-shared", "-o", str(folder / "steps.so"), str(folder / "steps.c")]
    subprocess.run(command, check=True)
    return str(folder / "steps.so")


def test_a_compiled_library_is_judged(own_library: str) -> None:
    adapter = load(f"c:{own_library}", "gemmlowp")
    assert adapter.versions() == {"own": "0123456789ab"}
    made = judge.check(adapter, ops=["requantize.double_rounding"])
    assert made.exit_code == judge.CONFORMS, str(made)
    assert made.rows[0].elements >= 100_000


def test_a_crash_inside_a_library_is_a_verdict(own_library: str) -> None:
    runner = Isolated(f"c:{own_library}", 60.0, "gemmlowp")
    try:
        made = judge.check(load(f"c:{own_library}", "gemmlowp"), ops=["softmax.gemmlowp"], runner=runner)
    finally:
        runner.close()
    assert made.exit_code == judge.FAILED_TO_RUN
    assert "ended by SIGABRT" in made.failures[0].text


def test_every_function_of_the_own_library_is_one_of_the_profile() -> None:
    assert all(f"void {name}(" in STEPS for name in _gemmlowp.SIGNATURES)

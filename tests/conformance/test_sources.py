"""Systems that are source checkouts: what is said where the checkout is missing or another, and that its bits count.

The checkouts themselves are not here: their figures are recorded by ``intsim profiles measure SYSTEM:FOLDER``.
Some of what their code gave, once, stands here as vectors (of I-ViT and FQ-ViT: test_published_integer_ops.py).
"""

from __future__ import annotations

import hashlib
import importlib
import sys
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from intsim import cli
from intsim.execute import run
from intsim.numerics import Overflow, Rounding, int8, int16
from intsim.ops.activation import gelu_ita
from intsim.ops.layernorm import deeploy as layernorm_deeploy
from intsim.ops.requantize import dyadic, single_rounding
from intsim.ops.softmax import itapartialmax, shiftmax_ivit
from intsim.oracle import evidence, judge
from intsim.oracle.adapter import Unsupported, checkouts, load, published, system
from intsim.oracle.adapters import _checkout
from intsim.oracle.cases import make

NAMES = checkouts()
LEAST_ELEMENTS = 100_000

Q = [[127, 100, 64, 3, 0, -1, -40, -128], [-5, -9, -17, -33, -65, -100, -127, -128], [0, 0, 0, 1, 1, 1, 2, 2]]
STAIRS = [[*range(-16, 0), *range(0, -16, -1), *[3, 2, 1, 0] * 4]]
ACC = [[-2000, -49, -24, -8, 0, 8, 24, 49, 2000]]


def i8(x: Any) -> Any:
    return np.array(x, np.int8)


def i32(x: Any) -> Any:
    return np.array(x, np.int32)


# op, inputs, params, what the published code gave
VECTORS: dict[str, tuple[str, tuple[Any, ...], Any, list[list[int]]]] = {
    "ITA streamingPartialSoftmax, less 128": (
        "softmax.itapartialmax",
        (i8(STAIRS),),
        itapartialmax.Params(step_bits=0, peak=255),
        [[*[-128] * 14, -127, -126, -124, -126, -127, *[-128] * 13, *[-96, -112, -120, -124] * 4]],
    ),
    "ITA i_gelu, scale 0.0146": (
        "activation.gelu_ita",
        (i8(Q),),
        gelu_ita.Params.from_scale(0.0146),
        [
            [-8006080, -5993500, -3425728, -110256, 0, 28900, 686440, 245872],
            [137780, 236196, 403172, 628452, 730340, 504100, 245872, 245872],
            [0, 0, 0, -36076, -36076, -36076, -72830, -72830],
        ],
    ),
    "ITA requantize, 3 / 2**4 - 5": (
        "requantize.single_rounding",
        (i32(ACC),),
        single_rounding.Params(3, 4, -5, rounding=Rounding.TIES_TO_POSITIVE),
        [[-128, -14, -9, -6, -5, -3, 0, 4, 127]],
    ),
    "HAWQ-V3 fixedpoint_fn, scales 0.0123 * 0.0456 / 9.87": (
        "requantize.dyadic",
        (i32([[2**31 - 1, -(2**31), 123456789, -987654321]]),),
        dyadic.Params(1999413454, 45, dtype=int16),
        [[32767, -32768, 7016, -32768]],
    ),
    "quantlib PACTIntegerITAPartialMax, groups of 2, less 128": (
        "softmax.itapartialmax",
        (i8([[-120, -113, -98, -83, -67, -51, 0, 127], *Q[:2]]),),
        itapartialmax.Params(group=2, peak=255),
        [
            [-128, -128, -127, -127, -125, -125, -114, 101],
            [1, -64, -96, -120, -120, -120, -124, -128],
            [-65, -65, -65, -97, -113, -121, -125, -125],
        ],
    ),
    "quantlib PACTIntegerLayerNorm, which clips": (
        "layernorm.deeploy",
        (
            i8(Q),
            i32([500, -500, 2**14, -(2**14), 2**15 - 1, -(2**15), 3, -39]),
            i32([0, 1, -1, 5, 100, -100, 2**20, -(2**20)]),
        ),
        layernorm_deeploy.Params(5, overflow=Overflow.SATURATE),
        [
            [23, -18, 127, 80, -128, 127, 127, -128],
            [17, -17, 127, -128, -104, 127, 127, -128],
            [0, 0, -1, -128, 127, -128, 127, -128],
        ],
    ),
}

UTIL = """
import numpy as np

def requantize(matrix, eps_mult, right_shift, add):
    exact = matrix.astype(np.int64) * int(eps_mult[0])
    half = (1 << int(right_shift[0])) >> 1
    return np.clip(((exact + half) >> int(right_shift[0])) + int(add[0]), -128, 127).astype(np.int8)
"""
ON_A_GPU = """
import torch

class Halve(torch.autograd.Function):
    @staticmethod
    def forward(ctx, z, bits, mode, z_scale, case, x_scale, w_scale):
        factor = torch.tensor(0.5).cuda()
        return z * factor
fixedpoint_fn = Halve
"""


@pytest.mark.parametrize("name", VECTORS)
@pytest.mark.parametrize("backend", ["reference", "exact", "cpu"])
def test_what_the_published_code_gave(name: str, backend: str) -> None:
    op, inputs, p, want = VECTORS[name]
    assert run(op, *inputs, p=p, backend=backend).tolist() == want


def checkout_of(name: str) -> _checkout.Checkout:
    stated: _checkout.Checkout = importlib.import_module(f"intsim.oracle.adapters.{name}").CHECKOUT
    return stated


def write(root: Path, name: str, **modules: str) -> Path:
    """A folder that looks like the checkout of ``name``: its files are empty but for ``modules``."""
    stated = checkout_of(name)
    folder = root / stated.folder
    folder.mkdir(parents=True)
    for file in stated.files:
        (folder / file).write_text(modules.get(Path(file).stem, ""))
    (folder / "__init__.py").write_text("raise RuntimeError('training code')")
    return root


def test_the_systems_that_are_checkouts() -> None:
    assert NAMES == ("fqvit", "hawq", "ita", "ivit", "quantlib")


@pytest.mark.parametrize("name", NAMES)
def test_a_checkout_says_what_it_is_of(name: str) -> None:
    stated = checkout_of(name)
    assert stated.name == name
    assert len(stated.commit) == 7
    assert all(len(digest) == hashlib.sha256().digest_size * 2 for digest in stated.files.values())
    needs = system(name).needs
    assert f"git clone https://github.com/{stated.repository}" in needs
    assert f"checkout {stated.commit}" in needs
    assert f"intsim check {name}:" in needs


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("target", ["{}", "{}:"])
def test_without_a_place_the_commands_are_named(name: str, target: str) -> None:
    stated = checkout_of(name)
    with pytest.raises(ValueError, match=f"git clone https://github.com/{stated.repository} .*{stated.commit}"):
        load(target.format(name))


@pytest.mark.parametrize("name", NAMES)
def test_a_place_that_is_not_there(name: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"there is no folder .*nowhere: git clone "):
        load(f"{name}:{tmp_path / 'nowhere'}")


@pytest.mark.parametrize("name", NAMES)
def test_a_place_that_holds_something_else(name: str, tmp_path: Path) -> None:
    stated = checkout_of(name)
    with pytest.raises(ValueError, match=f"is no checkout of {stated.repository}: it has no {stated.folder}/"):
        load(f"{name}:{tmp_path}")
    write(tmp_path, name)
    last = list(stated.files)[-1]
    (tmp_path / stated.folder / last).unlink()
    with pytest.raises(ValueError, match=f"it has no {stated.folder}/{last}"):
        load(f"{name}:{tmp_path}")


def test_a_missing_place_is_a_usage_error_of_the_command() -> None:
    shown = CliRunner().invoke(cli.main, ["check", "ivit"])
    assert shown.exit_code == judge.USAGE
    assert "git clone https://github.com/zkkli/I-ViT" in shown.output


def test_a_system_and_its_place_are_one_target() -> None:
    assert published("ivit:/some/where") == "ivit"
    assert published("c:library.so") == "c_library"
    assert published("module:name") == "module:name"
    with pytest.raises(ValueError, match="has no profile 'none'"):
        load("ita:.", "none")


def test_files_that_are_not_those_of_the_commit_are_named(tmp_path: Path) -> None:
    backend = load(f"ita:{write(tmp_path, 'ita', util=UTIL)}")
    assert backend.versions()["ITA"].startswith("not ba96519: softmax.py has SHA-256 ")


def test_the_bits_of_the_folder_are_judged(tmp_path: Path) -> None:
    """A function that rounds as PyITA's conforms; one that floors does not."""
    same = judge.check(load(f"ita:{write(tmp_path / 'a', 'ita', util=UTIL)}"), ops=["requantize"])
    same.raise_for_mismatch()
    assert same.rows[0].elements >= LEAST_ELEMENTS
    floors = UTIL.replace(">> 1", "* 0")
    other = judge.check(load(f"ita:{write(tmp_path / 'b', 'ita', util=floors)}"), ops=["requantize"])
    assert other.exit_code == judge.MISMATCH
    assert other.rows[0].wrong > 1000


def test_nothing_of_the_folders_above_runs_and_nothing_is_put_on_the_path(tmp_path: Path) -> None:
    before = list(sys.path)
    backend = load(f"ita:{write(tmp_path, 'ita', util=UTIL)}")
    p = single_rounding.Params(1, 1, rounding=Rounding.TIES_TO_POSITIVE)
    case = make(single_rounding.OP, "halves", "", (np.array([[-1, 1]], np.int32),), p)
    assert backend.run(case).tolist() == [[0, 1]]
    assert sys.path == before


def test_a_module_that_needs_a_package_names_it(tmp_path: Path) -> None:
    backend = load(f"ita:{write(tmp_path, 'ita', util='import no_such_package')}")
    p = single_rounding.Params(1, 1)
    with pytest.raises(ValueError, match=r"util.py needs the package no_such_package"):
        backend.run(make(single_rounding.OP, "x", "", (np.array([[1]], np.int32),), p))


def test_a_call_of_cuda_stays_on_the_cpu_and_what_is_not_whole_is_refused(tmp_path: Path) -> None:
    import torch

    before = torch.Tensor.cuda
    backend = load(f"hawq:{write(tmp_path, 'hawq', quant_utils=ON_A_GPU)}")

    def case(*acc: int) -> judge.Case:
        return make(dyadic.OP, "halves", "", (np.array([acc], np.int32),), dyadic.Params(2**30, 31))

    assert backend.run(case(2, -4)).tolist() == [[1, -2]]
    with pytest.raises(ValueError, match="numbers that are no int8"):
        backend.run(case(1))
    assert torch.Tensor.cuda is before


def test_the_short_scale_of_a_unit() -> None:
    assert _checkout.short_scale(Fraction(1, 7), lambda s: s < 1 / 6) == 5 / 32
    assert _checkout.short_scale(Fraction(1, 16), lambda s: s < 1 / 15) == 1 / 16
    assert _checkout.short_scale(Fraction(1, 3), lambda s: False) is None


def test_a_mask_is_unsupported(tmp_path: Path) -> None:
    backend = load(f"ivit:{write(tmp_path, 'ivit')}")
    arrays = (np.zeros((1, 3), np.int8), np.array([2], np.int32))
    with pytest.raises(Unsupported, match="IntSoftmax has no mask"):
        backend.run(make(shiftmax_ivit.OP, "masked", "", arrays, shiftmax_ivit.Params(16, q=int8)))


@pytest.mark.parametrize("name", NAMES)
def test_the_recorded_figures_are_of_the_commit(name: str) -> None:
    lines = [line for line in evidence.read() if line.system == name]
    assert lines, f"nothing recorded: {system(name).needs}"
    for line in lines:
        assert (line.mismatches, line.elements >= LEAST_ELEMENTS, line.cases >= 5) == (0, True, True), line
        assert next(iter(line.versions.values())) == checkout_of(name).commit


@pytest.mark.parametrize("name", NAMES)
def test_the_recorded_rows_are_those_of_the_adapter(name: str, tmp_path: Path) -> None:
    stated = {(c.serves, c.op) for c in load(f"{name}:{write(tmp_path, name)}").capabilities()}
    recorded = {(line.serves, line.op.split("/")[0]) for line in evidence.read() if line.system == name}
    assert recorded == stated

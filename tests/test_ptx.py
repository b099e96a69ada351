"""Every generic kernel compiles for real GPUs, without one: no floating-point instruction, no spilled register."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest

from conftest import SIMULATED, UNCOMPILED
from intsim.binding import bind, fold, kernel_view
from intsim.numerics import IntType
from intsim.op import Composition, Rowwise
from intsim.oracle import cases
from intsim.params import record
from intsim.records import fields_class
from intsim.registry import all_ops

if UNCOMPILED or SIMULATED:
    pytest.skip("the simulator compiles nothing; the compiled job runs this", allow_module_level=True)

from intsim.backends.cuda_compile import Compiled, Kernel, build, compiled

FLOAT = re.compile(r"\S+\.(?:f16|bf16|f32|f64)\b\S*")


@pytest.mark.parametrize("cc", [(8, 0), (9, 0)], ids=str)
@pytest.mark.parametrize(
    "op", [op for op in all_ops() if not isinstance(op.program, Composition)], ids=lambda op: op.name
)
def test_machine_code_is_float_free_and_stays_in_registers(op: Any, cc: tuple[int, int]) -> None:
    from intsim.backends.cuda import device_kernel

    case = next(cases.random(op, 1))
    bound = bind(op, case.inputs, case.params)
    arrays, size = fold(op, bound) if bound.loop else (bound.arrays, bound.size)
    inputs = fields_class(*(port.name for port in op.inputs))(*map(kernel_view, arrays))
    outputs = fields_class(*(port.name for port in op.outputs))(*map(kernel_view, case.wanted))
    new = cc == (9, 0)
    lanes = 32 if new and isinstance(op.program, Rowwise) else 1  # a warp a row, or a thread
    made = build(
        device_kernel(op.name, op.program, lanes, walks=not new, early=new),
        (inputs, outputs, record(case.params, size), 0),
        cc,
    )
    assert not set(FLOAT.findall(made.ptx))
    assert ("griddepcontrol.wait" in made.ptx) == new
    assert made.spilled == 0, made.log
    assert made.cubin.startswith(b"\x7fELF")
    assert made.entry.encode() in made.cubin
    assert isinstance(op.inputs[0].type(case.params), IntType) or "b32" in made.ptx


def test_the_search_finds_a_float_instruction() -> None:
    def power(x: Any) -> None:
        x[0] = x[0] ** 2  # numba-cuda takes this through float64: why programs write x * x

    assert FLOAT.findall(build(Kernel(power, "power"), (np.zeros(1, np.int64),), (9, 0)).ptx)


def test_spilled_registers_are_seen() -> None:
    def many(x: Any, out: Any) -> None:
        a, b, c, d, e, f, g, h = x[0], x[1], x[2], x[3], x[4], x[5], x[6], x[7]
        for i in range(out.shape[0]):
            a, b, c, d = a * b + x[i], b * c + x[i + 1], c * d + x[i + 2], d * e + x[i + 3]
            e, f, g, h = e * f + x[i + 4], f * g + x[i + 5], g * h + x[i + 6], h * a + x[i + 7]
            out[i] = (a ^ b ^ c ^ d) + (e ^ f ^ g ^ h)

    arguments = np.zeros(8, np.int64), np.zeros(8, np.int64)
    assert build(Kernel(many, "many"), arguments, (9, 0)).spilled == 0
    assert build(Kernel(many, "many in few registers", max_registers=16), arguments, (9, 0)).spilled > 0


def test_machine_code_is_kept_and_told_apart(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INTSIM_CACHE_DIR", str(tmp_path))

    def one(x: Any) -> None:
        x[0] = 1

    def two(x: Any) -> None:
        x[0] = 2

    x = (np.zeros(1, np.int64),)
    first = compiled(Kernel(one, "constant 1"), x, (8, 0))
    monkeypatch.setattr("intsim.backends.cuda_compile.build", None)  # from here on only the disk answers
    assert compiled(Kernel(one, "constant 1"), x, (8, 0)) == Compiled(first.cubin, first.entry)
    for kernel, arguments, cc in [
        (Kernel(two, "constant 2"), x, (8, 0)),
        (Kernel(one, "constant 1"), (np.zeros(1, np.int32),), (8, 0)),
        (Kernel(one, "constant 1"), x, (9, 0)),
        (Kernel(one, "constant 1", launch_bounds=32), x, (8, 0)),
    ]:
        with pytest.raises(TypeError):
            compiled(kernel, arguments, cc)
    with pytest.raises(ValueError, match="made by a factory"):
        Kernel(one)

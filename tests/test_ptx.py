"""Every kernel compiles for real GPUs, without one, and holds no floating-point instruction."""

from __future__ import annotations

import re
from typing import Any

import pytest

from conftest import SIMULATED, UNCOMPILED
from intsim.binding import bind, fold, kernel_view
from intsim.numerics import IntType
from intsim.op import Composition
from intsim.oracle import cases
from intsim.params import record
from intsim.records import fields_class
from intsim.registry import all_ops

if UNCOMPILED or SIMULATED:
    pytest.skip("the simulator compiles nothing; the compiled job runs this", allow_module_level=True)

FLOAT = re.compile(r"\S+\.(?:f16|bf16|f32|f64)\b\S*")


@pytest.fixture(autouse=True)
def _no_device_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    from numba.cuda import dispatcher

    class Device:
        compute_capability = (9, 0)

    monkeypatch.setattr(dispatcher, "get_current_device", lambda: Device)


def ptx(kernel: Any, arguments: tuple[Any, ...], cc: tuple[int, int]) -> str:
    from numba import typeof, types
    from numba.cuda.compiler import _compile_pyfunc_with_fixup

    signature = types.void(*map(typeof, arguments))
    library, _ = _compile_pyfunc_with_fixup(kernel.py_func, signature, device=False, abi="numba", cc=cc)
    return str(library.get_asm_str(cc=cc))


@pytest.mark.parametrize("cc", [(8, 0), (9, 0)], ids=str)
@pytest.mark.parametrize(
    "op", [op for op in all_ops() if not isinstance(op.program, Composition)], ids=lambda op: op.name
)
def test_ptx_is_float_free(op: Any, cc: tuple[int, int]) -> None:
    from intsim.backends.cuda import device_kernel

    case = next(cases.random(op, 1))
    bound = bind(op, case.inputs, case.params)
    arrays, size = fold(op, bound) if bound.loop else (bound.arrays, bound.size)
    inputs = fields_class(*(port.name for port in op.inputs))(*map(kernel_view, arrays))
    outputs = fields_class(*(port.name for port in op.outputs))(*map(kernel_view, case.wanted))
    text = ptx(device_kernel(op.program), (inputs, outputs, record(case.params, size), 0), cc)
    assert ".entry" in text
    assert not set(FLOAT.findall(text))
    assert isinstance(op.inputs[0].type(case.params), IntType) or "b32" in text


def test_the_search_finds_a_float_instruction() -> None:
    import numpy as np
    from numba import cuda

    @cuda.jit
    def power(x: Any) -> None:
        x[0] = x[0] ** 2  # numba-cuda takes this through float64: why programs write x * x

    assert FLOAT.findall(ptx(power, (np.zeros(1, np.int64),), (9, 0)))

"""The row kernels as they run on a GPU, on the simulator's threads, against the spec."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from conftest import SIMULATED
from intsim.analysis import exhaustive
from intsim.execute import NotServed, prepare, run
from intsim.graphs import to_device
from intsim.numerics import IntType, Rounding, int8, int16, int24, int32, uint8, unlimited
from intsim.ops.activation import table
from intsim.ops.layernorm import ibert as layernorm
from intsim.ops.requantize import double_rounding, single_rounding as requantize
from intsim.ops.softmax import ibert as softmax
from intsim.registry import get

if not SIMULATED:
    pytest.skip("runs kernels on the simulator; the uncompiled job does", allow_module_level=True)


def drawn(t: IntType, shape: tuple[int, ...]) -> Any:
    made = np.random.default_rng(0).integers(t.qmin, t.qmax + 1, shape).astype(t.storage)
    made.reshape(-1)[::7], made.reshape(-1)[3::11] = t.qmin, t.qmax
    return made


def equal(op: str, kernel: str, p: Any, *given: Any, there: bool = False) -> None:
    where = f"intsim.ops.{op.split('.', maxsplit=1)[0]}.{kernel}"
    wanted = run(op, *given, p=p, backend="reference")
    lies = to_device if there else np.asarray
    got = prepare(op, p=p, backend="cuda", tuned=where)(*(a if a is None else lies(a) for a in given))
    assert got.dtype == wanted.dtype
    assert np.array_equal(np.asarray(got), wanted)


@pytest.mark.parametrize("dtype", [int8, uint8], ids=str)
@pytest.mark.parametrize("n", [48, 13])
def test_requantize(n: int, dtype: IntType) -> None:
    rng = np.random.default_rng(2)
    multiplier, shift = rng.integers(-(2**31) + 1, 2**31, n), rng.integers(33, 56, n)
    p = requantize.Params(multiplier, shift, -7, dtype, Rounding.TIES_TO_POSITIVE)
    equal("requantize.single_rounding", "_cuda_single_rounding:requantize", p, drawn(int32, (9, n)))


@pytest.mark.parametrize(("x", "dtype"), [(int8, int8), (uint8, int8), (int8, uint8)], ids=str)
def test_table_of_every_value(x: IntType, dtype: IntType) -> None:
    every = np.arange(x.qmin, x.qmax + 1).astype(x.storage)
    given = np.concatenate([every, every[:5]]).reshape(3, 87)  # and a tail
    equal("activation.table", "_cuda_table:look_up", table.Params(x, dtype), given, drawn(dtype, (256,)))


@pytest.mark.parametrize(("q", "m", "n"), [(int16, 3, 260), (int8, 5, 128), (int32, 2, 512), (int16, 5, 4)], ids=str)
@pytest.mark.parametrize("masked", [False, True])
def test_softmax(q: IntType, m: int, n: int, masked: bool) -> None:
    given = drawn(q, (m, n))
    given[1] = np.random.default_rng(1).integers(-100, 100, n)  # near one another: many that count
    stop = np.random.default_rng(2).integers(1, n + 1, m).astype(np.int32) if masked else None
    p = softmax.Params.from_scale(0.05, q=q)
    equal("softmax.ibert", "_cuda_ibert:softmax", p, given, stop, there=not masked)  # there, no mask is known to be one


def test_softmax_serves_what_fits_32_bits() -> None:
    q = np.zeros((1, 8), np.int32)
    for p in (softmax.Params(1, 0, 6), softmax.Params(2**14, 5, 6), softmax.Params(20, 27, 2**24)):
        run_it = prepare("softmax.ibert", p=p, backend="cuda", tuned="intsim.ops.softmax._cuda_ibert:softmax")
        with pytest.raises(NotServed):
            run_it(q.astype(np.int16))


@pytest.mark.parametrize(("x", "n", "k"), [(int16, 132, 0), (int8, 768, 3), (int24, 1024, 0), (int24, 4, 2)], ids=str)
@pytest.mark.parametrize("rounding", [Rounding.TIES_TO_EVEN, Rounding.TOWARD_ZERO])
def test_layernorm(x: IntType, n: int, k: int, rounding: Rounding) -> None:
    given = drawn(x, (3, n))
    given[1], given[2, 1:] = 5, 0  # a constant row, and one spike
    equal(
        "layernorm.ibert", "_cuda_ibert:layernorm", layernorm.Params(k, x, int32, rounding), given, drawn(int32, (n,))
    )


def test_every_accumulator() -> None:
    fields: dict[str, Any] = {"multiplier": 3, "shift": 4, "dtype": int8}
    up, away = (requantize.Params(**fields, rounding=r) for r in (Rounding.TIES_TO_POSITIVE, Rounding.TIES_TO_AWAY))
    one, other = ("requantize.single_rounding", up), ("requantize.single_rounding", away)
    acc = np.arange(-300, 301, dtype=np.int32)[:, None]
    differ = run(one[0], acc, p=up, backend="reference") != run(one[0], acc, p=away, backend="reference")
    assert exhaustive.differences(one, other, -300, 300) == (differ.sum(), acc[differ][0])
    assert exhaustive.differences(one, one, -30, 30) == (0, None)


TIES = {"multiplier": 3 * 2**29, "shift": 34}  # 3/32: of each 32 accumulators one is a tie
PLACES = (-700, -(2**31), 2**31 - 1 - 64)


@pytest.mark.parametrize("dtype", [int8, int16, uint8], ids=str)
@pytest.mark.parametrize("rule", [r for r in Rounding if r.name.startswith("TIES")])
def test_the_32_bit_form_gives_what_the_program_gives(rule: Rounding, dtype: IntType) -> None:
    p = requantize.Params(**TIES, zero_point=-3, dtype=dtype, rounding=rule)
    steep = requantize.Params(-(2**31) + 1, 33, 5, dtype, rule)
    for low in PLACES if dtype == int8 else PLACES[:1]:
        for params in (p, steep):
            assert exhaustive.narrow_differs("requantize.single_rounding", params, low, low + 64) == (0, None)


@pytest.mark.parametrize("shift", [32, 34, 61])
def test_the_32_bit_form_of_two_roundings(shift: int) -> None:
    for multiplier in (3 * 2**29, 2**31 - 1, 2**30 + 1, 0):
        p = double_rounding.Params(multiplier, shift, -3)
        for low in PLACES:
            assert exhaustive.narrow_differs("requantize.double_rounding", p, low, low + 64) == (0, None)


def test_a_32_bit_form_that_is_wrong_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    from intsim.ops.requantize import _cuda_narrow as narrow

    name, p = "requantize.single_rounding", requantize.Params(**TIES, rounding=Rounding.TIES_TO_AWAY)
    monkeypatch.setitem(narrow._DOWN, Rounding.TIES_TO_AWAY, narrow._not_negative)
    count, least = exhaustive.narrow_differs(name, p, -100, 100)
    assert (count, least) == (6, -80)
    away = name, p
    up = name, requantize.Params(**TIES, rounding=Rounding.TIES_TO_POSITIVE)
    monkeypatch.undo()
    assert exhaustive.differences(away, up, -100, 100) == exhaustive.differences(away, up, -100, 100, by_program=True)


@pytest.mark.parametrize(
    "fields",
    [{"shift": 32}, {"rounding": Rounding.TOWARD_ZERO}, {"dtype": int32}, {"zero_point": 2**29 + 1}],
    ids=str,
)
def test_what_32_bits_do_not_hold_is_left_to_the_program(fields: dict[str, Any]) -> None:
    p = requantize.Params(**({"multiplier": 5, "shift": 40} | fields))
    with pytest.raises(ValueError, match=r"requantize.single_rounding: no 32-bit form serves"):
        exhaustive.narrow_differs("requantize.single_rounding", p)


def test_results_of_64_bits_are_compared_whole() -> None:
    """4 * 2**30 and 0 have the same low word."""
    one, other = (("requantize.single_rounding", requantize.Params(m, 0, dtype=unlimited)) for m in (2**30, 0))
    assert exhaustive.differences(one, other, -8, 8) == (16, -8)


def test_only_elementwise_ops_of_int32_are_compared() -> None:
    p = softmax.Params.from_scale(0.05)
    with pytest.raises(ValueError, match="elementwise"):
        exhaustive.differences(("softmax.ibert", p), ("softmax.ibert", p))


@pytest.mark.parametrize("n", [70, 3])
def test_residual(n: int) -> None:
    """More rows than a block has; a constant row; a bias that saturates; a scale a column."""
    rng, op = np.random.default_rng(8), get("residual.ibert")
    p = op.params.from_scale(rng.uniform(0.1, 1, n) * 2.0**-17, 1)
    a, b = drawn(int16, (6, n)), np.roll(drawn(int16, (6, n)), 5)
    a[2], b[2] = 9, -9
    given = a, b, drawn(int32, (n,))
    where = "intsim.composites.residual._cuda_ibert:residual"
    wanted, got = run(op, *given, p=p, backend="reference"), prepare(op, p=p, backend="cuda", tuned=where)(*given)
    for one, other in zip(got, wanted, strict=True):
        assert one.dtype == other.dtype
        assert np.array_equal(one, other)

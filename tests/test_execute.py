"""Running an op: what the public boundary refuses, flags, overflow as an error, tables, large arrays and threads."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

import intsim
from intsim import IntType, Overflow, int4, int8, uint8
from intsim.execute import reference
from intsim.registry import get

MATMUL = get("matmul.integer")
SOFTMAX = get("softmax.ibert")
ACC = np.array([[-2000, -8, 0, 8, 24, 2000]], np.int32)
REQUANTIZE = get("requantize.single_rounding").params


def eye(n: int, dtype: Any = np.int8) -> Any:
    return np.eye(n, dtype=dtype)


REFUSED = [
    (
        lambda: intsim.run("matmul.integer", eye(2)[:, :0], eye(2)[:, :0], p=MATMUL.params()),
        ValueError,
        "needs 1 <= k <= 1048576, got k = 0",
    ),
    (
        lambda: intsim.run("matmul.integer", eye(2), eye(3), p=MATMUL.params()),
        ValueError,
        "b has k = 3, but a has k = 2",
    ),
    (
        lambda: intsim.run("matmul.integer", eye(2), eye(2), p=MATMUL.params(300)),
        ValueError,
        r"\(C1\): needs a_zero_point a value of a",
    ),
    (
        lambda: intsim.run("matmul.integer", eye(2), eye(2), p=MATMUL.params(0, [0, 128])),
        ValueError,
        r"\(C2\): needs b_zero_point a value of b",
    ),
    (
        lambda: intsim.run("matmul.integer", eye(2), eye(2), p=MATMUL.params(0, [1, 2, 3])),
        ValueError,
        "b_zero_point has 3 values, needs 1 or n = 2",
    ),
    (
        lambda: intsim.run("matmul.integer", eye(4), eye(4).view(np.uint8), p=MATMUL.params(b=int4)),
        ValueError,
        "two elements a byte",
    ),
    (
        lambda: intsim.run(
            "matmul.integer", np.zeros((2, 1, 3), np.int8), np.zeros((5, 1, 3), np.int8), p=MATMUL.params()
        ),
        ValueError,
        "the leading dimensions do not broadcast",
    ),
    (
        lambda: intsim.run(
            "softmax.ibert", eye(3, np.int16), np.array([0, 1, 2], np.int32), p=SOFTMAX.params.from_scale(0.1)
        ),
        ValueError,
        r"stop\[0\] is 0; needs 1 to 3 \(a length up to n\)",
    ),
    (
        lambda: intsim.run(
            "softmax.ibert", eye(3, np.int16), np.array([1, 4, 2], np.int32), p=SOFTMAX.params.from_scale(0.1)
        ),
        ValueError,
        r"stop\[1\] is 4",
    ),
    (
        lambda: intsim.run(
            "softmax.ibert", eye(3, np.int16), np.array([1, 2], np.int32), p=SOFTMAX.params.from_scale(0.1)
        ),
        ValueError,
        "stop has m = 2, but q has m = 3",
    ),
    (
        lambda: intsim.run("embedding.gather", np.array([3], np.int32), eye(3), p=get("embedding.gather").params()),
        ValueError,
        r"ids\[0\] is 3; needs 0 to 2 \(an index below v\)",
    ),
    (
        lambda: intsim.run("embedding.gather", np.array([-1], np.int32), eye(3), p=get("embedding.gather").params()),
        ValueError,
        r"ids\[0\] is -1",
    ),
    (
        lambda: intsim.run(
            "layernorm.ibert", np.array([[2**23]], np.int32), p=get("layernorm.ibert").params(x=IntType(24))
        ),
        ValueError,
        r"x\[0, 0\] is 8388608; needs -8388608 to 8388607 \(int24\)",
    ),
    (
        lambda: intsim.run("activation.table", eye(3), eye(3)[0], p=get("activation.table").params()),
        ValueError,
        r"table has shape \(3,\), needs \(256,\)",
    ),
    (
        lambda: intsim.run(
            "quantize.affine",
            np.ones((1, 5), np.float32),
            np.ones((1, 2), np.float32),
            p=get("quantize.affine").params(group_size=2),
        ),
        ValueError,
        "scale has g = 2, needs 3",
    ),
    (
        lambda: intsim.run(
            "quantize.affine",
            np.ones((1, 1), np.float32),
            -np.ones((1, 1), np.float32),
            p=get("quantize.affine").params(),
        ),
        ValueError,
        "scale.*is -1.0; needs numbers that are positive",
    ),
    (
        lambda: intsim.run("requantize.single_rounding", ACC, p=REQUANTIZE(1, 2), backend="gpu"),
        ValueError,
        "backend is one of reference, exact, cpu, cuda",
    ),
    (
        lambda: intsim.run("requantize.single_rounding", ACC.astype(">i4"), p=REQUANTIZE(1, 2)),
        TypeError,
        "acc is >i4, needs int32",
    ),
    (
        lambda: intsim.run("requantize.single_rounding", [[1.5]], p=REQUANTIZE(1, 2)),
        TypeError,
        "acc is float64, needs int32",
    ),
    (
        lambda: intsim.tabulate("matmul.integer", p=MATMUL.params()),
        ValueError,
        "a table needs an elementwise op with one 8-bit input",
    ),
]


@pytest.mark.parametrize(("call", "kind", "text"), REFUSED, ids=[text[:40] for _, _, text in REFUSED])
def test_bad_input_is_named(call: Any, kind: type[Exception], text: str) -> None:
    with pytest.raises(kind, match=text):
        call()


def test_flags_count_what_happened(backends: list[str]) -> None:
    for backend in backends:
        out, flags = intsim.run("requantize.single_rounding", ACC, p=REQUANTIZE(1, 4), backend=backend, flags=True)
        assert out.tolist() == [[-125, 0, 0, 0, 2, 125]]
        assert flags.counts == {"saturated:dtype": 0, "tie:rounding": 3}
        _, flags = intsim.run("requantize.single_rounding", ACC, p=REQUANTIZE(1, 3), backend=backend, flags=True)
        assert flags.counts == {"saturated:dtype": 2, "tie:rounding": 0}
        assert flags.masks["saturated:dtype"].tolist() == [[True, False, False, False, False, True]]


@pytest.mark.parametrize(("rule", "word"), [(Overflow.WRAP, "wrapped"), (Overflow.SATURATE, "clipped")])
def test_flags_of_an_accumulator(rule: Overflow, word: str, backends: list[str]) -> None:
    a = np.full((1, 4), 127, np.int8)
    p = MATMUL.params(acc=IntType(16), overflow=rule)
    for backend in backends:
        _, flags = intsim.run("matmul.integer", a, np.vstack([a, a // 2]), p=p, backend=backend, flags=True)
        assert flags.masks[f"{word}:acc"].tolist() == [[True, False]]


def test_overflow_can_be_refused() -> None:
    assert intsim.run("requantize.single_rounding", ACC, p=REQUANTIZE(1, 4), refuse_overflow=True).dtype == np.int8
    with pytest.raises(OverflowError, match=r"saturated:dtype: 2 elements"):
        intsim.run("requantize.single_rounding", ACC, p=REQUANTIZE(1, 3), refuse_overflow=True)


def test_flags_of_a_composite_are_its_stages(backends: list[str]) -> None:
    op = get("linear.qlinear_matmul")
    x, p = op.examples()["ties, odd zero point"]
    for backend in backends:
        _, flags = intsim.run(op, *x, p=p, backend=backend, flags=True)
        assert flags.counts == {"matmul.wrapped:acc": 0, "requantize.saturated:dtype": 0}


def test_a_table_is_the_op_itself() -> None:
    p = get("activation.gelu_ibert").params.from_scale(0.05, x=int8)
    table = intsim.tabulate("activation.gelu_ibert", p=p)
    x = np.arange(-128, 128, dtype=np.int8)[None]
    looked_up = intsim.run("activation.table", x, table, p=get("activation.table").params(dtype=intsim.int32))
    assert (looked_up == intsim.run("activation.gelu_ibert", x, p=p)).all()


def test_a_missing_limit_is_not_hidden_by_a_cast() -> None:
    from intsim.binding import in_type

    op = get("requantize.single_rounding")
    with pytest.raises(OverflowError, match="q leaves int8: a limit is missing"):
        in_type(op, op.outputs[0], REQUANTIZE(1, 2), np.array([128]))


LARGE = np.random.default_rng(7)


@pytest.mark.compiled
@pytest.mark.parametrize(
    "types", [(int8, int8), (uint8, int8), (uint8, uint8), (int8, uint8), (intsim.int16, int8)], ids=str
)
def test_large_products_tuned_and_plain(types: tuple[IntType, IntType]) -> None:
    a_type, b_type = types
    a = LARGE.integers(a_type.qmin, a_type.qmax + 1, (33, 1100)).astype(a_type.storage)
    b = LARGE.integers(b_type.qmin, b_type.qmax + 1, (47, 1100)).astype(b_type.storage)
    a[:3], b[:3] = a_type.qmin, b_type.qmin
    bias = LARGE.integers(-(2**31), 2**31, 47).astype(np.int32)
    for acc in (intsim.int32, IntType(20), intsim.int48):
        p = MATMUL.params(a_type.qmax, [b_type.qmin] * 47, a=a_type, b=b_type, acc=acc)
        want = reference("matmul.integer", a, b, bias, p=p, exact=False)[0]
        assert (intsim.run("matmul.integer", a, b, bias, p=p) == want).all()
        assert (intsim.run("matmul.integer", a, b, bias, p=p, tuned=False) == want).all()
        many = intsim.run("matmul.integer", a.reshape(3, 11, 1100)[:, None], np.stack([b, b[::-1]]), bias, p=p)
        assert many.shape == (3, 2, 11, 47)
        assert (many[:, 0].reshape(33, 47) == want).all()
        other = reference("matmul.integer", a, b[::-1], bias, p=p, exact=False)[0]
        assert (many[:, 1].reshape(33, 47) == other).all()


@pytest.mark.parametrize("depth", [1, 5, 1024, 1025])
def test_small_products_over_leading_dimensions(depth: int) -> None:
    a, b = np.full((4, 1, 2, depth), -128, np.int8), np.full((1, 3, 5, depth), -128, np.int8)
    for bias in (None, np.arange(5, dtype=np.int32), np.full(5, 2**31 - 1, np.int32)):
        p = MATMUL.params()
        want = intsim.run("matmul.integer", a, b, bias, p=p, backend="reference")
        assert want.shape == (4, 3, 2, 5)
        assert (intsim.run("matmul.integer", a, b, bias, p=p) == want).all()
        assert (intsim.run("matmul.integer", a, b, bias, p=p, tuned=False) == want).all()


@pytest.mark.compiled
def test_every_storage_type_has_a_kernel_of_its_own_when_arrays_are_large() -> None:
    acc = LARGE.integers(-(2**31), 2**31, (700, 90)).astype(np.int32)
    for dtype in (int8, uint8, intsim.int16, intsim.int32, intsim.unlimited):
        p = REQUANTIZE(2**30 + 12345, 40, dtype=dtype)
        assert (
            intsim.run("requantize.single_rounding", acc, p=p)
            == intsim.run("requantize.single_rounding", acc, p=p, backend="reference")
        ).all()


@pytest.mark.compiled
def test_concurrent_callers_get_their_own_results() -> None:
    acc = LARGE.integers(-(2**31), 2**31, (400, 200)).astype(np.int32)
    shifts = list(range(30, 46))
    want = [
        intsim.run("requantize.single_rounding", acc, p=REQUANTIZE(2**30 + 7, s), backend="reference") for s in shifts
    ]
    with ThreadPoolExecutor(4) as pool:
        got = list(
            pool.map(lambda s: intsim.run("requantize.single_rounding", acc, p=REQUANTIZE(2**30 + 7, s)), shifts)
        )
    assert all((g == w).all() for g, w in zip(got, want, strict=True))


@pytest.mark.compiled
@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_forked_child_can_run() -> None:
    acc = LARGE.integers(-(2**31), 2**31, (400, 200)).astype(np.int32)
    p = REQUANTIZE(2**30 + 7, 40)
    want = intsim.run("requantize.single_rounding", acc, p=p)
    child = os.fork()
    if child == 0:
        os._exit(0 if (intsim.run("requantize.single_rounding", acc, p=p) == want).all() else 1)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0


@pytest.mark.parametrize("types", [(int8, int8), (uint8, int8), (IntType(16), int8)])
def test_stacked_products_are_products_of_their_own(types: tuple[IntType, IntType], monkeypatch: Any) -> None:
    from intsim.ops.matmul import _cpu_blas

    monkeypatch.setattr(_cpu_blas, "STACK", 2000)  # several pieces along the stack
    a_type, b_type = types
    generator = np.random.default_rng(11)
    a = generator.integers(a_type.qmin, a_type.qmax + 1, (3, 1, 5, 1200)).astype(a_type.storage)
    b = generator.integers(b_type.qmin, b_type.qmax + 1, (4, 7, 1200)).astype(b_type.storage)
    bias = generator.integers(-(2**31), 2**31, (3, 1, 7)).astype(np.int32)
    p = MATMUL.params(a_type.qmin // 2, [1, -2, 0, 7, -128, 5, 127], a=a_type, b=b_type)
    got = intsim.run(MATMUL, a, b, bias, p=p)
    assert got.shape == (3, 4, 5, 7)
    for i in range(3):
        for j in range(4):
            (want,) = reference(MATMUL, a[i, 0], b[j], bias[i, 0], p=p, exact=False)
            assert (got[i, j] == want).all()
    assert intsim.run(MATMUL, a[:0], b, p=p).shape == (0, 4, 5, 7)

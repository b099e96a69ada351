"""Row programs shared out among the lanes of a warp or a block: which can be, and that they give the same bits."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from conftest import SIMULATED

if not SIMULATED:
    pytest.skip("runs kernels on the simulator; the uncompiled job does", allow_module_level=True)

import intsim
from intsim.backends import cuda, cuda_joins
from intsim.backends.cuda_lanes import shared_out
from intsim.op import Op, Rowwise
from intsim.oracle import cases, selftest
from intsim.registry import all_ops, get

ROWWISE = [op for op in all_ops() if isinstance(op.program, Rowwise)]
# They count the places that they have filled, and where an element goes depends on the count.
BY_A_THREAD = {"columns.back", "columns.to_front"}


@pytest.mark.parametrize("op", ROWWISE, ids=lambda op: op.name)
def test_which_programs_are_shared_out(op: Op) -> None:
    assert (shared_out(op.program.row, cuda_joins.of_warp()) is None) == (op.name in BY_A_THREAD)


def long_rows(op: Op) -> Any:
    """A case of the op with 2 rows of 70 elements, or so."""
    made = (selftest.enlarged(case, (2, 70, 3, 35, 33)) for case in cases.directed(op))
    return next(case for case in made if case is not None)


@pytest.mark.parametrize(
    "name",
    [
        "softmax.ibert",  # another function does the row
        "softmax.itapartialmax",  # loops inside a loop over groups
        "propagate.polynomial",  # writes in one pass what it reads in the next
        "layernorm.rmsnorm",  # a sum that does not begin with 0
        "quantize.dynamic_asymmetric_unguarded",  # loops inside a condition, maxima too
        "quantize.deepspeed",  # a minimum and a maximum in one assignment
        "softmax.float32_table",  # a sum of floats, which stays in order
        "reduce.argmax",
    ],
)
def test_a_warp_gives_the_bits_of_a_thread(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    by_lanes(get(name), cuda_joins.WARP, monkeypatch)


def test_a_block_gives_the_bits_of_a_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (cuda, cuda_joins):
        monkeypatch.setattr(module, "BLOCK", 64)
    made_before = cuda.device_kernel, cuda._shared, cuda_joins.of_block
    for made in made_before:
        made.cache_clear()
    by_lanes(get("layernorm.l1"), 64, monkeypatch)
    for made in made_before:
        made.cache_clear()


def by_lanes(op: Op, lanes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    case = long_rows(op)
    monkeypatch.setattr(cuda, "lanes_a_row", lambda *_: lanes)
    got = intsim.prepare(op, p=case.params, backend="cuda", tuned=False).outputs(*map(intsim.to_device, case.inputs))
    for port, a, wanted in zip(op.outputs, got, case.wanted, strict=True):
        assert np.array_equal(np.asarray(a), wanted), port.name


def test_how_many_lanes_a_row_has() -> None:
    class Gpu:
        simulated, multiprocessors = False, 132

    class Array:
        def __init__(self, *shape: int) -> None:
            self.shape = shape

    op = get("softmax.ibert")
    for rows, length, lanes in [(4096, 31, 1), (4096, 128, 32), (100, 4096, 256), (70_000, 4096, 32), (100, 2047, 32)]:
        x = Array(rows, length), Array(rows)
        assert cuda.lanes_a_row(op.program, x, (Array(rows, length),), Gpu()) == lanes
    x = (Array(100, 4096),)
    for program in (Rowwise(product), get("requantize.power_of_two").program):
        assert cuda.lanes_a_row(program, x, (Array(100, 4096),), Gpu()) == 1
    assert cuda.by_lanes(Array(9, 1), 32) == ((3,), (128,))
    assert cuda.by_lanes(Array(9, 1), 256) == ((9,), (256,))


# -- what is not shared out ------------------------------------------------------------------------


def product(i: Any, x: Any, out: Any, p: Any) -> None:
    total = np.int64(1)
    for j in range(x.q.shape[1]):
        total *= np.int64(x.q[i, j])
    out.y[i] = total


def both_ways(i: Any, x: Any, out: Any, p: Any) -> None:
    top = np.int64(0)
    for j in range(x.q.shape[1]):
        top += 1
        top = max(top, np.int64(x.q[i, j]))
    out.y[i] = top


def prefixes(i: Any, x: Any, out: Any, p: Any) -> None:
    total = np.int64(0)
    for j in range(x.q.shape[1]):
        total += np.int64(x.q[i, j])
        out.y[i, j] = total


def of_its_neighbour(i: Any, x: Any, out: Any, p: Any) -> None:
    for j in range(1, x.q.shape[1]):
        out.y[i, j] = out.y[i, j - 1] + np.int64(x.q[i, j])


def one_place(i: Any, x: Any, out: Any, p: Any) -> None:
    for j in range(x.q.shape[1]):
        out.y[i, 0] = np.int64(x.q[i, j])


def of_the_last_turn(i: Any, x: Any, out: Any, p: Any) -> None:
    last = np.int64(0)
    for j in range(x.q.shape[1]):
        last = np.int64(x.q[i, j])
    out.y[i] = last


def the_first_that_is_0(i: Any, x: Any, out: Any, p: Any) -> None:
    total = np.int64(0)
    for j in range(x.q.shape[1]):
        if x.q[i, j] == 0:
            break
        total += 1
    out.y[i] = total


def in_steps(i: Any, x: Any, out: Any, p: Any) -> None:
    total = np.int64(0)
    for j in range(0, x.q.shape[1], 2):
        total += np.int64(x.q[i, j])
    out.y[i] = total


def swapped(i: Any, x: Any, out: Any, p: Any) -> None:
    a, b = np.int64(0), np.int64(1)
    for _ in range(x.q.shape[1]):
        a, b = b, a
    out.y[i] = a


def added_to_the_rest(i: Any, x: Any, out: Any, p: Any) -> None:
    total = np.int64(0)
    for j in range(x.q.shape[1]):
        total = max(np.int64(x.q[i, j]) - total, total)
    out.y[i] = total


@pytest.mark.parametrize(
    "row",
    [
        product,
        both_ways,
        prefixes,
        of_its_neighbour,
        one_place,
        of_the_last_turn,
        the_first_that_is_0,
        in_steps,
        swapped,
        added_to_the_rest,
    ],
)
def test_what_an_order_could_change_stays_in_order(row: Any) -> None:
    assert shared_out(row, cuda_joins.of_warp()) is None


def total(i: Any, x: Any, out: Any, p: Any) -> None:
    made = np.int64(0)
    for j in range(x.q.shape[1]):
        made += np.int64(x.q[i, j])
    out.y[i] = made


@pytest.mark.parametrize(
    ("words", "others"),
    [
        ("made += np", "made -= np"),
        ("made = np.int64(0)", "made = np.int64(1)"),
        ("def total(", "def to("),
        ("def", "("),
    ],
)
def test_a_file_that_has_changed_since_is_left_alone(words: str, others: str, monkeypatch: pytest.MonkeyPatch) -> None:
    changed = Path(__file__).read_text().replace(words, others)
    assert shared_out(total, cuda_joins.of_warp()) is not None
    monkeypatch.setattr(Path, "read_text", lambda _: changed)
    assert shared_out(total, cuda_joins.of_warp()) is None

"""Work shared out to threads: every part once, errors where the caller sees them, callers independent."""

from __future__ import annotations

import threading
import time

import pytest

from intsim.backends import cpu

MUCH = 1 << 30


@pytest.mark.parametrize("count", [1, 2, 3, 7, 1000])
def test_every_index_is_done_once(count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpu, "THREADS", 3)
    done = [0] * count

    def part(first: int, last: int) -> None:
        for i in range(first, last):
            done[i] += 1

    cpu.shared_out(part, count, MUCH)
    assert done == [1] * count


def test_an_error_in_a_part_reaches_the_caller(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpu, "THREADS", 2)

    def part(first: int, last: int) -> None:
        if first == 0:
            raise ArithmeticError("in a part")

    with pytest.raises(ArithmeticError, match="in a part"):
        cpu.shared_out(part, 100, MUCH)


def test_a_part_shares_nothing_out_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpu, "THREADS", 2)
    threads: list[tuple[str, str]] = []

    def part(first: int, last: int) -> None:
        outer = threading.current_thread().name
        cpu.shared_out(lambda a, b: threads.append((outer, threading.current_thread().name)), 1000, MUCH)

    cpu.shared_out(part, 8, MUCH)
    assert threads
    assert all(outer == inner for outer, inner in threads)
    assert len(threads) == 4, "one call a part"
    inner: list[int] = []
    cpu.shared_out(lambda first, last: inner.append(first), 8, MUCH)
    assert len(inner) == 4, "the mark is gone: work is shared out again"


def test_a_caller_finishes_alone_where_no_helper_comes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpu, "THREADS", 2)
    release, busy = threading.Event(), threading.Event()

    def block() -> None:
        busy.set()
        assert release.wait(60)

    cpu._helpers.cache_clear()
    cpu._helpers(2).put(_Blocks(block))  # type: ignore[arg-type]
    assert busy.wait(60)
    seen: list[str] = []
    cpu.shared_out(lambda first, last: seen.append(threading.current_thread().name), 4, MUCH)
    release.set()
    assert seen == [threading.current_thread().name] * 4


class _Blocks:
    def __init__(self, block: object) -> None:
        self.help = block


def test_callers_at_once_do_not_wait_for_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpu, "THREADS", 2)
    totals: dict[int, int] = {}

    def call(name: int) -> None:
        for _ in range(20):
            lock, parts = threading.Lock(), []

            def part(first: int, last: int, lock: threading.Lock = lock, parts: list[int] = parts) -> None:
                time.sleep(0)
                with lock:
                    parts.append(last - first)

            cpu.shared_out(part, 50, MUCH)
            totals[name] = totals.get(name, 0) + sum(parts)

    callers = [threading.Thread(target=call, args=(name,)) for name in range(6)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join(60)
    assert totals == dict.fromkeys(range(6), 1000)

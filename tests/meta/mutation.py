"""A mutation run: breaks one constant or one rule at a time, and asks whether anything notices.

    python tests/meta/mutation.py                      every file of intsim/ops and intsim/scalar
    python tests/meta/mutation.py softmax requantize   only files whose path holds one of these words
    python tests/meta/mutation.py --kind rule          only mutants of this kind (may be given again)
    python tests/meta/mutation.py --part arithmetic    only of this part (may be given again)
    python tests/meta/mutation.py --judge systems      judged by what the installed systems computed, not by golden

A mutant lives in a forked process and never on disk. What judges it follows from what it can reach:

- arithmetic (the spec or the program of some op goes through it): the golden outputs of those ops, then of
  the composites made of them, replayed on spec and program, uncompiled; then the property tests: those of
  the scalar functions, and drawn calls of the op on spec and program. With ``--judge systems``: the rows
  of the installed wheels that those ops state, each system run once and its outputs kept.
- a builder (host code that makes parameters or tables): the calls that the op states must still be those of
  its golden file, and stay within the bound of its oracle.
- a tuned kernel: drawn calls that it serves, against the spec. One for a GPU is not run: the selftest judges it there.
- a bound (limits, sizes, laws, oracles) reaches no result and is not run.

A mutant is *killed* where something differs, raises, or does not end. Survivors that cannot be told apart
are stated with their reason in ``equivalent.toml``; the run reports every other one of arithmetic, and each
entry there that is killed or gone. Exit code 1 where there is such a one.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.abc
import importlib.util
import multiprocessing
import os
import resource
import sys
import time
import tomllib
import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

os.environ["NUMBA_DISABLE_JIT"] = "1"
import click
import judges
from mutants import ROOT, Mutant, composites_of, files, module_of, modules, mutants, op_name, role

sys.path.insert(0, str(ROOT))
STATED = Path(__file__).with_name("equivalent.toml")
SECONDS = 8, 25  # of processor time for a mutant of one op, of many: one that loops for ever is noticed too
MANY = 12  # ops beyond which a change is a shared function's
MEMORY = 6 * 2**30  # bytes of addresses: one that grows for ever too
KINDS = ("rule", "constant", "comparison", "operator", "call")
PARTS = ("arithmetic", "builder", "tuned")

Found = tuple[Mutant, str, str]  # mutant, role, what noticed it: empty where it survived


class _Finder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Gives one module its mutated source."""

    def __init__(self, mutant: Mutant) -> None:
        self.name = module_of(mutant.file)
        self.mutant = mutant

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> Any:
        if name != self.name:
            return None
        package = [str((ROOT / self.mutant.file).parent)] if self.mutant.file.endswith("__init__.py") else None
        return importlib.util.spec_from_file_location(
            name,
            ROOT / self.mutant.file,
            loader=self,
            submodule_search_locations=package,
        )

    def create_module(self, spec: Any) -> None:
        return None

    def exec_module(self, module: Any) -> None:
        exec(compile(self.mutant.source, self.mutant.file, "exec"), module.__dict__)


def forked(work: Callable[[], Any], *, seconds: int = 0) -> Any:
    """What ``work`` gives in a process of its own; None where it dies or leaves its limits."""
    context = multiprocessing.get_context("fork")
    mine, theirs = context.Pipe(duplex=False)

    def child() -> None:
        if seconds:
            resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds))
            resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
            resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        theirs.send(work())

    process = context.Process(target=child)
    process.start()
    theirs.close()
    try:
        return mine.recv()
    except EOFError:
        return None
    finally:
        process.join()


def judged(mutant: Mutant, judge: Callable[[], str]) -> str:
    """What noticed the mutant. Runs in a process of its own."""
    sys.stdout = sys.stderr = Path(os.devnull).open("w")  # noqa: SIM115  # a mutant may say much
    sys.meta_path.insert(0, _Finder(mutant))
    warnings.simplefilter("ignore")
    try:
        return judge()
    except Exception as error:  # a mutant that raises is noticed
        return type(error).__name__


def _needing(module: str) -> frozenset[str]:
    """``module`` and all that import it, directly or not."""
    users = {module}
    while more := {m.name for m in modules().values() if {w for w, _ in m.imports.values()} & users} - users:
        users |= more
    return frozenset(users)


def run_file(file: str, made: Sequence[Mutant], judge: str) -> list[Found]:
    """Judges the mutants of one file, in a process that has loaded all that none of them changes."""
    module = module_of(file)
    needing = _needing(module)
    for name in sorted(m for m in modules() if m.startswith("intsim.scalar.") and m not in needing):
        importlib.import_module(name)
    importlib.import_module("intsim.oracle.golden")
    assert module not in sys.modules, "imported before it can be mutated"
    kept: dict[str, list[bytes]] = {}
    found: list[Found] = []
    for index, mutant in enumerate(made):
        if index % 20 == 0 and index:
            click.echo(f"{file}: {index} of {len(made)}", err=True)
        part, ops = role((module, mutant.where))
        ops = tuple(sorted(ops, key=lambda op: (op != op_name(module), judges.size(op))))
        wider = (*ops, *dict.fromkeys(c for op in ops for c in composites_of(op) if c not in ops))
        if judge == "systems":
            for op in wider:
                if op not in kept:
                    kept[op] = forked(partial(judges.record, op)) or []
            rows = [row for op in wider for row in kept[op]]
            if part != "arithmetic" or not rows:
                continue
            work = partial(judges.systems, rows)
        elif part == "arithmetic":
            scalar = (module, mutant.where) if file.startswith("intsim/scalar") else None
            work = partial(judges.arithmetic, wider, ops[:MANY], scalar)
        elif part in ("builder", "tuned"):
            work = partial(judges.builders if part == "builder" else judges.tuned, ops)
        else:
            continue
        noticed = forked(partial(judged, mutant, work), seconds=SECONDS[len(wider) > MANY])
        found.append((mutant, part, "limits" if noticed is None else noticed))
    return found


def stated() -> dict[tuple[str, str, str], str]:
    """The mutants that cannot be told apart, with the reason."""
    listed = tomllib.loads(STATED.read_text()).get("equivalent", [])
    return {(e["file"], *m.split(": ", 1)): e["reason"] for e in listed for m in e["mutants"]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("words", nargs="*")
    parser.add_argument("--judge", choices=("golden", "systems"), default="golden")
    parser.add_argument("--kind", choices=KINDS, action="append")
    parser.add_argument("--part", choices=PARTS, action="append")
    parser.add_argument("--every", type=int, default=1, help="only every n-th mutant of a file")
    parser.add_argument("--all", action="store_true", help="list the survivors outside arithmetic too")
    given = parser.parse_args()
    chosen = [f for f in files() if not given.words or any(w in f for w in given.words)]
    kinds, parts = tuple(given.kind or KINDS), tuple(given.part or PARTS)
    importlib.import_module("numba")
    assert not any(name.startswith("intsim") for name in sys.modules), "imported before it can be mutated"
    start = time.perf_counter()
    known, score, gone, unexplained, seen = stated(), Counter[tuple[str, str, str]](), 0, 0, set()
    for file in chosen:
        made = [m for m in mutants(file) if m.kind in kinds and role((module_of(file), m.where))[0] in parts]
        made = made[:: given.every]
        seen |= {m.key for m in mutants(file)}
        if not made:
            continue
        found: list[Found] | None = forked(partial(run_file, file, made, given.judge))
        if found is None:
            raise SystemExit(f"{file}: the run broke off")
        if found:
            click.echo(f"{file}: {sum(bool(n) for _, _, n in found)} of {len(found)} killed")
        for mutant, part, noticed in found:
            reason = known.get(mutant.key)
            word = "killed" if noticed else "stated" if reason else "survived"
            if noticed.startswith(("drawn", "primitives")):
                word = "property"
            score[part, mutant.kind, word] += 1
            if word == "property" and mutant.kind == "rule":
                click.echo(f"    no golden output, only {noticed} ({mutant.kind}): line {mutant.line}: {mutant.change}")
                click.echo(f"        {mutant.where}: {mutant.shown}")
            if word == "survived":
                unexplained += part == "arithmetic"
                if part == "arithmetic" or given.all:
                    click.echo(f"    survived ({part}, {mutant.kind}): line {mutant.line}: {mutant.change}")
                    click.echo(f"        {mutant.where}: {mutant.shown}")
            if noticed and reason and given.judge == "golden":
                gone += 1
                click.echo(f"    killed by {noticed}, but stated as equivalent: {mutant.where}: {mutant.shown}")
    for key in known:
        if key[0] in chosen and key not in seen:
            gone += 1
            click.echo(f"{key[0]}: there is no such mutant: {key[1]}: {key[2]}")
    click.echo(_table(score, given.judge, time.perf_counter() - start))
    sys.exit(1 if unexplained or gone else 0)


def _table(score: Counter[tuple[str, str, str]], judge: str, seconds: float) -> str:
    lines = [
        f"\njudged by {judge} ({seconds:.0f} s)",
        f"{'':24}{'golden':>8}{'property':>10}{'stated':>8}{'survived':>10}",
    ]
    for part in PARTS:
        for kind in KINDS:
            row = [score[part, kind, word] for word in ("killed", "property", "stated", "survived")]
            if any(row):
                lines.append(f"{part:12}{kind:12}{row[0]:8}{row[1]:10}{row[2]:8}{row[3]:10}")
    return "\n".join(lines)


if __name__ == "__main__":
    main()

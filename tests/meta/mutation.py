"""A mutation run: breaks one constant or one rule at a time, and asks whether anything notices.

    python tests/meta/mutation.py                      every file of intsim/ops and intsim/scalar
    python tests/meta/mutation.py softmax requantize   only files whose path holds one of these words
    python tests/meta/mutation.py --judge systems      only what the published systems notice

A mutant lives in a forked process and never on disk. It is judged by what the repository holds: the
golden outputs replayed on the spec and on the program (uncompiled), then the rows of the installed
systems that the mutated variant states. A mutant is *killed* where one of them differs or raises.
"""

from __future__ import annotations

import argparse
import ast
import importlib.abc
import importlib.util
import multiprocessing
import os
import sys
import time
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

os.environ["NUMBA_DISABLE_JIT"] = "1"
ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))
FOLDERS = ("intsim/ops", "intsim/scalar")
NOT_ARITHMETIC = {"examples", "OP", "LAWS", "__all__"}  # what only describes an op
LIMIT = 60  # seconds for one mutant: one that loops for ever is noticed too

COMPARE = {ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq}
ARITHMETIC = {ast.Add: ast.Sub, ast.Sub: ast.Add, ast.RShift: ast.LShift, ast.BitAnd: ast.BitOr}
CALLS = {"minimum": "maximum", "maximum": "minimum", "min": "max", "max": "min"}
RULES = {
    "TOWARD_NEGATIVE": "TOWARD_ZERO",
    "TOWARD_ZERO": "TOWARD_NEGATIVE",
    "TIES_TO_POSITIVE": "TIES_TO_AWAY",
    "TIES_TO_AWAY": "TIES_TO_EVEN",
    "TIES_TO_EVEN": "TIES_TO_AWAY",
    "TIES_TO_NEGATIVE": "TIES_TO_EVEN",
    "WRAP": "SATURATE",
    "SATURATE": "WRAP",
    "FIRST": "LAST",
    "LAST": "FIRST",
}


@dataclass(frozen=True)
class Mutant:
    """One change of one file. kind: constant, rule, comparison, operator, call."""

    file: str
    line: int
    kind: str
    text: str
    source: str


def changes(node: ast.AST) -> Iterator[tuple[str, str, ast.AST]]:
    """(kind, what changes, the node to put in its place)."""
    match node:
        case ast.Constant(value=bool() | str() | float() | None):
            return
        case ast.Constant(value=int() as n):
            yield "constant", f"{n} -> {n + 1}", ast.Constant(n + 1)
            if n > 1:
                yield "constant", f"{n} -> {n - 1}", ast.Constant(n - 1)
        case ast.Attribute(attr=name) if name in RULES:
            yield "rule", f"{name} -> {RULES[name]}", ast.Attribute(node.value, RULES[name], node.ctx)
        case ast.Attribute(attr=name) if name in CALLS:
            yield "call", f"{name} -> {CALLS[name]}", ast.Attribute(node.value, CALLS[name], node.ctx)
        case ast.Name(id=name) if name in CALLS:
            yield "call", f"{name} -> {CALLS[name]}", ast.Name(CALLS[name], node.ctx)
        case ast.Compare(ops=[op]) if type(op) in COMPARE:
            other = COMPARE[type(op)]
            text = f"{type(op).__name__} -> {other.__name__}"
            yield "comparison", text, ast.Compare(node.left, [other()], node.comparators)
        case ast.BinOp(op=op) if type(op) in ARITHMETIC:
            other = ARITHMETIC[type(op)]
            yield "operator", f"{type(op).__name__} -> {other.__name__}", ast.BinOp(node.left, other(), node.right)


def _arithmetic(tree: ast.Module) -> Iterator[ast.AST]:
    """The nodes of what computes: functions and module constants, without what describes the op."""
    for statement in tree.body:
        match statement:
            case ast.FunctionDef(name=name) if name not in NOT_ARITHMETIC:
                for inner in statement.body:
                    yield from ast.walk(inner)
            case ast.Assign(targets=[ast.Name(id=name)]) if name not in NOT_ARITHMETIC:
                yield from ast.walk(statement.value)
            case ast.AnnAssign(target=ast.Name(id=name), value=ast.AST() as value) if name not in NOT_ARITHMETIC:
                yield from ast.walk(value)


class _Replace(ast.NodeTransformer):
    def __init__(self, old: ast.AST, new: ast.AST) -> None:
        self.old, self.new = old, new

    def generic_visit(self, node: ast.AST) -> ast.AST:
        if node is self.old:
            return ast.copy_location(self.new, node)
        return super().generic_visit(node)

    visit = generic_visit


def mutants(file: Path) -> list[Mutant]:
    """Every mutant of one file."""
    text = file.read_text()
    made = []
    count = len(list(_arithmetic(ast.parse(text))))
    for index in range(count):
        for change in range(2):
            tree = ast.parse(text)
            node = list(_arithmetic(tree))[index]
            options = list(changes(node))
            if change >= len(options):
                break
            kind, what, new = options[change]
            source = ast.unparse(ast.fix_missing_locations(_Replace(node, new).visit(tree)))
            made.append(Mutant(str(file.relative_to(ROOT)), getattr(node, "lineno", 0), kind, what, source))
    return made


class _Finder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Gives one module its mutated source."""

    def __init__(self, mutant: Mutant) -> None:
        self.name = mutant.file.removesuffix(".py").replace("/", ".")
        self.mutant = mutant

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> Any:
        if name != self.name:
            return None
        return importlib.util.spec_from_file_location(name, ROOT / self.mutant.file, loader=self)  # type: ignore[arg-type]

    def create_module(self, spec: Any) -> None:
        return None

    def exec_module(self, module: Any) -> None:
        exec(compile(self.mutant.source, self.mutant.file, "exec"), module.__dict__)


def _golden(ops: Sequence[str]) -> str:
    from intsim import registry
    from intsim.execute import Prepared
    from intsim.oracle import golden

    for name in ops:
        op = registry.get(name)
        for case in golden.cases(op):
            assert case.expected is not None
            for backend in ("reference", "cpu"):
                got = Prepared(op, case.params, backend, tuned=False).outputs(*case.inputs)
                if any(a.tobytes() != b.tobytes() for a, b in zip(got, case.expected, strict=True)):
                    return f"golden, {backend}"
    return ""


def _systems(ops: Sequence[str]) -> str:
    from intsim.oracle import judge
    from intsim.oracle.adapter import load, system, systems

    for name in systems():
        if system(name).runs != "wheel":
            continue
        for profile in system(name).profiles or ("",):
            adapter = load(name, profile or None)
            served = sorted({c.op for c in adapter.capabilities()} & set(ops))
            if served and judge.check(adapter, ops=served).exit_code:
                return f"{name} {profile}".strip()
    return ""


def names() -> list[str]:
    """The ops, from their files: what imports a variant here would keep it from being mutated."""
    found = [f for home in ("ops", "composites") for f in (ROOT / "intsim" / home).glob("*/*.py")]
    return sorted(f"{f.parent.name}.{f.stem}" for f in found if not f.name.startswith("_"))


def users(file: str) -> list[str]:
    """The ops whose golden outputs a change of ``file`` can reach: its own, or for a shared module all of them."""
    own = file.removesuffix(".py").removeprefix("intsim/ops/").replace("/", ".")
    if own in names():
        return [own]
    family = own.split(".")[0]
    return [n for n in names() if n.startswith(f"{family}.")] or names()


def judged(mutant: Mutant, ops: Sequence[str], by: Sequence[str]) -> str:
    """What noticed the mutant; empty where it survived. Runs in a process of its own."""
    sys.meta_path.insert(0, _Finder(mutant))
    warnings.simplefilter("ignore")
    try:
        return (_golden(ops) if "golden" in by else "") or (_systems(ops) if "systems" in by else "")
    except Exception as error:  # a mutant that raises is noticed
        return type(error).__name__


def _child(mutant: Mutant, ops: Sequence[str], by: Sequence[str], pipe: Any) -> None:
    sys.stdout = sys.stderr = Path(os.devnull).open("w")  # noqa: SIM115  # a mutant may say much
    pipe.send(judged(mutant, ops, by))


def notice(mutant: Mutant, ops: Sequence[str], by: Sequence[str]) -> str:
    """``judged`` in a forked process, under a time limit."""
    context = multiprocessing.get_context("fork")
    mine, theirs = context.Pipe()
    process = context.Process(target=_child, args=(mutant, ops, by, theirs))
    process.start()
    theirs.close()
    try:
        found = mine.recv() if mine.poll(LIMIT) else "time"
    except EOFError:
        found = "crash"
    process.kill()
    process.join()
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("words", nargs="*")
    parser.add_argument("--judge", choices=("golden", "systems", "both"), default="both")
    parser.add_argument("--every", type=int, default=1, help="only every n-th mutant of a file")
    given = parser.parse_args()
    by = ("golden", "systems") if given.judge == "both" else (given.judge,)
    files = [f for folder in FOLDERS for f in sorted((ROOT / folder).rglob("*.py")) if f.name != "__init__.py"]
    files = [f for f in files if not given.words or any(w in str(f) for w in given.words)]
    _preload(by)
    total: Counter[str] = Counter()
    start = time.perf_counter()
    for file in files:
        made = mutants(file)[:: given.every]
        ops = users(str(file.relative_to(ROOT)))
        survived = []
        for mutant in made:
            found = notice(mutant, ops, by)
            total[found or "survived"] += 1
            if not found:
                survived.append(mutant)
        click.echo(f"{file.relative_to(ROOT)}: {len(made) - len(survived)} of {len(made)} killed")
        for mutant in survived:
            click.echo(f"    survived: line {mutant.line}, {mutant.kind} {mutant.text}")
    count = sum(total.values())
    click.echo(f"\n{count - total['survived']} of {count} killed ({time.perf_counter() - start:.0f} s)")
    for name, n in total.most_common():
        click.echo(f"    {n:6} {name}")


def _preload(by: Sequence[str]) -> None:
    """What no mutant changes is imported once, before the forks."""
    import numba  # noqa: F401
    import numpy  # noqa: F401

    assert not any(name.startswith("intsim") for name in sys.modules), "imported before it can be mutated"
    if "systems" in by:
        for package in ("onnxruntime", "onnx", "torch", "transformers", "qonnx"):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                try:
                    importlib.import_module(package)
                except ImportError:
                    click.echo(f"{package} is not installed: its rows notice nothing")


if __name__ == "__main__":
    main()

"""What judges a mutant: golden outputs, stated calls, and what published systems computed.

Everything of intsim is imported inside the functions: a module must not be loaded before it is mutated.
"""

from __future__ import annotations

import ast
import pickle
import warnings
from collections.abc import Sequence
from functools import cache
from typing import Any

from mutants import ROOT, closure, modules

DRAWN = 40  # pseudorandom calls an op
DEEP = 5001  # terms of a product: beyond what float32 sums exactly
SMALL = 512  # input elements up to which a program runs uncompiled on a system's case


@cache
def size(op: str) -> int:
    """Bytes of the golden file: what is small is replayed first."""
    family, variant = op.split(".")
    return sum(f.stat().st_size for f in (ROOT / "reference_outputs" / family).glob(f"{variant}-v*.json"))


def _work(case: Any) -> int:
    return sum(a.size for a in case.inputs)


def _differ(got: Sequence[Any], wanted: Sequence[Any]) -> bool:
    return any(a.tobytes() != b.tobytes() or a.dtype != b.dtype for a, b in zip(got, wanted, strict=True))


def arithmetic(ops: Sequence[str], drawn_for: Sequence[str], scalar: tuple[str, str] | None) -> str:
    """Golden outputs, then property tests: of a ``scalar`` function (module, name), then drawn calls."""
    return golden(ops) or (primitives(*scalar) if scalar else "") or drawn(drawn_for)


def golden(ops: Sequence[str]) -> str:
    """The golden outputs of ``ops`` on the spec and the program."""
    from intsim import registry
    from intsim.execute import Prepared
    from intsim.oracle import golden

    for name in ops:
        op = registry.get(name)
        for case in sorted(golden.cases(op), key=_work):
            assert case.expected is not None
            for backend in ("reference", "cpu"):
                if _differ(Prepared(op, case.params, backend, tuned=False).outputs(*case.inputs), case.expected):
                    return f"golden {name}, {backend}"
    return ""


def drawn(ops: Sequence[str]) -> str:
    """Pseudorandom calls of ``ops``: the spec against the program."""
    from intsim import registry
    from intsim.execute import Prepared
    from intsim.oracle import cases

    for name in ops:
        op = registry.get(name)
        for case in cases.random(op, DRAWN, seed="mutation", longest=5):
            spec = Prepared(op, case.params, "reference", tuned=False).outputs(*case.inputs)
            if _differ(Prepared(op, case.params, "cpu", tuned=False).outputs(*case.inputs), spec):
                return f"drawn {name}"
    return ""


PRIMITIVES = ("primitives", "ieee", "fixed_point", "scale")


def _names(function: ast.FunctionDef) -> set[str]:
    """The names, attributes and whole texts in a function: some name by its text what they call."""
    walk = list(ast.walk(function))
    named = {n.attr for n in walk if isinstance(n, ast.Attribute)} | {n.id for n in walk if isinstance(n, ast.Name)}
    return named | {n.value for n in walk if isinstance(n, ast.Constant) and isinstance(n.value, str)}


def primitives(module: str, where: str) -> str:
    """The tests of the scalar functions that go through ``where``: against the spec's, fractions and NumPy's floats."""
    import pytest

    reaching = {name for name in modules()[module].defined if (module, where) in closure([(module, name)])}
    chosen = []
    for subject in PRIMITIVES:
        file = ROOT / "tests" / f"test_{subject}.py"
        body = ast.parse(file.read_text()).body
        names = {f.name: _names(f) for f in body if isinstance(f, ast.FunctionDef)}
        for name in [n for n in names if n.startswith("test_")]:
            named = names[name]
            if (named | {n for helper in named & set(names) for n in names[helper]}) & reaching:
                chosen.append(f"{file}::{name}")
    options = [
        "-q",
        "-x",
        "-n",
        "0",
        "-p",
        "no:cacheprovider",
        "--assert=plain",  # rewriting warns of what is loaded already, and a warning is no verdict
        "--rootdir",
        str(ROOT),
        "-c",
        str(ROOT / "pyproject.toml"),
    ]
    return "primitives" if chosen and pytest.main([*options, *chosen]) == pytest.ExitCode.TESTS_FAILED else ""


def builders(ops: Sequence[str]) -> str:
    """The calls that ``ops`` state against those of their golden files; then the bounds of their oracles."""
    import numpy as np

    from intsim import registry
    from intsim.execute import reference
    from intsim.oracle import cases, golden

    for name in ops:
        op = registry.get(name)
        written = {case.id: case for case in golden.cases(op)}
        for case in cases.directed(op):
            there = written[case.id]
            same = golden.encode_params(case.params) == golden.encode_params(there.params)
            if not same or _differ(case.inputs, there.inputs):
                return f"stated calls of {name}"
        if op.oracle is None:
            continue
        for scale in np.geomspace(*op.oracle.scales, 7):
            p = op.oracle.params(float(scale))
            for case in cases.random(op, 2, longest=8, only=_held(p)):
                out = reference(op, *case.inputs, p=p)
                real = op.oracle.real(*(a.astype(np.float64) for a in case.inputs), p=p)
                value = op.oracle.value(*(a.astype(np.float64) for a in out), p=p)
                if not np.abs(value - real).max(initial=0.0) <= op.oracle.bound(p):
                    return f"bound of {name}"
    return ""


def _held(p: Any) -> dict[str, Any]:
    """The types of ``p``: inputs drawn for other parameters of the same types are inputs for it."""
    from intsim.params import Choice, kinds

    return {name: [getattr(p, name)] for name, kind in kinds(p).items() if isinstance(kind, Choice)}


def tuned(ops: Sequence[str]) -> str:
    """Drawn calls on the tuned kernels against the spec, small and larger than the kernels' thresholds."""
    import numpy as np

    from intsim import registry
    from intsim.execute import Prepared
    from intsim.op import Contraction
    from intsim.oracle import cases

    for name in ops:
        op = registry.get(name)
        over = {op.program.over: (DEEP,)} if isinstance(op.program, Contraction) else {}
        for longest, only in ((40, {}), (9, over)):
            for case in cases.random(op, 16, longest=longest, only=only):
                spec = Prepared(op, case.params, "reference", tuned=False)
                fast = Prepared(op, case.params, "cpu", tuned=True)
                inputs = tuple(np.full_like(a, a.max()) for a in case.inputs) if only else case.inputs
                stacked = tuple(np.stack([a, np.flip(a, 0)]) for a in inputs)
                for leading in (False, True):
                    if any(t.serves(case.params, _sizes(case)) for t in op.tuned if t.leading == leading):
                        given = stacked if leading else inputs
                        if _differ(fast.outputs(*given), spec.outputs(*given)):
                            return f"tuned {name}"
    return ""


def _sizes(case: Any) -> dict[str, int]:
    return {
        d: n
        for port, a in zip(case.op.inputs, case.inputs, strict=True)
        for d, n in zip(port.core, a.shape[a.ndim - len(port.core) :], strict=True)
    }


def record(op: str) -> list[bytes]:
    """What every installed wheel computes for ``op``: (system, parameters, inputs, outputs) a case, small ones first.

    Raises AssertionError where a system does not conform: then it can judge nothing.
    """
    from intsim.oracle import judge
    from intsim.oracle.adapter import load, system, systems
    from intsim.oracle.runner import InProcess

    kept: list[tuple[int, bytes]] = []
    warnings.simplefilter("ignore")
    for name in systems():
        if system(name).runs != "wheel":
            continue
        for profile in system(name).profiles or ("",):
            try:
                adapter = load(name, profile or None)
                adapter.versions()
            except (ImportError, ModuleNotFoundError):
                continue
            if op not in {c.op for c in adapter.capabilities()}:
                continue
            report = judge.check(adapter, ops=[op], runner=InProcess(adapter))
            assert report.exit_code == 0, str(report)
            for row in report.rows:
                for one in row.judgements:
                    if one.verdict.judged:
                        case = one.case
                        where = f"{name} {profile}".strip()
                        packed = pickle.dumps((where, case.op.name, case.params, case.inputs, case.wanted))
                        kept.append((_work(case), packed))
    return [packed for _, packed in sorted(kept, key=lambda pair: pair[0])]


def systems(rows: Sequence[bytes]) -> str:
    """The kept cases on the spec, and on the program where they are small."""
    from intsim import registry
    from intsim.execute import Prepared

    for packed in rows:
        where, name, p, inputs, wanted = pickle.loads(packed)
        op = registry.get(name)
        if _differ(Prepared(op, p, "reference", tuned=False).outputs(*inputs), wanted):
            return f"{where}, spec"
        if sum(a.size for a in inputs) <= SMALL and _differ(
            Prepared(op, p, "cpu", tuned=False).outputs(*inputs), wanted
        ):
            return f"{where}, program"
    return ""

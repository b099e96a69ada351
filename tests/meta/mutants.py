"""Mutants of the arithmetic: one constant, rule, comparison, operator or call changed, and what each can reach.

Nothing of intsim is imported here: files are read as text.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[2]
MUTATED = ("intsim/ops", "intsim/scalar")
READ = (*MUTATED, "intsim/composites")

COMPARE: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
}
ARITHMETIC: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.RShift: ast.LShift,
    ast.LShift: ast.RShift,
    ast.BitAnd: ast.BitOr,
    ast.BitOr: ast.BitAnd,
}
CALLS = {"minimum": "maximum", "maximum": "minimum", "min": "max", "max": "min"}
RULES = {
    "TOWARD_NEGATIVE": ("TOWARD_ZERO", "TIES_TO_EVEN"),
    "TOWARD_ZERO": ("TOWARD_NEGATIVE", "TIES_TO_EVEN"),
    "TOWARD_POSITIVE": ("AWAY_FROM_ZERO", "TIES_TO_EVEN"),
    "TIES_TO_POSITIVE": ("TIES_TO_AWAY", "TIES_TO_EVEN"),
    "TIES_TO_NEGATIVE": ("TIES_TO_AWAY", "TIES_TO_EVEN"),
    "TIES_TO_AWAY": ("TIES_TO_POSITIVE", "TIES_TO_EVEN"),
    "TIES_TO_EVEN": ("TIES_TO_AWAY", "TIES_TO_POSITIVE"),
    "WRAP": ("SATURATE",),
    "SATURATE": ("WRAP",),
    "FIRST": ("LAST",),
    "LAST": ("FIRST",),
    "SINGLE_ROUNDING": ("DOUBLE_ROUNDING",),
    "DOUBLE_ROUNDING": ("SINGLE_ROUNDING",),
}

Name = tuple[str, str]  # (module, name at its top level; "Params.method" for a method)


@dataclass(frozen=True)
class Mutant:
    """One change of one file.

    where: the function, constant or method. kind: constant, rule, comparison, operator, call. shown: the line
    as the change leaves it: with ``file`` and ``where`` it names the mutant, whatever is edited elsewhere.
    """

    file: str
    where: str
    line: int
    kind: str
    change: str
    shown: str
    start: int
    end: int
    new: str

    @property
    def key(self) -> tuple[str, str, str]:
        return self.file, self.where, self.shown

    @property
    def source(self) -> str:
        raw = (ROOT / self.file).read_bytes()
        return (raw[: self.start] + self.new.encode() + raw[self.end :]).decode()


def changes(node: ast.AST) -> Iterator[tuple[str, str, str]]:
    """(kind, the change in words, the text to put in the node's place)."""
    match node:
        case ast.Constant(value=bool() | str() | float() | None):
            return
        case ast.Constant(value=int() as n):
            for other in (n + 1, n - 1) if n > 1 else (n + 1,):
                yield "constant", f"{n} -> {other}", str(other)
        case ast.Attribute(attr=name) if name in RULES:
            for rule in RULES[name]:
                yield "rule", f"{name} -> {rule}", ast.unparse(ast.Attribute(node.value, rule, node.ctx))
        case ast.Attribute(attr=name) if name in CALLS:
            yield "call", f"{name} -> {CALLS[name]}", ast.unparse(ast.Attribute(node.value, CALLS[name], node.ctx))
        case ast.Name(id=name) if name in CALLS:
            yield "call", f"{name} -> {CALLS[name]}", CALLS[name]
        case ast.Compare(ops=[op]) if type(op) in COMPARE:
            turned = COMPARE[type(op)]
            text = ast.unparse(ast.Compare(node.left, [turned()], node.comparators))
            yield "comparison", f"{type(op).__name__} -> {turned.__name__}", f"({text})"
        case ast.BinOp(op=op, right=right) if type(op) in ARITHMETIC and not _free(node, right):
            put = ARITHMETIC[type(op)]
            text = ast.unparse(ast.BinOp(node.left, put(), node.right))
            yield "operator", f"{type(op).__name__} -> {put.__name__}", f"({text})"
        case ast.AugAssign(op=op) if type(op) in ARITHMETIC:
            put = ARITHMETIC[type(op)]
            text = ast.unparse(ast.AugAssign(node.target, put(), node.value))
            yield "operator", f"{type(op).__name__} -> {put.__name__}", text


def _computing(node: ast.AST) -> Iterator[ast.AST]:
    """The nodes below ``node`` without annotations, and without refusals: errors and their conditions."""
    if isinstance(node, ast.Assert) or (isinstance(node, ast.If) and isinstance(node.body[0], ast.Raise)):
        return
    yield node
    for field, child in ast.iter_fields(node):
        if field in ("annotation", "returns", "decorator_list"):
            continue
        for inner in child if isinstance(child, list) else [child]:
            if (
                isinstance(inner, ast.AST)
                and not isinstance(inner, (ast.Raise, ast.JoinedStr))
                and not _free(node, inner)
            ):
                yield from _computing(inner)


def _free(node: ast.AST, inner: ast.AST) -> bool:
    """Whether ``inner`` only shapes: the -1 of a reshape (any negative number says the same), ``0 * x``."""
    match node, inner:
        case ast.Call(func=ast.Attribute(attr="reshape")), ast.UnaryOp():
            return True
        case _, ast.BinOp(left=ast.Constant(value=0), op=ast.Mult()):
            return True
    return False


def module_of(file: str) -> str:
    return file.removesuffix(".py").removesuffix("/__init__").replace("/", ".")


def files(folders: Sequence[str] = MUTATED) -> list[str]:
    return sorted(str(f.relative_to(ROOT)) for folder in folders for f in (ROOT / folder).rglob("*.py"))


@dataclass(frozen=True)
class Module:
    """What one file defines and what it takes from others."""

    name: str
    file: str
    defined: dict[str, ast.AST]  # functions, constants and methods
    bases: tuple[str, ...]  # of its Params
    imports: dict[str, Name]  # a name here: (module, name there); name "" for a module itself
    op: ast.Call | None


@cache
def modules() -> dict[str, Module]:
    return {m.name: m for m in map(_read, files(READ))}


def _read(file: str) -> Module:
    defined: dict[str, ast.AST] = {}
    imports: dict[str, Name] = {}
    bases: tuple[str, ...] = ()
    op = None
    for statement in ast.parse((ROOT / file).read_text()).body:
        match statement:
            case ast.ImportFrom(module=str() as source, names=names):
                for alias in names:
                    imports[alias.asname or alias.name] = (source, alias.name)
            case ast.FunctionDef(name=name):
                defined[name] = statement
            case ast.ClassDef(name=name, body=body):
                bases += tuple(b.id for b in statement.bases if isinstance(b, ast.Name))
                defined |= {f"{name}.{m.name}": m for m in body if isinstance(m, ast.FunctionDef)}
                defined |= {f"{name}.{n}": d for m in body for n, d in _default(m)}
            case ast.Assign(targets=[ast.Name(id="OP")], value=value):
                calls = [n for n in ast.walk(value) if isinstance(n, ast.Call) and ast.unparse(n.func) == "Op"]
                op = calls[0] if calls else ast.Call(ast.Name("Op"), [], [])
            case ast.Assign(targets=[target], value=value):
                named = target.elts if isinstance(target, ast.Tuple) else [target]
                defined |= {n.id: value for n in named if isinstance(n, ast.Name)}
            case ast.AnnAssign(target=ast.Name(id=name), value=ast.AST() as value):
                defined[name] = value
    return Module(module_of(file), file, defined, bases, imports, op)


def _default(field: ast.stmt) -> Iterator[tuple[str, ast.AST]]:
    """The name of a field of Params, and what it has where nothing is given."""
    match field:
        case ast.AnnAssign(target=ast.Name(id=name), value=ast.Call(func=ast.Name(id="rule"), args=[_, default])):
            yield name, default
        case ast.AnnAssign(target=ast.Name(id=name), value=ast.Call(keywords=keywords)):
            yield from ((name, k.value) for k in keywords if k.arg == "default")


def _method(module: Module, name: str) -> Name | None:
    """Where a method of the module's Params (or other class) is defined, in the module or in a base."""
    for own, defined in module.defined.items():
        if own.endswith(f".{name}") and isinstance(defined, ast.FunctionDef):
            return module.name, own
    for base in module.bases:
        home = modules().get(module.imports.get(base, ("", ""))[0])
        if home is not None and home is not module:
            found = _method(home, name)
            if found:
                return found
    return None


def _named(module: Module, name: str) -> Name | None:
    if name in module.defined:
        return module.name, name
    where, there = module.imports.get(name, ("", ""))
    return (where, there) if where in modules() and there in modules()[where].defined else None


def _uses(module: Module, node: ast.AST) -> Iterator[Name]:
    own = {n.arg for n in ast.walk(node) if isinstance(n, ast.arg)}  # an argument may be called as a function is
    for inner in _computing(node):
        match inner:
            case ast.Name(id=name) if name in own:
                continue
            case ast.Name(id=name):
                found = _named(module, name)
            case ast.Attribute(value=ast.Name(id=owner), attr=attr):
                where = ".".join(module.imports.get(owner, ("", "")))
                there = where in modules() and attr in modules()[where].defined
                found = (where, attr) if there else _method(module, attr)
            case ast.Attribute(attr=attr):
                found = _method(module, attr)
            case _:
                continue
        if found:
            yield found


def closure(start: Sequence[Name]) -> frozenset[Name]:
    """Everything that ``start`` names, directly or not, and itself."""
    seen, left = set[Name](), list(start)
    while left:
        one = left.pop()
        if one not in seen and one[0] in modules() and one[1] in modules()[one[0]].defined:
            seen.add(one)
            module = modules()[one[0]]
            left += _uses(module, module.defined[one[1]])
    return frozenset(seen)


@dataclass(frozen=True)
class Reach:
    """The definitions that an op's results (spec, program), tuned kernels and stated examples go through."""

    arithmetic: frozenset[Name]
    tuned: frozenset[Name]
    built: frozenset[Name]


def op_name(module: str) -> str:
    return ".".join(module.split(".")[-2:])


@cache
def reaches() -> dict[str, Reach]:
    """By op, composites last."""
    made = {}
    for module in sorted(modules().values(), key=lambda m: ("composites" in m.name, m.name)):
        if module.op is None:
            continue
        given = {k.arg: k.value for k in module.op.keywords}
        roots = [n for part in ("spec", "program") if part in given for n in _uses(module, given[part])]
        texts = [n.value for n in ast.walk(given.get("tuned", ast.Constant(None))) if isinstance(n, ast.Constant)]
        where = [t.split(":") for t in texts if isinstance(t, str) and ":" in t]
        tuned = [(m, f) for m, f in where if m in modules()]
        made[op_name(module.name)] = Reach(closure(roots), closure(tuned), closure([(module.name, "examples")]))
    return made


@cache
def composites_of(op: str) -> tuple[str, ...]:
    """The composites that name ``op``, or one that does."""
    made = {op_name(m.name): _text(m.file) for m in modules().values() if ".composites." in m.name and m.op}
    found = {op}
    while more := {name for name, text in made.items() if any(f'"{f}"' in text for f in found)} - found:
        found |= more
    return tuple(sorted(found - {op}))


@cache
def _text(file: str) -> str:
    return (ROOT / file).read_text()


def role(name: Name) -> tuple[str, tuple[str, ...]]:
    """("arithmetic", "tuned", "builder", "device" or "bound"; the ops that a change of ``name`` can reach).

    A builder makes what is given to an op: methods and defaults of its Params, tables. A bound reaches no result:
    limits, sizes, laws, oracles. What only a GPU runs is a device's.
    """
    own = op_name(name[0])
    if "._cuda" in name[0]:
        return "device", ()
    if "." in name[1] and own in reaches() and name not in reaches()[own].arithmetic:
        return "builder", (own,)
    for word in ("arithmetic", "tuned", "built"):
        ops = tuple(op for op, reach in reaches().items() if name in getattr(reach, word))
        if ops:
            return {"built": "builder"}.get(word, word), ops
    return "bound", ()


def mutants(file: str) -> list[Mutant]:
    """Every mutant of one file, in order of its text."""
    module = modules()[module_of(file)]
    raw = (ROOT / file).read_bytes()
    starts = [0]
    for line in raw.splitlines(keepends=True):
        starts.append(starts[-1] + len(line))
    made: dict[tuple[int, int, str], Mutant] = {}
    for where, defined in module.defined.items():
        if where in ("examples", "__all__"):
            continue
        for node in _computing(defined):
            for kind, change, new in changes(node):
                assert isinstance(node, (ast.expr, ast.stmt))
                assert node.end_lineno is not None
                assert node.end_col_offset is not None
                start, end = (
                    starts[node.lineno - 1] + node.col_offset,
                    starts[node.end_lineno - 1] + node.end_col_offset,
                )
                after = raw[end : starts[node.end_lineno]]
                shown = (raw[starts[node.lineno - 1] : start] + new.encode() + after).decode().strip()
                made.setdefault(
                    (start, end, new), Mutant(file, where, node.lineno, kind, change, shown, start, end, new)
                )
    return sorted(made.values(), key=lambda m: (m.start, m.end))

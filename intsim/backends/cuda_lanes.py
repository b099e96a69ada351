"""A row program shared out among lanes: the threads of a warp, or of a block, go through one row together.

The program is not written again. Its own text is read: a loop over ``range`` may be shared out where each
turn writes an element of its own, and what is carried from turn to turn is a sum, a maximum or a minimum of
integers, which no order changes. Lane l takes the turns l, l + lanes, ...; the carried values are joined
behind the loop. Everything else is done by all lanes alike, so that they agree on every value.

A loop that carries anything else and writes nothing is done by all lanes. One that writes leaves the whole
program to a thread a row.
"""

from __future__ import annotations

import ast
import inspect
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from types import CodeType
from typing import Any

COMPILED = "co_code", "co_names", "co_consts", "co_varnames"  # what a function's text became
JOINS = {"max": "greatest_of_lanes", "min": "least_of_lanes", "sum": "total_of_lanes"}


class NotShared(Exception):
    """Why a program cannot be shared out."""


def shared_out(row: Any, lanes: Any) -> Callable[..., None] | None:
    """``row`` for ``lanes`` (of ``cuda_joins``), or None where nothing of it can be shared out."""
    try:
        return _Sharing(lanes).function(row)
    except (NotShared, OSError, SyntaxError, ValueError):  # no source, or none that can be read
        return None


class _Sharing:
    def __init__(self, lanes: Any) -> None:
        self.lanes = lanes
        self.names = {name: getattr(lanes, name) for name in ("first_turn", "meet", "of_first_lane", *JOINS.values())}

    def function(self, function: Any) -> Callable[..., None] | None:
        """The shared version of a portable function; None where it has no loop to share out."""
        plain = getattr(function, "py_func", function)
        if plain.__closure__:
            raise NotShared(f"{plain.__name__} is made by a factory")
        made = _text(plain)
        callees: dict[str, Any] = {}
        self._globals, outer = plain.__globals__, getattr(self, "_globals", None)
        body, count = self._statements(made.body, callees, [])
        self._globals = outer
        if not count:
            return None
        made.body = body
        module = ast.fix_missing_locations(ast.Module([made], []))
        space = {**plain.__globals__, **self.names, **callees, "LANES": self.lanes.count}
        exec(compile(module, f"<{plain.__name__} by {self.lanes.count} lanes>", "exec"), space)
        shared: Callable[..., None] = self.lanes.on_device(space[made.name])
        return shared

    def _statements(self, given: Sequence[ast.stmt], callees: dict[str, Any], later: Sequence[ast.stmt]) -> Any:
        """(the statements with their loops shared out, how many were). later: what runs behind these."""
        made: list[ast.stmt] = []
        count = 0
        for at, statement in enumerate(given):
            behind = [*given[at + 1 :], *later]
            if isinstance(statement, ast.For) and (carried := _carried(statement, behind)) is not None:
                made += self._loop(statement, carried)
                count += 1
                continue
            if isinstance(statement, (ast.For, ast.While)):
                if _written(statement.body):
                    raise NotShared(f"line {statement.lineno}: a loop that writes, and its turns are not independent")
                behind = [statement, *behind]  # its own next turn
            for part in ("body", "orelse"):
                if getattr(statement, part, None):
                    inner, more = self._statements(getattr(statement, part), callees, behind)
                    setattr(statement, part, inner)
                    count += more
            count += self._calls(statement, callees)
            made.append(statement)
        return made, count

    def _calls(self, statement: ast.stmt, callees: dict[str, Any]) -> int:
        """How many functions that are called here have a shared version; it takes their place."""
        count = 0
        for node in _own(statement):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                called = self._globals.get(node.func.id)
                plain = getattr(called, "py_func", called)
                if inspect.isfunction(plain) and plain.__module__.startswith("intsim.ops"):
                    shared = self.function(called)
                    if shared is not None:
                        callees[node.func.id + "_shared"] = shared
                        node.func.id += "_shared"
                        count += 1
        return count

    def _loop(self, loop: ast.For, carried: dict[str, str]) -> list[ast.stmt]:
        assert isinstance(loop.iter, ast.Call)
        bounds = loop.iter.args
        start, stop = (ast.Constant(0), bounds[0]) if len(bounds) == 1 else bounds
        loop.iter.args = [_call("first_turn", start), stop, ast.Name("LANES", ast.Load())]
        before = [_assign(v, _call("of_first_lane", _name(v))) for v, kind in carried.items() if kind == "sum"]
        behind = [_assign(v, _call(JOINS[kind], _name(v))) for v, kind in carried.items()]
        # Before it writes, every lane has read what it may read; behind it, every lane sees what was written.
        meet: list[ast.stmt] = [ast.Expr(_call("meet"))] if _written(loop.body) else []
        return [*before, *meet, loop, *behind, *meet]


def _text(function: Any) -> ast.FunctionDef:
    """What the function was compiled from, without decorators and annotations."""
    source = Path(function.__code__.co_filename).read_text()
    kept = {n.name: n for n in ast.parse(source).body if isinstance(n, ast.FunctionDef)}
    codes = compile(source, function.__code__.co_filename, "exec", dont_inherit=True).co_consts
    code = next((c for c in codes if isinstance(c, CodeType) and c.co_name == function.__name__), None)
    if code is None or any(getattr(code, n) != getattr(function.__code__, n) for n in COMPILED):
        raise NotShared(f"the file of {function.__name__} has changed since it was read")
    made = kept[function.__name__]
    made.decorator_list, made.returns = [], None
    for argument in made.args.args:
        argument.annotation = None
    return made


def _carried(loop: ast.For, behind: Sequence[ast.stmt]) -> dict[str, str] | None:
    """What the loop carries from turn to turn, and how it is joined; None where its turns are not independent."""
    over = loop.iter
    if not (isinstance(over, ast.Call) and isinstance(over.func, ast.Name) and over.func.id == "range"):
        return None
    if not 1 <= len(over.args) <= 2 or not isinstance(loop.target, ast.Name) or loop.orelse:
        return None
    turn, nodes = loop.target.id, [n for s in loop.body for n in ast.walk(s)]
    if any(isinstance(n, (ast.Break, ast.Return, ast.While)) for n in nodes):
        return None
    if any(isinstance(s, ast.Expr) and not isinstance(s.value, ast.Constant) for s in nodes):
        return None  # a call for what it writes
    if not _own_elements(nodes, turn):
        return None
    read, _ = _exposed(loop.body, {turn})
    assigned = {n.id for n in nodes if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)}
    if turn in assigned:
        return None
    kinds: dict[str, set[str]] = {name: set() for name in read & assigned}
    reads = dict.fromkeys(kinds, 0)
    for name, value in _assignments(nodes):
        if name in kinds:
            kinds[name].add(_join(name, value))
            reads[name] += 1
    for name, found in kinds.items():
        loads = sum(isinstance(n, ast.Name) and n.id == name and isinstance(n.ctx, ast.Load) for n in nodes)
        augmented = sum(isinstance(n, ast.AugAssign) and _is(n.target, name) for n in nodes)
        if len(found) != 1 or "" in found or loads + augmented != reads[name]:
            return None  # used for something else than its own next value
    if ((assigned | {turn}) - set(kinds)) & _exposed(behind, set())[0]:
        return None  # the last turn's value is used, which one lane has
    return {name: next(iter(found)) for name, found in kinds.items()}


def _own_elements(nodes: Sequence[ast.AST], turn: str) -> bool:
    """Whether every element that is written is the turn's own, and none of another turn's is read."""
    places = {ast.dump(n.value): set[str]() for n in nodes if isinstance(n, ast.Subscript) and _stores(n)}
    for n in nodes:
        if isinstance(n, ast.Subscript) and ast.dump(n.value) in places:
            index = n.slice.elts if isinstance(n.slice, ast.Tuple) else [n.slice]
            if not any(_is(i, turn) for i in index):
                return False
            places[ast.dump(n.value)].add(ast.dump(n.slice))
    return True


def _assignments(nodes: Iterable[ast.AST]) -> Iterable[tuple[str, Any]]:
    """(name, value) of every assignment; of ``a, b = x, y`` two; the statement itself where it adds to the name."""
    for n in nodes:
        if isinstance(n, ast.AugAssign) and isinstance(n.target, ast.Name):
            yield n.target.id, n
        elif isinstance(n, (ast.Assign, ast.AnnAssign)):
            for target in n.targets if isinstance(n, ast.Assign) else [n.target]:
                if isinstance(target, ast.Name):
                    yield target.id, n.value
                elif isinstance(target, ast.Tuple):
                    values = n.value.elts if isinstance(n.value, ast.Tuple) else [None] * len(target.elts)
                    for name, value in zip(target.elts, values, strict=True):
                        if isinstance(name, ast.Name):
                            yield name.id, value


def _join(name: str, value: Any) -> str:
    """How the values that lanes give ``name`` by this assignment are joined: a key of JOINS, or ""."""
    if isinstance(value, ast.AugAssign):
        return "sum" if isinstance(value.op, ast.Add) else ""
    if isinstance(value, ast.Call) and isinstance(value.func, ast.Name) and value.func.id in ("max", "min"):
        return value.func.id if len(value.args) == 2 and _is(value.args[0], name) else ""
    return ""


def _exposed(statements: Sequence[ast.stmt], known: set[str]) -> tuple[set[str], set[str]]:
    """(names that may be read before these statements assign them, names that are assigned behind them for sure)."""
    read: set[str] = set()
    known = set(known)
    for s in statements:
        if isinstance(s, ast.If):
            read |= _loads(s.test) - known
            (one, after_one), (other, after_other) = _exposed(s.body, known), _exposed(s.orelse, known)
            read |= one | other
            known = after_one & after_other
        elif isinstance(s, (ast.For, ast.While)):
            read |= _loads(s.iter if isinstance(s, ast.For) else s.test) - known
            read |= _exposed(s.body, known | (_names(s.target) if isinstance(s, ast.For) else set()))[0]
        else:
            read |= _loads(s) - known
            if isinstance(s, ast.AugAssign) and isinstance(s.target, ast.Name):
                read |= {s.target.id} - known
            known |= _names(s)
    return read, known


def _loads(node: ast.AST) -> set[str]:
    return {n.id for n in ast.walk(node) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Load)}


def _names(node: ast.AST) -> set[str]:
    return {n.id for n in ast.walk(node) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)}


def _stores(n: ast.Subscript) -> bool:
    return isinstance(n.ctx, ast.Store)


def _written(statements: Sequence[ast.stmt]) -> bool:
    """Whether an element of an array is written, or may be by a call."""
    nodes = [n for s in statements for n in ast.walk(s)]
    return any((isinstance(n, ast.Subscript) and _stores(n)) or isinstance(n, ast.Expr) for n in nodes)


def _own(statement: ast.stmt) -> Iterable[ast.AST]:
    """The expressions of a statement itself, without those of the statements inside it."""
    for field, value in ast.iter_fields(statement):
        if field not in ("body", "orelse"):
            for node in value if isinstance(value, list) else [value]:
                if isinstance(node, ast.AST):
                    yield from ast.walk(node)


def _is(node: ast.AST, name: str) -> bool:
    return isinstance(node, ast.Name) and node.id == name


def _name(name: str) -> ast.Name:
    return ast.Name(name, ast.Load())


def _call(name: str, *arguments: ast.expr) -> ast.Call:
    return ast.Call(_name(name), list(arguments), [])


def _assign(name: str, value: ast.expr) -> ast.stmt:
    return ast.Assign([ast.Name(name, ast.Store())], value)

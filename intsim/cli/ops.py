"""``intsim ops``: what the catalogue holds."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from intsim.op import Op


@click.group()
def ops() -> None:
    """List the operations, or show one: formula, citation, parameters, limits, siblings."""


@ops.command("list")
@click.argument("family", required=False)
@click.option("--json", "as_json", is_flag=True, help="Machine-readable.")
def list_(family: str | None, as_json: bool) -> None:
    """One line an op: its id and what it is. FAMILY: only that family."""
    from intsim import registry

    chosen = [op for op in registry.all_ops() if family in (None, op.family)]
    if not chosen:
        families = sorted({op.family for op in registry.all_ops()})
        raise click.UsageError(f"there is no family {family!r}; there are {', '.join(families)}")
    if as_json:
        click.echo(json.dumps([_facts(op) for op in chosen], indent=1))
        return
    for op in chosen:
        click.echo(f"{op.id:34} {op.doc.splitlines()[0]}")


@ops.command()
@click.argument("name")
@click.option("--json", "as_json", is_flag=True, help="Machine-readable.")
def show(name: str, as_json: bool) -> None:
    """One op: formula, what it differs in, citation, inputs and outputs, parameters, numbered limits."""
    from intsim import registry

    try:
        op = registry.get(name)
    except ValueError as wrong:
        raise click.UsageError(str(wrong)) from None
    if as_json:
        click.echo(json.dumps(_facts(op), indent=1))
        return
    facts = _facts(op)
    click.echo(f"{op.id}\n\n{op.doc}\n\ncites    {op.cites}\n")
    for side in ("inputs", "outputs"):
        for port in facts[side]:
            click.echo(f"{side[:-1]:8} {port['name']:14} {port['dims'] or 'one number':10} {port['type']}{port['note']}")
    click.echo("\nparameters")
    for field in facts["parameters"]:
        click.echo(f"  {field['name']:20} {field['limit']}{field['default']}")
    click.echo("\nlimits (inside them every backend agrees to the bit)")
    for label, text in facts["limits"].items():
        click.echo(f"  {label:4} {text}")
    for text in facts["sizes"]:
        click.echo(f"  size {text}")
    if op.oracle:
        click.echo("\nheld to the real-valued operation by a stated bound, over real scales from {:g} to {:g}".format(*op.oracle.scales))
    if op.tuned:
        click.echo("\ntuned    " + ", ".join(f"{t.backend}: {t.where}" for t in op.tuned))
    click.echo("\nsiblings")
    for other in registry.siblings(op):
        click.echo(f"  {other.id:34} {other.doc.splitlines()[0]}")


def _facts(op: Op) -> dict[str, Any]:
    """Everything that the registry says of ``op``, as plain data."""
    import dataclasses

    from intsim import registry
    from intsim.numerics import FloatType, IntType
    from intsim.params import Choice, conditions, describe, kinds

    def type_of(port: Any) -> str:
        if isinstance(port.dtype, (IntType, FloatType)):
            return str(port.dtype)
        return f"<{_field_of(port)}>"

    def note(port: Any) -> str:
        notes = []
        if port.fill is not None:
            notes.append(f"optional, default {port.fill}")
        if port.below:
            notes.append(f"an index below {port.below}")
        if port.upto:
            notes.append(f"a length from 1 to {port.upto}")
        if port.packing:
            notes.append("4-bit elements two a byte")
        return f"  ({'; '.join(notes)})" if notes else ""

    declared = {f.name: f for f in dataclasses.fields(op.params)}  # type: ignore[arg-type]

    def default(name: str) -> str:
        value = declared[name].default
        if value is dataclasses.MISSING or value != value:
            return ""
        return f"   default {getattr(value, 'name', value)}"

    return {
        "op": op.name,
        "version": op.version,
        "cites": op.cites,
        "text": op.doc,
        "inputs": [{"name": q.name, "dims": q.dims, "type": type_of(q), "note": note(q)} for q in op.inputs],
        "outputs": [{"name": q.name, "dims": q.dims, "type": type_of(q), "note": note(q)} for q in op.outputs],
        "parameters": [
            {"name": n, "limit": describe(k, n).removeprefix(f"{n} in ") if isinstance(k, Choice) else describe(k, n), "default": default(n)}
            for n, k in kinds(op.params).items()
        ],
        "limits": {label: text for label, text, _ in conditions(op.params)},
        "sizes": [
            f"{d}: {s.says}" if s.derived else f"{s.low} <= {d}" + (f" <= {s.high}" if s.high < 2**31 - 1 else "")
            for d, s in op.sizes.items()
        ],
        "siblings": [other.id for other in registry.siblings(op)],
    }


class _Path:
    """Answers every attribute with a path of names: asks a port's rule which field it reads."""

    def __init__(self, path: str = "") -> None:
        self.path = path

    def __getattr__(self, name: str) -> _Path:
        return _Path(f"{self.path}.{name}".lstrip("."))


def _field_of(port: Any) -> str:
    """The field that says the type of ``port``."""
    try:
        return str(port.dtype(_Path()).path)
    except TypeError:  # a type made from a number
        return "of out_bits bits, unsigned"

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
@click.option(
    "--compare", is_flag=True, help="With NAME requantize: which variants differ, over all int32 accumulators."
)
@click.option(
    "--exhaust",
    nargs=2,
    metavar="ONE OTHER",
    help="For --compare: run these two on all 2**32 accumulators, as --compare names them.",
)
@click.option("--multiplier", type=int, help="For --compare: the scale is multiplier / 2**shift.")
@click.option("--shift", type=int, help="For --compare.")
@click.option("--zero-point", type=int, default=0, show_default=True, help="For --compare.")
@click.option("--dtype", default="int8", show_default=True, help="For --compare: the type of the result.")
def show(
    name: str,
    as_json: bool,
    compare: bool,
    exhaust: tuple[str, str] | None,
    multiplier: int | None,
    shift: int | None,
    zero_point: int,
    dtype: str,
) -> None:
    """One op: formula, what it differs in, citation, inputs and outputs, parameters, numbered limits.

    \b
    intsim ops show requantize --compare --multiplier 1518500249 --shift 39
    says which variants give the same result on every accumulator, with counter-examples for the others. It relies on
    their being monotone; with --exhaust 'single_rounding TIES_TO_EVEN' dyadic it runs these two on every accumulator.
    """
    from intsim import registry

    if compare:
        if name.split(".", maxsplit=1)[0] != "requantize" or multiplier is None or shift is None:
            raise click.UsageError("--compare takes NAME requantize, --multiplier and --shift")
        _compare(multiplier, shift, zero_point, dtype, exhaust)
        return
    if exhaust:
        raise click.UsageError("--exhaust goes with --compare")

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
            click.echo(
                f"{side[:-1]:8} {port['name']:14} {port['dims'] or 'one number':10} {port['type']}{port['note']}"
            )
    click.echo("\nparameters")
    for field in facts["parameters"]:
        default = f"   default {field['default']}" if field["default"] else ""
        click.echo(f"  {field['name']:26} {field['limit']}{default}")
    click.echo("\nlimits (inside them every backend agrees to the bit)")
    for label, text in facts["limits"].items():
        click.echo(f"  {label:4} {text}")
    for text in facts["sizes"]:
        click.echo(f"  size {text}")
    if op.oracle:
        ends = (f"{op.oracle.bound(op.oracle.params(scale)):.3g} at scale {scale:g}" for scale in op.oracle.scales)
        click.echo(f"\nstays within a stated bound of the real-valued operation: {', '.join(dict.fromkeys(ends))}")
    if op.tuned:
        click.echo("\ntuned    " + ", ".join(f"{t.backend}: {t.where}" for t in op.tuned))
    if registry.siblings(op):
        click.echo("\nsiblings")
    for other in registry.siblings(op):
        click.echo(f"  {other.id:34} {other.doc.splitlines()[0]}")


def _facts(op: Op) -> dict[str, Any]:
    """Everything that the registry says of ``op``, as plain data."""
    from intsim import registry
    from intsim.numerics import FloatType, IntType
    from intsim.params import conditions

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

    return {
        "op": op.name,
        "version": op.version,
        "cites": op.cites,
        "text": op.doc,
        "inputs": [{"name": q.name, "dims": q.dims, "type": type_of(q), "note": note(q)} for q in op.inputs],
        "outputs": [{"name": q.name, "dims": q.dims, "type": type_of(q), "note": note(q)} for q in op.outputs],
        "parameters": _parameters(op.params),
        "limits": {label: text for label, text, _ in conditions(op.params)},
        "sizes": [
            f"{d}: {s.says}" if s.derived else f"{s.low} <= {d}" + (f" <= {s.high}" if s.high < 2**31 - 1 else "")
            for d, s in op.sizes.items()
        ],
        "siblings": [other.id for other in registry.siblings(op)],
    }


def _compare(multiplier: int, shift: int, zero_point: int, dtype: str, exhaust: tuple[str, str] | None) -> None:
    from intsim.analysis import requantizers
    from intsim.numerics import IntType

    try:
        listed = requantizers.candidates(multiplier, shift, zero_point, IntType.parse(dtype))
    except ValueError as wrong:
        raise click.UsageError(str(wrong)) from None
    if exhaust:
        _exhaust(listed, *exhaust)
        return
    found = requantizers.compare(listed)
    click.echo(f"scale {multiplier / 2.0**shift:.9g}, zero point {zero_point}, {dtype}: every int32 accumulator")
    if shift < requantizers.UNWRAPPED:
        click.echo("left out: double_rounding and two_half_ups, which shift left first at this scale and may wrap")
    for label, group in zip("ABCDEFGHIJKLMNOP", found.classes, strict=False):
        click.echo(f"\n{label}  {', '.join(group)}")
    click.echo(f"\n{'':5} {'differ on':>13}  first at")
    label_of = {group[0]: label for label, group in zip("ABCDEFGHIJKLMNOP", found.classes, strict=False)}
    for d in found.differences:
        pair = f"{label_of[d.one]} {label_of[d.other]}"
        click.echo(f"{pair:5} {d.count:13,}  acc = {d.acc}: {d.one_gives} and {d.other_gives}")


def _exhaust(listed: list[Any], *names: str) -> None:
    import time

    from intsim.analysis import requantizers

    by_name = {candidate.name: candidate for candidate in listed}
    missing = [name for name in names if name not in by_name]
    if missing:
        raise click.UsageError(f"there is no {missing[0]!r} at this scale; there are {', '.join(by_name)}")
    one, other = (by_name[name] for name in names)
    start = time.perf_counter()
    with click.progressbar(length=2**32, label=f"{one.name} and {other.name}") as bar:
        found = requantizers.exhaust(one, other, done=bar.update)
    took = f"all 2**32 accumulators ran in {time.perf_counter() - start:.1f} s"
    if found is None:
        click.echo(f"equal: {took}")
    else:
        click.echo(
            f"differ on {found.count:,}, first at acc = {found.acc}: {found.one_gives} and {found.other_gives} ({took})"
        )


def _parameters(params: Any, prefix: str = "") -> list[dict[str, str]]:
    """Name, limit and default of each field; those of a stage under its name."""
    import dataclasses

    from intsim.params import Choice, Stage, describe, kinds

    listed = []
    declared = {f.name: f.default for f in dataclasses.fields(params)}
    for name, kind in kinds(params).items():
        if isinstance(kind, Stage):
            listed += [
                field | {"limit": f"held to {_word(kind.fixed[inner])}"} if inner in kind.fixed else field
                for field in _parameters(kind.params, f"{prefix}{name}.")
                for inner in [field["name"].removeprefix(f"{prefix}{name}.")]
            ]
            continue
        limit = describe(kind, name)
        limit = limit.removeprefix(f"{name} in ") if isinstance(kind, Choice) else limit
        default = declared[name]
        stated = "" if default is dataclasses.MISSING or isinstance(default, float) else _word(default)
        listed.append({"name": prefix + name, "limit": limit, "default": stated})
    return listed


def _word(value: Any) -> str:
    return str(getattr(value, "name", value))


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

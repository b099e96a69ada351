"""Golden outputs: reviewable JSON, one file an op version, with a SHA-256 index.

Damaged data is an error, never a pass.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np

from intsim import registry
from intsim.binding import Array
from intsim.flags import flags_of
from intsim.numerics import IntType
from intsim.op import Composition, Op
from intsim.oracle import cases as made
from intsim.oracle.cases import Case
from intsim.oracle.deviations import told_apart
from intsim.params import Choice, Integer, Params, Real, Stage, kinds
from intsim.execute import reference

SCHEMA = 1
RANDOM_CASES = 8
LARGEST_FILE = 16 * 2**20  # bytes
LARGEST_ARRAY = 2**20  # elements: these files are for reading
EXACT_IN_JSON = 2**53  # beyond, many readers lose bits: written as hexadecimal text
# A list of numbers or words, which is written on one line: a diff then shows an array, not a column.
_LIST = re.compile(r'\[\s+((?:[^\[\]{}"]|"[\w.= -]+")*?)\s+\]')
_NAME = re.compile(r"[a-z0-9_]+/[a-z0-9_]+-v[0-9]+\.json")

FLAGS = {
    "Tie": "an exact value halfway between two results: tells rounding rules apart",
    "Saturates": "a result beyond its type: catches wrapping and a missing clamp",
    "Overflows": "an accumulator beyond its type: catches another width, another order, wrap for saturate",
    "Extreme": "an input at an end of its type: catches sign errors and a missing widening",
    "Pseudorandom": "drawn from the declared ranges: catches what nobody thought of",
}


class GoldenError(Exception):
    """Golden data that is missing, damaged, or not what its index says."""


def root() -> Path:
    """The folder of the golden outputs: installed with the package, or beside it in a checkout.

    Raises GoldenError where there is none.
    """
    installed = Path(str(resources.files("intsim"))) / "reference_outputs"
    beside = Path(str(resources.files("intsim"))).parent / "reference_outputs"
    for folder in (installed, beside):
        if (folder / "INDEX.json").is_file():
            return folder
    raise GoldenError(f"there are no golden outputs in {installed} or {beside}; make them with: intsim golden build")


def file_name(op: Op) -> str:
    family, variant = op.name.split(".")
    return f"{family}/{variant}-v{op.version}.json"


# -- writing ---------------------------------------------------------------------------------------


def _number(value: int) -> int | str:
    return value if abs(value) < EXACT_IN_JSON else hex(value)


def _encode_array(a: Array, type_name: str) -> dict[str, Any]:
    bits = a.view(np.uint32) if a.dtype == np.float32 else a
    return {"type": type_name, "shape": list(a.shape), "data": [_number(int(v)) for v in bits.reshape(-1)]}


def encode_params(p: Params) -> dict[str, Any]:
    """The parameters as golden files write them: rules and types by name, rows of numbers as lists."""
    written: dict[str, Any] = {}
    for name, kind in kinds(p).items():
        value = getattr(p, name)
        match kind:
            case Integer(per=None):
                written[name] = _number(value)
            case Integer():
                written[name] = [_number(int(v)) for v in value]
            case Choice():
                written[name] = str(value) if isinstance(value, IntType) else value.name
            case Stage():
                written[name] = encode_params(value)
    return written


def _port_type(op: Op, port: Any, p: Any) -> str:
    return f"{port.type(p)} two a byte" if port.packed(p) else str(port.type(p))


def _flags(case: Case, outputs: tuple[Array, ...]) -> list[str]:
    found = set()
    if not isinstance(case.op.program, Composition):
        try:
            counts = flags_of(lambda q: reference(case.op, *case.inputs, p=q)[0], case.params).counts
        except (ValueError, OverflowError):  # the contrast leaves a limit across fields: no flag can be told
            counts = {}
        words = {"tie": "Tie", "saturated": "Saturates", "wrapped": "Overflows", "clipped": "Overflows"}
        found = {words[name.split(":")[0]] for name, n in counts.items() if n}
    for port, a in zip(case.op.inputs, case.inputs, strict=True):
        t = port.type(case.params)
        if (
            isinstance(t, IntType)
            and not port.packed(case.params)
            and a.size
            and (a.min() == t.qmin or a.max() == t.qmax)
        ):
            found.add("Extreme")
    if "/random-" in case.id:
        found.add("Pseudorandom")
    return sorted(found)


def _encode_case(case: Case) -> dict[str, Any]:
    op, p = case.op, case.params
    outputs = reference(op, *case.inputs, p=p, exact=True)
    return {
        "id": case.id.rsplit("/", 1)[1],
        "comment": case.comment,
        "flags": _flags(case, outputs),
        "tells": told_apart(case),
        "params": encode_params(p),
        "inputs": {
            port.name: _encode_array(a, _port_type(op, port, p)) for port, a in zip(op.inputs, case.inputs, strict=True)
        },
        "outputs": {
            port.name: _encode_array(a, str(port.type(p))) for port, a in zip(op.outputs, outputs, strict=True)
        },
    }


def text(op: Op) -> str:
    """The golden file of ``op``: its spec on unbounded integers, the same text on every machine."""
    listed = [*made.directed(op), *made.random(op, RANDOM_CASES, longest=6)]
    content = {
        "schema": SCHEMA,
        "op": op.name,
        "version": op.version,
        "cites": op.cites,
        "flags": FLAGS,
        "cases": [_encode_case(case) for case in listed],
    }
    raw = json.dumps(content, indent=1, ensure_ascii=True)
    return _LIST.sub(lambda found: "[" + " ".join(found[1].split()) + "]", raw) + "\n"


def build(folder: Path, *, replace: bool = False, ops: tuple[Op, ...] | None = None) -> list[str]:
    """Writes the golden files of ``ops`` (default: all) and the index; returns the names of those new or changed.

    With ``ops`` the index keeps what it says of the others.

    Raises GoldenError where a case of a version that exists would change or go: a changed output bit
    is a new version. ``replace`` allows it, for versions that nobody has yet. New cases and other
    words are no change. A case says which deviations it tells apart (``tells``).
    """
    changed = []
    texts = {file_name(op): text(op) for op in (registry.all_ops() if ops is None else ops)}
    for name, content in texts.items():
        path = folder / name
        old = path.read_text() if path.is_file() else None
        if old == content:
            continue
        if old is not None and not replace:
            lost = [id_ for id_, case in _essence(path, old).items() if _essence(path, content).get(id_) != case]
            if lost:
                raise GoldenError(
                    f"{path}: {lost[0]} would change or go: raise the op's version, "
                    "or pass --replace while nobody has it"
                )
        changed.append(name)
    for name in changed:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        _write(folder / name, texts[name])
    hashes = {name: hashlib.sha256(content.encode()).hexdigest() for name, content in texts.items()}
    if ops is not None and (folder / "INDEX.json").is_file():
        hashes = _read_index(folder) | hashes
    written = {"schema": SCHEMA, "sha256": dict(sorted(hashes.items()))}
    _write(folder / "INDEX.json", json.dumps(written, indent=1) + "\n")
    _read_index.cache_clear()
    return changed


def _essence(path: Path, content: str) -> dict[str, Any]:
    """What must not change: parameters, inputs and outputs of each case, by id."""
    listed = _json(path, content.encode())["cases"]
    return {case["id"]: (case["params"], case["inputs"], case["outputs"]) for case in listed}


def _write(path: Path, content: str) -> None:
    partial = path.with_suffix(".partial")
    partial.write_text(content)
    os.replace(partial, path)


# -- reading ---------------------------------------------------------------------------------------


@cache
def _read_index(folder: Path) -> dict[str, str]:
    path = folder / "INDEX.json"
    content = _json(path, _bytes(path))
    hashes = content.get("sha256") if isinstance(content, dict) else None
    if not isinstance(hashes, dict) or content.get("schema") != SCHEMA:
        raise GoldenError(f"{path}: needs schema {SCHEMA} and a table sha256")
    for name, value in hashes.items():
        if not _NAME.fullmatch(name):
            raise GoldenError(
                f"{path}: {name!r} is no name of a golden file (family/variant-vN.json inside the folder)"
            )
        if not isinstance(value, str) or not re.fullmatch("[0-9a-f]{64}", value):
            raise GoldenError(f"{path}: the sha256 of {name} is {value!r}")
    return hashes


def _bytes(path: Path) -> bytes:
    try:
        size = path.stat().st_size
        if size > LARGEST_FILE:
            raise GoldenError(f"{path} has {size:,} bytes; a golden file has at most {LARGEST_FILE:,}")
        return path.read_bytes()
    except OSError as error:
        raise GoldenError(f"{path}: {error.strerror or error}") from None


def _json(path: Path, raw: bytes) -> Any:
    try:
        return json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise GoldenError(f"{path} is not whole: {error}") from None


def read(folder: Path, name: str) -> list[Case]:
    """The cases of one golden file, checked against the index. Raises GoldenError for anything amiss."""
    path = folder / name
    expected = _read_index(folder).get(name)
    if expected is None:
        raise GoldenError(f"{folder / 'INDEX.json'} does not list {name}")
    content = _json(path, _checked(path, expected))
    try:
        op = registry.get(f"{content['op']}/{content['version']}")
        if content["schema"] != SCHEMA or file_name(op) != name:
            raise GoldenError(f"{path}: holds {content['op']} in schema {content['schema']}")
        return [_decode_case(op, case) for case in content["cases"]]
    except GoldenError as error:
        raise GoldenError(f"{path}: {error}") from None
    except (KeyError, TypeError, ValueError, OverflowError, AttributeError) as error:
        raise GoldenError(f"{path}: {type(error).__name__}: {error}") from None


def _checked(path: Path, expected: str) -> bytes:
    raw = _bytes(path)
    actual = hashlib.sha256(raw).hexdigest()
    if actual != expected:
        raise GoldenError(f"{path} has sha256 {actual}, the index says {expected}: restore it, or build it anew")
    return raw


def _decode_case(op: Op, content: Any) -> Case:
    p = _decode_params(op.params, content["params"])
    op.check(p)
    arrays = tuple(
        _decode_array(content["inputs"][port.name], _port_type(op, port, p), port.storage(p)) for port in op.inputs
    )
    expected = tuple(
        _decode_array(content["outputs"][port.name], str(port.type(p)), port.storage(p)) for port in op.outputs
    )
    return made.make(op, content["id"], content["comment"], arrays, p, expected)


def _integer(value: Any) -> int:
    if isinstance(value, str):
        return int(value, 16)
    if isinstance(value, bool) or not isinstance(value, int):
        raise GoldenError(f"{value!r} is no integer")
    return value


def _decode_array(content: Any, type_name: str, storage: str) -> Array:
    shape, data = content["shape"], content["data"]
    if content["type"] != type_name:
        raise GoldenError(f"an array is {content['type']}, needs {type_name}")
    sizes = [_integer(n) for n in shape]
    if any(n < 0 for n in sizes) or len(data) > LARGEST_ARRAY:
        raise GoldenError(f"shape {shape} is outside what a golden file holds")
    elements = 1
    for n in sizes:
        elements *= n
    if elements != len(data):
        raise GoldenError(f"shape {shape} says {elements:,} elements, {len(data):,} are there")
    values = [_integer(v) for v in data]
    if storage == "float32":
        return np.array(values, np.uint32).view(np.float32).reshape(sizes)
    kind = np.iinfo(storage)
    if values and (min(values) < kind.min or max(values) > kind.max):
        raise GoldenError(f"a value leaves {storage}")
    return np.array(values, storage).reshape(sizes)


def _decode_params(cls: type[Params], content: Any) -> Any:
    fields: dict[str, Any] = {}
    for name, kind in kinds(cls).items():
        if isinstance(kind, Real):
            continue
        value = content[name]
        match kind:
            case Integer(per=None):
                fields[name] = _integer(value)
            case Integer():
                fields[name] = np.array([_integer(v) for v in value], np.int64)
            case Choice(options=options) if isinstance(options[0], IntType):
                fields[name] = IntType.parse(value)
            case Choice(options=options):
                fields[name] = type(options[0])[value]
            case Stage(params=inner):
                fields[name] = _decode_params(inner, value)
    return cls(**fields)


@cache
def cases(op: Op) -> tuple[Case, ...]:
    """The golden cases of ``op``; empty where this release has none for it. Raises GoldenError for damaged data."""
    try:
        folder = root()
    except GoldenError:
        return ()
    return tuple(read(folder, file_name(op))) if file_name(op) in _read_index(folder) else ()


def verify(folder: Path) -> list[Case]:
    """Every case of every golden file in ``folder``, each checked. Raises GoldenError for anything amiss."""
    _read_index.cache_clear()
    index = _read_index(folder)
    stray = sorted(p.relative_to(folder).as_posix() for p in folder.glob("*/*-v*.json"))
    unlisted = [name for name in stray if name not in index]
    if unlisted:
        raise GoldenError(f"{folder}: the index does not list {', '.join(unlisted)}")
    for name, expected in index.items():  # all checksums first: damage shows before any kernel code is loaded
        _checked(folder / name, expected)
    return [case for name in index for case in read(folder, name)]

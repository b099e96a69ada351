"""A model as one safetensors file: tensors, and JSON with a sha256 of all of it; the same bytes for the same model.

The metadata has one key, ``intsim``. A field of parameters that differs from channel to channel is a
tensor too, called ``step:field`` (``step:stage.field`` in an operation made of operations).
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from intsim.models.extras import need
from intsim.models.layout import Array
from intsim.numerics import IntType
from intsim.params import Choice, Integer, Kind, Params, Real, Stage, kinds
from intsim.registry import get

KEY = "intsim"
TOKENIZER = "tokenizer.json"

Model = TypeVar("Model")


def save(path: str | Path, header: dict[str, Any], tensors: Mapping[str, Array], steps: Mapping[str, Any]) -> int:
    """Writes a model, whole or not at all; returns the size in bytes.

    steps: (operation, parameters) of each place, where they do not follow from the tensors.
    Raises OSError where the path cannot be written.
    """
    tensors = dict(tensors)
    listed: dict[str, Any] = {}
    for name, (op, params) in steps.items():
        fields, arrays = _packed(f"{name}:", params)
        listed[name] = {"op": get(op).id, "params": fields}
        tensors |= arrays
    floats = [name for name, a in tensors.items() if a.dtype.kind not in "iu"]
    assert not floats, floats
    tensors = {name: np.ascontiguousarray(a) for name, a in sorted(tensors.items())}
    header = header | ({"steps": listed} if listed else {})
    header["sha256"] = digest(header, tensors)
    text = json.dumps(header, separators=(",", ":"))  # in the order of the steps
    # One key alone: safetensors writes several in no fixed order.
    return replace(Path(path), need("safetensors.numpy").save(tensors, metadata={KEY: text}))


def replace(path: Path, content: bytes) -> int:
    """Writes a file so that no reader ever finds half of it; returns its size."""
    try:
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    except OSError as wrong:
        raise type(wrong)(wrong.errno, wrong.strerror, str(path)) from None
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
        umask = os.umask(0)
        os.umask(umask)
        os.chmod(temporary, 0o666 & ~umask)  # mkstemp lets only the owner read
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise
    return len(content)


def header_of(path: str | Path) -> dict[str, Any]:
    """What a file says of itself, unchecked. Raises ValueError, naming the file, where it says nothing."""
    return _opened(path, lambda file: {})[0]


def load(
    path: str | Path,
    form: str,
    version: int,
    make: Callable[[dict[str, Any], dict[str, Array], dict[str, Params]], Model],
) -> Model:
    """The model that ``make`` makes of (header, tensors, steps).

    Raises ValueError, naming the file, where it is damaged, not whole or of another form.
    """
    header, tensors = _opened(path, lambda file: {name: file.get_tensor(name) for name in file.keys()})  # noqa: SIM118  # safetensors: not a dict, has keys() only
    try:
        if header.get("format") != form or header.get("version") != version:
            raise ValueError(
                f"format {header.get('format')!r} version {header.get('version')!r}; this release reads "
                f"{form!r} version {version}; convert the checkpoint again"
            )
        found = header.pop("sha256")
        if found != digest(header, tensors):
            raise ValueError("the sha256 of its contents is not the one written in it: the file is damaged")
        steps = {
            name: _step(name, step["op"], step["params"], tensors) for name, step in header.get("steps", {}).items()
        }
        return make(header, tensors, steps)
    except (ValueError, TypeError, KeyError, AttributeError) as wrong:
        said = f"the metadata lacks {wrong}" if isinstance(wrong, KeyError) else str(wrong)
        raise ValueError(f"{path}: {said}") from None


def _opened(path: str | Path, tensors_of: Callable[[Any], dict[str, Array]]) -> tuple[dict[str, Any], dict[str, Array]]:
    safetensors = need("safetensors")
    try:
        with safetensors.safe_open(str(path), "numpy") as file:
            text = (file.metadata() or {}).get(KEY)
            tensors = tensors_of(file)
    except (safetensors.SafetensorError, TypeError) as wrong:  # the second: a number type NumPy lacks
        raise ValueError(f"{path} is no safetensors file, or a part of it is missing: {wrong}") from None
    if text is None:
        raise ValueError(
            f"{path} is no integer model (no {KEY!r} in its metadata); make one with: intsim model convert"
        )
    try:
        header = json.loads(text)
        if not isinstance(header, dict):
            raise ValueError("its metadata is no JSON object")
    except ValueError as wrong:
        raise ValueError(f"{path}: {wrong}") from None
    return header, tensors


def digest(header: Mapping[str, Any], tensors: Mapping[str, Array]) -> str:
    seen = hashlib.sha256(json.dumps(header, sort_keys=True).encode())
    for name, a in sorted(tensors.items()):
        seen.update(f"\0{name}\0{a.dtype.str}\0{a.shape}\0".encode())
        seen.update(np.ascontiguousarray(a).data)
    return seen.hexdigest()


def _packed(place: str, p: Params) -> tuple[dict[str, Any], dict[str, Array]]:
    """The fields as JSON, and those that are longer than one number as tensors."""
    fields: dict[str, Any] = {}
    arrays = {}
    for name, kind in kinds(p).items():
        value = getattr(p, name)
        match kind:
            case Integer(per=str()):
                fields[name] = int(value[0]) if value.size == 1 else f"{place}{name}"
                if value.size > 1:
                    arrays[f"{place}{name}"] = value.astype(_storage(kind))
            case Integer():
                fields[name] = value
            case Choice():
                fields[name] = str(value) if isinstance(value, IntType) else value.name
            case Stage():
                fields[name], inner = _packed(f"{place}{name}.", value)
                arrays |= inner
            case Real():
                pass  # host only: no kernel reads it
    return fields, arrays


def _storage(kind: Integer) -> str:
    fits = (t for t in ("int8", "int16", "int32") if np.iinfo(t).min <= kind.low and kind.high <= np.iinfo(t).max)
    return next(fits, "int64")


def _step(step: str, op: str, fields: dict[str, Any], tensors: dict[str, Array]) -> Params:
    return _unpacked(f"step {step}: {op}", get(op).params, fields, tensors)


def _unpacked(what: str, cls: type[Params], fields: dict[str, Any], tensors: dict[str, Array]) -> Params:
    """The inverse of ``_packed``; takes what it uses out of ``tensors``."""
    wanted = {name: kind for name, kind in kinds(cls).items() if not isinstance(kind, Real)}
    if set(wanted) != set(fields):
        raise ValueError(f"{what} has the fields {', '.join(wanted)}; the file has {', '.join(fields)}")
    return cls(**{name: _value(what, wanted[name], value, tensors) for name, value in fields.items()})


def _value(what: str, kind: Kind, value: Any, tensors: dict[str, Array]) -> Any:
    if isinstance(kind, Stage):
        return _unpacked(what, kind.params, value, tensors)
    if isinstance(kind, Choice):
        option = kind.options[0]
        return IntType.parse(value) if isinstance(option, IntType) else type(option)[value]
    if isinstance(value, str):
        if value not in tensors:
            raise ValueError(f"the model lacks tensor {value}; convert the checkpoint again")
        return tensors.pop(value)
    return value

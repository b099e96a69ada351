"""An integer model on disk: one safetensors file, the same bytes for the same model.

Tensors are int8, int16, int32 and the tokenizer as uint8; a field of parameters that differs from
channel to channel is a tensor too, called ``step:field``. The metadata has one key, ``intsim``, with
JSON: format version, shape, operations with their versions and parameters as whole numbers, scales
for the host, source, and a sha256 of all of it.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from intsim.models.extras import need
from intsim.models.layout import Array, IntegerModel, Shape, check, step_ops
from intsim.numerics import IntType
from intsim.params import Choice, Integer, Kind, Params, Real, kinds
from intsim.registry import get

FORMAT, VERSION = "intsim integer encoder", 1
KEY = "intsim"
TOKENIZER = "tokenizer.json"


def write(model: IntegerModel, path: str | Path) -> int:
    """Writes ``model``, whole or not at all; returns the size in bytes.

    Raises ValueError for a model that is not whole, OSError where the path cannot be written.
    """
    check(model)
    tensors = dict(model.tensors) | {TOKENIZER: np.frombuffer(model.tokenizer, np.uint8)}
    steps = {}
    for name, op in step_ops(model.shape).items():
        fields, arrays = _packed(name, model.steps[name])
        steps[name] = {"op": get(op).id, "params": fields}
        tensors |= arrays
    floats = [name for name, a in tensors.items() if a.dtype.kind not in "iu"]
    assert not floats, floats
    tensors = {name: np.ascontiguousarray(a) for name, a in sorted(tensors.items())}
    header = {
        "format": FORMAT,
        "version": VERSION,
        "shape": dataclasses.asdict(model.shape),
        "steps": steps,
        "scales": model.scales,
        "source": model.source,
    }
    header["sha256"] = _digest(header, tensors)
    text = json.dumps(header)  # in the order of the steps
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


def read(path: str | Path) -> IntegerModel:
    """The model in a file. Raises ValueError, naming the file, where it is damaged, not whole or of another kind."""
    safetensors = need("safetensors")
    try:
        with safetensors.safe_open(str(path), "numpy") as file:
            text = (file.metadata() or {}).get(KEY)
            tensors: dict[str, Array] = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  # safetensors: not a dict, has keys() only
    except (safetensors.SafetensorError, TypeError) as wrong:  # the second: a number type NumPy lacks
        raise ValueError(f"{path} is no safetensors file, or a part of it is missing: {wrong}") from None
    if text is None:
        raise ValueError(
            f"{path} is no integer model (no {KEY!r} in its metadata); make one with: intsim model convert"
        )
    try:
        return _model(json.loads(text), tensors)
    except (ValueError, TypeError, KeyError, AttributeError) as wrong:
        said = f"the metadata lacks {wrong}" if isinstance(wrong, KeyError) else str(wrong)
        raise ValueError(f"{path}: {said}") from None


def _model(header: dict[str, Any], tensors: dict[str, Array]) -> IntegerModel:
    if header.get("format") != FORMAT or header.get("version") != VERSION:
        raise ValueError(
            f"format {header.get('format')!r} version {header.get('version')!r}; this release reads "
            f"{FORMAT!r} version {VERSION}; convert the checkpoint again"
        )
    found = header.pop("sha256")
    if found != _digest(header, tensors):
        raise ValueError("the sha256 of its contents is not the one written in it: the file is damaged")
    if TOKENIZER not in tensors:
        raise ValueError(f"the model lacks tensor {TOKENIZER}; convert the checkpoint again")
    steps = {}
    for name, step in header["steps"].items():
        steps[name] = _unpacked(name, step["op"], step["params"], tensors)
    tokenizer = tensors.pop(TOKENIZER).tobytes()
    model = IntegerModel(Shape(**header["shape"]), steps, tensors, header["scales"], tokenizer, header["source"])
    check(model)
    return model


def _digest(header: Mapping[str, Any], tensors: Mapping[str, Array]) -> str:
    seen = hashlib.sha256(json.dumps(header, sort_keys=True).encode())
    for name, a in sorted(tensors.items()):
        seen.update(f"\0{name}\0{a.dtype.str}\0{a.shape}\0".encode())
        seen.update(np.ascontiguousarray(a).data)
    return seen.hexdigest()


def _packed(step: str, p: Params) -> tuple[dict[str, Any], dict[str, Array]]:
    """The fields as JSON, and those that are longer than one number as tensors."""
    fields: dict[str, Any] = {}
    arrays = {}
    for name, kind in kinds(p).items():
        value = getattr(p, name)
        match kind:
            case Integer(per=str()):
                fields[name] = int(value[0]) if value.size == 1 else f"{step}:{name}"
                if value.size > 1:
                    arrays[f"{step}:{name}"] = value.astype(_storage(kind))
            case Integer():
                fields[name] = value
            case Choice():
                fields[name] = str(value) if isinstance(value, IntType) else value.name
            case Real():
                pass  # host only: no kernel reads it
    return fields, arrays


def _storage(kind: Integer) -> str:
    fits = (t for t in ("int8", "int16", "int32") if np.iinfo(t).min <= kind.low and kind.high <= np.iinfo(t).max)
    return next(fits, "int64")


def _unpacked(step: str, op: str, fields: dict[str, Any], tensors: dict[str, Array]) -> Params:
    """The inverse of ``_packed``; takes what it uses out of ``tensors``."""
    cls = get(op).params
    wanted = {name: kind for name, kind in kinds(cls).items() if not isinstance(kind, Real)}
    if set(wanted) != set(fields):
        raise ValueError(f"step {step}: {op} has the fields {', '.join(wanted)}; the file has {', '.join(fields)}")
    return cls(**{name: _value(wanted[name], value, tensors) for name, value in fields.items()})


def _value(kind: Kind, value: Any, tensors: dict[str, Array]) -> Any:
    if isinstance(kind, Choice):
        option = kind.options[0]
        return IntType.parse(value) if isinstance(option, IntType) else type(option)[value]
    if isinstance(value, str):
        if value not in tensors:
            raise ValueError(f"the model lacks tensor {value}; convert the checkpoint again")
        return tensors.pop(value)
    return value

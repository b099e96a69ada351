"""An Integer Transformer on disk: one safetensors file (``container`` says how), and the names of shipped ones."""

from __future__ import annotations

import json
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np

from intsim.models import container
from intsim.models.architecture import Architecture
from intsim.models.container import TOKENIZER
from intsim.models.layout import Array
from intsim.models.transformer_checkpoint import check_vocabulary
from intsim.models.transformer_layout import Options, PropagatedModel, check, step_ops
from intsim.params import Params

FORMAT, VERSION = "intsim integer transformer", 1
SHIPPED = ("en-de-int8", "wikitext2-int8")
ENDING = ".safetensors"


def write(model: PropagatedModel, path: str | Path) -> int:
    """Writes ``model``, whole or not at all; returns the size in bytes.

    Raises ValueError for a model that is not whole, OSError where the path cannot be written.
    """
    check(model)
    check_vocabulary(model.tokenizer, model.shape)
    header = {
        "format": FORMAT,
        "version": VERSION,
        "architecture": json.loads(model.shape.as_text()),
        "options": model.options.as_names(),
        "source": model.source,
    }
    tensors = dict(model.tensors) | {TOKENIZER: np.frombuffer(model.tokenizer.encode(), np.uint8)}
    steps = {name: (op, model.steps[name]) for name, op in step_ops(model.shape).items()}
    return container.save(path, header, tensors, steps)


def read(path: str | Path) -> PropagatedModel:
    """The model in a file. Raises ValueError, naming the file, where it is damaged, not whole or of another kind."""
    return container.load(path, FORMAT, VERSION, _model)


def _model(header: dict[str, Any], tensors: dict[str, Array], steps: dict[str, Params]) -> PropagatedModel:
    tokenizer = tensors.pop(TOKENIZER).tobytes().decode()
    shape = Architecture.from_text(json.dumps(header["architecture"]), "its architecture")
    model = PropagatedModel(shape, Options.from_names(header["options"]), steps, tensors, tokenizer, header["source"])
    check(model)
    check_vocabulary(tokenizer, shape)
    return model


def is_transformer(path: str | Path) -> bool:
    """Whether a file says of itself that it holds an Integer Transformer."""
    try:
        return container.header_of(path).get("format") == FORMAT
    except (OSError, ValueError):
        return False


def find(name: str) -> Path:
    """The file that ``name`` names: a path, or a shipped model. Raises ValueError for a name that is neither."""
    path = Path(name)
    if path.exists() or path.suffix or len(path.parts) > 1:
        return path
    if name in SHIPPED:
        for root in (Path(str(resources.files("intsim"))) / "reference_outputs", _checkout() / "reference_outputs"):
            found = root / "models" / f"{name}{ENDING}"
            if found.is_file():
                return found
    raise ValueError(f"{name!r} is neither a file nor a shipped model ({', '.join(SHIPPED)})")


def _checkout() -> Path:
    return Path(__file__).resolve().parents[2]

"""An Integer Transformer on disk: one safetensors file (``container`` says how), and the names of shipped ones."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from intsim.models import container
from intsim.models.architecture import Architecture
from intsim.models.container import TOKENIZER
from intsim.models.layout import Array
from intsim.models.storage import shipped_root
from intsim.models.transformer_checkpoint import check_vocabulary
from intsim.models.transformer_layout import Options, PropagatedModel, check, step_ops
from intsim.models.transformer_parts import assembled, check_parts
from intsim.models.vocabulary import Vocabulary
from intsim.params import Params
from intsim.registry import get

FORMAT, VERSION = "intsim integer transformer", 2
MERGES = "merges"  # of the byte-pair vocabulary
SHIPPED = ("en-de-int8", "wikitext2-int8")
ENDING = ".safetensors"


def write(model: PropagatedModel, path: str | Path) -> int:
    """Writes ``model``, whole or not at all; returns the size in bytes.

    Raises ValueError for a model that is not whole, OSError where the path cannot be written.
    """
    check(model)
    check_parts(model.shape, model.options, model.parts)
    vocabulary = check_vocabulary(model.tokenizer, model.shape)
    header = {
        "format": FORMAT,
        "version": VERSION,
        "architecture": json.loads(model.shape.as_text()),
        "options": model.options.as_names(),
        "source": model.source,
        "operations": operations(model.shape),
    }
    return container.save(path, header, model.parts | packed_vocabulary(vocabulary), {})


def packed_vocabulary(vocabulary: Vocabulary) -> dict[str, Array]:
    """As merges, from which it can be made again to the letter; one of another make as the text it is."""
    merges = vocabulary.merges()
    if merges is not None:
        return {MERGES: merges}
    return {TOKENIZER: np.frombuffer(vocabulary.as_text().encode(), np.uint8)}


def operations(shape: Architecture) -> list[str]:
    """The operations of a model, with their versions."""
    return sorted({get(op).id for op in step_ops(shape).values()})


def read(path: str | Path) -> PropagatedModel:
    """The model in a file. Raises ValueError, naming the file, where it is damaged, not whole or of another kind."""
    return container.load(path, FORMAT, VERSION, _model)


def _model(header: dict[str, Any], tensors: dict[str, Array], steps: dict[str, Params]) -> PropagatedModel:
    shape = Architecture.from_text(json.dumps(header["architecture"]), "its architecture")
    options, source, made_for = Options.from_names(header["options"]), header["source"], header["operations"]
    tokenizer = _tokenizer(tensors)
    model = assembled(shape, options, tensors, tokenizer, source)
    if made_for != operations(shape):
        raise ValueError(
            f"it was made for the operations {', '.join(map(str, made_for))}; this release has "
            f"{', '.join(operations(shape))}; convert the checkpoint again"
        )
    check(model)
    check_vocabulary(tokenizer, shape)
    return model


def _tokenizer(tensors: dict[str, Array]) -> str:
    if MERGES in tensors:
        merges = tensors.pop(MERGES)
        if merges.dtype != np.uint16 or merges.ndim != 2 or merges.shape[1] != 2:
            raise ValueError(f"tensor {MERGES} is {merges.dtype} {merges.shape}, needs uint16 (merges, 2)")
        return Vocabulary.of_merges(merges).as_text()
    if TOKENIZER not in tensors:
        raise ValueError(f"the model lacks tensor {MERGES}; convert the checkpoint again")
    return tensors.pop(TOKENIZER).tobytes().decode()


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
    found = shipped_root() / "models" / f"{name}{ENDING}"
    if name in SHIPPED and found.is_file():
        return found
    raise ValueError(f"{name!r} is neither a file nor a shipped model ({', '.join(SHIPPED)})")

"""An integer encoder on disk: one safetensors file (``container`` says how).

Tensors are int8, int16, int32 and the tokenizer as uint8. The JSON holds format version, shape,
operations with their versions and parameters as whole numbers, scales for the host, and source.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np

from intsim.models import container
from intsim.models.container import TOKENIZER
from intsim.models.layout import Array, IntegerModel, Shape, check, step_ops
from intsim.params import Params

FORMAT, VERSION = "intsim integer encoder", 1


def write(model: IntegerModel, path: str | Path) -> int:
    """Writes ``model``, whole or not at all; returns the size in bytes.

    Raises ValueError for a model that is not whole, OSError where the path cannot be written.
    """
    check(model)
    header = {
        "format": FORMAT,
        "version": VERSION,
        "shape": dataclasses.asdict(model.shape),
        "scales": model.scales,
        "source": model.source,
    }
    tensors = dict(model.tensors) | {TOKENIZER: np.frombuffer(model.tokenizer, np.uint8)}
    steps = {name: (op, model.steps[name]) for name, op in step_ops(model.shape).items()}
    return container.save(path, header, tensors, steps)


def read(path: str | Path) -> IntegerModel:
    """The model in a file. Raises ValueError, naming the file, where it is damaged, not whole or of another kind."""
    return container.load(path, FORMAT, VERSION, _model)


def _model(header: dict[str, Any], tensors: dict[str, Array], steps: dict[str, Params]) -> IntegerModel:
    if TOKENIZER not in tensors:
        raise ValueError(f"the model lacks tensor {TOKENIZER}; convert the checkpoint again")
    tokenizer = tensors.pop(TOKENIZER).tobytes()
    model = IntegerModel(Shape(**header["shape"]), steps, tensors, header["scales"], tokenizer, header["source"])
    check(model)
    return model

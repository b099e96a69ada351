"""How many bytes a model takes, as float32 and as integers, and where the shipped files lie."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import resources
from pathlib import Path

import numpy as np

from intsim.models.extras import need
from intsim.models.transformer_checkpoint import TransformerCheckpoint

FOLDER = "reference_outputs"


@dataclass(frozen=True, slots=True)
class Storage:
    """Bytes of a model as two safetensors files without the tokenizer, and of the tokenizer, which both need."""

    real: int
    integer: int
    tokenizer: int

    @property
    def times(self) -> float:
        """By how much the integers are smaller, without a tokenizer on either side."""
        return self.real / self.integer

    @property
    def times_with_tokenizer(self) -> float:
        return (self.real + self.tokenizer) / (self.integer + self.tokenizer)


def float_bytes(checkpoint: TransformerCheckpoint) -> int:
    """The size of the parameters as one safetensors file of float32, whatever type they are stored in."""
    tensors = {name: a.astype(np.float32) for name, a in checkpoint.tensors.items()}
    return len(need("safetensors.numpy").save(tensors))


def measure(checkpoint: TransformerCheckpoint, file: Path) -> Storage:
    """What ``checkpoint`` and the integer model in ``file`` take."""
    with need("safetensors").safe_open(str(file), "numpy") as opened:
        tokenizer = sum(opened.get_tensor(name).nbytes for name in opened.keys() if name in TOKENIZERS)  # noqa: SIM118  # safetensors: not a dict, has keys() only
    return Storage(float_bytes(checkpoint), file.stat().st_size - tokenizer, tokenizer)


TOKENIZERS = ("merges", "tokenizer.json")  # a file has one of them


def shipped_root() -> Path:
    """The folder of golden outputs, records and models: of the installation, else of the checkout."""
    installed = Path(str(resources.files("intsim"))) / FOLDER
    return installed if installed.is_dir() else Path(__file__).resolve().parents[2] / FOLDER

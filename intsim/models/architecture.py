"""What a Transformer is made of: the shape and the choices that its weights belong to."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any

FORMAT = 1


class Task(Enum):
    """translation: encoder and decoder. language_model: a decoder alone."""

    TRANSLATION = "translation"
    LANGUAGE_MODEL = "language_model"


class AttentionKind(Enum):
    SOFTMAX = "softmax"
    POLYNOMIAL = "polynomial"  # [ReLU(t + b)]^n + |delta|, divided by its sum (Integer Transformer, section 2)


class NormKind(Enum):
    STANDARD = "standard"
    L1 = "l1"  # the mean absolute deviation for the standard deviation (Integer Transformer, section 3)


class Positions(Enum):
    LEARNED = "learned"
    SINUSOIDAL = "sinusoidal"


@dataclass(frozen=True, slots=True, kw_only=True)
class Architecture:
    """A Transformer's shape.

    width: of a token's vector. heads: width is a multiple. feed: inner width of the feed-forward
    block. vocabulary: tokens; the output layer shares the embedding. positions: the longest text in
    tokens. degree: of the polynomial attention. norm_first: norms before each block and one at the
    end (pre-norm), else after each sum. Raises ValueError for a shape that cannot be.
    """

    task: Task
    width: int
    layers: int
    heads: int
    feed: int
    vocabulary: int
    positions: int
    attention: AttentionKind = AttentionKind.POLYNOMIAL
    degree: int = 3
    norm: NormKind = NormKind.L1
    norm_first: bool = True
    position_kind: Positions = Positions.LEARNED

    def __post_init__(self) -> None:
        for name in ("width", "layers", "heads", "feed", "vocabulary", "positions", "degree"):
            value = getattr(self, name)
            if not isinstance(value, int) or value < 1:
                raise ValueError(f"{name} is a positive integer, got {value!r}")
        if self.width % self.heads:
            raise ValueError(f"width {self.width} is no multiple of {self.heads} heads")
        if self.width % 2 and self.position_kind is Positions.SINUSOIDAL:
            raise ValueError(f"sinusoidal positions need an even width, got {self.width}")

    @property
    def head_width(self) -> int:
        return self.width // self.heads

    @property
    def translates(self) -> bool:
        return self.task is Task.TRANSLATION

    def as_text(self) -> str:
        """JSON; ``from_text`` reads it."""
        fields = {
            f.name: v.value if isinstance(v := getattr(self, f.name), Enum) else v for f in dataclasses.fields(self)
        }
        return json.dumps({"format": FORMAT, **fields}, indent=1)

    @classmethod
    def from_text(cls, text: str, source: str = "the configuration") -> Architecture:
        """Raises ValueError, which names ``source``, for a field that is missing, unknown or out of range."""
        try:
            given = json.loads(text)
            if not isinstance(given, dict) or given.pop("format", None) != FORMAT:
                raise ValueError(f"needs format {FORMAT}")
            made: dict[str, Any] = {}
            for f in dataclasses.fields(cls):
                if f.name in given:
                    kind = _ENUMS.get(f.name)
                    made[f.name] = kind(given.pop(f.name)) if kind else given.pop(f.name)
            if given:
                raise ValueError(f"unknown field {sorted(given)[0]}")
            return cls(**made)
        except (ValueError, TypeError) as wrong:
            raise ValueError(f"{source} describes no Transformer: {wrong}") from None

    @classmethod
    def read(cls, file: Path) -> Architecture:
        """The architecture in a file. Raises OSError, ValueError."""
        return cls.from_text(file.read_text(encoding="utf-8"), str(file))


_ENUMS: dict[str, type[Enum]] = {
    "task": Task,
    "attention": AttentionKind,
    "norm": NormKind,
    "position_kind": Positions,
}

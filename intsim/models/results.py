"""What trained Transformers reached, kept as measured lines, and the README's tables made of them.

``intsim model evaluate --record`` measures and writes a line a model; ``intsim model results`` shows them.
"""

from __future__ import annotations

import datetime
import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from intsim.documents import write_between
from intsim.models.architecture import Architecture, AttentionKind, NormKind
from intsim.models.storage import shipped_root

FILE = "records/transformers.json"  # in the folder of the golden outputs
START, END = "<!-- made by: intsim model results --update README.md -->", "<!-- end -->"
INTEGERS = "integers"
READINGS = {  # what stands behind it where scales are floats
    "floating": ", floating scales",
    "literal": ", floating scales, the paper to the letter",
    "tensor": ", floating scales, one a tensor",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One model on one text.

    data: what it was measured on. model, training: what it is, and how it was trained. form: float32,
    or integers with the options that are not the defaults. count: sentences, or tokens. bleu: with the
    ends of its 95 % interval, of a translator. token_perplexity, word_perplexity: e to the nats a token,
    a word. kl (nats a token), same_best, same_text: against the float model of the same weights.
    size: bytes, without the tokenizer. weights: the sha256 of the checkpoint. date: ISO 8601.
    """

    data: str
    model: str
    training: str
    form: str
    count: int
    bleu: tuple[float, float, float] | None
    token_perplexity: float
    word_perplexity: float | None
    kl: float | None
    same_best: float | None
    same_text: float | None
    size: int
    weights: str
    date: str

    @property
    def place(self) -> tuple[str, str, str, str]:
        return self.data, self.model, self.training, self.form


def today() -> str:
    return datetime.datetime.now(datetime.UTC).date().isoformat()


def model_name(shape: Architecture) -> str:
    """The two choices that the Integer Transformer differs in."""
    polynomial = shape.attention is AttentionKind.POLYNOMIAL
    attention = f"polynomial of degree {shape.degree}" if polynomial else shape.attention.value
    return f"{attention}, {shape.norm.value} norm"


def training_name(folder: Path, shape: Architecture) -> str:
    """How the run in ``folder`` was trained, as far as it is written there."""
    try:
        done = json.loads((folder / "training.json").read_text(encoding="utf-8"))
        recipe, steps = done["recipe"], done["steps"]
    except (OSError, ValueError, KeyError, TypeError):
        return ""
    made = f"{steps:,} steps, dropout {recipe['dropout']:g}"
    if shape.attention is AttentionKind.POLYNOMIAL:
        made += f", b from {recipe.get('shift', 1.0):g}"
    if shape.norm is NormKind.L1:
        made += f", gain from {recipe.get('gain', 1.0):.2g}"
    if recipe.get("seed", 1) != 1:
        made += f", seed {recipe['seed']}"
    return made if steps == recipe["steps"] else f"{made}, stopped before {recipe['steps']:,}"


def path() -> Path:
    """The file of what was measured for this release."""
    return shipped_root() / FILE


def read(file: Path | None = None) -> list[Line]:
    """The lines of a file; none where it does not exist. Raises ValueError for a damaged one."""
    file = path() if file is None else file
    if not file.is_file():
        return []
    try:
        found = json.loads(file.read_text(encoding="utf-8"))["lines"]
        return [Line(**entry | {"bleu": entry["bleu"] and tuple(entry["bleu"])}) for entry in found]
    except (ValueError, KeyError, TypeError) as damaged:
        raise ValueError(f"{file} is not a file of measured lines: {damaged}") from None


def write(file: Path, lines: Iterable[Line]) -> None:
    """Puts ``lines`` in the places of those of the same model on the same data, or behind the model's others."""
    merged = {line.place: line for line in [*read(file), *lines]}
    texts = list(dict.fromkeys(line.data for line in merged.values()))
    runs = list(dict.fromkeys(line.place[:3] for line in merged.values()))
    ordered = sorted(merged.values(), key=lambda line: (texts.index(line.data), runs.index(line.place[:3])))
    file.parent.mkdir(parents=True, exist_ok=True)
    written = file.with_suffix(".new")
    written.write_text(json.dumps({"schema": 1, "lines": [asdict(line) for line in ordered]}, indent=1) + "\n")
    written.replace(file)  # what was there stays whole until the new file is


def markdown(lines: Sequence[Line]) -> str:
    """A table for each text."""
    made = []
    for data in dict.fromkeys(line.data for line in lines):
        chosen = [line for line in lines if line.data == data]
        cells = [_cells(line) for line in chosen]
        used = [name for name in cells[0] if any(row[name] for row in cells)]
        unit = "sentences" if chosen[0].bleu else "tokens"
        made += [f"{data}, {chosen[0].count:,} {unit}:", "", f"| {' | '.join(used)} |", "|" + "---|" * len(used)]
        made += [f"| {' | '.join(row[name] for name in used)} |" for row in cells]
        made += [""]
    return "\n".join(made).rstrip()


def _cells(line: Line) -> dict[str, str]:
    integers = line.form != "float32"
    return {
        "attention, norm": line.model,
        "training": line.training,
        "arithmetic": line.form,
        "BLEU (95 % interval)": "{:.2f} ({:.1f} to {:.1f})".format(*line.bleu) if line.bleu else "",
        "perplexity a token": f"{line.token_perplexity:.3f}",
        "a word": f"{line.word_perplexity:.2f}" if line.word_perplexity else "",
        "KL to its float model": f"{line.kl:.6f}" if integers and line.kl is not None else "",
        "same best token": f"{100 * line.same_best:.2f} %" if integers and line.same_best is not None else "",
        "same translation": f"{100 * line.same_text:.1f} %" if integers and line.same_text is not None else "",
        "MB": f"{line.size / 1e6:.3f}",
    }


def update(document: Path, lines: Sequence[Line]) -> bool:
    """Writes the tables between the two marks of ``document``; whether it changed.

    Raises ValueError where the marks are not there.
    """
    return write_between(document, START, END, markdown(lines))

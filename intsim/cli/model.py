"""intsim model: convert a BERT checkpoint to integers, embed text with it, compare it with the float model."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from intsim.models.text import Sentence

BACKENDS = click.Choice(["reference", "exact", "cpu"])
MOST_COSINES = 8  # sentences whose cosines a summary shows


class BadInput(click.ClickException):
    """What the user gave cannot be used."""

    exit_code = 2


@contextlib.contextmanager
def _explained() -> Iterator[None]:
    """Errors that say what to do, without a traceback."""
    try:
        yield
    except ModuleNotFoundError as missing:
        raise click.ClickException(str(missing)) from None
    except OSError as wrong:
        place = f"{wrong.filename}: " if wrong.filename else ""
        raise BadInput(f"{place}{wrong.strerror or wrong}") from None
    except ValueError as wrong:
        raise BadInput(str(wrong)) from None


@contextlib.contextmanager
def _progress(label: str, count: int) -> Iterator[Callable[[int], None]]:
    with click.progressbar(length=count, label=label, file=sys.stderr) as bar:
        yield bar.update


def _lines(path: str) -> list[str]:
    with click.open_file(path, encoding="utf-8") as file:
        try:
            lines: list[str] = file.read().split("\n")
        except UnicodeDecodeError as wrong:
            raise ValueError(f"{path} is not UTF-8: {wrong}") from None
    return lines[:-1] if lines[-1] == "" else lines


def _check_folder(output: str | None) -> None:
    """Before the work, not after it."""
    if output and not Path(output).parent.is_dir():
        raise ValueError(f"{Path(output).parent} is no folder; create it first")
    if output and Path(output).is_dir():
        raise ValueError(f"{output} is a folder; give the name of a file")


@click.group()
def model() -> None:
    """Integer Transformers: convert, run, evaluate."""


@model.command()
@click.argument("source")
@click.option("-o", "--output", required=True, help="The file to write, for example minilm-w8a8.safetensors.")
@click.option("--calibrate", "calibration", type=click.Path(), help="Text for calibration, a line a sentence.")
def convert(source: str, output: str, calibration: str | None) -> None:
    """Convert a BERT checkpoint to an integer model.

    SOURCE is a folder in Hugging Face layout (config.json, model.safetensors, tokenizer.json), or the
    name of an installed package that holds one.
    """
    from intsim.models import calibrate, checkpoint, convert as conversion, file
    from intsim.models.calibration_text import SENTENCES

    with _explained():
        _check_folder(output)
        texts = [t for t in _lines(calibration) if t.strip()] if calibration else list(SENTENCES)
        read = checkpoint.read(source)
        with _progress("calibrating", len(texts)) as progress:
            ranges = calibrate.measure(read, texts, progress)
        made = conversion.convert(read, ranges)
        size = file.write(made, output)
    s = made.shape
    click.echo(f"{output}: {s.layers} layers, {s.heads} heads, hidden size {s.hidden}, at most {s.tokens} tokens")
    click.echo(
        f"{_megabytes(size)}, {100 * size / read.weight_bytes:.1f} % of {_megabytes(read.weight_bytes)} in float"
    )
    click.echo(f"calibrated on {ranges.sentences} sentences{'' if calibration else ' that are shipped with intsim'}")


@model.command()
@click.argument("path", metavar="MODEL", type=click.Path())
@click.option("--text", "texts", multiple=True, help="A text to embed; may be given several times.")
@click.option("--file", "source", help="A file with a text a line; - is standard input, the default.")
@click.option("--backend", type=BACKENDS, default="cpu", show_default=True, help="All give the same bits.")
@click.option("-o", "--output", help="Write the embeddings (float32, of length 1) to this .npy file.")
@click.option("--pooled", is_flag=True, help="Write the pooled integers (int32) in their place.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON: pooled integers, their scale, embeddings.")
def run(
    path: str, texts: tuple[str, ...], source: str | None, backend: str, output: str | None, pooled: bool, as_json: bool
) -> None:
    """Embed text with integer operations only, from the embedding tables to the pooled output.

    The division by the L2 norm follows on the host.
    """
    from intsim.models import encoder, file, text
    from intsim.models.float_encoder import normalised

    with _explained():
        if pooled and not output:
            raise ValueError("--pooled says what to write to a file: give one with -o")
        if texts and source:
            raise ValueError("give --text or --file, not both")
        _check_folder(output)
        read = file.read(path)
        sentences = text.TextReader(read.tokenizer, read.shape).read(list(texts) or _lines(source or "-"))
        if not sentences:
            raise ValueError("there is no text; give --text, --file, or lines on standard input")
        for number, sentence in enumerate(sentences, start=1):
            if sentence.dropped:
                click.echo(
                    f"text {number} is cut to {read.shape.tokens} tokens, {sentence.dropped} are left out", err=True
                )
        made = encoder.IntegerEncoder(read, backend)
        with _progress("embedding", len(sentences)) as progress:
            integers = made.embed([s.ids for s in sentences], progress=progress)
        real = normalised(integers).astype("float32")
        if output:
            _write_array(output, integers if pooled else real)
    if as_json:
        click.echo(json.dumps(_listed(sentences, integers, real, made.pooled_scale, backend), ensure_ascii=False))
        return
    _summary(sentences, integers, real, backend)
    if output:
        click.echo(f"{output}: {'pooled integers' if pooled else 'embeddings'}, shape {real.shape}")


@model.command()
@click.argument("path", metavar="MODEL", type=click.Path())
@click.argument("pairs", type=click.Path())
@click.option("--checkpoint", "source", required=True, help="The float model: a folder, or an installed package.")
@click.option("--backend", type=BACKENDS, default="cpu", show_default=True, help="All give the same bits.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def evaluate(path: str, pairs: str, source: str, backend: str, as_json: bool) -> None:
    """Compare MODEL with the float model that it came from.

    PAIRS is tab-separated, without quoting: genre, file, year, id, score, sentence1, sentence2.
    """
    from intsim.models import checkpoint, evaluate as evaluation, file

    with _explained():
        read_pairs = evaluation.read_pairs(pairs)
        read = file.read(path)
        texts = {t for pair in read_pairs for t in (pair.first, pair.second)}
        with _progress("embedding", 2 * len(texts)) as progress:
            found = evaluation.evaluate(
                read, Path(path).stat().st_size, checkpoint.read(source), read_pairs, backend, progress
            )
    if as_json:
        click.echo(json.dumps(dataclasses.asdict(found)))
        return
    loss = 100 * (found.float_spearman - found.integer_spearman)
    for name, real, integer in (
        ("Spearman x100 with human scores", f"{100 * found.float_spearman:.2f}", f"{100 * found.integer_spearman:.2f}"),
        ("file size", _megabytes(found.float_bytes), _megabytes(found.integer_bytes)),
        ("time for a sentence", f"{1000 * found.float_seconds:.1f} ms", f"{1000 * found.integer_seconds:.1f} ms"),
    ):
        click.echo(f"{name:<34} float {real:>9}   integer {integer:>9}")
    click.echo(f"{'loss of Spearman x100':<34} {loss:.2f}")
    click.echo(f"{'Spearman x100 between the models':<34} {100 * found.between_models:.2f}")
    click.echo(f"{'mean cosine of the embeddings':<34} {found.mean_cosine:.4f}")
    click.echo(f"{found.pairs} pairs, {found.sentences} sentences, backend {backend}")


def _megabytes(count: int) -> str:
    return f"{count / 1e6:.1f} MB"


def _write_array(path: str, array: Any) -> None:
    import io

    import numpy as np

    from intsim.models.container import replace

    buffer = io.BytesIO()
    np.save(buffer, array)
    replace(Path(path), buffer.getvalue())


def _listed(sentences: list[Sentence], integers: Any, real: Any, scale: float, backend: str) -> dict[str, Any]:
    return {
        "backend": backend,
        "pooled_scale": scale,
        "sentences": [
            {
                "text": s.text,
                "tokens": len(s.ids),
                "dropped_tokens": s.dropped,
                "pooled": row.tolist(),
                "embedding": embedding.tolist(),
            }
            for s, row, embedding in zip(sentences, integers, real, strict=True)
        ],
    }


def _summary(sentences: list[Sentence], integers: Any, real: Any, backend: str) -> None:
    import hashlib

    digest = hashlib.sha256(integers.astype("<i4").tobytes()).hexdigest()
    click.echo(f"{len(sentences)} x {real.shape[1]} integers, backend {backend}, sha256 {digest[:16]}")
    for number, (sentence, row) in enumerate(zip(sentences, integers, strict=True), start=1):
        first = " ".join(f"{v:8d}" for v in row[:4].tolist())
        click.echo(f"{number:4d}  {len(sentence.ids):3d} tokens  {first} ...  {sentence.text[:48]}")
    if 1 < len(sentences) <= MOST_COSINES:
        click.echo("cosines")
        for number, row in enumerate(real @ real.T, start=1):
            click.echo(f"{number:4d}  " + " ".join(f"{c:7.4f}" for c in row.tolist()))

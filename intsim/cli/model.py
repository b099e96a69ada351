"""intsim model: convert a BERT checkpoint to integers, embed text with it, compare it with the float model."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from intsim.cli import model_evaluate, model_transformer
from intsim.cli.messages import BACKENDS, check_folder, counting, explained, lines, megabytes

if TYPE_CHECKING:
    from intsim.models.text import Sentence

MOST_COSINES = 8  # sentences whose cosines a summary shows


@click.group()
def model() -> None:
    """Integer Transformers: convert, run, translate, evaluate."""


for command in (*model_transformer.COMMANDS, model_evaluate.show_results):
    model.add_command(command)


@model.command()
@click.argument("source")
@click.option("-o", "--output", required=True, help="The file to write, for example minilm-w8a8.safetensors.")
@click.option("--calibrate", "calibration", type=click.Path(), help="Text for calibration, a line a sentence.")
@click.option(
    "--option",
    "options",
    multiple=True,
    metavar="NAME=VALUE",
    help="A choice for a trained Transformer, as above; may be given several times.",
)
def convert(source: str, output: str, calibration: str | None, options: tuple[str, ...]) -> None:
    """Convert a checkpoint to an integer model.

    SOURCE is a BERT checkpoint: a folder in Hugging Face layout (config.json, model.safetensors,
    tokenizer.json), or the name of an installed package that holds one. Or it is a folder of
    intsim train with polynomial attention and the l1 norm: no calibration is needed, and
    --option takes

    \b
    residual=int16|int8                     type of the sums that run through all layers
    weights=row|tensor                      what shares a scale
    probabilities=denominator|explicit      their sum goes to the scale, or is divided out
    probability=uint8|int8|int16            their type
    policy=when_needed|always|powers_of_two when a row is rescaled
    centring=exact|rounded_mean             of the l1 norm
    rounding=ties_to_away|...               of every rescaling
    """
    from intsim.models import calibrate, checkpoint, convert as conversion, file, transformer_checkpoint
    from intsim.models.calibration_text import SENTENCES

    with explained():
        check_folder(output)
        if transformer_checkpoint.is_ours(source):
            if calibration:
                raise ValueError(f"{source} needs no calibration: leave --calibrate out")
            model_transformer.convert(source, output, options)
            return
        if options:
            raise ValueError("--option is for folders of intsim train; a BERT checkpoint takes none")
        texts = [t for t in lines(calibration) if t.strip()] if calibration else list(SENTENCES)
        read = checkpoint.read(source)
        with counting("calibrating", len(texts)) as progress:
            ranges = calibrate.measure(read, texts, progress)
        made = conversion.convert(read, ranges)
        size = file.write(made, output)
    s = made.shape
    click.echo(f"{output}: {s.layers} layers, {s.heads} heads, hidden size {s.hidden}, at most {s.tokens} tokens")
    click.echo(f"{megabytes(size)}, {100 * size / read.weight_bytes:.1f} % of {megabytes(read.weight_bytes)} in float")
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
    from intsim.models import file, fused_encoder, text, transformer_file
    from intsim.models.float_encoder import normalised

    with explained():
        if pooled and not output:
            raise ValueError("--pooled says what to write to a file: give one with -o")
        if texts and source:
            raise ValueError("give --text or --file, not both")
        check_folder(output)
        if transformer_file.is_transformer(path):
            raise ValueError(f"{path} is no encoder; use: intsim model translate, complete or score")
        read = file.read(path)
        sentences = text.TextReader(read.tokenizer, read.shape).read(list(texts) or lines(source or "-"))
        if not sentences:
            raise ValueError("there is no text; give --text, --file, or lines on standard input")
        for number, sentence in enumerate(sentences, start=1):
            if sentence.dropped:
                click.echo(
                    f"text {number} is cut to {read.shape.tokens} tokens, {sentence.dropped} are left out", err=True
                )
        made = fused_encoder.opened(read, backend)
        with counting("embedding", len(sentences)) as progress:
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
@click.argument("path", metavar="MODEL")
@click.argument("pairs", type=click.Path(), required=False)
@click.option("--checkpoint", "source", help="The float model: a folder, or an installed package.")
@click.option("--backend", type=BACKENDS, default="cpu", show_default=True, help="All give the same bits.")
@model_evaluate.evaluate_options
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def evaluate(path: str, pairs: str | None, source: str | None, backend: str, as_json: bool, **given: Any) -> None:
    """Compare MODEL with the float model that it came from.

    For an encoder PAIRS is tab-separated, without quoting: genre, file, year, id, score, sentence1,
    sentence2. For a translation model give --pairs, or --source and --target; for a language model
    --text. Their float figures come with --checkpoint.
    """
    from intsim.models import checkpoint, evaluate as evaluation, file, transformer_checkpoint, transformer_file

    with explained():
        place = transformer_file.find(path)
        if transformer_file.is_transformer(place) or transformer_checkpoint.is_ours(place):
            if pairs:
                raise ValueError("a Transformer's pairs come with --pairs FILE")
            model_evaluate.evaluate(place, source, backend, as_json, **given)
            return
        if not pairs or not source:
            raise ValueError("an encoder is evaluated on PAIRS, against --checkpoint: give both")
        read_pairs = evaluation.read_pairs(pairs)
        read = file.read(path)
        texts = {t for pair in read_pairs for t in (pair.first, pair.second)}
        with counting("embedding", 2 * len(texts)) as progress:
            found = evaluation.evaluate(
                read, Path(path).stat().st_size, checkpoint.read(source), read_pairs, backend, progress
            )
    if as_json:
        click.echo(json.dumps(dataclasses.asdict(found)))
        return
    loss = 100 * (found.float_spearman - found.integer_spearman)
    for name, real, integer in (
        ("Spearman x100 with human scores", f"{100 * found.float_spearman:.2f}", f"{100 * found.integer_spearman:.2f}"),
        ("file size", megabytes(found.float_bytes), megabytes(found.integer_bytes)),
        ("time for a sentence", f"{1000 * found.float_seconds:.1f} ms", f"{1000 * found.integer_seconds:.1f} ms"),
    ):
        click.echo(f"{name:<34} float {real:>9}   integer {integer:>9}")
    click.echo(f"{'loss of Spearman x100':<34} {loss:.2f}")
    click.echo(f"{'Spearman x100 between the models':<34} {100 * found.between_models:.2f}")
    click.echo(f"{'mean cosine of the embeddings':<34} {found.mean_cosine:.4f}")
    click.echo(f"{found.pairs} pairs, {found.sentences} sentences, backend {backend}")


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

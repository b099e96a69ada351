"""intsim model evaluate for trained Transformers, and the record of what it measured."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from intsim.cli.messages import counting, explained
from intsim.cli.model_transformer import FILE, float_of, integer, opened, stored

if TYPE_CHECKING:
    from intsim.models import results
    from intsim.models.transformer import Transformer
    from intsim.models.transformer_checkpoint import TransformerCheckpoint
    from intsim.models.transformer_layout import PropagatedModel
    from intsim.models.vocabulary import Vocabulary


def evaluate_options(function: Any) -> Any:
    """What a Transformer is evaluated on."""
    made = [
        click.option("--pairs", "pair_file", type=FILE, help="Sentences: source TAB target a line."),
        click.option("--part", type=click.Choice(["train", "valid", "test"]), help="Only this part of --pairs."),
        click.option("--source", "source_file", type=FILE, help="Source sentences, a line each."),
        click.option("--target", "target_file", type=FILE, help="Their translations."),
        click.option("--text", "text_file", type=FILE, help="Running text for a language model."),
        click.option("--windows", default=0, help="Only the first so many windows of it; 0 is all."),
        click.option("--limit", default=0, help="Only the first so many sentences; 0 is all."),
        click.option("--beam", "width", default=1, show_default=True, help="Texts followed in a translation."),
        click.option(
            "--reading",
            "readings",
            type=click.Choice(["floating", "literal", "tensor"]),
            multiple=True,
            help="Beside it: the same integers with floating scales, as the paper has them; read to the letter, too; "
            "or with one scale a tensor.",
        ),
        click.option("--record", metavar="DATA", help="Keep the figures as those on DATA, for intsim model results."),
        click.option(
            "--record-file",
            type=click.Path(dir_okay=False, path_type=Path),
            help="Where to keep them (default: with the golden outputs).",
        ),
    ]
    for option in reversed(made):
        function = option(function)
    return function


def evaluate(
    path: Path,
    checkpoint: str | None,
    backend: str,
    as_json: bool,
    *,
    pair_file: Path | None,
    part: str | None,
    source_file: Path | None,
    target_file: Path | None,
    text_file: Path | None,
    windows: int,
    limit: int,
    width: int,
    readings: tuple[str, ...],
    record: str | None,
    record_file: Path | None,
) -> None:
    from intsim.models import corpora, results, scoring, storage, transformer_evaluate as evaluation

    compared = _compared(path, checkpoint, backend)
    for reading in dict.fromkeys(readings):
        compared.models[reading] = _read_as(compared.read, reading)
    if record and compared.checkpoint is None:  # before the work, not after it
        raise ValueError("--record keeps an integer model beside its float one: give --checkpoint")
    models, vocabulary = compared.models, compared.vocabulary
    shape = next(iter(models.values())).shape
    found: list[Any]
    if shape.translates:
        if pair_file and not (source_file or target_file):
            pairs = corpora.tabbed(pair_file)
            pairs = corpora.part(pairs, part) if part else pairs
        elif source_file and target_file and not pair_file:
            pairs = corpora.parallel(source_file, target_file)
        else:
            raise ValueError("a translation model is evaluated on --pairs FILE, or on --source FILE --target FILE")
        pairs = pairs[: limit or None]
        with counting("translating", len(models) * len(pairs)) as progress:
            found = evaluation.on_pairs(models, vocabulary, pairs, width=width, progress=progress)
    else:
        if not text_file:
            raise ValueError("a language model is evaluated on --text FILE")
        text = corpora.lines(text_file)
        count = scoring.window_count(text, vocabulary, shape.positions)
        with counting("scoring", min(windows or count, count)) as progress:
            found = evaluation.on_text(models, vocabulary, text, windows=windows, progress=progress)
    if record:
        results.write(record_file or results.path(), _lines(record, compared, path, found))
    if as_json:
        click.echo(json.dumps([dataclasses.asdict(one) for one in found], ensure_ascii=False))
        return
    (_show_pairs if shape.translates else _show_text)(found)
    if compared.read and compared.checkpoint:
        click.echo(stored(storage.measure(compared.checkpoint, path)))


@dataclasses.dataclass(frozen=True, slots=True)
class _Compared:
    """What is measured. models: the float one first. checkpoint: the float model's, and its folder, where given."""

    models: dict[str, Transformer[Any]]
    vocabulary: Vocabulary
    read: PropagatedModel | None
    checkpoint: TransformerCheckpoint | None
    folder: Path | None


def _compared(path: Path, checkpoint: str | None, backend: str) -> _Compared:
    from intsim.models import transformer_checkpoint

    if path.is_dir():
        if checkpoint:
            raise ValueError(f"{path} is a float model: it is not compared with another; leave --checkpoint out")
        real = transformer_checkpoint.read(path)
        return _Compared({"float": real.model()}, opened(str(path), backend)[1], None, real, path)
    read, model, vocabulary = integer(str(path), backend)
    if not checkpoint:
        return _Compared({"integer": model}, vocabulary, read, None, None)
    real = float_of(read, checkpoint)
    return _Compared({"float": real.model(), "integer": model}, vocabulary, read, real, Path(checkpoint))


def _read_as(model: PropagatedModel | None, reading: str) -> Transformer[Any]:
    from intsim.models.floating_scales import FloatingScales, Reading

    if model is None:
        raise ValueError("--reading is of an integer model; a float model has no scales")
    return FloatingScales(model, Reading(reading))


def _lines(data: str, compared: _Compared, path: Path, found: list[Any]) -> list[results.Line]:
    """What goes into the record."""
    from intsim.models import results, storage
    from intsim.models.transformer_layout import Options

    real, folder = compared.checkpoint, compared.folder
    assert real
    assert folder
    made = []
    for one in found:
        form, size = "float32", storage.float_bytes(real)
        if one.name != "float" and compared.read:
            usual = Options().as_names()
            options = compared.read.options.as_names().items()
            form = ", ".join([results.INTEGERS, *(f"{k} {v}" for k, v in options if usual[k] != v)])
            form += results.READINGS.get(one.name, "")
            size = storage.measure(real, path).integer
        against = form != "float32"
        made.append(
            results.Line(
                data=data,
                model=results.model_name(real.shape),
                training=results.training_name(folder, real.shape),
                form=form,
                count=one.count,
                bleu=(one.bleu.score, one.bleu.low, one.bleu.high) if real.shape.translates else None,
                token_perplexity=one.token_perplexity,
                word_perplexity=None if real.shape.translates else one.word_perplexity,
                kl=one.kl if against else None,
                same_best=one.same_best if against else None,
                same_text=one.same_text if against and real.shape.translates else None,
                size=size,
                weights=real.sha256,
                date=results.today(),
            )
        )
    return made


def _show_pairs(found: list[Any]) -> None:
    _row("", [f.name for f in found])
    _row("BLEU", [f"{f.bleu.score:.2f}" for f in found])
    _row("  95 % interval (bootstrap)", [f"{f.bleu.low:.1f}..{f.bleu.high:.1f}" for f in found])
    _row("perplexity a token of the reference", [f"{f.token_perplexity:.3f}" for f in found])
    if len(found) > 1:
        _row("same translation as the first", [f"{100 * f.same_text:.1f} %" for f in found])
        _row("KL to the first, nats a token", [f"{f.kl:.6f}" for f in found])
        _row("same best token", [f"{100 * f.same_best:.2f} %" for f in found])
    _row("time a sentence", [f"{1000 * f.seconds:.1f} ms" for f in found])
    click.echo(f"{len(found[0].translations)} sentences; {found[0].bleu.signature}")


def _show_text(found: list[Any]) -> None:
    _row("", [f.name for f in found])
    _row("perplexity a token", [f"{f.token_perplexity:.3f}" for f in found])
    if found[0].word_perplexity:
        _row("perplexity a word", [f"{f.word_perplexity:.3f}" for f in found])
    if len(found) > 1:
        _row("KL to the first, nats a token", [f"{f.kl:.6f}" for f in found])
        _row("same best token", [f"{100 * f.same_best:.2f} %" for f in found])
    _row("time a token read", [f"{1000 * f.seconds:.3f} ms" for f in found])
    click.echo(f"{found[0].tokens:,} tokens counted")


def _row(label: str, values: list[str]) -> None:
    click.echo(f"{label:<36}" + "".join(f"{value:>16}" for value in values))


@click.command("results")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.option(
    "--update",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Write the tables into FILE, between its two marks.",
)
@click.option("--file", type=FILE, help="Another file of figures than that of this release.")
def show_results(as_json: bool, update: Path | None, file: Path | None) -> None:
    """Show what trained Transformers reached: lines that intsim model evaluate --record kept."""
    from intsim.models import results as kept

    with explained():
        lines = kept.read(file)
        if update:
            changed = kept.update(update, lines)
            click.echo(f"{update}: {'written' if changed else 'is up to date'}")
        elif as_json:
            click.echo(json.dumps([dataclasses.asdict(line) for line in lines], indent=1))
        else:
            click.echo(kept.markdown(lines))

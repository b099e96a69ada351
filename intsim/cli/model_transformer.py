"""The commands of intsim model that are for trained Transformers: convert, translate, complete, score, trace."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from intsim.cli.messages import BACKENDS, check_folder, counting, explained, lines, megabytes

if TYPE_CHECKING:
    from intsim.models.integer_transformer import IntegerTransformer
    from intsim.models.storage import Storage
    from intsim.models.trace import Place
    from intsim.models.transformer import Transformer
    from intsim.models.transformer_checkpoint import TransformerCheckpoint
    from intsim.models.transformer_layout import PropagatedModel
    from intsim.models.vocabulary import Vocabulary

FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
MODEL_HELP = "MODEL is a file, the name of a shipped model (en-de-int8, wikitext2-int8), or a folder of intsim train."


def convert(source: str, output: str, options: tuple[str, ...]) -> None:
    from intsim.models import storage, transformer_checkpoint, transformer_convert, transformer_file
    from intsim.models.transformer_layout import Options

    pairs = [option.partition("=") for option in options]
    for name, equals, _ in pairs:
        if not equals:
            raise ValueError(f"--option takes NAME=VALUE, got {name!r}")
    chosen = Options.from_names({name: value for name, _, value in pairs})
    checkpoint = transformer_checkpoint.read(source)
    transformer_file.write(transformer_convert.convert(checkpoint, chosen), output)
    s = checkpoint.shape
    click.echo(f"{output}: {s.task.value}, {s.layers} layers, {s.heads} heads, width {s.width}, {s.vocabulary} tokens")
    click.echo(f"options: {', '.join(f'{k} {v}' for k, v in chosen.as_names().items())}")
    click.echo(stored(storage.measure(checkpoint, Path(output))))


def stored(found: Storage) -> str:
    """How much smaller the integers are."""
    return (
        f"{megabytes(found.real)} in float32, {megabytes(found.integer)} in integers: {found.times:.2f} times less "
        f"({found.times_with_tokenizer:.2f} with the tokenizer of {found.tokenizer:,} bytes on both sides)"
    )


def opened(name: str, backend: str) -> tuple[Transformer[Any], Vocabulary]:
    """An integer model, or the float model of a folder of intsim train."""
    from intsim.models import transformer_checkpoint
    from intsim.models.vocabulary import Vocabulary

    if Path(name).is_dir():
        checkpoint = transformer_checkpoint.read(name)
        return checkpoint.model(), Vocabulary(checkpoint.tokenizer)
    _, model, vocabulary = integer(name, backend)
    return model, vocabulary


def integer(name: str, backend: str) -> tuple[PropagatedModel, IntegerTransformer, Vocabulary]:
    from intsim.models import transformer_file
    from intsim.models.fused_transformer import opened
    from intsim.models.vocabulary import Vocabulary

    read = transformer_file.read(transformer_file.find(name))
    return read, opened(read, backend), Vocabulary(read.tokenizer)


def _ids(vocabulary: Vocabulary, text: str, model: Transformer[Any], ends: int) -> list[int]:
    """Of one text. Raises ValueError where it has none, or more than fit with ``ends`` for begin or end."""
    (ids,) = vocabulary.encode([text])
    if not ids:
        raise ValueError("the text is empty; give at least one word")
    room = model.shape.positions - ends
    if len(ids) > room:
        raise ValueError(f"the text has {len(ids)} tokens, the model takes at most {room}: split it")
    return ids


def _texts(texts: tuple[str, ...], file: str | None) -> list[str]:
    if texts and file:
        raise ValueError("give --text or --file, not both")
    made = list(texts) or lines(file or "-")
    if not made:
        raise ValueError("there is no text; give --text, --file, or lines on standard input")
    return made


@click.command(epilog=MODEL_HELP)
@click.argument("name", metavar="MODEL")
@click.option("--text", "texts", multiple=True, help="A text to translate; may be given several times.")
@click.option("--file", "file", help="A file with a text a line; - is standard input, the default.")
@click.option("--beam", "width", default=1, show_default=True, help="Texts that are followed; 1 takes the best token.")
@click.option("--cache/--no-cache", default=True, help="Keep keys and values; the bits are the same without.")
@click.option("--backend", type=BACKENDS, default="cpu", show_default=True, help="All give the same bits.")
def translate(name: str, texts: tuple[str, ...], file: str | None, width: int, cache: bool, backend: str) -> None:
    """Translate with integer operations only; without beams the words appear as they are found."""
    from intsim.models import generation

    with explained():
        model, vocabulary = opened(name, backend)
        if not model.shape.translates:
            raise ValueError(f"{name} is a language model, no translator; use: intsim model complete")
        for text in _texts(texts, file):
            source = _ids(vocabulary, text, model, ends=1)
            if width == 1:
                _print_stream(generation.stream(model, source, cache=cache), vocabulary)
            else:
                click.echo(vocabulary.decode(generation.beam(model, source, width=width, cache=cache).ids))


@click.command(epilog=MODEL_HELP)
@click.argument("name", metavar="MODEL")
@click.option("--text", required=True, help="How the text begins.")
@click.option("--tokens", default=0, help="At most so many new tokens; 0 is as many as the positions allow.")
@click.option("--cache/--no-cache", default=True, help="Keep keys and values; the bits are the same without.")
@click.option("--backend", type=BACKENDS, default="cpu", show_default=True, help="All give the same bits.")
def complete(name: str, text: str, tokens: int, cache: bool, backend: str) -> None:
    """Go on with a text, the best token each time, up to the end of the paragraph."""
    from intsim.models import generation

    with explained():
        model, vocabulary = opened(name, backend)
        if model.shape.translates:
            raise ValueError(f"{name} is a translator; use: intsim model translate")
        prompt = _ids(vocabulary, text, model, ends=0)
        found = generation.stream(model, prompt=prompt, most=tokens, cache=cache)
        _print_stream(found, vocabulary, prompt)


def _print_stream(tokens: Any, vocabulary: Vocabulary, before: list[int] | None = None) -> None:
    """Text as soon as it is sure: bytes of an unfinished character wait for the rest."""
    ids = list(before or [])
    shown = ""
    for token in tokens:
        ids.append(token)
        text = vocabulary.decode(ids)
        if text.startswith(shown) and not text.endswith("\N{REPLACEMENT CHARACTER}"):
            click.echo(text[len(shown) :], nl=False)
            shown = text
    text = vocabulary.decode(ids)
    click.echo(text[len(shown) :] if text.startswith(shown) else "")


@click.command(epilog=MODEL_HELP)
@click.argument("name", metavar="MODEL")
@click.argument("file", type=FILE)
@click.option("--windows", default=0, help="Only the first so many windows of the text; 0 is all.")
@click.option("--backend", type=BACKENDS, default="cpu", show_default=True, help="All give the same bits.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def score(name: str, file: Path, windows: int, backend: str, as_json: bool) -> None:
    """The perplexity of a text, or of translations.

    FILE is running text for a language model, whose windows overlap by half; source TAB target a line
    for a translation model.
    """
    from intsim.models import corpora, scoring

    with explained():
        model, vocabulary = opened(name, backend)
        if model.shape.translates:
            pairs = corpora.tabbed(file)
            sources, targets = (vocabulary.encode([pair[i] for pair in pairs]) for i in (0, 1))
            with counting("scoring", len(pairs)) as progress:
                together = list(zip(sources, targets, strict=True))
                (found,), _ = scoring.measure_pairs([model], together, progress=progress)
        else:
            text = corpora.lines(file)
            count = scoring.window_count(text, vocabulary, model.shape.positions)
            with counting("scoring", min(windows or count, count)) as progress:
                (found,), _ = scoring.measure([model], text, vocabulary, windows=windows, progress=progress)
    if as_json:
        click.echo(json.dumps(dataclasses.asdict(found) | {"token_perplexity": found.token_perplexity}))
        return
    click.echo(f"perplexity a token  {found.token_perplexity:.3f}   ({found.tokens:,} tokens)")
    if found.word_perplexity:
        click.echo(f"perplexity a word   {found.word_perplexity:.3f}   ({found.words:,} words, line ends included)")


@click.command(epilog=MODEL_HELP)
@click.argument("name", metavar="MODEL")
@click.option("--text", required=True, help="The text that runs through the model.")
@click.option("--target", help="Its translation; without it the model's own.")
@click.option("--checkpoint", type=click.Path(file_okay=False), help="The float model, for the errors.")
@click.option("--backend", type=BACKENDS, default="cpu", show_default=True, help="All give the same bits.")
@click.option("--plot", help="Draw bits and errors into this .png file (pip install 'intsim[plots]').")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def trace(
    name: str, text: str, target: str | None, checkpoint: str | None, backend: str, plot: str | None, as_json: bool
) -> None:
    """Show every place of the model: type, largest integer, range of scales, and the error against the float model."""
    from intsim.models import trace as tracing

    with explained():
        check_folder(plot)
        read, model, vocabulary = integer(name, backend)
        real = None
        if checkpoint:
            real = float_of(read, checkpoint).model()
        ids = _ids(vocabulary, text, model, ends=1)
        if read.shape.translates:
            wanted = _ids(vocabulary, target, model, ends=1) if target else None
            found = tracing.trace(model, real, ids, wanted)
        else:
            if target:
                raise ValueError("a language model has no --target: give the whole text with --text")
            found = tracing.trace(model, real, [], ids)
        if plot:
            _plot(found, plot)
    if as_json:
        click.echo(json.dumps([dataclasses.asdict(place) | {"bits": place.bits} for place in found]))
        return
    click.echo(f"{'place':<32} {'type':<6} {'largest':>11} {'bits':>4}  {'scales':>15}  {'rms':>10}  error")
    for p in found:
        error = "-" if p.error is None else f"{100 * p.error:.2f} %"
        scales = f"2^{p.low:.1f}..2^{p.high:.1f}"
        click.echo(f"{p.name:<32} {p.dtype:<6} {p.largest:11,} {p.bits:4}  {scales:>15}  {p.rms:10.4g}  {error}")
    if plot:
        click.echo(f"{plot}: drawn")


def float_of(read: PropagatedModel, folder: str) -> TransformerCheckpoint:
    from intsim.models import transformer_checkpoint

    checkpoint = transformer_checkpoint.read(folder)
    if read.source.get("sha256") != checkpoint.sha256:
        raise ValueError(
            f"the model was converted from weights with sha256 {read.source.get('sha256')}, "
            f"{folder} has {checkpoint.sha256}; give the other folder, or convert this one"
        )
    return checkpoint


def _plot(places: list[Place], file: str) -> None:
    from intsim.models.extras import need

    try:
        need("matplotlib").use("Agg")
        pyplot = need("matplotlib.pyplot")
    except ModuleNotFoundError:
        raise ModuleNotFoundError("matplotlib is not installed; plots need it: pip install 'intsim[plots]'") from None
    errors = [p.error for p in places]
    drawn = 1 if None in errors else 2
    figure, axes = pyplot.subplots(
        drawn, 1, sharex=True, squeeze=False, figsize=(max(6, len(places) / 5), 3 * drawn + 2)
    )
    axes[0][0].bar(range(len(places)), [p.bits for p in places])
    axes[0][0].set_ylabel("bits of the largest integer")
    if drawn == 2:
        axes[1][0].plot(range(len(places)), [100 * (e or 0.0) for e in errors], marker=".")
        axes[1][0].set_ylabel("error against float (%)")
        axes[1][0].set_ylim(bottom=0)
    axes[-1][0].set_xticks(range(len(places)), [p.name for p in places], rotation=90, fontsize=6)
    figure.tight_layout()
    figure.savefig(file, dpi=120)
    pyplot.close(figure)


COMMANDS = (translate, complete, score, trace)

"""The commands of intsim model that are for trained Transformers: translate, complete, score, trace."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from intsim.cli.messages import BACKENDS, check_folder, counting, explained, lines, megabytes

if TYPE_CHECKING:
    from intsim.models.integer_transformer import IntegerTransformer
    from intsim.models.trace import Place
    from intsim.models.transformer import Transformer
    from intsim.models.transformer_checkpoint import TransformerCheckpoint
    from intsim.models.transformer_layout import PropagatedModel
    from intsim.models.vocabulary import Vocabulary

_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
_MODEL_HELP = "MODEL is a file, the name of a shipped model (en-de-int8, wikitext2-int8), or a folder of intsim train."


def convert(source: str, output: str, options: tuple[str, ...]) -> None:
    from intsim.models import transformer_checkpoint, transformer_convert, transformer_file
    from intsim.models.transformer_layout import Options

    pairs = [option.partition("=") for option in options]
    for name, equals, _ in pairs:
        if not equals:
            raise ValueError(f"--option takes NAME=VALUE, got {name!r}")
    chosen = Options.from_names({name: value for name, _, value in pairs})
    checkpoint = transformer_checkpoint.read(source)
    size = transformer_file.write(transformer_convert.convert(checkpoint, chosen), output)
    s = checkpoint.shape
    click.echo(f"{output}: {s.task.value}, {s.layers} layers, {s.heads} heads, width {s.width}, {s.vocabulary} tokens")
    click.echo(f"options: {', '.join(f'{k} {v}' for k, v in chosen.as_names().items())}")
    share = 100 * size / checkpoint.float_bytes
    click.echo(
        f"{megabytes(size)}, tokenizer included: {share:.1f} % of {megabytes(checkpoint.float_bytes)} in float32"
    )


def _opened(name: str, backend: str) -> tuple[Transformer[Any], Vocabulary]:
    """An integer model, or the float model of a folder of intsim train."""
    from intsim.models import transformer_checkpoint
    from intsim.models.vocabulary import Vocabulary

    if Path(name).is_dir():
        checkpoint = transformer_checkpoint.read(name)
        return checkpoint.model(), Vocabulary(checkpoint.tokenizer)
    _, model, vocabulary = _integer(name, backend)
    return model, vocabulary


def _integer(name: str, backend: str) -> tuple[PropagatedModel, IntegerTransformer, Vocabulary]:
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


@click.command(epilog=_MODEL_HELP)
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
        model, vocabulary = _opened(name, backend)
        if not model.shape.translates:
            raise ValueError(f"{name} is a language model, no translator; use: intsim model complete")
        for text in _texts(texts, file):
            source = _ids(vocabulary, text, model, ends=1)
            if width == 1:
                _print_stream(generation.stream(model, source, cache=cache), vocabulary)
            else:
                click.echo(vocabulary.decode(generation.beam(model, source, width=width, cache=cache).ids))


@click.command(epilog=_MODEL_HELP)
@click.argument("name", metavar="MODEL")
@click.option("--text", required=True, help="How the text begins.")
@click.option("--tokens", default=0, help="At most so many new tokens; 0 is as many as the positions allow.")
@click.option("--cache/--no-cache", default=True, help="Keep keys and values; the bits are the same without.")
@click.option("--backend", type=BACKENDS, default="cpu", show_default=True, help="All give the same bits.")
def complete(name: str, text: str, tokens: int, cache: bool, backend: str) -> None:
    """Go on with a text, the best token each time, up to the end of the paragraph."""
    from intsim.models import generation

    with explained():
        model, vocabulary = _opened(name, backend)
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


@click.command(epilog=_MODEL_HELP)
@click.argument("name", metavar="MODEL")
@click.argument("file", type=_FILE)
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
        model, vocabulary = _opened(name, backend)
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


@click.command(epilog=_MODEL_HELP)
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
        read, model, vocabulary = _integer(name, backend)
        real = None
        if checkpoint:
            real = _float(read, checkpoint).model()
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


def _float(read: PropagatedModel, folder: str) -> TransformerCheckpoint:
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


def evaluate_options(function: Any) -> Any:
    """What a Transformer is evaluated on."""
    made = [
        click.option("--pairs", "pair_file", type=_FILE, help="Sentences: source TAB target a line."),
        click.option("--part", type=click.Choice(["train", "valid", "test"]), help="Only this part of --pairs."),
        click.option("--source", "source_file", type=_FILE, help="Source sentences, a line each."),
        click.option("--target", "target_file", type=_FILE, help="Their translations."),
        click.option("--text", "text_file", type=_FILE, help="Running text for a language model."),
        click.option("--windows", default=0, help="Only the first so many windows of it; 0 is all."),
        click.option("--limit", default=0, help="Only the first so many sentences; 0 is all."),
        click.option("--beam", "width", default=1, show_default=True, help="Texts followed in a translation."),
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
) -> None:
    from intsim.models import corpora, scoring, transformer_evaluate as evaluation

    models, real, vocabulary = _compared(path, checkpoint, backend)
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
    if as_json:
        click.echo(json.dumps([dataclasses.asdict(one) for one in found], ensure_ascii=False))
        return
    (_show_pairs if shape.translates else _show_text)(found)
    if real:
        size = path.stat().st_size
        click.echo(f"{'storage':<34} {megabytes(real.float_bytes)} float32, {megabytes(size)} integer with tokenizer: "
                   f"{real.float_bytes / size:.2f} times less")  # fmt: skip


def _compared(
    path: Path, checkpoint: str | None, backend: str
) -> tuple[dict[str, Transformer[Any]], TransformerCheckpoint | None, Vocabulary]:
    """(models by name, the float one first; the checkpoint that an integer model came from)."""
    if path.is_dir():
        if checkpoint:
            raise ValueError(f"{path} is a float model: it is not compared with another; leave --checkpoint out")
        model, vocabulary = _opened(str(path), backend)
        return {"float": model}, None, vocabulary
    read, integer, vocabulary = _integer(str(path), backend)
    if not checkpoint:
        return {"integer": integer}, None, vocabulary
    real = _float(read, checkpoint)
    return {"float": real.model(), "integer": integer}, real, vocabulary


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


COMMANDS = (translate, complete, score, trace)

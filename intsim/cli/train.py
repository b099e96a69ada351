"""``intsim train``: the float Transformers that integer ones are made from."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from intsim.cli.messages import explained

if TYPE_CHECKING:
    from intsim.models.architecture import Architecture
    from intsim.training.loop import Progress, Run

_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
# width, layers, heads, feed, vocabulary, positions
TRANSLATION_SIZES = {
    "smoke": (32, 1, 2, 64, 400, 64),
    "tiny": (128, 4, 4, 256, 6000, 128),
    "small": (256, 3, 4, 1024, 6000, 128),
}
LM_SIZES = {
    "smoke": (32, 1, 2, 64, 400, 32),
    "tiny": (128, 4, 4, 512, 4096, 256),
    "small": (256, 6, 4, 1024, 4096, 256),
}


@click.group()
def train() -> None:
    """Train a float Transformer on CPU or GPU; it can be stopped and resumed (pip install 'intsim[train]')."""


def _common(sizes: dict[str, Any], **defaults: Any) -> Callable[[Any], Any]:
    options = [
        click.option(
            "--out", required=True, type=click.Path(file_okay=False, path_type=Path), help="The run's folder."
        ),
        click.option("--size", type=click.Choice(list(sizes)), default=defaults["size"], show_default=True),
        click.option(
            "--attention", type=click.Choice(["polynomial", "softmax"]), default="polynomial", show_default=True
        ),
        click.option("--norm", type=click.Choice(["l1", "standard"]), default="l1", show_default=True),
        click.option("--degree", default=3, show_default=True, help="Of the polynomial attention."),
        click.option("--shift", type=float, help="Its b before training.  [default: the degree]"),
        click.option("--gain", type=float, help="Of the L1 norm before training.  [default: sqrt(2/pi)]"),
        click.option("--positions", type=click.Choice(["learned", "sinusoidal"]), default="learned", show_default=True),
        click.option("--post-norm", is_flag=True, help="Norms after each sum instead of before each block."),
        click.option("--steps", default=defaults["steps"], show_default=True, help="Updates."),
        click.option("--rate", default=defaults["rate"], show_default=True, help="Highest learning rate."),
        click.option("--warmup", default=defaults["warmup"], show_default=True, help="Steps up to it."),
        click.option("--batch", default=defaults["batch"], show_default=True, help=defaults["batch_help"]),
        click.option("--dropout", default=defaults["dropout"], show_default=True),
        click.option("--every", default=500, show_default=True, help="Steps between looks at the validation data."),
        click.option("--seed", default=1, show_default=True),
        click.option("--minutes", default=math.inf, help="Stop after so long; the same command goes on from there."),
        click.option("--device", default="auto", show_default=True, help="cpu, cuda, or the one that is there."),
        click.option("--limit", default=0, help="Use only the first so many lines (for a trial)."),
    ]

    def decorate(function: Any) -> Any:
        for option in reversed(options):
            function = option(function)
        return function

    return decorate


@train.command()
@click.option("--pairs", type=_FILE, help="One file, source TAB target; split into parts by the source sentence.")
@click.option("--source", type=_FILE, help="Source sentences, a line each.")
@click.option("--target", type=_FILE, help="Their translations.")
@click.option("--valid-source", type=_FILE, help="Validation data, with --source.")
@click.option("--valid-target", type=_FILE, help="Its translations.")
@_common(
    TRANSLATION_SIZES,
    size="tiny",
    steps=8000,
    rate=3e-3,
    warmup=1000,
    batch=8192,
    batch_help="Tokens a step, a side.",
    dropout=0.3,
)
def translation(
    pairs: Path | None,
    source: Path | None,
    target: Path | None,
    valid_source: Path | None,
    valid_target: Path | None,
    **given: Any,
) -> None:
    """An encoder-decoder on pairs of sentences.

    \b
    intsim train translation --pairs deu.txt.gz --out runs/tatoeba
    intsim train translation --source train.en --target train.de \\
        --valid-source val.en --valid-target val.de --out runs/multi30k
    """
    with explained():
        from intsim.models import corpora
        from intsim.training import batches

        if pairs is not None and source is None:
            every = corpora.tabbed(pairs)
            learned, held = corpora.part(every, "train"), corpora.part(every, "valid")
        elif source and target and valid_source and valid_target and pairs is None:
            learned, held = corpora.parallel(source, target), corpora.parallel(valid_source, valid_target)
        else:
            raise ValueError("give --pairs FILE, or all of --source, --target, --valid-source and --valid-target")
        learned = learned[: given["limit"] or None]
        vocabulary = _vocabulary(given, (text for pair in learned for text in pair), TRANSLATION_SIZES)
        shape = _shape("translation", given, TRANSLATION_SIZES, vocabulary.size)
        ids, check = (
            [_cut(vocabulary.encode([p[i] for p in part]), shape) for i in (0, 1)] for part in (learned, held)
        )
        run = _run(given, shape, smoothing=0.1, decay=0.01)
        made, looked = (batches.Pairs(s, t, given["batch"]) for s, t in (ids, check))
        done = _train(run, given, made.shuffled, looked.batches())
        run.write(vocabulary, pairs=len(learned), finished=done)
        _end(run, done)


@train.command()
@click.option("--text", required=True, type=_FILE, help="Running text, a paragraph a line.")
@click.option("--valid", required=True, type=_FILE, help="Validation text.")
@_common(
    LM_SIZES,
    size="small",
    steps=6000,
    rate=1e-3,
    warmup=400,
    batch=64,
    batch_help="Windows a step.",
    dropout=0.25,
)
def lm(text: Path, valid: Path, **given: Any) -> None:
    """A language model on running text.

    \b
    intsim train lm --text wikitext-2/train.txt.gz --valid wikitext-2/valid.txt --out runs/lm
    """
    with explained():
        import torch

        from intsim.models import corpora
        from intsim.models.vocabulary import END
        from intsim.training import batches

        learned, held = (corpora.lines(f)[: given["limit"] or None] for f in (text, valid))
        vocabulary = _vocabulary(given, (line.strip() for line in learned), LM_SIZES)
        shape = _shape("language_model", given, LM_SIZES, vocabulary.size)
        ids, check = (
            torch.tensor([i for row in vocabulary.encode(part) for i in [*row, END]]) for part in (learned, held)
        )
        run = _run(given, shape, smoothing=0.0, decay=0.1)
        context = shape.positions
        starts = range(0, max(1, len(check) - context), context)
        looked = [(None, check[i : i + context + 1][None]) for i in starts]
        done = _train(
            run, given, lambda chance: batches.text_windows(ids, context, given["batch"], chance), _stacked(looked)
        )
        run.write(vocabulary, tokens=len(ids), finished=done)
        _end(run, done)


def _stacked(looked: list[Any]) -> list[Any]:
    """Windows of one length in batches of 32."""
    import torch

    whole = [w for _, w in looked if w.shape[1] == looked[0][1].shape[1]]
    made: list[Any] = [(None, torch.cat(whole[i : i + 32])) for i in range(0, len(whole), 32)]
    return made + [(None, w) for _, w in looked if w.shape[1] not in (whole[0].shape[1], 1)]


def _vocabulary(given: dict[str, Any], texts: Any, sizes: dict[str, Any]) -> Any:
    """That of the run in the folder, so that a resumed run has the same; else learned from ``texts``."""
    from intsim.models.vocabulary import Vocabulary
    from intsim.training.loop import TOKENIZER

    given["out"].mkdir(parents=True, exist_ok=True)
    file = given["out"] / TOKENIZER
    if file.is_file():
        return Vocabulary(file.read_text())
    click.echo("learning the vocabulary ...", err=True)
    made = Vocabulary.learn(texts, sizes[given["size"]][4])
    file.write_text(made.as_text())
    return made


def _shape(task: str, given: dict[str, Any], sizes: dict[str, Any], vocabulary: int) -> Architecture:
    from intsim.models.architecture import Architecture, AttentionKind, NormKind, Positions, Task

    width, layers, heads, feed, _, positions = sizes[given["size"]]
    return Architecture(
        task=Task(task),
        width=width,
        layers=layers,
        heads=heads,
        feed=feed,
        vocabulary=vocabulary,
        positions=positions,
        attention=AttentionKind(given["attention"]),
        degree=given["degree"],
        norm=NormKind(given["norm"]),
        norm_first=not given["post_norm"],
        position_kind=Positions(given["positions"]),
    )


def _cut(rows: list[list[int]], shape: Architecture) -> list[list[int]]:
    return [row[: shape.positions - 2] for row in rows]  # begin and end need two places


def _run(given: dict[str, Any], shape: Architecture, *, smoothing: float, decay: float) -> Run:
    import torch

    from intsim.training.loop import Recipe, Run
    from intsim.training.network import NORMAL_GAIN

    device = given["device"]
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    if device == "cuda" and not torch.cuda.is_available():
        raise ValueError("PyTorch finds no CUDA GPU: use --device cpu")
    recipe = Recipe(
        steps=given["steps"],
        rate=given["rate"],
        warmup=given["warmup"],
        dropout=given["dropout"],
        shift=float(given["degree"]) if given["shift"] is None else given["shift"],
        gain=NORMAL_GAIN if given["gain"] is None else given["gain"],
        smoothing=smoothing,
        decay=decay,
        every=given["every"],
        seed=given["seed"],
    )
    run = Run(given["out"], shape, recipe, device)
    count = sum(p.numel() for p in run.network.parameters())
    resumed = run.resume()
    click.echo(
        f"{count:,} parameters on {device}, {'resumed at step ' + str(run.step) if resumed else 'from the start'}"
    )
    return run


def _train(run: Run, given: dict[str, Any], batches: Any, valid: Any) -> bool:
    def report(progress: Progress) -> None:
        pace = 1000 * progress.seconds / progress.step
        left = (run.recipe.steps - progress.step) * pace / 60_000
        click.echo(
            f"step {progress.step:6} of {run.recipe.steps}  valid {progress.loss:.4f} nats a token "
            f"(best {progress.best:.4f})  {pace:.0f} ms a step, {left:.1f} min left"
        )

    return run.train(batches, valid, report=report, minutes=given["minutes"])


def _end(run: Run, done: bool) -> None:
    what = "finished" if done else f"stopped at step {run.step}; the same command goes on from there"
    click.echo(
        f"{what}; the best weights are in {run.folder} (convert them: intsim model convert {run.folder} -o FILE)"
    )

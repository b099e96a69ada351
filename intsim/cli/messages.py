"""What commands share: input that cannot be used, said without a traceback; progress; files of lines."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import click


BACKENDS = click.Choice(["reference", "exact", "cpu"])


class BadInput(click.ClickException):
    """What the user gave cannot be used."""

    exit_code = 2


@contextlib.contextmanager
def explained() -> Iterator[None]:
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
def counting(label: str, count: int) -> Iterator[Callable[[int], None]]:
    with click.progressbar(length=count, label=label, file=sys.stderr) as bar:
        yield bar.update


def lines(path: str) -> list[str]:
    """The lines of a file; - is standard input. Raises ValueError where it is not UTF-8."""
    with click.open_file(path, encoding="utf-8") as file:
        try:
            made: list[str] = file.read().split("\n")
        except UnicodeDecodeError as wrong:
            raise ValueError(f"{path} is not UTF-8: {wrong}") from None
    return made[:-1] if made[-1] == "" else made


def check_folder(output: str | None) -> None:
    """Before the work, not after it."""
    if output and not Path(output).parent.is_dir():
        raise ValueError(f"{Path(output).parent} is no folder; create it first")
    if output and Path(output).is_dir():
        raise ValueError(f"{output} is a folder; give the name of a file")


def megabytes(count: int) -> str:
    return f"{count / 1e6:.1f} MB"

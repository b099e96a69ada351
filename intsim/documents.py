"""Documents of which a part is made by a command."""

from __future__ import annotations

from pathlib import Path


def write_between(document: Path, start: str, end: str, body: str) -> bool:
    """Writes ``body`` between the lines ``start`` and ``end`` of ``document``; whether it changed.

    Raises ValueError where the lines are not there.
    """
    text = document.read_text(encoding="utf-8")
    before, found, rest = text.partition(start)
    _, ending, after = rest.partition(end)
    if not found or not ending:
        raise ValueError(f"{document} has no lines {start!r} and {end!r} to write between")
    new = f"{before}{start}\n\n{body}\n\n{end}{after}"
    if new != text:
        document.write_text(new, encoding="utf-8")
    return new != text

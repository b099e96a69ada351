"""The command line: one module a verb or verb group. A verb imports what it needs when it runs."""

from __future__ import annotations

import importlib

import click

from intsim import __version__

# verb -> the module of this package that holds a click command of that name
_VERBS = ("check", "selftest", "profiles", "ops", "golden", "model", "train", "warmup")


class _Verbs(click.Group):
    """Loads a verb's module when the verb is used or its help is shown."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _VERBS:
            return None
        command: click.Command = getattr(importlib.import_module(f"intsim.cli.{cmd_name}"), cmd_name)
        return command


@click.group(cls=_Verbs, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="intsim")
def main() -> None:
    """The bit-exact oracle for integer Transformer inference.

    \b
    intsim check cpu                      verify the installation
    intsim check ./mykernel.py:backend    judge your kernel, bit for bit
    intsim profiles                       the published systems that intsim reproduces, as measured
    intsim ops show softmax.ibert         formula, citation, parameters, limits

    Exit codes: 0 conforms, 1 mismatch, 2 usage, 3 the backend raised, crashed or timed out,
    4 golden outputs damaged, 5 nothing was proven, 6 references disagree.
    """

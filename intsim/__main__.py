"""``python -m intsim``: the command line."""

from intsim.cli import main

main(prog_name="intsim")

"""Reductions."""

LAWS = ()
